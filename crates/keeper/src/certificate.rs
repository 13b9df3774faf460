//! Certificates: what each kind carries, and nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ringfence_keys::{Algorithm, KeyError, SigningKey, VerifyingKey, digest};
use time::OffsetDateTime;

/// Certificates begin this much before they are made, for clocks that lag.
pub(crate) const BACKDATE: u64 = crate::protocol::SVID_BACKDATE;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("certificate: {0}")]
    Encoding(#[from] rcgen::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("a time is out of range")]
    Time,
}

/// A signing key as the certificate writer sees it.
pub(crate) struct Signer(pub(crate) SigningKey);

struct Public<'a>(&'a VerifyingKey);

/// Validity in Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// From a little before `now` for `life` seconds, but not past `end`.
    pub(crate) fn starting(now: u64, life: u64, end: u64) -> Self {
        Self { not_before: now.saturating_sub(BACKDATE), not_after: now.saturating_add(life).min(end) }
    }
}

impl PublicKeyData for Public<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        algorithm(self.0)
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.verifying_key().raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        algorithm(self.0.verifying_key())
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign_x509(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

fn algorithm(key: &VerifyingKey) -> &'static SignatureAlgorithm {
    match key.algorithm() {
        Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
        _ => &rcgen::PKCS_ECDSA_P256_SHA256,
    }
}

/// The key identifier (RFC 7093, method 1).
pub(crate) fn key_id(key: &VerifyingKey) -> Vec<u8> {
    digest::sha256(key.raw())[..20].to_vec()
}

/// A CA that signs.
pub(crate) type Ca = Issuer<'static, Signer>;

/// The parameters of a CA, from which it can be rebuilt at each start.
pub(crate) fn ca_params(
    name: &str,
    trust_domain_uri: Option<&str>,
    path_length: u8,
    key: &VerifyingKey,
    validity: Validity,
) -> Result<CertificateParams, CertificateError> {
    let mut params = base(name, key, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(uri) = trust_domain_uri {
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    }
    Ok(params)
}

/// What an X.509-SVID carries: one URI, digital signature, both ends of TLS.
pub(crate) fn svid(
    ca: &Ca,
    id: &str,
    name: &str,
    key: &VerifyingKey,
    validity: Validity,
) -> Result<(Vec<u8>, String), CertificateError> {
    let mut params = leaf(name, key, validity)?;
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    sign(ca, params, key)
}

/// What a certificate of the gateway carries: its hosts, digital signature, the server's end of TLS.
pub(crate) fn serving(
    ca: &Ca,
    hosts: &[String],
    key: &VerifyingKey,
    validity: Validity,
) -> Result<(Vec<u8>, String), CertificateError> {
    let mut params = leaf("", key, validity)?;
    // A common name beside DNS names must be one of them, or strict clients refuse the certificate.
    params.distinguished_name.remove(DnType::CommonName);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    sign(ca, params, key)
}

/// A CA's certificate, self-signed.
pub(crate) fn self_signed(params: &CertificateParams, signer: &Signer) -> Result<Vec<u8>, CertificateError> {
    let mut params = params.clone();
    params.serial_number = Some(serial());
    Ok(params.self_signed(signer)?.der().to_vec())
}

/// A CA's certificate, signed by another.
pub(crate) fn subordinate(
    ca: &Ca,
    params: &CertificateParams,
    key: &VerifyingKey,
) -> Result<Vec<u8>, CertificateError> {
    Ok(sign(ca, params.clone(), key)?.0)
}

fn sign(
    ca: &Ca,
    mut params: CertificateParams,
    key: &VerifyingKey,
) -> Result<(Vec<u8>, String), CertificateError> {
    let serial = serial();
    let text = ringfence_keys::to_hex(&serial.to_bytes());
    params.serial_number = Some(serial);
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&Public(key), ca)?.der().to_vec(), text))
}

fn leaf(name: &str, key: &VerifyingKey, validity: Validity) -> Result<CertificateParams, CertificateError> {
    let mut params = base(name, key, validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn base(name: &str, key: &VerifyingKey, validity: Validity) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Ringfence");
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id(key));
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    Ok(params)
}

/// 128 random bits, positive and of full length.
fn serial() -> SerialNumber {
    let mut bytes = ringfence_keys::random::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn date(seconds: u64) -> Result<OffsetDateTime, CertificateError> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(CertificateError::Time)
}
