//! The signature algorithms that are spoken. No other can be named, so that none has to be refused twice.

use std::fmt;

/// A signature algorithm. A key has exactly one and never leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519: `EdDSA`, or `Ed25519` as RFC 9864 calls it.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::EdDsa, Self::Es256, Self::Es384, Self::Rs256, Self::Ps256];

    /// Its name in JOSE.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// The algorithm of this name, in exactly this spelling.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "Ed25519" => Some(Self::EdDsa),
            _ => Self::ALL.into_iter().find(|algorithm| algorithm.name() == name),
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<ringfence_keys::Algorithm> for Algorithm {
    fn from(algorithm: ringfence_keys::Algorithm) -> Self {
        match algorithm {
            ringfence_keys::Algorithm::P256 => Self::Es256,
            _ => Self::EdDsa,
        }
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Algorithms(u8);

impl Algorithms {
    /// `EdDSA`, `ES256` and `RS256`: what a provider may use unless the fence says otherwise.
    pub const DEFAULT: Self = Self(Algorithm::EdDsa.bit() | Algorithm::Es256.bit() | Algorithm::Rs256.bit());
    /// All there are.
    pub const ALL: Self = Self(0b1_1111);

    /// Whether `algorithm` is one of them.
    #[must_use]
    pub const fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & algorithm.bit() != 0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
}

impl FromIterator<Algorithm> for Algorithms {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(algorithms: I) -> Self {
        Self(algorithms.into_iter().fold(0, |bits, algorithm| bits | algorithm.bit()))
    }
}

impl fmt::Debug for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Algorithm::ALL.into_iter().filter(|a| self.contains(*a))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_one_spelling_only() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
            assert_eq!(Algorithm::from_name(&algorithm.name().to_lowercase()), None);
            assert!(Algorithms::ALL.contains(algorithm));
        }
        for name in ["none", "None", "", "HS256", "RS1", "ES256K", "RS384"] {
            assert_eq!(Algorithm::from_name(name), None);
        }
        assert!(!Algorithms::DEFAULT.contains(Algorithm::Ps256));
        assert!(Algorithms::from_iter([Algorithm::Ps256]).contains(Algorithm::Ps256));
    }
}
