//! Proofs of possession (DPoP, RFC 9449): a caller signs method and address of its request with the key that its token
//! is bound to.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use ringfence_keys::digest::{Sha256, sha256};

use crate::algorithm::Algorithms;
use crate::claims;
use crate::htu;
use crate::json;
use crate::jws::{Compact, TokenError, encode};
use crate::key::PublicKey;
use crate::profile::SKEW;

/// `typ` of a proof.
const TYPE: &str = "dpop+jwt";

/// Oldest proof that is accepted, in seconds. The same everywhere: else one that a strict place forgot would be new at another.
const MAX_AGE: u64 = 60;

/// Why a proof is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Form, key, signature or a claim.
    #[error("DPoP proof: {0}")]
    Token(#[from] TokenError),
    /// Its key is none that verifies, or a private one.
    #[error("DPoP proof: its key is {0}")]
    Key(#[from] crate::JwkError),
    /// Made for another method or address.
    #[error("DPoP proof is for another {0} than that of the request")]
    Elsewhere(&'static str),
    /// Made too long ago, or in the future.
    #[error("DPoP proof was not made just now: compare the clocks")]
    Time,
    /// It has no fresh nonce: answer with one.
    #[error("DPoP proof has no nonce that is in force: answer `use_dpop_nonce` with a fresh one")]
    Nonce,
    /// It was used before.
    #[error("DPoP proof was used before")]
    Replayed,
    /// More proofs came in than can be remembered, so that none can be believed to be new.
    #[error("too many DPoP proofs at once: raise the bound of the replay store")]
    Busy,
}

/// What a proof must be for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Its address as the client wrote it: scheme, authority, path.
    pub uri: &'a str,
    /// Nonces, where they are demanded.
    pub nonces: Option<&'a Nonces>,
    /// Since when used proofs are remembered, Unix seconds: with it only older proofs need a nonce, since one of them may have been used
    /// already. Without it each needs one.
    pub remembered_since: Option<u64>,
    /// Accepted algorithms.
    pub algorithms: Algorithms,
    /// Unix seconds.
    pub now: u64,
}

/// A proof that was verified for a request; made only by [`Proof::verify`]. It counts when [`crate::Possession`] finds that it
/// fits the token and was not used before.
#[derive(Debug)]
pub struct Proof {
    thumbprint: [u8; 32],
    token_digest: Option<[u8; 32]>,
    id: [u8; 16],
    /// When it would no longer be accepted.
    ends_at: u64,
}

impl Proof {
    /// Verifies the value of a `DPoP` header for `request`.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(proof: &str, request: &Request<'_>) -> Result<Self, ProofError> {
        let compact = Compact::parse_with_key(proof)?;
        if !compact.header.token_type.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE)) {
            return Err(TokenError::Type("a DPoP proof (dpop+jwt)").into());
        }
        let algorithm = compact.header.algorithm;
        if !request.algorithms.contains(algorithm) {
            return Err(TokenError::Refused("alg").into());
        }
        let jwk = compact.embedded.as_ref().ok_or(TokenError::Refused("jwk"))?;
        let key = PublicKey::from_embedded(jwk, algorithm)?;
        let claims = json::object(&compact.verify(&key)?).ok_or(TokenError::Malformed)?;
        claims::check_forms(&claims)?;
        let jti = claims::required(&claims, "jti")?;
        if claims::required(&claims, "htm")? != request.method {
            return Err(ProofError::Elsewhere("method"));
        }
        let address = claims::required(&claims, "htu")?;
        if htu::normalize(address).ok_or(TokenError::Claim("htu"))?
            != htu::normalize(request.uri).ok_or(ProofError::Elsewhere("address"))?
        {
            return Err(ProofError::Elsewhere("address"));
        }
        let at = claims::date(&claims, "iat", false)?.ok_or(TokenError::Claim("iat"))?;
        let (now, leeway) = (request.now, SKEW);
        let ends_at = at.saturating_add(MAX_AGE).saturating_add(leeway);
        let expired =
            claims::date(&claims, "exp", false)?.is_some_and(|end| now >= end.saturating_add(leeway));
        let early =
            claims::date(&claims, "nbf", false)?.is_some_and(|start| start > now.saturating_add(leeway));
        if at > now.saturating_add(leeway) || now >= ends_at || expired || early {
            return Err(ProofError::Time);
        }
        let nonce = claims::identifier(&claims, "nonce")?;
        let remembered = request.remembered_since.is_some_and(|since| at >= since.saturating_add(leeway));
        if !remembered
            && request.nonces.is_some_and(|nonces| !nonce.is_some_and(|nonce| nonces.accept(nonce, now)))
        {
            return Err(ProofError::Nonce);
        }
        let token_digest = match claims::identifier(&claims, "ath")? {
            Some(ath) => Some(claims::digest(ath).ok_or(TokenError::Claim("ath"))?),
            None => None,
        };
        let thumbprint = key.thumbprint();
        Ok(Self { thumbprint, token_digest, id: replay_id(&thumbprint, jti), ends_at })
    }

    /// Thumbprint of its key, which `cnf.jkt` of a token names.
    #[must_use]
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// The thumbprint as tokens write it.
    #[must_use]
    pub fn jkt(&self) -> String {
        encode(&self.thumbprint)
    }

    /// `ath`: SHA-256 of the token that it goes with.
    #[must_use]
    pub const fn token_digest(&self) -> Option<&[u8; 32]> {
        self.token_digest.as_ref()
    }
}

fn replay_id(thumbprint: &[u8; 32], jti: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(thumbprint);
    hash.update(jti.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finish()[..16]);
    id
}

/// Which proofs were used, for as long as they would be accepted. Shared by all threads; what does not fit is refused.
#[derive(Debug)]
pub struct Replays {
    inner: Mutex<Windows>,
    capacity: usize,
}

/// Proofs by the window that they end in: a window is forgotten whole.
#[derive(Debug, Default)]
struct Windows {
    windows: Vec<(u64, HashSet<[u8; 16]>)>,
    len: usize,
}

/// Length of a window in seconds.
const WINDOW: u64 = 30;

impl Replays {
    /// Remembers at most `capacity` proofs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), capacity }
    }

    /// Enters a proof, once.
    ///
    /// # Errors
    /// [`ProofError::Replayed`], and [`ProofError::Busy`] when there is no room: then it is not known to be new.
    pub fn admit(&self, proof: &Proof, now: u64) -> Result<(), ProofError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Windows { windows, len } = &mut *inner;
        windows.retain(|(end, ids)| {
            let keep = *end > now;
            *len -= if keep { 0 } else { ids.len() };
            keep
        });
        if proof.ends_at <= now {
            return Err(ProofError::Time);
        }
        let end = (proof.ends_at / WINDOW + 1) * WINDOW;
        if *len >= self.capacity {
            return Err(ProofError::Busy);
        }
        let at = windows.iter().position(|(e, _)| *e == end).unwrap_or_else(|| {
            windows.push((end, HashSet::new()));
            windows.len() - 1
        });
        // The same proof always ends at the same moment: `iat` is under its signature.
        if !windows[at].1.insert(proof.id) {
            return Err(ProofError::Replayed);
        }
        *len += 1;
        Ok(())
    }

    /// How many proofs are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).len
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Nonces that need no memory: a keyed digest of the time, so that all nodes with one secret know them.
pub struct Nonces {
    key: hmac::Key,
    every: u64,
}

impl Nonces {
    /// Nonces from `secret`, a new one `every` so many seconds; each is good until the next but one.
    #[must_use]
    pub fn new(secret: &[u8; 32], every: u64) -> Self {
        let key = sha256(&[b"ringfence dpop nonce".as_slice(), secret].concat());
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), every: every.max(1) }
    }

    /// The nonce to hand out at `now`.
    #[must_use]
    pub fn issue(&self, now: u64) -> String {
        self.at(now / self.every)
    }

    fn at(&self, window: u64) -> String {
        encode(&hmac::sign(&self.key, &window.to_le_bytes()).as_ref()[..16])
    }

    /// Whether `nonce` was handed out just now.
    #[must_use]
    pub fn accept(&self, nonce: &str, now: u64) -> bool {
        let window = now / self.every;
        let is = |window| ringfence_keys::constant_time_eq(self.at(window).as_bytes(), nonce.as_bytes());
        is(window) || window.checked_sub(1).is_some_and(is)
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces([secret])")
    }
}
