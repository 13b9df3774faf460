//! Who stands behind a request: the token or API key that a route of the gateway accepts, and what it must carry.
//!
//! A thread remembers the tokens that it verified, so most requests cost one hash. Keys come from control; what is not signed by one of
//! them is refused, and what says another key than those that are there makes the provider asked again, once in a while.

mod again;
mod credential;
mod keys;
mod principal;
mod refused;
mod session;
mod show;
mod tokens;

use std::sync::Arc;

use ringfence_model::{Credential, Provider, Require, Route};
use ringfence_token::TokenError;
use tokio::time::timeout;

pub(crate) use self::credential::API_KEY;
pub(crate) use self::again::is_unrevoked;
use self::again::unknown;
use self::credential::{Shown, shown};
pub(crate) use self::keys::{ApiKeys, Uses};
pub(crate) use self::session::{Sessions, cookies, name_of, present};
pub(crate) use self::principal::{Evidence, Principal, name_field, scopes_field, subject};
pub(crate) use self::show::to_show;
use self::refused::Refused;
use self::tokens::judge;
pub(crate) use self::tokens::{ProviderKeys, TableProvider, Tokens};
use crate::deny::Deny;
use crate::h1::Kind;
use crate::handle::Ctx;
use crate::table::TableRef;
use crate::view::HeadView;

/// Who may pass along a route.
#[derive(Debug)]
pub(crate) struct RouteAccess {
    /// Places of the accepted providers in the table.
    providers: Vec<usize>,
    /// Where people may have signed in.
    logins: Vec<LoginAt>,
    /// Whether API keys are accepted.
    api_key: bool,
    require: Require,
    /// Where the route says whom it accepts.
    position: String,
}

/// A provider where people sign in by a browser.
#[derive(Debug)]
struct LoginAt {
    /// Its place in the table.
    place: usize,
    name: Box<str>,
}

impl RouteAccess {
    /// None for a route that is open to all. The snapshot was checked: each name is that of a provider.
    pub(crate) fn of(route: &Route, providers: &[Provider]) -> Option<Arc<Self>> {
        let first = route.access.accept.first()?;
        let place = |credential: &Credential| match credential {
            Credential::Token(name) => providers.iter().position(|p| p.name == *name),
            Credential::ApiKey | Credential::Login(_) | Credential::Certificate(_) => None,
        };
        let login = |credential: &Credential| match credential {
            Credential::Login(name) => {
                let place = providers.iter().position(|p| p.name == *name)?;
                Some(LoginAt { place, name: name.as_str().into() })
            }
            _ => None,
        };
        Some(Arc::new(Self {
            logins: route.access.accept.iter().filter_map(|a| login(&a.credential)).collect(),
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
        // No scheme is registered for cookies. A script of the service's own page learns from it where to send its user.
        let login = self.logins.first();
        let more = if error.contains("insufficient_") { error } else { "" };
        let login = login.map(|l| format!("Login realm=\"{realm}\", at=\"/.ringfence/login/{}\"{more}", l.name));
        bearer.into_iter().chain(key).chain(login).collect::<Vec<_>>().join(", ")
    }
}

/// Whether somebody who was let in has what the route demands besides, or how it may be got.
pub(crate) fn demand(view: HeadView<'_>, principal: &Principal, access: &RouteAccess) -> Result<(), Deny> {
    principal.meets(access).map_err(|deny| match &principal.evidence {
        Evidence::Session(shown) if deny.rule == "require.acr" => {
            session::step_up(view, shown, access, deny)
        }
        _ => deny,
    })
}

/// Lets a request in, or says why not.
pub(crate) async fn authenticate(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
) -> Result<Principal, Deny> {
    // What a page adds itself counts before what the browser adds to everything.
    let explicit = view.known(Kind::Authorization).is_some() || access.api_key && view.field(API_KEY).is_some();
    let no_session = if access.logins.is_empty() || explicit {
        None
    } else {
        match session::authenticate(ctx, view, table, access).await {
            Ok(principal) => return Ok(principal),
            Err(deny) => Some(deny),
        }
    };
    let shown = shown(view, table, access).map_err(|deny| match no_session {
        Some(no_session) if deny.rule == "credential.none" => no_session,
        _ => deny,
    });
    let token = match shown? {
        Shown::Token(token) => token,
        Shown::Key(text) => {
            let known = ctx.worker.shared.api_keys.judge(text, &table.snapshot.fence, access)?;
            let revoked = ctx.worker.tokens.revoked();
            known.check(&revoked.as_ref().ok_or_else(unknown)?.tokens)?;
            let identity = Arc::new(known.identity());
            let evidence = Evidence::Key(Box::new(known));
            return Ok(Principal { table: table.clone(), identity, evidence });
        }
    };
    let (worker, tokens) = (ctx.worker, &ctx.worker.tokens);
    let first = judge(tokens, table, access, token);
    let outcome = match &first {
        Err(Refused::Token(TokenError::UnknownKey) | Refused::NoKeys(_)) => {
            let now = worker.now_ms();
            let providers = || access.providers.iter().map(|at| &table.providers()[*at].name);
            for provider in providers() {
                if tokens.may_ask(provider, now) {
                    worker.shared.want_keys(provider);
                }
            }
            let arrived = tokens.arrived.notified();
            match tokens.may_wait(providers(), now) {
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
    let (identity, token) = outcome.map_err(|refused| refused.deny(realm, access))?;
    Ok(Principal { table: table.clone(), identity, evidence: Evidence::Token(token) })
}
