//! JOSE: the one place where a bearer token becomes a verified one.
//!
//! A strict subset on purpose: compact JWS with ES256 or EdDSA, the algorithm fixed by the key and never chosen by the token,
//! keys found by `kid` among those we trust and never fetched or embedded. General JOSE libraries were rejected: what they
//! accept beyond that (HMAC, `none`, `jku`, `crit`, duplicate members) is where tokens have been forged.
#![forbid(unsafe_code)]

mod json;
mod jwks;
mod jws;
mod svid;

pub use jwks::{JwksError, KeySet};
pub use jws::{Header, MAX_TOKEN, TokenError, Verified, sign, verify, verify_payload};
pub use svid::{Claims, SKEW, Spec, VerifiedToken, mint, peek_key_id, verify_svid};
