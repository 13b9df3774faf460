//! SHA-2, mostly SHA-256: for chains, identifiers and executables.

use aws_lc_rs::digest;

/// A SHA-256 over data that arrives in pieces.
pub struct Sha256(digest::Context);

impl Sha256 {
    /// An empty digest.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        to_array(&self.0.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

/// SHA-256 of `data`.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; 32] {
    to_array(&digest::digest(&digest::SHA256, data))
}

/// SHA-384 of `data`, where a standard asks for it.
#[must_use]
pub fn sha384(data: &[u8]) -> [u8; 48] {
    to_array(&digest::digest(&digest::SHA384, data))
}

/// SHA-512 of `data`, where a standard asks for it.
#[must_use]
pub fn sha512(data: &[u8]) -> [u8; 64] {
    to_array(&digest::digest(&digest::SHA512, data))
}

fn to_array<const N: usize>(digest: &digest::Digest) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
