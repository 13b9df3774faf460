//! The services that a request on somebody's behalf has passed, as one sidecar tells the next.
//!
//! Each sidecar adds the caller whose certificate it saw, so no service can leave itself out. Kept as the text that travels: it is
//! sent far more often than it is taken apart.

use std::sync::Arc;

/// The header that carries it, between sidecars only.
pub(crate) const HEADER: &str = "ringfence-chain";
/// Most services on one way; what is longer goes in circles.
pub const MAX_CHAIN: usize = 16;
/// Longest name of a service.
const MAX_NAME: usize = 63;

/// Names of services, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain(Arc<str>);

impl Chain {
    /// Reads what another sidecar says. `None` for anything that none of ours would write.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_CHAIN * (MAX_NAME + 1) {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        let chain = Self(text.into());
        (chain.names().count() <= MAX_CHAIN && text.split(',').all(is_name)).then_some(chain)
    }

    /// The same and one more service; `None` when it gets too long.
    #[must_use]
    pub fn with(&self, name: &str) -> Option<Self> {
        if self.0.is_empty() {
            return Some(Self(name.into()));
        }
        (self.names().count() < MAX_CHAIN).then(|| Self([&self.0, name].join(",").into()))
    }

    /// The names, oldest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|name| !name.is_empty())
    }

    /// As it travels; empty where nobody was passed yet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether this can be the name of a service.
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=MAX_NAME).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_grows_by_one_caller_at_each_hop_up_to_its_bound() {
        let mut chain = Chain::default();
        for hop in 0..MAX_CHAIN {
            assert_eq!(chain.names().count(), hop);
            chain = chain.with("portal").unwrap();
        }
        assert_eq!(chain.with("portal"), None);
        let two = Chain::default().with("portal").unwrap().with("appointments").unwrap();
        assert_eq!(two.as_str(), "portal,appointments");
    }

    #[test]
    fn what_no_sidecar_writes_is_no_chain() {
        let long = vec!["a"; MAX_CHAIN + 1].join(",");
        for bad in [
            "",
            ",",
            "a,",
            ",a",
            "a,,b",
            "a, b",
            "A",
            "a b",
            "7a",
            "a\n",
            "\u{e9}",
            "a=b",
            &"a".repeat(64),
            &long,
        ] {
            assert_eq!(Chain::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Chain::parse(b"\xff"), None);
        assert!(Chain::parse(vec!["a"; MAX_CHAIN].join(",").as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in prop::collection::vec("[a-z][a-z0-9-]{0,62}", 1..=MAX_CHAIN)) {
            let chain = names.iter().try_fold(Chain::default(), |chain, name| chain.with(name)).unwrap();
            let read = Chain::parse(chain.as_str().as_bytes()).unwrap();
            prop_assert_eq!(read.names().collect::<Vec<_>>(), names);
            prop_assert_eq!(read, chain);
        }

        #[test]
        fn arbitrary_bytes_are_a_chain_that_is_written_alike_or_none(value: Vec<u8>) {
            if let Some(chain) = Chain::parse(&value) {
                prop_assert_eq!(chain.as_str().as_bytes(), &value[..]);
                prop_assert!((1..=MAX_CHAIN).contains(&chain.names().count()));
            }
        }
    }
}
