//! Whom a transaction token is for: verified once per thread, then remembered with all that later hops are told of it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringfence_keys::VerifyingKey;
use ringfence_model::Credential;
use ringfence_snapshot::{Identity, IdentityError, Snapshot, credential_of};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{Check, KeySet, Possession, Profile, TokenError, VerifiedToken, Verifier};

use super::fifo::Fifo;
use crate::access::{Tokens, name_field, scopes_field};
use crate::deny::Deny;
use crate::table::Table;
use crate::worker::unix_now;

/// Tokens that a thread remembers.
const REMEMBERED: usize = 8_192;

/// What transaction tokens are verified by, in one table.
#[derive(Debug)]
pub(crate) struct TxnKeys {
    profile: Profile,
    /// What session tokens must be, which the same keys sign; those of JWT-SVIDs sign neither.
    pub(crate) session: Profile,
    pub(crate) keys: Arc<KeySet>,
}

/// What a thread remembers of transaction tokens.
pub(crate) struct Behalves {
    verifier: RefCell<Verifier>,
    known: RefCell<Fifo<[u8; 32], Rc<Behalf>>>,
}

/// A verified transaction token.
#[derive(Debug)]
pub(crate) struct Behalf {
    token: Arc<VerifiedToken>,
    identity: Arc<Identity>,
    /// What it showed to the gateway.
    shown: Credential,
    text: Box<str>,
    /// Values of `Ringfence-User`, `-Provider` and `-Scopes`.
    pub(super) named: [String; 3],
}

/// Why a token counts for nobody.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("it names nobody: {0}")]
    Identity(#[from] IdentityError),
    #[error("control has not told yet what was revoked")]
    RevocationsUnknown,
}

impl TxnKeys {
    /// The keys of a snapshot; the same set as before while they are the same, so that what was verified by it still counts.
    pub(crate) fn of(snapshot: &Snapshot, before: Option<&Table>) -> Result<Self, String> {
        let domain = TrustDomain::new(&snapshot.trust_domain).map_err(|e| e.to_string())?;
        let read = |key: &ringfence_snapshot::JwtKey| {
            let public = VerifyingKey::from_spki(&key.spki.0);
            public.map(|public| (key.kid.clone(), public)).map_err(|e| format!("token key {}: {e}", key.kid))
        };
        let keys = snapshot.bundle.txn.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let keys = KeySet::from_keys(keys);
        let same = before.map(|table| &table.txn.keys).filter(|known| ***known == keys);
        let keys = same.map_or_else(|| Arc::new(keys.clone()), Arc::clone);
        Ok(Self { profile: Profile::txn_token(&domain), session: Profile::session(&domain), keys })
    }
}

impl Behalves {
    pub(crate) fn new() -> Self {
        let verifier = RefCell::new(Verifier::new(REMEMBERED));
        Self { verifier, known: RefCell::new(Fifo::new(REMEMBERED)) }
    }

    /// Whom a token is for, if it holds now.
    pub(super) fn verify(&self, by: &TxnKeys, tokens: &Tokens, text: &str) -> Result<Rc<Behalf>, Wrong> {
        let revoked = tokens.revoked();
        let revoked = revoked.as_ref().ok_or(Wrong::RevocationsUnknown)?;
        let check = Check {
            profile: &by.profile,
            keys: &by.keys,
            revocations: &revoked.tokens,
            possession: Possession::NONE,
            now: unix_now(),
        };
        let token = self.verifier.borrow_mut().verify(text, &check)?;
        if let Some(known) = self.known.borrow().get(token.digest()) {
            return Ok(known.clone());
        }
        let identity = Arc::new(Identity::of_transaction(&token)?);
        let named = [name_field(&identity.id), name_field(&identity.provider), scopes_field(&identity)];
        let shown = credential_of(&token)?;
        let behalf = Rc::new(Behalf { token, identity, shown, text: text.into(), named });
        self.known.borrow_mut().insert(*behalf.token.digest(), behalf.clone());
        Ok(behalf)
    }
}

impl Behalf {
    /// What was verified.
    pub(crate) fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// Whom it is for.
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What was shown to the gateway.
    pub(crate) fn shown(&self) -> &Credential {
        &self.shown
    }

    /// The token itself.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The address of the gateway's client.
    pub(crate) fn source(&self) -> Option<IpAddr> {
        self.token.request_context()?.get(super::exchange::ADDRESS)?.as_str()?.parse().ok()
    }
}

impl Wrong {
    pub(super) fn deny(&self) -> Deny {
        let (status, rule) = match self {
            Self::Token(TokenError::Expired | TokenError::TooOld) => (403, "delegate.expired"),
            Self::Token(TokenError::Revoked(_)) => (403, "token.revoked"),
            Self::RevocationsUnknown => (503, "revocations.unknown"),
            _ => (403, "delegate.invalid"),
        };
        Deny::new(status, "delegate", rule, format!("the transaction token does not count: {self}"))
    }
}
