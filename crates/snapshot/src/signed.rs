//! The envelope: exact bytes and a signature; and what only its verification makes.

use std::ops::Deref;
use std::sync::Arc;

use ringfence_keys::{Algorithm, VerifyingKey};
use ringfence_model::{Credential, Protocol};
use serde::{Deserialize, Serialize};

use crate::{Der, MAX_AUTHORITIES, Snapshot};

/// Prefix of what is signed, so that a signature over a snapshot is one over nothing else.
const CONTEXT: &[u8] = b"ringfence snapshot v1\0";
/// Largest snapshot in bytes.
const MAX_BYTES: usize = 12 * 1024 * 1024;

/// A snapshot as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedSnapshot {
    /// JSON of a [`Snapshot`].
    pub bytes: String,
    /// Ed25519 over the context and the bytes.
    pub signature: Der,
}

/// A snapshot whose signature, time and revision were checked; made only by [`SignedSnapshot::verify`].
#[derive(Clone, Debug)]
pub struct VerifiedSnapshot(Arc<Snapshot>);

/// Why a snapshot is not enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not signed by the key that was given at start.
    #[error("the snapshot is not signed by this fence's keeper")]
    Signature,
    /// Not a snapshot.
    #[error("the snapshot cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Larger than any snapshot.
    #[error("the snapshot has {0} bytes, more than the {MAX_BYTES} allowed")]
    TooLarge(usize),
    /// Past its end.
    #[error(
        "the snapshot expired at {expired_at} and it is {now} now: is the clock right, and does control run?"
    )]
    Expired {
        /// Unix time in seconds.
        expired_at: u64,
        /// Unix time in seconds.
        now: u64,
    },
    /// From the future by more than the tolerated skew.
    #[error(
        "the snapshot is of {issued_at} but it is only {now}: compare the clocks of control and this host"
    )]
    Future {
        /// Unix time in seconds.
        issued_at: u64,
        /// Unix time in seconds.
        now: u64,
    },
    /// Older than one seen before.
    #[error(
        "the snapshot has revision {offered} of epoch {epoch}, but {seen} was seen: somebody replays old configuration"
    )]
    Rollback {
        /// Epoch offered.
        epoch: u64,
        /// Revision offered.
        offered: u64,
        /// Highest revision seen.
        seen: u64,
    },
    /// Its parts contradict each other.
    #[error("the snapshot is inconsistent: {0}")]
    Inconsistent(&'static str),
}

impl SignedSnapshot {
    /// What is to be signed for these bytes; the keeper calls this after it has checked them.
    pub fn message(bytes: &str) -> Vec<u8> {
        [CONTEXT, bytes.as_bytes()].concat()
    }

    /// Reads the content without trusting it: for the keeper, which judges before it signs, and for display.
    ///
    /// # Errors
    /// Not a snapshot, or an inconsistent one.
    pub fn parse_unverified(bytes: &str) -> Result<Snapshot, SnapshotError> {
        if bytes.len() > MAX_BYTES {
            return Err(SnapshotError::TooLarge(bytes.len()));
        }
        let snapshot: Snapshot = serde_json::from_str(bytes)?;
        consistent(&snapshot)?;
        Ok(snapshot)
    }

    /// Checks signature, time and that (epoch, revision) is not below `seen`.
    ///
    /// # Errors
    /// [`SnapshotError`], in the order: signature first, so that nothing unsigned is parsed.
    pub fn verify(
        &self,
        key: &VerifyingKey,
        now: u64,
        seen: (u64, u64),
    ) -> Result<VerifiedSnapshot, SnapshotError> {
        const SKEW: u64 = 60;
        if self.bytes.len() > MAX_BYTES {
            return Err(SnapshotError::TooLarge(self.bytes.len()));
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(SnapshotError::Signature);
        }
        key.verify(&Self::message(&self.bytes), &self.signature.0).map_err(|_| SnapshotError::Signature)?;
        let snapshot = Self::parse_unverified(&self.bytes)?;
        if now >= snapshot.expires_at {
            return Err(SnapshotError::Expired { expired_at: snapshot.expires_at, now });
        }
        if snapshot.issued_at > now + SKEW {
            return Err(SnapshotError::Future { issued_at: snapshot.issued_at, now });
        }
        if (snapshot.epoch, snapshot.revision) < seen {
            return Err(SnapshotError::Rollback {
                epoch: snapshot.epoch,
                offered: snapshot.revision,
                seen: seen.1,
            });
        }
        Ok(VerifiedSnapshot(Arc::new(snapshot)))
    }
}

impl Deref for VerifiedSnapshot {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// What lookups rely on.
fn consistent(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let services = &snapshot.services;
    if !services.windows(2).all(|pair| pair[0].name < pair[1].name) {
        return Err(SnapshotError::Inconsistent("services are not in order of name, or one is there twice"));
    }
    let mut addresses: Vec<u16> = services.iter().map(|s| s.address).collect();
    addresses.sort_unstable();
    if addresses.first() == Some(&0) || addresses.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(SnapshotError::Inconsistent("two services share an address"));
    }
    if services.iter().flat_map(|s| &s.calls).any(|call| snapshot.service(&call.service).is_none()) {
        return Err(SnapshotError::Inconsistent("an edge leads to a service that does not exist"));
    }
    let placed = services.iter().flat_map(|s| &s.at).chain(snapshot.gateway.iter().flat_map(|g| &g.at));
    if snapshot.hosts.len() > ringfence_model::MAX_HOSTS
        || !placed.clone().all(|name| snapshot.host(name).is_some())
    {
        return Err(SnapshotError::Inconsistent("something runs on a host that does not exist"));
    }
    if snapshot.policies.as_ref().is_some_and(|policies| !policies.fits()) {
        return Err(SnapshotError::Inconsistent("it has more policies and entity data than it may carry"));
    }
    if !crate::content::are_sound(&snapshot.content) {
        return Err(SnapshotError::Inconsistent(
            "it names files that are out of order, too large, or elsewhere",
        ));
    }
    // What is not there would not be looked for.
    let described = snapshot.services.iter().filter_map(|service| service.openapi.as_ref());
    let rules = snapshot.waf.as_ref().and_then(|waf| waf.crs.as_deref());
    let names = || snapshot.content.iter().map(|content| content.name.as_str());
    if described.clone().any(|openapi| snapshot.content(&openapi.file).is_none())
        || rules.is_some_and(|folder| ringfence_model::content::crs_rules(folder, names()).rules.is_empty())
    {
        return Err(SnapshotError::Inconsistent("rules or a description of an API are not among its files"));
    }
    let open = |s: &crate::Service| s.access.is_open() && s.routes.iter().all(|r| r.access.is_open());
    if !services.iter().all(|s| s.protocol != Protocol::Tcp || open(s)) {
        return Err(SnapshotError::Inconsistent(
            "a tcp service demands credentials, which tcp does not carry",
        ));
    }
    let few = |len: usize| len <= MAX_AUTHORITIES;
    let authorities = &snapshot.authorities;
    if !few(authorities.len()) || !authorities.iter().all(|a| few(a.roots.len()) && !a.roots.is_empty()) {
        return Err(SnapshotError::Inconsistent("it has too many authorities, or one without certificates"));
    }
    // Who is accepted and unknown would be nobody, but what is demanded of nobody might be forgotten.
    let known = |credential: &Credential| match credential {
        Credential::Login(name) => snapshot.provider(name).is_some_and(|p| p.login.is_some()),
        Credential::Token(name) => snapshot.provider(name).is_some(),
        Credential::ApiKey => true,
        Credential::Certificate(file) => snapshot.authority(file).is_some(),
    };
    if !snapshot.access().flat_map(|access| &access.accept).all(|accepted| known(&accepted.credential)) {
        return Err(SnapshotError::Inconsistent(
            "somebody is accepted whose provider or authority does not exist",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_keys::SigningKey;
    use ringfence_model::Fence;

    use super::*;
    use crate::{Addresses, Bundle, Content, Header, compile};

    const CLINIC: &str = "
fence: clinic
trust_domain: clinic.example
services:
  portal: { run: [portal], listen: 9000, calls: [patients] }
  patients: { run: [patients], listen: 9001, egress: [{ host: smtp.example.net, port: 587 }] }
";

    fn snapshot(revision: u64) -> Snapshot {
        let fence = Fence::parse(vec![("ringfence.yaml", CLINIC)]).unwrap();
        let header = Header {
            epoch: 1,
            revision,
            issued_at: 1000,
            expires_at: 2000,
            lease: 60,
            bundle: Bundle::default(),
        };
        compile(&fence, &mut Addresses::default(), header).unwrap()
    }

    fn sign(key: &SigningKey, snapshot: &Snapshot) -> SignedSnapshot {
        let bytes = serde_json::to_string(snapshot).unwrap();
        let signature = key.sign(&SignedSnapshot::message(&bytes)).unwrap().into();
        SignedSnapshot { bytes, signature }
    }

    #[test]
    fn what_the_keeper_signed_is_enforced_and_knows_its_edges() {
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let verified = sign(&key, &snapshot(7)).verify(key.verifying_key(), 1500, (1, 7)).unwrap();
        assert_eq!(*verified, snapshot(7));
        assert!(verified.edge("portal", "patients").is_some());
        assert!(verified.edge("patients", "portal").is_none());
        assert_eq!(verified.service("patients").unwrap().egress[0].address, 1);
    }

    #[test]
    fn replayed_expired_early_altered_and_foreign_snapshots_are_refused() {
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let signed = sign(&key, &snapshot(7));
        let verify =
            |signed: &SignedSnapshot, now, seen| signed.verify(key.verifying_key(), now, seen).map(drop);
        assert!(matches!(verify(&signed, 1500, (1, 8)), Err(SnapshotError::Rollback { seen: 8, .. })));
        assert!(matches!(verify(&signed, 1500, (2, 0)), Err(SnapshotError::Rollback { .. })));
        assert!(matches!(verify(&signed, 2000, (1, 0)), Err(SnapshotError::Expired { .. })));
        assert!(matches!(verify(&signed, 900, (1, 0)), Err(SnapshotError::Future { .. })));
        let mut altered = signed.clone();
        altered.bytes = altered.bytes.replace("9001", "9009");
        assert!(matches!(verify(&altered, 1500, (1, 0)), Err(SnapshotError::Signature)));
        let other = SigningKey::generate(Algorithm::Ed25519).unwrap();
        assert!(matches!(verify(&sign(&other, &snapshot(7)), 1500, (1, 0)), Err(SnapshotError::Signature)));
        let p256 = SigningKey::generate(Algorithm::P256).unwrap();
        assert!(sign(&p256, &snapshot(7)).verify(p256.verifying_key(), 1500, (1, 0)).is_err());
    }

    #[test]
    fn a_signed_snapshot_that_contradicts_itself_is_refused() {
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let changes: [fn(&mut Snapshot); 4] = [
            |s| s.services.reverse(),
            |s| s.services[1].address = s.services[0].address,
            |s| s.services[0].address = 0,
            |s| drop(s.services.remove(0)),
        ];
        for change in changes {
            let mut snapshot = snapshot(7);
            change(&mut snapshot);
            let result = sign(&key, &snapshot).verify(key.verifying_key(), 1500, (1, 0));
            assert!(matches!(result, Err(SnapshotError::Inconsistent(_))));
        }
    }

    #[test]
    fn a_snapshot_names_the_files_that_it_needs_or_is_refused() {
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let text = format!("{CLINIC}waf: {{ crs: crs }}\n")
            .replace("listen: 9001,", "listen: 9001, openapi: a.yaml,");
        let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        let header = Header {
            epoch: 1,
            revision: 7,
            issued_at: 1000,
            expires_at: 2000,
            lease: 60,
            bundle: Bundle::default(),
        };
        let snapshot = compile(&fence, &mut Addresses::default(), header).unwrap();
        let verify = |names: &[&str]| {
            let content = names.iter().map(|name| Content::of(*name, b"x")).collect();
            let snapshot = Snapshot { content, ..snapshot.clone() };
            sign(&key, &snapshot).verify(key.verifying_key(), 1500, (1, 0))
        };
        let verified = verify(&["a.yaml", "crs/rules/a.conf"]).unwrap();
        assert_eq!(verified.content("a.yaml").unwrap().sha256, crate::Digest::of(b"x"));
        assert_eq!(verified.to_fence().waf, fence.waf);
        for names in [
            &["a.yaml"][..],
            &["crs/rules/a.conf"],
            &["a.yaml", "crs/rules/a.data"],
            &["crs/rules/a.conf", "a.yaml"],
        ] {
            assert!(matches!(verify(names), Err(SnapshotError::Inconsistent(_))), "{names:?}");
        }
    }

    #[test]
    fn an_address_once_given_is_never_given_to_another_name() {
        let mut addresses = Addresses::default();
        let fence = |text: &str| Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        assert!(addresses.assign(&fence(CLINIC)));
        let before = addresses.clone();
        assert!(addresses.assign(&fence(&CLINIC.replace("portal", "entry"))));
        assert_eq!(addresses.service("patients"), before.service("patients"));
        assert_eq!(addresses.service("portal"), before.service("portal"), "kept for its return");
        assert!(
            ![before.service("portal"), before.service("patients")].contains(&addresses.service("entry"))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_snapshot(text in ".*") {
            prop_assert!(SignedSnapshot::parse_unverified(&text).is_err());
        }
    }
}
