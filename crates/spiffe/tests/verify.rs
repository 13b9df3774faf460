//! The happy path of SVID verification, and bundles through their document form.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ringfence_spiffe::{
    BundleSet, CertificateDer, JwtAuthority, KeyAlgorithm, LeafKey, Role, SpiffeId, SvidError, TrustBundle,
    TrustDomain, UnixTime, verify_svid,
};

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

const NOW: u64 = 1_790_000_000;

fn root(trust_domain: &TrustDomain) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(trust_domain.id().as_str().try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    (cert.der().clone(), Issuer::new(params, key))
}

fn leaf(id: &SpiffeId, issuer: &Issuer<'static, KeyPair>, key: &LeafKey) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::try_from(key.pkcs8_der().as_slice()).unwrap();
    params.signed_by(&key, issuer).unwrap().der().clone()
}

#[test]
fn a_peer_with_an_svid_of_a_trusted_domain_is_verified() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
        let td = TrustDomain::new("clinic.example").unwrap();
        let (root_der, issuer) = root(&td);
        let id = SpiffeId::service(&td, "billing").unwrap();
        let key = LeafKey::generate(algorithm).unwrap();
        let svid = leaf(&id, &issuer, &key);
        let bundle = TrustBundle::new(td, vec![root_der], vec![], 1, None).unwrap();
        let bundles = BundleSet::new(7, [Arc::new(bundle)]);
        for role in [Role::Client, Role::Server] {
            let peer = verify_svid(std::slice::from_ref(&svid), &bundles, role, at(NOW)).unwrap();
            assert_eq!(peer.id(), &id);
            assert_eq!(peer.bundle_generation(), 7);
            assert_eq!(peer.fingerprint(), &ringfence_spiffe::svid::fingerprint(&svid));
        }
        let error = verify_svid(&[], &bundles, Role::Client, at(NOW)).unwrap_err();
        assert_eq!((error.reason(), error), ("no_certificate", SvidError::Empty));
    }
}

#[test]
fn a_bundle_survives_its_document() {
    let td = TrustDomain::new("clinic.example").unwrap();
    let (root_der, _) = root(&td);
    let key = LeafKey::generate(KeyAlgorithm::P256).unwrap();
    let spki = key.public_key_spki_der();
    let point: [u8; 65] = spki[spki.len() - 65..].try_into().unwrap();
    let jwt = JwtAuthority::new("k1", point).unwrap();
    let bundle = TrustBundle::new(td.clone(), vec![root_der], vec![jwt], 42, Some(300)).unwrap();
    let again = TrustBundle::from_json(td, bundle.to_json().as_bytes()).unwrap();
    assert_eq!(again.x509_authorities(), bundle.x509_authorities());
    assert_eq!(again.jwt_authorities(), bundle.jwt_authorities());
    assert_eq!((again.sequence(), again.refresh_hint()), (42, Some(300)));
}
