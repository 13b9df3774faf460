//! Who stands behind a request: the token or API key that a route of the gateway accepts, and what it must carry.
//!
//! A thread remembers the tokens that it verified, so most requests cost one hash. Keys come from control; what is not signed by one of
//! them is refused, and what says another key than those that are there makes the provider asked again, once in a while.

mod credential;
mod keys;
mod principal;
mod refused;
mod tokens;

use std::sync::Arc;

use ringfence_model::{Credential, Provider, Require, Route};
use ringfence_token::TokenError;
use tokio::time::timeout;

pub(crate) use self::credential::API_KEY;
use self::credential::{Shown, shown};
pub(crate) use self::keys::{ApiKeys, Uses};
pub(crate) use self::principal::{Evidence, Principal, name_field, scopes_field, subject};
use self::refused::Refused;
use self::tokens::judge;
pub(crate) use self::tokens::{ProviderKeys, TableProvider, Tokens};
use crate::deny::Deny;
use crate::handle::Ctx;
use crate::table::TableRef;
use crate::view::HeadView;

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

impl RouteAccess {
    /// None for a route that is open to all. The snapshot was checked: each name is that of a provider.
    pub(crate) fn of(route: &Route, providers: &[Provider]) -> Option<Arc<Self>> {
        let first = route.access.accept.first()?;
        let place = |credential: &Credential| match credential {
            Credential::Token(name) => providers.iter().position(|p| p.name == *name),
            Credential::ApiKey | Credential::Login(_) | Credential::Certificate(_) => None,
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
