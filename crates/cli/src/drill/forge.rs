//! Certificates that are not what they say: signed by an authority of our own.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use ringfence_tls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Unable;

/// A certificate chain with its key.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A perfect SVID but for one thing: nobody trusts the root that signed it, though it bears the trust domain's name.
pub(crate) fn svid(trust_domain: &str, service: &str) -> Result<Shown, Unable> {
    make(trust_domain, service).map_err(|e| Unable::new(format!("cannot forge a certificate: {e}")))
}

fn make(trust_domain: &str, service: &str) -> Result<Shown, rcgen::Error> {
    let uri = |path: &str| -> Result<SanType, rcgen::Error> {
        Ok(SanType::URI(format!("spiffe://{trust_domain}{path}").as_str().try_into()?))
    };
    let key = KeyPair::generate()?;
    let mut root = CertificateParams::default();
    root.distinguished_name = name("Ringfence root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    root.subject_alt_names = vec![uri("")?];
    let root_der = root.self_signed(&key)?.der().clone();
    let issuer = Issuer::new(root, key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = name(service);
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.subject_alt_names = vec![uri(&format!("/service/{service}"))?];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    leaf.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    let leaf = leaf.signed_by(&key, &issuer)?.der().clone();
    Ok((vec![leaf, root_der], PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Ringfence");
    name.push(DnType::CommonName, common);
    name
}
