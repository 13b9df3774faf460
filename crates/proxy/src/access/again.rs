//! Somebody who was let in, by what counts now: what was revoked since, and what is declared since.

use std::sync::Arc;

use ringfence_token::{Revocations, Revoked as What, TokenError, VerifiedToken};

use super::RouteAccess;
use super::certificate::{CERTIFICATES, KnownCertificate};
use super::keys::{API_KEYS, KnownKey};
use super::principal::{Evidence, Principal};
use crate::deny::Deny;
use crate::table::TableRef;
use crate::worker::{Worker, unix_now};

/// What to answer while it is not known what was revoked.
pub(super) fn unknown() -> Deny {
    let reason = "it is not known yet what was revoked, and control has not told";
    Deny::new(503, "authenticate", "revocations.unready", reason)
}

fn refuse(rule: &'static str, error: &impl ToString) -> Deny {
    Deny::new(401, "authenticate", rule, error.to_string())
}

/// Whether a token that was believed was not revoked since.
pub(crate) fn is_unrevoked(worker: &Worker, token: &VerifiedToken) -> Result<(), Deny> {
    let revoked = worker.tokens.revoked();
    let revoked = revoked.as_ref().ok_or_else(unknown)?;
    revoked.tokens.check(token).map_err(|e| refuse("token.revoked", &e))
}

impl Principal {
    /// When what runs by it is over: a session has an end that nothing moves. What a token opened outlives it.
    pub(crate) fn ends_at(&self) -> Option<u64> {
        match &self.evidence {
            Evidence::Session(shown) => Some(shown.token.expires_at()),
            _ => None,
        }
    }

    /// Whether that is still to come.
    pub(crate) fn goes_on(&self) -> Result<(), Deny> {
        match self.ends_at() {
            Some(end) if end <= unix_now() => Err(refuse("session.over", &"the session has reached its end")),
            _ => Ok(()),
        }
    }

    /// Whether what it was let in by was not revoked since.
    pub(crate) fn is_unrevoked(&self, worker: &Worker) -> Result<(), Deny> {
        let revoked = worker.tokens.revoked();
        let tokens = &revoked.as_ref().ok_or_else(unknown)?.tokens;
        match &self.evidence {
            Evidence::Token(token) => is_unrevoked(worker, token),
            Evidence::Key(known) => known.check(tokens),
            Evidence::Opaque(known) => {
                let domain = self.table.trust_domain.as_str();
                known.check(tokens, domain).map_err(|e| refuse("token.revoked", &e))
            }
            Evidence::Session(shown) => tokens.check(&shown.token).map_err(|e| refuse("session.revoked", &e)),
            Evidence::Certificate(known) => known.check(tokens),
        }
    }

    /// The same, as a route takes it now: its credential must not have been revoked, and still be among the accepted.
    pub(crate) fn again(
        &self,
        worker: &Worker,
        table: &TableRef,
        access: &RouteAccess,
    ) -> Result<Self, Deny> {
        self.is_unrevoked(worker)?;
        let changed = |what: &str| {
            let reason = format!("the route accepts this {what} no more");
            refuse("accept.changed", &reason).position(access.position())
        };
        let (identity, evidence) = match &self.evidence {
            Evidence::Token(token) => {
                let mut providers = access.providers.iter().map(|at| &table.providers()[*at]);
                let provider = providers.find(|p| *p.name == *self.identity.provider && p.takes(token));
                let provider = provider.ok_or_else(|| changed("token"))?;
                let identity = worker.tokens.identity(provider, token);
                (identity.map_err(|e| refuse("token.user", &e))?, self.evidence.clone())
            }
            Evidence::Opaque(_) => {
                let asked = access.opaque.map(|at| table.providers()[at].declared());
                let before = self.table.providers().iter().map(super::TableProvider::declared);
                let before = before.into_iter().find(|p| p.name == self.identity.provider);
                if !asked.zip(before).is_some_and(|(now, before)| super::opaque::is_same(now, before)) {
                    return Err(changed("token"));
                }
                (self.identity.clone(), self.evidence.clone())
            }
            Evidence::Session(shown) => {
                let place = access.logins.iter().find(|login| *login.name == self.identity.provider);
                let place = place.ok_or_else(|| changed("session"))?.place;
                let sessions = &worker.sessions;
                let (_, identity) = sessions
                    .believe(worker, table, place, shown.text().expose())
                    .map_err(|unbelieved| refuse(unbelieved.rule(), &unbelieved.reason()))?;
                (identity, self.evidence.clone())
            }
            Evidence::Certificate(known) => {
                let (identity, known) = known.again(table, access)?;
                (identity, Evidence::Certificate(known))
            }
            Evidence::Key(_) if !access.api_key => return Err(changed("API key")),
            Evidence::Key(known) => {
                let known = worker.shared.api_keys.again(known)?;
                (Arc::new(known.identity()), Evidence::Key(Box::new(known)))
            }
        };
        Ok(Self { table: table.clone(), identity, evidence })
    }
}

impl KnownKey {
    /// Whether it was revoked among all else. When it was made is not said here: any revocation is later.
    pub(super) fn check(&self, revocations: &Revocations) -> Result<(), Deny> {
        let about = [What::Token(self.prefix()), What::Client(self.client()), What::Issuer];
        match revocations.hits(API_KEYS, &about, 0) {
            Some(what) => Err(refuse("api_key.revoked", &TokenError::Revoked(what))),
            None => Ok(()),
        }
    }
}

impl KnownCertificate {
    /// Whether it was revoked among all else. When it was issued is not said here: any revocation is later.
    pub(super) fn check(&self, revocations: &Revocations) -> Result<(), Deny> {
        let about = [What::Token(self.name()), What::Client(self.client()), What::Issuer];
        match revocations.hits(CERTIFICATES, &about, 0) {
            Some(what) => Err(refuse("certificate.revoked", &TokenError::Revoked(what))),
            None => Ok(()),
        }
    }
}
