//! Who stands behind a request: the bearer token that a route of the gateway accepts, and what it must carry.
//!
//! A thread remembers the tokens that it verified, so most requests cost one hash. Keys come from control; what is not signed by one of
//! them is refused, and what says another key than those that are there makes the provider asked again, once in a while.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_model::{Credential, Provider, Require, Route, TokenAlgorithm};
use ringfence_token::{
    Algorithm, Check, KeySet, Possession, Profile, Revocations, TokenError, VerifiedToken, Verifier,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::deny::Deny;
use crate::h1::Kind;
use crate::handle::Ctx;
use crate::table::{Table, TableRef};
use crate::view::HeadView;
use crate::worker::unix_now;

/// Tokens that a thread remembers.
const REMEMBERED: usize = 16_384;
/// How long requests wait for a key that is not there yet, and how long after that none waits again.
const WAIT_MS: u64 = 2_000;
const PAUSE_MS: u64 = 30_000;
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
    /// When requests last began to wait for a key, by the worker's clock.
    waiting_since: Cell<Option<u64>>,
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    table: TableRef,
    provider: usize,
    token: Arc<VerifiedToken>,
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
        let place = |Credential::Token(name): &Credential| providers.iter().position(|p| p.name == *name);
        Some(Arc::new(Self {
            providers: route.access.accept.iter().filter_map(|a| place(&a.credential)).collect(),
            require: route.access.require.clone(),
            position: first.position.to_string(),
        }))
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            verifier: RefCell::new(Verifier::new(REMEMBERED)),
            keys: RefCell::default(),
            revocations: Revocations::new(REMEMBERED),
            arrived: Notify::new(),
            waiting_since: Cell::new(None),
        }
    }

    /// Takes keys in place of those that the provider had.
    pub(crate) fn set_keys(&self, keys: ProviderKeys) {
        self.keys.borrow_mut().insert(keys.provider.clone(), keys);
        self.arrived.notify_waiters();
    }

    fn keys(&self, provider: &TableProvider, now: u64) -> Option<Arc<KeySet>> {
        let all = self.keys.borrow();
        let keys = all.get(&provider.name)?;
        (provider.profile.issuer() == Some(&keys.issuer) && now < keys.until).then(|| keys.keys.clone())
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
    fn provider(&self) -> &TableProvider {
        &self.table.providers()[self.provider]
    }

    /// Name of the provider.
    pub(crate) fn domain(&self) -> &str {
        &self.provider().name
    }

    /// Name of the user or client, as the provider gives it.
    pub(crate) fn user(&self) -> &str {
        self.token.text(&self.provider().user).unwrap_or_default()
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
        self.token.scopes().filter(legible).collect::<Vec<_>>().join(" ")
    }

    /// Whether it has what the route demands besides.
    pub(crate) fn meets(&self, access: &RouteAccess) -> Result<(), Deny> {
        let (require, token, realm) = (&access.require, &self.token, &self.table.snapshot.fence);
        let refuse = |status, rule, reason: String| {
            let position = require.position.as_ref().map(ToString::to_string);
            Deny::new(status, "authenticate", rule, reason).position(position)
        };
        let lacks = |scope: &&String| !token.scopes().any(|s| s == scope.as_str());
        if let Some(scope) = require.scopes.iter().find(lacks) {
            let reason = format!("the token has no scope {scope}");
            let all = require.scopes.join(" ");
            let challenge =
                format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{all}\"");
            return Err(refuse(403, "require.scope", reason).challenge(challenge));
        }
        if !require.acr.is_empty() && !token.acr().is_some_and(|acr| require.acr.iter().any(|a| a == acr)) {
            let reason =
                format!("the token's acr is {}, which is not enough", token.acr().unwrap_or("not said"));
            // RFC 9470, section 3.
            let challenge = format!(
                "Bearer realm=\"{realm}\", error=\"insufficient_user_authentication\", acr_values=\"{}\"",
                require.acr.join(" ")
            );
            return Err(refuse(401, "require.acr", reason).challenge(challenge));
        }
        if !require.groups.is_empty() && !self.groups().any(|group| require.groups.iter().any(|g| g == group))
        {
            let reason = format!("{} is in none of the groups that the route demands", self.user());
            return Err(refuse(403, "require.group", reason));
        }
        Ok(())
    }

    fn groups(&self) -> impl Iterator<Item = &str> {
        let claim = self.provider().groups.as_deref().and_then(|name| self.token.claims().get(name));
        claim.and_then(|groups| groups.as_array()).into_iter().flatten().filter_map(|group| group.as_str())
    }
}

/// Lets a request in, or says why not. `None` where everybody may pass.
pub(crate) async fn authenticate(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
) -> Result<Principal, Deny> {
    let token = bearer(ctx, view, access)?;
    let (worker, tokens) = (ctx.worker, &ctx.worker.tokens);
    let first = judge(tokens, table, access, token);
    let outcome = match &first {
        Err(Refused::Token(TokenError::UnknownKey) | Refused::NoKeys(_)) => {
            match tokens.may_wait(worker.now_ms()) {
                None => first,
                Some(time) => {
                    let arrived = tokens.arrived.notified();
                    for provider in &access.providers {
                        worker.shared.want_keys(&table.providers()[*provider].name);
                    }
                    let _ = timeout(time, arrived).await;
                    judge(tokens, table, access, token)
                }
            }
        }
        _ => first,
    };
    let realm = &table.snapshot.fence;
    let (provider, token) = outcome.map_err(|refused| refused.deny(realm, access))?;
    Ok(Principal { table: table.clone(), provider, token })
}

/// The one bearer token of a request (RFC 6750, section 2.1).
fn bearer<'v>(ctx: &Ctx<'_>, view: HeadView<'v>, access: &RouteAccess) -> Result<&'v str, Deny> {
    let realm = ctx.worker.table().map_or_else(String::new, |table| table.snapshot.fence.clone());
    let refuse = |status, rule, reason: &str, error: &str| {
        Deny::new(status, "authenticate", rule, reason)
            .position(Some(access.position.clone()))
            .challenge(format!("Bearer realm=\"{realm}\"{error}"))
    };
    let Some(value) = view.known(Kind::Authorization) else {
        return Err(refuse(401, "credential.none", "the route demands a token, and none was shown", ""));
    };
    let malformed = || {
        let reason = "`Authorization` is not `Bearer TOKEN`";
        refuse(401, "credential.malformed", reason, ", error=\"invalid_request\"")
    };
    let value = std::str::from_utf8(value).map_err(|_| malformed())?;
    let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim_start_matches(' ')) } else { Err(malformed()) }
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
                .challenge(format!("Bearer realm=\"{realm}\", error=\"invalid_token\""))
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
        // It may be of the one whose keys are missing.
        (Err(TokenError::Issuer), Some(provider)) => return Err(Refused::NoKeys(provider)),
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
