//! Keys at rest and in use: the master key, what it seals, and the keys that sign.
//!
//! A master key (file, passphrase, systemd credential) unlocks a [`Keyring`]; its random data keys seal every private key
//! that Ringfence writes to disk. The master key wraps only the data keys, so changing it rewrites one small file
//! atomically, and nothing sealed has to be touched. Sealing with the master key itself was rejected: rotation would
//! then have to rewrite every secret, and a crash in the middle would leave two kinds.
//!
//! Signing and verifying keys hide the crypto library, so that crates that only sign or verify need not know it.
#![forbid(unsafe_code)]

pub mod backup;
pub mod digest;
mod envelope;
pub mod export;
pub mod file;
mod hex;
mod keyring;
mod master;
pub mod possession;
mod seal;
mod secret;
mod sign;
mod verify;

pub use envelope::EnvelopeKeys;
pub use hex::{from_hex, to_hex};
pub use keyring::{Keyring, KeyringError};
pub use master::{MasterError, MasterSource};
pub use seal::{Purpose, SealError, derived};
pub use secret::{Secret, SecretBytes};
pub use sign::{Algorithm, KeyError, SigningKey};
pub use verify::{BadSignature, VerifyingKey, is_of_small_order};

/// Fills an array from the operating system's random generator.
///
/// # Panics
/// When the system has no randomness to give: nothing safe can be done without it.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("invariant: the system random generator works");
    bytes
}

/// Compares two byte strings in constant time (their lengths are not secret).
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq;
    a.ct_eq(b).into()
}
