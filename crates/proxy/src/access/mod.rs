//! Who stands behind a request: the token, API key or certificate that a route or a service accepts, and what it must carry.
//!
//! A thread remembers the tokens that it verified, so most requests cost one hash. Keys come from control; what is not signed by one of
//! them is refused, and what says another key than those that are there makes the provider asked again, once in a while. Whether the
//! caller holds the key or the certificate that a token is bound to is asked at each request.

mod again;
mod certificate;
mod credential;
mod keys;
mod opaque;
mod principal;
mod proof;
mod refused;
mod session;
mod show;
mod tokens;

use std::sync::Arc;

use ringfence_model::{Access, Binding, Credential, Provider, Require};
use ringfence_token::{Possession, TokenError};
use tokio::time::timeout;

pub(crate) use self::again::is_unrevoked;
use self::again::unknown;
pub(crate) use self::certificate::{Authority, ClientCertificate};
pub(crate) use self::credential::API_KEY;
use self::credential::{Scheme, Shown, shown};
pub(crate) use self::keys::{API_KEYS, ApiKeys, Uses};
pub(crate) use self::opaque::{Opaques, Vouched};
pub(crate) use self::principal::{Evidence, Principal, name_field, scopes_field, subject};
pub(crate) use self::proof::{NONCE_FIELD, Proofs};
use self::refused::Refused;
pub(crate) use self::session::{Sessions, cookies, name_of, present};
pub(crate) use self::show::to_show;
use self::tokens::judge;
pub(crate) use self::tokens::{ProviderKeys, TableProvider, Tokens};
use crate::deny::Deny;
use crate::h1::Kind;
use crate::handle::Ctx;
use crate::table::TableRef;
use crate::view::HeadView;

/// Who may pass along a route, or at a service's own side.
#[derive(Debug)]
pub(crate) struct RouteAccess {
    /// Places of the accepted providers in the table.
    providers: Vec<usize>,
    /// The provider that is asked for tokens that are no JWT.
    opaque: Option<usize>,
    /// Where people may have signed in.
    logins: Vec<LoginAt>,
    /// Whether API keys are accepted.
    api_key: bool,
    /// Places of the authorities of client certificates in the table.
    authorities: Vec<usize>,
    /// Whether one of the providers accepts only tokens that are bound to a key, and whether one accepts others.
    dpop: bool,
    bearer: bool,
    require: Require,
    /// Where it is said whom it accepts.
    position: String,
}

/// Where it is looked what a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Where it is not known here its provider is asked, which may take a while.
    Anywhere,
    /// Here alone: whoever shows it has shown too many that were wrong.
    Here,
}

/// A provider where people sign in by a browser.
#[derive(Debug)]
struct LoginAt {
    /// Its place in the table.
    place: usize,
    name: Box<str>,
}

impl RouteAccess {
    /// None for what is open to all. The snapshot was checked: each name is that of a provider, each file that of an authority.
    pub(crate) fn of(
        access: &Access,
        providers: &[Provider],
        authorities: &[Arc<Authority>],
    ) -> Option<Arc<Self>> {
        let first = access.accept.first()?;
        let accepted = || access.accept.iter().map(|accepted| &accepted.credential);
        let provider = |credential: &Credential| match credential {
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
        let authority = |file: &str| authorities.iter().position(|authority| authority.file() == file);
        let believed: Vec<usize> = accepted().filter_map(provider).collect();
        let is_bound = |at: &usize| providers[*at].bound == Binding::Dpop;
        Some(Arc::new(Self {
            // The first: a token shown to several would be each one's to use at the others.
            opaque: believed.iter().copied().find(|at| providers[*at].introspect),
            dpop: believed.iter().any(is_bound),
            bearer: !believed.iter().all(is_bound),
            providers: believed,
            logins: accepted().filter_map(login).collect(),
            api_key: accepted().any(|credential| *credential == Credential::ApiKey),
            authorities: accepted().filter_map(Credential::authority).filter_map(authority).collect(),
            require: access.require.clone(),
            position: first.position.to_string(),
        }))
    }

    /// Where it is said whom it accepts.
    pub(crate) fn position(&self) -> Option<String> {
        Some(self.position.clone())
    }

    /// Whether proofs need a nonce here in any case.
    pub(crate) fn demands_nonces(&self) -> bool {
        self.dpop
    }

    /// Whether nothing in the head of a request is a credential here.
    fn is_for_certificates_alone(&self) -> bool {
        let others = !self.providers.is_empty() || !self.logins.is_empty() || self.api_key;
        !others && !self.authorities.is_empty()
    }

    /// `WWW-Authenticate` (RFC 9110, section 11.6.1) for whoever showed nothing that is accepted; `error` goes to those with tokens.
    pub(crate) fn challenge(&self, realm: &str, error: &str) -> String {
        self.challenge_to(realm, error, Scheme::Bearer)
    }

    /// The same for whoever used this scheme.
    fn challenge_to(&self, realm: &str, error: &str, scheme: Scheme) -> String {
        let to_dpop = scheme == Scheme::Dpop || !self.bearer;
        let part = |name: &str, error: &str| format!("{name} realm=\"{realm}\"{error}");
        let dpop = (self.dpop || !self.providers.is_empty() && scheme == Scheme::Dpop).then(|| {
            let error = if to_dpop { error } else { "" };
            format!("{}, algs=\"{}\"", part("DPoP", error), proof::algorithms())
        });
        let bearer = self.bearer.then(|| part("Bearer", if to_dpop { "" } else { error }));
        let key = self.api_key.then(|| part("ApiKey", ""));
        // No scheme is registered for cookies. A script of the service's own page learns from it where to send its user.
        let login = self.logins.first();
        let more = if error.contains("insufficient_") { error } else { "" };
        let login =
            login.map(|l| format!("Login realm=\"{realm}\", at=\"/.ringfence/login/{}\"{more}", l.name));
        dpop.into_iter().chain(bearer).chain(key).chain(login).collect::<Vec<_>>().join(", ")
    }

    /// Turns somebody away who showed nothing that is believed.
    fn refuse(&self, realm: &str, rule: &'static str, reason: impl Into<String>, error: &str) -> Deny {
        self.refuse_token(realm, rule, reason, error, Scheme::Bearer)
    }

    /// The same for whoever used this scheme.
    fn refuse_token(
        &self,
        realm: &str,
        rule: &'static str,
        reason: impl Into<String>,
        error: &str,
        scheme: Scheme,
    ) -> Deny {
        let deny = Deny::new(401, "authenticate", rule, reason).position(self.position());
        // 401 must say what would do (RFC 9110, section 15.5.2), and for certificates there is no word.
        match self.challenge_to(realm, error, scheme) {
            challenge if challenge.is_empty() => Deny { status: 403, ..deny },
            challenge => deny.challenge(challenge),
        }
    }
}

/// Whether somebody who was let in has what the route demands besides, or how it may be got.
pub(crate) fn demand(view: HeadView<'_>, principal: &Principal, access: &RouteAccess) -> Result<(), Deny> {
    principal.meets(access).map_err(|deny| match &principal.evidence {
        Evidence::Session(shown) if deny.rule == "require.acr" => session::step_up(view, shown, access, deny),
        _ => deny,
    })
}

/// Lets a request in, or says why not.
pub(crate) async fn authenticate(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
    lookup: Lookup,
) -> Result<Principal, Deny> {
    let outcome = believe(ctx, view, table, access, lookup).await;
    // Whoever may need a nonce is given one with the first answer that helps.
    let spoken = access.dpop || proof::is_spoken(view);
    outcome.map_err(|deny| if spoken { deny.nonce(ctx.worker.shared.proofs.nonce()) } else { deny })
}

async fn believe(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
    lookup: Lookup,
) -> Result<Principal, Deny> {
    let certificate = ctx.peer.certificate.get();
    let admitted = |identity, evidence| Ok(Principal { table: table.clone(), identity, evidence });
    // What a page adds itself counts before what the browser adds to everything.
    let explicit =
        view.known(Kind::Authorization).is_some() || access.api_key && view.field(API_KEY).is_some();
    let no_session = if access.logins.is_empty() || explicit {
        None
    } else {
        match session::authenticate(ctx, view, table, access).await {
            Ok(principal) => return Ok(principal),
            Err(deny) => Some(deny),
        }
    };
    let shown = shown(view, table, access, certificate).map_err(|deny| match no_session {
        Some(no_session) if deny.rule == "credential.none" => no_session,
        _ => deny,
    });
    let (token, shown) = match shown? {
        Shown::Token(token, proof) => (token, proof),
        Shown::Key(text) => {
            let known = ctx.worker.shared.api_keys.judge(text, &table.snapshot.fence, access)?;
            let revoked = ctx.worker.tokens.revoked();
            known.check(&revoked.as_ref().ok_or_else(unknown)?.tokens)?;
            return admitted(Arc::new(known.identity()), Evidence::Key(Box::new(known)));
        }
        Shown::Certificate(certificate) => {
            let (identity, known) = certificate.judge(table, access)?;
            let revoked = ctx.worker.tokens.revoked();
            known.check(&revoked.as_ref().ok_or_else(unknown)?.tokens)?;
            return admitted(identity, Evidence::Certificate(known));
        }
    };
    if let Some(place) = access.opaque.filter(|_| shown.is_none() && !opaque::is_jwt(token)) {
        return opaque::authenticate(ctx, table, access, (place, lookup), token).await;
    }
    let (worker, tokens) = (ctx.worker, &ctx.worker.tokens);
    let scheme = if shown.is_some() { Scheme::Dpop } else { Scheme::Bearer };
    let address;
    let request;
    let mut possession = Possession::NONE;
    if let Some(certificate) = certificate {
        possession = possession.with_thumbprint(certificate.thumbprint());
    }
    if let Some(shown) = shown {
        let proofs = &worker.shared.proofs;
        address = proof::address(ctx.peer, ctx.forwarding.is_from_gateway(), view);
        request = proofs.request(view, &address, access.dpop);
        possession = possession.with_shown(shown, &request, proofs.replays());
    }
    let first = judge(tokens, table, access, token, possession);
    let outcome = match &first {
        Err(Refused::Token(TokenError::UnknownKey) | Refused::NoKeys(_)) if lookup == Lookup::Anywhere => {
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
                    // By another fence it is judged from the start. A proof counts once, and must not be used up here.
                    let over = worker.table().is_some_and(|now| !std::rc::Rc::ptr_eq(&now, table));
                    if over { first } else { judge(tokens, table, access, token, possession) }
                }
            }
        }
        _ => first,
    };
    let realm = &table.snapshot.fence;
    let (identity, token) = outcome.map_err(|refused| refused.deny(realm, access, scheme))?;
    admitted(identity, Evidence::Token(token))
}
