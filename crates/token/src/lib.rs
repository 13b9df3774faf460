//! JOSE: the one place where a bearer token becomes a verified one.
//!
//! A strict subset on purpose: compact JWS with asymmetric algorithms, the algorithm fixed by the key and never chosen by the token,
//! keys found by `kid` among those we trust and never fetched or embedded (but in a DPoP proof, whose key is what it proves).
//! General JOSE libraries were rejected, as engine too: what they accept beyond that (HMAC, `none`, `jku`, unknown `crit`,
//! duplicate members) is where tokens have been forged, and behind the parser that refuses it only one call of the crypto library is left.
//!
//! [`Profile`] says what a token must be, [`Verifier`] is the door at an enforcement point, [`KeySource`] keeps a provider's keys,
//! [`Proof`] is DPoP, [`TxnSpec`] makes transaction tokens, [`SessionSpec`] session tokens, [`KeyTable`] knows API keys.
#![forbid(unsafe_code)]

mod algorithm;
mod apikey;
mod claims;
mod clock;
mod dpop;
mod error;
mod htu;
mod json;
mod jwks;
mod jws;
mod key;
mod origin;
mod possession;
mod profile;
mod revocation;
mod rsa;
mod session;
mod source;
mod svid;
#[cfg(test)]
mod testing;
mod txn;
mod verified;
mod verifier;

pub use algorithm::{Algorithm, Algorithms};
pub use apikey::{ApiKey, ApiKeyError, KeyPrefix, KeyRecord, KeyTable, Known, SecretDigest, TableError};
pub use claims::Confirmation;
pub use dpop::{Nonces, Proof, ProofError, Replays, Request};
pub use error::TokenError;
pub use jwks::{JwksError, KeySet, LeftOut};
pub use jws::{Header, MAX_TOKEN, SigningInput, peek_issuer, peek_key_id, sign, verify_payload};
pub use key::{JwkError, PublicKey};
pub use origin::Origin;
pub use possession::Possession;
pub use profile::{Binding, Kind, MAX_SKEW, Profile, SKEW};
pub use revocation::{CERTIFICATE, Full, Revocation, Revocations, Revoked, SVID, What};
pub use session::{IDENTITY, MAX_LIFE as SESSION_MAX_LIFE, SessionSpec, TYPE as SESSION_TYPE};
pub use source::{Fetched, KeySource, SourceConfig, Ticket};
pub use svid::{Claims, Spec, VerifiedSvid, mint, verify_svid};
pub use txn::{HEADER as TXN_HEADER, MAX_LIFE as TXN_MAX_LIFE, TYPE as TXN_TYPE, TxnSpec};
pub use verified::VerifiedToken;
pub use verifier::{Check, Verifier};
