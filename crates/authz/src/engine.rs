//! The engine: schema, policies and entities as one snapshot that answers requests.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cedar_policy_core::ast::{self, EntityUID, EntityUIDEntry};
use cedar_policy_core::entities::Entities;
use ringfence_model::{Diagnostic, Diagnostics, Fence, OUTSIDE, Position, Protocol, SourceFile};
use smol_str::SmolStr;

use crate::actor::Actor;
use crate::data::Data;
use crate::decision::{Decision, Effect, Mode, PolicyError, PolicyRef};
use crate::diff::{Way, ways};
use crate::entities;
use crate::index::{Keys, Outcome};
use crate::names::{self, ACTION, ANONYMOUS, ANYONE, CONNECT, OTHER, PATH, READS, RPC, SERVICE, WRITES};
use crate::paths::Paths;
use crate::policy::Policies;
use crate::request::{self, Request};
use crate::schema::Schema;
use crate::text;

/// What an engine is made of besides the fence.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Policy files, from [`crate::load_policies`] or a snapshot.
    pub policies: Vec<SourceFile>,
    /// Entity data: what it is called in messages, and its bytes.
    pub entities: Option<(Arc<str>, Arc<[u8]>)>,
}

impl Sources {
    /// From names and texts.
    pub fn of_texts<'t>(
        policies: impl IntoIterator<Item = (&'t str, &'t str)>,
        entities: Option<(&'t str, &'t str)>,
    ) -> Self {
        let file =
            |(name, text): (&str, &str)| SourceFile { name: name.into(), owner: None, text: text.into() };
        let entities = entities.map(|(name, text)| (name.into(), text.as_bytes().into()));
        Self { policies: policies.into_iter().map(file).collect(), entities }
    }
}

/// Decides. Immutable: share it by reference, swap it for a newer one.
#[derive(Debug)]
pub struct Engine {
    pub(crate) generation: u64,
    pub(crate) schema: Schema,
    pub(crate) policies: Arc<Policies>,
    files: Vec<SourceFile>,
    /// Everything known.
    pub(crate) all: Entities,
    /// What every request can see: the fence's own entities, those that policies name, and what these point to.
    pub(crate) near: Arc<Entities>,
    pub(crate) services: HashMap<String, Service>,
    actions: HashMap<&'static str, Place>,
    /// The ways through the fence, for comparisons.
    pub(crate) ways: BTreeSet<Way>,
    warnings: Vec<Diagnostic>,
}

/// A service as a resource.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) uid: Arc<EntityUID>,
    keys: Keys,
    pub(crate) paths: Paths,
    /// By number of the template.
    places: Vec<Place>,
    grpc: bool,
    tcp: bool,
}

/// An entity and the keys it is found by.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    uid: Arc<EntityUID>,
    keys: Keys,
}

/// A request ready for the evaluator.
pub(crate) struct Asked {
    pub(crate) request: ast::Request,
    pub(crate) candidates: Vec<u32>,
}

/// Characters of a message about data.
const MAX_TOLD: usize = 400;

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

impl Engine {
    /// Builds an engine, or says everything that is wrong with policies and data.
    ///
    /// # Errors
    /// Policies that cannot be read or do not fit the schema; entity data that cannot be read.
    pub fn new(fence: &Fence, sources: &Sources) -> Result<Self, Diagnostics> {
        Self::build(fence, sources.policies.clone(), sources.entities.as_ref(), None)
    }

    /// The same policies with other entity data. They are checked again only when the data has other attributes or types.
    ///
    /// # Errors
    /// Data that cannot be read, or to which the policies do not fit: keep the engine that there is.
    pub fn with_entities(
        &self,
        fence: &Fence,
        entities: Option<&(Arc<str>, Arc<[u8]>)>,
    ) -> Result<Self, Diagnostics> {
        Self::build(fence, self.files.clone(), entities, Some(self))
    }

    fn build(
        fence: &Fence,
        files: Vec<SourceFile>,
        entities: Option<&(Arc<str>, Arc<[u8]>)>,
        before: Option<&Self>,
    ) -> Result<Self, Diagnostics> {
        let data_name = entities.map_or_else(|| Arc::from("entities"), |(name, _)| Arc::clone(name));
        let refuse = |message: String| {
            let mut out = Diagnostics::default();
            let message = text::short(&message, MAX_TOLD);
            out.push(Diagnostic::error("entities", Position::whole(Arc::clone(&data_name)), message));
            out
        };
        let data = match entities {
            Some((name, bytes)) => Data::parse(name, bytes)?,
            None => Data::default(),
        };
        let schema = Schema::new(fence, &data).map_err(refuse)?;
        let all = entities::build(&schema, data).map_err(refuse)?;
        let same = before.filter(|before| {
            before.schema.text == schema.text && before.schema.providers == schema.providers
        });
        let (policies, warnings) = match same {
            Some(before) => (Arc::clone(&before.policies), before.warnings.clone()),
            None => {
                let (policies, warnings) = Policies::parse(&files, &schema)?;
                (Arc::new(policies), warnings)
            }
        };
        let mut roots: Vec<EntityUID> = policies.named.clone();
        roots.extend(all.iter().map(|entity| entity.uid()).filter(|uid| is_of_fence(uid)).cloned());
        let near = entities::add(Entities::new(), entities::reachable(&all, &Entities::new(), roots));
        let place = |uid: EntityUID| Place { keys: policies.index.keys(&uid, &near), uid: Arc::new(uid) };
        let mut services = HashMap::new();
        for (name, paths) in &schema.services {
            let places =
                paths.templates().iter().map(|t| place(names::uid(PATH, &format!("{name}{}", t.text))));
            let Place { uid, keys } = place(names::uid(SERVICE, name));
            let protocol = fence.service(name).map(|service| service.protocol);
            let service = Service {
                uid,
                keys,
                places: places.collect(),
                paths: paths.clone(),
                grpc: protocol == Some(Protocol::Grpc),
                tcp: protocol == Some(Protocol::Tcp),
            };
            services.insert(name.clone(), service);
        }
        let Place { uid, keys } = place(names::uid(SERVICE, OUTSIDE));
        let outside =
            Service { uid, keys, paths: Paths::default(), places: Vec::new(), grpc: false, tcp: false };
        services.insert(OUTSIDE.to_owned(), outside);
        let actions = READS.into_iter().chain(WRITES).chain([RPC, CONNECT, OTHER]);
        let actions = actions.map(|name| (name, place(names::uid(ACTION, name)))).collect();
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let (ways, near) = (ways(fence), Arc::new(near));
        Ok(Self { generation, near, schema, policies, files, all, services, actions, ways, warnings })
    }

    /// What is valid and probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The schema that policies are written against, as text.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema.text
    }

    /// All policies, in order; those in mode `off` last.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<PolicyRef>> {
        self.policies.refs.iter().map(|filed| &filed.policy).chain(&self.policies.off)
    }

    /// Decides on a request. An actor of another engine is prepared anew first.
    #[must_use]
    pub fn decide(&self, actor: &Actor, request: &Request<'_>) -> Decision {
        if actor.generation != self.generation {
            return self.decide(&self.actor(&actor.principal), request);
        }
        let Some(asked) = self.asked(actor, request, false) else { return Decision::default() };
        let outcome = self.policies.index.judge_among(&asked.candidates, asked.request, &actor.entities);
        self.decision(outcome)
    }

    /// The request for the evaluator, with the `whole` context or what some candidate may read; none when the fence has no
    /// such service.
    pub(crate) fn asked(&self, actor: &Actor, request: &Request<'_>, whole: bool) -> Option<Asked> {
        let service = self.services.get(request.service).filter(|_| request.service != OUTSIDE)?;
        let action = self.actions.get(request::action(request.method, service.grpc, service.tcp))?;
        let found = service.paths.find(request.path);
        let (uid, keys, path) = match &found {
            Some((at, values)) => {
                let place = service.places.get(*at)?;
                (&place.uid, &place.keys, values.as_slice())
            }
            None => (&service.uid, &service.keys, &[][..]),
        };
        let candidates = self.policies.index.candidates(&actor.keys, &action.keys, keys);
        let known = |uid: &Arc<EntityUID>| EntityUIDEntry::Known { euid: Arc::clone(uid), loc: None };
        let context = if candidates.is_empty() {
            ast::Context::empty()
        } else {
            request::context(self, actor, request, path, whole)
        };
        let request =
            ast::Request::new_unchecked(known(&actor.uid), known(&action.uid), known(uid), Some(context));
        Some(Asked { request, candidates })
    }

    /// A number that no other engine of this process has.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether no policy reads the time: the same request of the same actor is then always decided alike.
    #[must_use]
    pub fn is_timeless(&self) -> bool {
        !self.reads("time")
    }

    /// Whether some policy that is enforced reads this attribute of the context.
    #[must_use]
    pub fn is_decided_by(&self, name: &str) -> bool {
        is_among(self.policies.deciding.as_deref(), name)
    }

    /// Whether some policy reads this attribute of the context.
    pub(crate) fn reads(&self, name: &str) -> bool {
        is_among(self.policies.context.as_deref(), name)
    }

    pub(crate) fn policy(&self, number: usize) -> Option<&Arc<PolicyRef>> {
        self.policies.refs.get(number).map(|filed| &filed.policy)
    }

    fn decision(&self, outcome: Outcome) -> Decision {
        let mut observed = Vec::new();
        let mut enforced = |numbers: Vec<usize>| -> Vec<Arc<PolicyRef>> {
            let mut kept = Vec::with_capacity(numbers.len());
            for policy in numbers.into_iter().filter_map(|number| self.policy(number)) {
                let list = if policy.mode == Mode::Observe { &mut observed } else { &mut kept };
                list.push(Arc::clone(policy));
            }
            kept
        };
        let (permits, forbids) = (enforced(outcome.permits), enforced(outcome.forbids));
        let errors = outcome.errors.into_iter().filter_map(|(number, error)| {
            Some(PolicyError { policy: Arc::clone(self.policy(number)?), message: error.to_string() })
        });
        debug_assert!(permits.iter().all(|policy| policy.effect == Effect::Permit), "permits permit");
        Decision::of(permits, forbids, observed, errors.collect())
    }
}

/// Whether an attribute is among those that are read; none: all are.
fn is_among(read: Option<&[SmolStr]>, name: &str) -> bool {
    read.is_none_or(|names| names.iter().any(|read| read == name))
}

/// Entities that any request may name: services, paths, actions, and whoever proved nothing.
fn is_of_fence(uid: &EntityUID) -> bool {
    let kind = uid.entity_type();
    kind.is_action()
        || [SERVICE, PATH].iter().any(|of_fence| kind.to_string() == *of_fence)
        || *uid == names::uid(ANONYMOUS, ANYONE)
}
