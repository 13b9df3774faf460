//! Who stands behind a request: the token or API key that a route of the gateway accepts, and what it must carry.
//!
//! A thread remembers the tokens that it verified, so most requests cost one hash. Keys come from control; what is not signed by one of
//! them is refused, and what says another key than those that are there makes the provider asked again, once in a while.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_authz::{Principal as Subject, PrincipalKind};
use ringfence_model::{Credential, Provider, Require, Route, TokenAlgorithm};
use ringfence_token::{
    Algorithm, Check, KeySet, Possession, Profile, Revocations, TokenError, VerifiedToken, Verifier,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::api_keys::KnownKey;
use crate::deny::Deny;
use crate::h1::{DropList, Kind};
use crate::handle::Ctx;
use crate::headers::{not_copied_with_key, not_copied_with_token};
use crate::table::{Table, TableRef};
use crate::view::HeadView;
use crate::worker::unix_now;

/// Tokens that a thread remembers.
const REMEMBERED: usize = 16_384;
/// How long requests wait for a key that is not there yet, and how long after that none waits again.
const WAIT_MS: u64 = 2_000;
const PAUSE_MS: u64 = 30_000;
/// How long a provider is not asked for again.
const ASK_MS: u64 = 1_000;
/// The field that API keys come in.
pub(crate) const API_KEY: &str = "x-api-key";
/// Longest name of a user.
const MAX_USER: usize = 256;

/// A provider as requests are judged by it.
#[derive(Debug)]
pub(crate) struct TableProvider {
    pub(crate) name: Arc<str>,
    profile: Profile,
    user: String,
    groups: Option<String>,
}

/// Who may pass along a route.
#[derive(Debug)]
pub(crate) struct RouteAccess {
    /// Places of the accepted providers in the table.
    providers: Vec<usize>,
    /// Whether API keys are accepted.
    api_key: bool,
    require: Require,
    /// Where the route says whom it accepts.
    position: String,
}

/// The keys of one provider.
#[derive(Clone, Debug)]
pub(crate) struct ProviderKeys {
    pub(crate) provider: Arc<str>,
    /// Whose keys they are: a provider may be declared anew with another issuer.
    pub(crate) issuer: String,
    pub(crate) keys: Arc<KeySet>,
    /// Unix time in seconds from which they are not believed any more.
    pub(crate) until: u64,
}

/// What a thread knows of tokens.
pub(crate) struct Tokens {
    verifier: RefCell<Verifier>,
    keys: RefCell<HashMap<Arc<str>, ProviderKeys>>,
    revocations: Revocations,
    arrived: Notify,
    /// When each provider was last asked for, by the worker's clock.
    asked: RefCell<HashMap<Arc<str>, u64>>,
    /// When requests last began to wait for a key, by the worker's clock.
    waiting_since: Cell<Option<u64>>,
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    table: TableRef,
    shown: Verified,
}

/// What somebody was let in by.
#[derive(Clone, Debug)]
enum Verified {
    /// A token of the provider at this place in the table.
    Token(usize, Arc<VerifiedToken>),
    Key(Box<KnownKey>),
}

impl TableProvider {
    pub(crate) fn new(provider: &Provider) -> Self {
        let algorithms = provider.algorithms.iter().map(|algorithm| match algorithm {
            TokenAlgorithm::EdDsa => Algorithm::EdDsa,
            TokenAlgorithm::Es256 => Algorithm::Es256,
            TokenAlgorithm::Rs256 => Algorithm::Rs256,
            TokenAlgorithm::Ps256 => Algorithm::Ps256,
        });
        let profile = Profile::access_token(&provider.issuer, &provider.audiences)
            .with_algorithms(algorithms.collect())
            .with_plain_type();
        Self {
            name: provider.name.as_str().into(),
            profile,
            user: provider.user_claim.clone(),
            groups: provider.groups_claim.clone(),
        }
    }
}

impl RouteAccess {
    /// None for a route that is open to all. The snapshot was checked: each name is that of a provider.
    pub(crate) fn of(route: &Route, providers: &[Provider]) -> Option<Arc<Self>> {
        let first = route.access.accept.first()?;
        let place = |credential: &Credential| match credential {
            Credential::Token(name) => providers.iter().position(|p| p.name == *name),
            Credential::ApiKey => None,
        };
        Some(Arc::new(Self {
            providers: route.access.accept.iter().filter_map(|a| place(&a.credential)).collect(),
            api_key: route.access.accept.iter().any(|a| a.credential == Credential::ApiKey),
            require: route.access.require.clone(),
            position: first.position.to_string(),
        }))
    }

    /// Where the route says whom it accepts.
    pub(crate) fn position(&self) -> Option<String> {
        Some(self.position.clone())
    }

    /// `WWW-Authenticate` (RFC 9110, section 11.6.1) for whoever showed nothing that is accepted; `error` goes to those with tokens.
    pub(crate) fn challenge(&self, realm: &str, error: &str) -> String {
        let bearer = (!self.providers.is_empty()).then(|| format!("Bearer realm=\"{realm}\"{error}"));
        let key = self.api_key.then(|| format!("ApiKey realm=\"{realm}\""));
        bearer.into_iter().chain(key).collect::<Vec<_>>().join(", ")
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            verifier: RefCell::new(Verifier::new(REMEMBERED)),
            keys: RefCell::default(),
            revocations: Revocations::new(REMEMBERED),
            arrived: Notify::new(),
            asked: RefCell::default(),
            waiting_since: Cell::new(None),
        }
    }

    /// Takes keys in place of those that the provider had.
    pub(crate) fn set_keys(&self, keys: ProviderKeys) {
        self.keys.borrow_mut().insert(keys.provider.clone(), keys);
        self.arrived.notify_waiters();
    }

    /// Forgets the keys of providers that are not declared any more: one that comes again begins anew.
    pub(crate) fn follow(&self, table: &Table) {
        let declared = |keys: &ProviderKeys| {
            let same =
                |p: &TableProvider| p.name == keys.provider && p.profile.issuer() == Some(&keys.issuer);
            table.providers().iter().any(same)
        };
        self.keys.borrow_mut().retain(|_, keys| declared(keys));
        self.asked.borrow_mut().retain(|name, _| table.providers().iter().any(|p| p.name == *name));
    }

    fn keys(&self, provider: &TableProvider, now: u64) -> Option<Arc<KeySet>> {
        let all = self.keys.borrow();
        let keys = all.get(&provider.name)?;
        (provider.profile.issuer() == Some(&keys.issuer) && now < keys.until).then(|| keys.keys.clone())
    }

    /// Whether a provider may be asked for its keys now: once a second, whoever sends what. Its answers are spaced further
    /// by whoever asks it.
    fn may_ask(&self, provider: &Arc<str>, now_ms: u64) -> bool {
        let mut asked = self.asked.borrow_mut();
        let due = asked.get(provider).is_none_or(|at| now_ms.saturating_sub(*at) >= ASK_MS);
        if due {
            asked.insert(provider.clone(), now_ms);
        }
        due
    }

    /// Whether a request may wait for keys now: for a while after one began to, and then not for a longer while.
    fn may_wait(&self, now_ms: u64) -> Option<Duration> {
        let since = match self.waiting_since.get() {
            Some(since) if now_ms.saturating_sub(since) < WAIT_MS + PAUSE_MS => since,
            _ => {
                self.waiting_since.set(Some(now_ms));
                now_ms
            }
        };
        let left = (since + WAIT_MS).checked_sub(now_ms).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left))
    }
}

impl Principal {
    /// Name of the provider, or the kind of the credential.
    pub(crate) fn domain(&self) -> &str {
        match &self.shown {
            Verified::Token(provider, _) => &self.table.providers()[*provider].name,
            Verified::Key(_) => "api_key",
        }
    }

    /// Name of the user or client, as the provider or the operator gives it.
    pub(crate) fn user(&self) -> &str {
        match &self.shown {
            Verified::Token(provider, token) => {
                token.text(&self.table.providers()[*provider].user).unwrap_or_default()
            }
            Verified::Key(known) => known.client(),
        }
    }

    /// What names its credential without being one.
    pub(crate) fn credential(&self) -> Option<&str> {
        match &self.shown {
            Verified::Token(..) => None,
            Verified::Key(known) => Some(known.prefix()),
        }
    }

    /// What it may do, as the provider or the operator says.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        let (token, key) = match &self.shown {
            Verified::Token(_, token) => (Some(token.scopes()), None),
            Verified::Key(known) => (None, Some(known.scopes())),
        };
        token.into_iter().flatten().chain(key.into_iter().flatten())
    }

    fn acr(&self) -> Option<&str> {
        match &self.shown {
            Verified::Token(_, token) => token.acr(),
            Verified::Key(_) => None,
        }
    }

    /// The fields that carry its credential, which go no further.
    pub(crate) fn not_copied(&self) -> &'static DropList {
        match self.shown {
            Verified::Token(..) => not_copied_with_token(),
            Verified::Key(_) => not_copied_with_key(),
        }
    }

    /// The value of `Ringfence-User`: the name in which whatever a header cannot carry is percent-encoded (RFC 3986, section 2.1).
    pub(crate) fn user_field(&self) -> String {
        let mut field = String::new();
        for byte in self.user().bytes() {
            match byte {
                b'!'..=b'$' | b'&'..=b'~' => field.push(char::from(byte)),
                _ => field.push_str(&format!("%{byte:02X}")),
            }
        }
        field
    }

    /// The value of `Ringfence-Scopes`.
    pub(crate) fn scopes_field(&self) -> String {
        let legible = |scope: &&str| scope.bytes().all(|byte| byte.is_ascii_graphic());
        self.scopes().filter(legible).collect::<Vec<_>>().join(" ")
    }

    /// Who it is, for policies. A token whose subject is its client is of software, not of a human (RFC 9068, section 2.2).
    pub(crate) fn subject(&self) -> Subject {
        let token = match &self.shown {
            Verified::Token(_, token) => Some(token),
            Verified::Key(_) => None,
        };
        let client = token.and_then(|token| token.text("client_id").or_else(|| token.text("azp")));
        let human = token.is_some_and(|token| client.is_none() || token.text("sub") != client);
        Subject {
            kind: if human { PrincipalKind::User } else { PrincipalKind::Client },
            provider: self.domain().to_owned(),
            id: self.user().to_owned(),
            client: client.filter(|_| human).map(ToOwned::to_owned),
            groups: self.groups().map(ToOwned::to_owned).collect(),
            scopes: self.scopes().map(ToOwned::to_owned).collect(),
            acr: self.acr().map(ToOwned::to_owned),
            auth_time: token.and_then(|token| token.claims().get("auth_time")?.as_u64()),
        }
    }

    /// Whether it has what the route demands besides.
    pub(crate) fn meets(&self, access: &RouteAccess) -> Result<(), Deny> {
        let (require, realm) = (&access.require, &self.table.snapshot.fence);
        let what = if matches!(self.shown, Verified::Key(_)) { "API key" } else { "token" };
        let refuse = |status, rule, reason: String| {
            let position = require.position.as_ref().map(ToString::to_string);
            Deny::new(status, "authenticate", rule, reason).position(position)
        };
        let lacks = |scope: &&String| !self.scopes().any(|s| s == scope.as_str());
        if let Some(scope) = require.scopes.iter().find(lacks) {
            let reason = format!("the {what} has no scope {scope}");
            let all = require.scopes.join(" ");
            let error = format!(", error=\"insufficient_scope\", scope=\"{all}\"");
            return Err(refuse(403, "require.scope", reason).challenge(access.challenge(realm, &error)));
        }
        if !require.acr.is_empty() && !self.acr().is_some_and(|acr| require.acr.iter().any(|a| a == acr)) {
            let reason =
                format!("the {what}'s acr is {}, which is not enough", self.acr().unwrap_or("not said"));
            // RFC 9470, section 3.
            let error = format!(
                ", error=\"insufficient_user_authentication\", acr_values=\"{}\"",
                require.acr.join(" ")
            );
            return Err(refuse(401, "require.acr", reason).challenge(access.challenge(realm, &error)));
        }
        if !require.groups.is_empty() && !self.groups().any(|group| require.groups.iter().any(|g| g == group))
        {
            let reason = format!("{} is in none of the groups that the route demands", self.user());
            return Err(refuse(403, "require.group", reason));
        }
        Ok(())
    }

    /// The groups that its provider puts it in.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        let claim = match &self.shown {
            Verified::Token(provider, token) => {
                let name = self.table.providers()[*provider].groups.as_deref();
                name.and_then(|name| token.claims().get(name))
            }
            Verified::Key(_) => None,
        };
        claim.and_then(|groups| groups.as_array()).into_iter().flatten().filter_map(|group| group.as_str())
    }
}

/// Lets a request in, or says why not.
pub(crate) async fn authenticate(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
) -> Result<Principal, Deny> {
    let token = match shown(view, table, access)? {
        Shown::Token(token) => token,
        Shown::Key(text) => {
            let known = ctx.worker.shared.api_keys.judge(text, &table.snapshot.fence, access)?;
            return Ok(Principal { table: table.clone(), shown: Verified::Key(Box::new(known)) });
        }
    };
    let (worker, tokens) = (ctx.worker, &ctx.worker.tokens);
    let first = judge(tokens, table, access, token);
    let outcome = match &first {
        Err(Refused::Token(TokenError::UnknownKey) | Refused::NoKeys(_)) => {
            let now = worker.now_ms();
            for provider in access.providers.iter().map(|at| &table.providers()[*at].name) {
                if tokens.may_ask(provider, now) {
                    worker.shared.want_keys(provider);
                }
            }
            let arrived = tokens.arrived.notified();
            match tokens.may_wait(now) {
                None => first,
                Some(time) => {
                    let _ = timeout(time, arrived).await;
                    judge(tokens, table, access, token)
                }
            }
        }
        _ => first,
    };
    let realm = &table.snapshot.fence;
    let (provider, token) = outcome.map_err(|refused| refused.deny(realm, access))?;
    Ok(Principal { table: table.clone(), shown: Verified::Token(provider, token) })
}

/// What a request shows, not looked at yet.
enum Shown<'v> {
    Token(&'v str),
    Key(&'v str),
}

/// The one credential of a request: a bearer token (RFC 6750, section 2.1), or an API key in the same place, as `ApiKey KEY` or in
/// `X-API-Key`. Two are refused, whatever they are: what one part of a system looks at, another may overlook.
fn shown<'v>(view: HeadView<'v>, table: &Table, access: &RouteAccess) -> Result<Shown<'v>, Deny> {
    let refuse = |status, rule, reason: &str, error: &str| {
        Deny::new(status, "authenticate", rule, reason)
            .position(access.position())
            .challenge(access.challenge(&table.snapshot.fence, error))
    };
    let malformed = |reason: &str| refuse(401, "credential.malformed", reason, ", error=\"invalid_request\"");
    let authorization = view.known(Kind::Authorization);
    let field = if access.api_key { view.field(API_KEY) } else { None };
    if let Some(field) = field {
        let same = |name: &[u8]| name.eq_ignore_ascii_case(API_KEY.as_bytes());
        if authorization.is_some() || view.fields().filter(|(name, _)| same(name)).count() > 1 {
            let reason = "more than one credential was shown";
            return Err(refuse(400, "credential.several", reason, ", error=\"invalid_request\""));
        }
        return match std::str::from_utf8(field) {
            Ok(key) => Ok(Shown::Key(key)),
            Err(_) => Err(malformed("`X-API-Key` is no API key")),
        };
    }
    let Some(value) = authorization else {
        let reason = "the route demands a credential, and none was shown";
        return Err(refuse(401, "credential.none", reason, ""));
    };
    let wrong = || malformed("`Authorization` is neither `Bearer TOKEN` nor another that the route accepts");
    let value = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(wrong)?;
    let credential = credential.trim_start_matches(' ');
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    // No token of a provider begins so: in base64url it would be no JSON object.
    let key = scheme.eq_ignore_ascii_case("apikey") || bearer && credential.starts_with("rf_");
    if access.api_key && key {
        Ok(Shown::Key(credential))
    } else if bearer && !access.providers.is_empty() {
        Ok(Shown::Token(credential))
    } else {
        Err(wrong())
    }
}

enum Refused {
    Token(TokenError),
    /// A provider has given no keys, or none that are still believed.
    NoKeys(Arc<str>),
    /// The token does not say who it is about in a way that can be passed on.
    Nameless,
}

impl Refused {
    fn deny(self, realm: &str, access: &RouteAccess) -> Deny {
        let invalid = |reason: String, rule| {
            Deny::new(401, "authenticate", rule, reason)
                .challenge(access.challenge(realm, ", error=\"invalid_token\""))
        };
        let deny = match self {
            Self::Token(error) => invalid(error.to_string(), rule_of(&error)),
            Self::Nameless => {
                invalid("the token's claim for the user is missing or no name".to_owned(), "token.user")
            }
            Self::NoKeys(provider) => {
                let reason =
                    format!("provider {provider} has given no keys yet, or none that are still believed");
                Deny::new(503, "authenticate", "provider.keys", reason)
            }
        };
        deny.position(Some(access.position.clone()))
    }
}

/// One rule per way in which a token can be wrong.
fn rule_of(error: &TokenError) -> &'static str {
    match error {
        TokenError::Expired | TokenError::TooOld => "token.expired",
        TokenError::WrongAudience => "token.audience",
        TokenError::Issuer => "token.issuer",
        TokenError::Signature | TokenError::UnknownKey | TokenError::WrongAlgorithm => "token.signature",
        TokenError::Revoked(_) => "token.revoked",
        TokenError::NotHolder(_) | TokenError::NotBound(_) => "token.bound",
        TokenError::Type(_) => "token.type",
        _ => "token.invalid",
    }
}

/// Which provider vouches for the token.
fn judge(
    tokens: &Tokens,
    table: &Table,
    access: &RouteAccess,
    token: &str,
) -> Result<(usize, Arc<VerifiedToken>), Refused> {
    let now = unix_now();
    let mut without = None;
    let keys: Vec<(usize, Arc<KeySet>)> = access
        .providers
        .iter()
        .filter_map(|&at| {
            let provider = &table.providers()[at];
            let keys = tokens.keys(provider, now);
            if keys.is_none() {
                without = Some(provider.name.clone());
            }
            Some((at, keys?))
        })
        .collect();
    let checks: Vec<Check<'_>> = keys
        .iter()
        .map(|(at, keys)| Check {
            profile: &table.providers()[*at].profile,
            keys,
            revocations: &tokens.revocations,
            possession: Possession::NONE,
            now,
        })
        .collect();
    let verified = tokens.verifier.borrow_mut().verify_any(token, &checks);
    let (which, verified) = match (verified, without) {
        // It may be of the one whose keys are missing: its client should not throw it away.
        (Err(TokenError::Issuer | TokenError::UnknownKey), Some(provider)) => {
            return Err(Refused::NoKeys(provider));
        }
        (verified, _) => verified.map_err(Refused::Token)?,
    };
    let at = keys[which].0;
    let named = |name: &str| (1..=MAX_USER).contains(&name.len()) && !name.chars().any(char::is_control);
    if verified.text(&table.providers()[at].user).is_some_and(named) {
        Ok((at, verified))
    } else {
        Err(Refused::Nameless)
    }
}
