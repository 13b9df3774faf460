//! Who somebody is, by what a provider says: one mapping for everybody who needs it.
//!
//! The gateway judges by it, the keeper writes it into transaction tokens, and sidecars read it there again. If each had a
//! mapping of its own, a user could be one to the gateway and another to a policy.

use std::collections::BTreeMap;

use ringfence_keys::digest::sha256;
use ringfence_keys::to_hex;
use ringfence_model::Provider;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Longest name of a user or client, of a group, a scope, or an authentication context, in bytes.
pub const MAX_NAME: usize = 256;
/// Most groups, and most scopes, of one identity.
pub const MAX_NAMES: usize = 512;

/// What kind of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityKind {
    /// A human, by a provider.
    User,
    /// Software with credentials of its own: a client of a provider, an API key, a certificate.
    Client,
    /// A service of the fence that acts for itself.
    Service,
}

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What kind of somebody.
    pub kind: IdentityKind,
    /// The provider in the fence, `api_key`, or `certificate:` with the name of an authority; empty for a service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// Its name there; the service's name.
    pub id: String,
    /// The client that a user acts through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Groups that the provider vouches for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What the credential was given for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How strongly the user was authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// When, Unix time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<u64>,
    /// What limits count by: those members of the claims that the fence names, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

/// Why claims name nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The claim that the fence names for the user is not there, or is no name.
    #[error("its claim for the user is missing or no name of at most {MAX_NAME} bytes")]
    Nameless,
    /// More than can be carried along a chain of services.
    #[error(
        "it has more than {MAX_NAMES} groups or scopes, or one longer than {MAX_NAME} bytes: have the provider send fewer"
    )]
    TooMuch,
}

impl Identity {
    /// Who the verified `claims` of a token of `provider` (or what introspection says of one) are about.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of_claims(provider: &Provider, claims: &Map<String, Value>) -> Result<Self, IdentityError> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let id = find(claims, &provider.user_claim).and_then(Value::as_str).ok_or(IdentityError::Nameless)?;
        let client = text("client_id").or_else(|| text("azp"));
        let human = !is_software(claims, client);
        let groups = provider.groups_claim.as_deref().and_then(|name| find(claims, name));
        let scopes = claims.get("scope").or_else(|| claims.get("scp"));
        let identity = Self {
            kind: if human { IdentityKind::User } else { IdentityKind::Client },
            provider: provider.name.clone(),
            id: id.to_owned(),
            client: client.filter(|_| human).map(ToOwned::to_owned),
            groups: texts(groups).map(ToOwned::to_owned).collect(),
            scopes: texts(scopes)
                .flat_map(|text| text.split(' '))
                .filter(|scope| !scope.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
            acr: text("acr").map(ToOwned::to_owned),
            auth_time: claims.get("auth_time").and_then(Value::as_u64),
            claims: provider.kept_claims.iter().filter_map(|name| kept(claims, name)).collect(),
        };
        identity.check()?;
        Ok(identity)
    }

    /// A service that acts for itself.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self::software(IdentityKind::Service, "", name, Vec::new())
    }

    /// A client that an operator or a certificate names: an API key's, or the holder of a certificate.
    #[must_use]
    pub fn client(provider: &str, id: &str, scopes: Vec<String>) -> Self {
        Self::software(IdentityKind::Client, provider, id, scopes)
    }

    fn software(kind: IdentityKind, provider: &str, id: &str, scopes: Vec<String>) -> Self {
        let (provider, id) = (provider.to_owned(), id.to_owned());
        Self {
            kind,
            provider,
            id,
            client: None,
            groups: Vec::new(),
            scopes,
            acr: None,
            auth_time: None,
            claims: BTreeMap::new(),
        }
    }

    /// Whether everything in it can be carried; to be asked of whatever was read from elsewhere.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn check(&self) -> Result<(), IdentityError> {
        let named = |text: &str| (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
        if !named(&self.id) {
            return Err(IdentityError::Nameless);
        }
        let lists = [&self.groups, &self.scopes];
        let few = lists.iter().all(|list| list.len() <= MAX_NAMES) && self.claims.len() <= MAX_NAMES;
        let claims = self.claims.iter().flat_map(|(name, value)| [name, value]);
        let mut all = lists.into_iter().flatten().chain(&self.client).chain(&self.acr).chain(claims);
        if few && all.all(|text| named(text)) { Ok(()) } else { Err(IdentityError::TooMuch) }
    }
}

/// A member that limits count by. What is no text, number or truth, or cannot be carried, counts as if it were not there.
fn kept(claims: &Map<String, Value>, name: &str) -> Option<(String, String)> {
    let text = match find(claims, name)? {
        Value::String(text) => text.clone(),
        value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
        _ => return None,
    };
    let carried = (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
    carried.then(|| (name.to_owned(), text))
}

/// A member by its name, or by a JSON pointer (RFC 6901) when it begins with `/`.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = pointer.split_once('/').map_or((pointer, None), |(first, rest)| (first, Some(rest)));
    let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
}

/// What names how claims of `provider` are mapped: whoever was identified by another mapping may be somebody else by this one.
#[must_use]
pub fn mapping_of(provider: &Provider) -> String {
    let said = match &*provider.kept_claims {
        [] => json!([provider.user_claim, provider.groups_claim]),
        kept => json!([provider.user_claim, provider.groups_claim, kept]),
    };
    let said = said.to_string();
    to_hex(&sha256(said.as_bytes())[..8])
}

/// Whether a token is of software and not of a human: its subject is its client (RFC 9068, section 2.2), or it says so as the
/// widespread providers do whose subjects for clients are names of their own. A name that users may choose counts only where it is the one
/// that the provider itself gives to the account of this very client; such names are in lower case.
fn is_software(claims: &Map<String, Value>, client: Option<&str>) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let subject = text("sub");
    let own = client.is_some_and(|client| {
        subject == Some(client) || subject.and_then(|s| s.strip_suffix("@clients")) == Some(client)
    });
    own || text("gty") == Some("client-credentials")
        || text("idtyp") == Some("app")
        || text("preferred_username")
            .and_then(|name| name.strip_prefix("service-account-"))
            .zip(client)
            .is_some_and(|(of, client)| of.eq_ignore_ascii_case(client))
}

/// A claim that is one text or a list of texts.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match claim {
        Some(Value::String(one)) => (Some(one.as_str()), &[][..]),
        Some(Value::Array(many)) => (None, many.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_model::Fence;
    use serde_json::json;

    use super::*;

    fn provider(claims: &str) -> Provider {
        let text = format!(
            "fence: t\ntrust_domain: t.example\nproviders: {{ staff: {{ issuer: https://id.example, claims: {claims} }} }}\nservices: {{ a: {{ }} }}\n"
        );
        Fence::parse(vec![("ringfence.yaml", text)]).unwrap().providers.remove(0)
    }

    fn of(claims: &str, token: &Value) -> Result<Identity, IdentityError> {
        Identity::of_claims(&provider(claims), token.as_object().unwrap())
    }

    #[test]
    fn a_user_is_named_by_the_claims_that_the_fence_says() {
        let token = json!({
            "sub": "248289761001", "preferred_username": "nora", "azp": "portal", "scope": "openid  read",
            "realm_access": { "roles": ["nurse", "ward/3"] }, "acr": "phr", "auth_time": 5,
        });
        let nora = of("{ user: preferred_username, groups: /realm_access/roles }", &token).unwrap();
        assert_eq!(
            (nora.kind, &*nora.id, nora.client.as_deref()),
            (IdentityKind::User, "nora", Some("portal"))
        );
        assert_eq!(
            (nora.groups, nora.scopes),
            (vec!["nurse".into(), "ward/3".into()], vec!["openid".into(), "read".into()])
        );
        assert_eq!((nora.acr.as_deref(), nora.auth_time), (Some("phr"), Some(5)));
        assert_eq!(of("{ user: email }", &token), Err(IdentityError::Nameless));
    }

    #[test]
    fn software_is_no_user_however_its_provider_says_so() {
        for token in [
            json!({"sub": "nightly", "client_id": "nightly"}),
            json!({"sub": "nightly@clients", "azp": "nightly", "gty": "client-credentials"}),
            json!({"sub": "4b1d", "azp": "nightly", "idtyp": "app"}),
            json!({"sub": "4b1d", "azp": "nightly", "preferred_username": "service-account-nightly"}),
        ] {
            let identity = of("{ user: sub }", &token).unwrap();
            assert_eq!((identity.kind, identity.client), (IdentityKind::Client, None), "{token}");
        }
    }

    #[test]
    fn no_user_becomes_software_by_a_name_of_their_own_choice() {
        for token in [
            json!({"sub": "4b1d", "azp": "portal", "preferred_username": "service-account-nightly"}),
            json!({"sub": "4b1d", "azp": "portal", "preferred_username": "service-account-portal-2"}),
            json!({"sub": "4b1d", "azp": "portal", "preferred_username": "service-account-"}),
            json!({"sub": "4b1d", "preferred_username": "service-account-nightly"}),
        ] {
            assert_eq!(of("{ user: sub }", &token).unwrap().kind, IdentityKind::User, "{token}");
        }
        let token = json!({"sub": "4b1d", "azp": "Nightly", "preferred_username": "service-account-nightly"});
        assert_eq!(of("{ user: sub }", &token).unwrap().kind, IdentityKind::Client);
    }

    #[test]
    fn what_limits_count_by_is_kept() {
        let mut tenants = provider("{}");
        tenants.kept_claims =
            vec!["tenant".into(), "/org/id".into(), "absent".into(), "list".into(), "long".into()];
        let token = json!({
            "sub": "ada", "tenant": "north", "org": { "id": 7 }, "list": ["a"], "long": "x".repeat(MAX_NAME + 1),
        });
        let ada = Identity::of_claims(&tenants, token.as_object().unwrap()).unwrap();
        let kept: Vec<(&str, &str)> = ada.claims.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(kept, [("/org/id", "7"), ("tenant", "north")]);
        // Sessions of before do not say it.
        assert_ne!(mapping_of(&tenants), mapping_of(&provider("{}")));
    }

    #[test]
    fn another_mapping_has_another_name() {
        let all = [
            "{}",
            "{ user: email }",
            "{ groups: email }",
            "{ user: a, groups: b }",
            "{ user: b, groups: a }",
        ];
        let names: std::collections::BTreeSet<String> =
            all.iter().map(|claims| mapping_of(&provider(claims))).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(mapping_of(&provider("{}")), mapping_of(&provider("{ user: sub }")));
    }

    #[test]
    fn what_cannot_be_carried_is_nobody() {
        let long = "x".repeat(MAX_NAME + 1);
        let many: Vec<String> = (0..=MAX_NAMES).map(|n| n.to_string()).collect();
        for (token, error) in [
            (json!({"sub": ""}), IdentityError::Nameless),
            (json!({"sub": long}), IdentityError::Nameless),
            (json!({"sub": "a\nb"}), IdentityError::Nameless),
            (json!({"sub": 5}), IdentityError::Nameless),
            (json!({"sub": "a", "groups": many}), IdentityError::TooMuch),
            (json!({"sub": "a", "groups": [long]}), IdentityError::TooMuch),
            (json!({"sub": "a", "acr": long}), IdentityError::TooMuch),
        ] {
            assert_eq!(of("{ groups: groups }", &token), Err(error));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in "[a-z]{1,20}", groups in prop::collection::vec("[a-z]{1,9}", 0..5), acr: Option<bool>) {
            let identity = Identity {
                groups, acr: acr.map(|_| "phr".into()), ..Identity::client("staff", &id, vec!["read".into()])
            };
            let text = serde_json::to_string(&identity).unwrap();
            prop_assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity);
        }
    }
}
