//! Who asks: prepared once per credential, used for every request that it comes with.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cedar_policy_core::ast::{Entity, EntityUID, Literal, PartialValue, Value};
use cedar_policy_core::entities::{Dereference, Entities};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::engine::Engine;
use crate::entities::{add, reachable, references};
use crate::index::Keys;
use crate::names::{self, ANONYMOUS, ANYONE, CLIENT, GROUP, SERVICE, USER};
use crate::request::datetime;

/// What kind of somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// Whoever proved nothing.
    #[default]
    Anonymous,
    /// A human, by a provider.
    User,
    /// Software with credentials of its own: a client of a provider, an API key, a certificate.
    Client,
    /// A service of the fence that acts for itself.
    Service,
}

/// Who asks, as it was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// What kind of somebody.
    pub kind: PrincipalKind,
    /// The provider in the fence, `api_key`, or `certificate:` with the name of an authority; empty for a service.
    #[serde(default)]
    pub provider: String,
    /// Its name there; the service's name.
    #[serde(default)]
    pub id: String,
    /// The client that a user acts through.
    #[serde(default)]
    pub client: Option<String>,
    /// Groups that the provider vouches for.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What the credential was given for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How strongly the user was authenticated.
    #[serde(default)]
    pub acr: Option<String>,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub auth_time: Option<u64>,
}

/// A principal made ready for the decisions of one engine.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(crate) generation: u64,
    pub(crate) principal: Principal,
    pub(crate) uid: Arc<EntityUID>,
    pub(crate) keys: Keys,
    pub(crate) entities: Arc<Entities>,
    pub(crate) scopes: Value,
    pub(crate) acr: Option<Value>,
    pub(crate) auth_time: Option<Value>,
    pub(crate) client: Option<Value>,
}

impl Actor {
    /// Who it is.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }
}

impl Principal {
    /// A service that acts for itself.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self { kind: PrincipalKind::Service, id: name.to_owned(), ..Self::default() }
    }

    /// A user of a provider.
    #[must_use]
    pub fn user(provider: &str, id: &str) -> Self {
        let (provider, id) = (provider.to_owned(), id.to_owned());
        Self { kind: PrincipalKind::User, provider, id, ..Self::default() }
    }

    pub(crate) fn uid(&self) -> EntityUID {
        let qualified = || format!("{}/{}", self.provider, self.id);
        match self.kind {
            PrincipalKind::Anonymous => names::uid(ANONYMOUS, ANYONE),
            PrincipalKind::User => names::uid(USER, &qualified()),
            PrincipalKind::Client => names::uid(CLIENT, &qualified()),
            PrincipalKind::Service => names::uid(SERVICE, &self.id),
        }
    }
}

impl Engine {
    /// Prepares a principal: its entity, its groups and whatever it points to. Once per credential, not per request.
    #[must_use]
    pub fn actor(&self, principal: &Principal) -> Actor {
        let uid = principal.uid();
        let client = principal.client.as_ref().filter(|_| principal.kind == PrincipalKind::User);
        let client = client.map(|id| names::uid(CLIENT, &format!("{}/{id}", principal.provider)));
        let entities = match principal.kind {
            PrincipalKind::Anonymous | PrincipalKind::Service => Arc::clone(&self.near),
            PrincipalKind::User | PrincipalKind::Client => self.with(principal, &uid, client.as_ref()),
        };
        let scopes = principal.scopes.iter().map(|scope| Literal::from(scope.as_str()));
        Actor {
            generation: self.generation,
            principal: principal.clone(),
            keys: self.policies.index.keys(&uid, &entities),
            uid: Arc::new(uid),
            entities,
            scopes: Value::set_of_lits(scopes, None),
            acr: principal.acr.as_deref().map(Value::from),
            auth_time: principal.auth_time.and_then(|seconds| datetime(Duration::from_secs(seconds))),
            client: client.map(Value::from),
        }
    }

    /// What everybody sees, and this principal with what it points to.
    fn with(&self, principal: &Principal, uid: &EntityUID, client: Option<&EntityUID>) -> Arc<Entities> {
        let entity = self.principal_entity(principal, uid);
        let mut from: Vec<EntityUID> = references(&entity).collect();
        let mut more = vec![Arc::new(entity)];
        if let Some(client) = client {
            from.push(client.clone());
            if let Dereference::NoSuchEntity = self.all.entity(client) {
                let id = client.eid().as_ref().split_once('/').map_or("", |(_, id)| id);
                let attrs = self.attributes(CLIENT, &principal.provider, id);
                more.push(Arc::new(entity_of(client.clone(), attrs, HashSet::new(), HashSet::new())));
            }
        }
        // A principal that is known already is replaced by what it is now, with the groups of its credential.
        let known = |found: &Arc<Entity>| found.uid() != uid;
        more.extend(reachable(&self.all, &self.near, from).into_iter().filter(known));
        Arc::new(add(Entities::clone(&self.near), more))
    }

    /// The entity of a principal: what the data says of it, and the groups of its credential.
    pub(crate) fn principal_entity(&self, principal: &Principal, uid: &EntityUID) -> Entity {
        let kind = if principal.kind == PrincipalKind::User { USER } else { CLIENT };
        let (attrs, mut parents, mut ancestors) = match self.all.entity(uid) {
            Dereference::Data(known) => (
                known.attrs().map(|(name, value)| (name.clone(), value.clone())).collect(),
                known.parents().cloned().collect(),
                known.indirect_ancestors().cloned().collect(),
            ),
            _ => (self.attributes(kind, &principal.provider, &principal.id), HashSet::new(), HashSet::new()),
        };
        for group in &principal.groups {
            let group = names::uid(GROUP, &format!("{}/{group}", principal.provider));
            if let Dereference::Data(known) = self.all.entity(&group) {
                ancestors.extend(known.ancestors().cloned());
            }
            parents.insert(group);
        }
        ancestors.retain(|ancestor| !parents.contains(ancestor));
        entity_of(uid.clone(), attrs, ancestors, parents)
    }

    /// The attributes of somebody whom the data does not know.
    fn attributes(&self, kind: &str, provider: &str, id: &str) -> BTreeMap<SmolStr, PartialValue> {
        let text = |text: &str| PartialValue::from(Value::from(text));
        let mut attrs: BTreeMap<SmolStr, PartialValue> =
            [("provider".into(), text(provider)), ("id".into(), text(id))].into();
        for name in self.schema.sets.get(kind).into_iter().flatten() {
            attrs.insert(name.as_str().into(), Value::empty_set(None).into());
        }
        attrs
    }
}

fn entity_of(
    uid: EntityUID,
    attrs: BTreeMap<SmolStr, PartialValue>,
    ancestors: HashSet<EntityUID>,
    parents: HashSet<EntityUID>,
) -> Entity {
    Entity::new_with_attr_partial_value(uid, attrs, ancestors, parents, [])
}
