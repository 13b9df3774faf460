//! What holds for any bytes.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use ringfence_spiffe::certificate::Certificate;
use ringfence_spiffe::path::RevocationList;
use ringfence_spiffe::{BundleSet, CertificateDer, Role, TrustBundle, TrustDomain, UnixTime, verify_svid};
use support::{Fixture, NOW};

/// A genuine chain and the bundles that it verifies with.
static GENUINE: LazyLock<(Vec<CertificateDer<'static>>, BundleSet)> = LazyLock::new(|| {
    let fixture = Fixture::new("example.org");
    let bundles = BundleSet::new(1, [Arc::new(fixture.bundle().unwrap())]);
    (fixture.chain(), bundles)
});

fn accepted(chain: &[CertificateDer<'_>]) -> bool {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW as u64));
    verify_svid(chain, &GENUINE.1, Role::Client, now).is_ok()
}

/// The genuine chain with some bytes of one certificate replaced.
fn altered(which: usize, changes: &[(prop::sample::Index, u8)]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = GENUINE.0.clone();
    let mut der = chain[which].to_vec();
    for (at, value) in changes {
        *at.get_mut(&mut der) = *value;
    }
    let changed = der != *chain[which];
    chain[which] = der.into();
    changed.then_some(chain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_chain_with_any_byte_changed_is_refused(
        which in 0..2usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        prop_assert!(accepted(&GENUINE.0));
        if let Some(chain) = altered(which, &changes) {
            prop_assert!(!accepted(&chain));
        }
    }

    #[test]
    fn a_chain_cut_anywhere_is_refused(which in 0..2usize, at: prop::sample::Index) {
        let mut chain = GENUINE.0.clone();
        let length = at.index(chain[which].len());
        chain[which] = chain[which][..length].to_vec().into();
        prop_assert!(!accepted(&chain));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes: Vec<u8>, at: prop::sample::Index, value: u8) {
        let _ = (Certificate::parse(&bytes), RevocationList::from_der(&bytes));
        let _ = TrustBundle::from_json(TrustDomain::new("example.org").unwrap(), &bytes);
        if let Some(chain) = altered(0, &[(at, value)])
            && let Ok(cert) = Certificate::parse(&chain[0])
        {
            let _ = (cert.common_names(), cert.serial_hex(), cert.extensions.subject_alt_name.map(|n| n.value.iter().count()));
        }
    }
}
