//! Clients from outside that show a certificate of an authority that the fence names: who they are, and how long that holds.
//!
//! Their certificates come from authorities of every age, so they are held to RFC 5280 and not to the further rules of public
//! servers: one whose only name is its common name is common there. Revocation lists are not asked.

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::Certificate;
use crate::general_name::GeneralName;
use crate::path::{Anchors, MAX_INTERMEDIATES, PathError, PathOptions, Usage, find_path};
use crate::profile::{self, Position, Violation};

/// Longest name of a client, in bytes.
pub const MAX_NAME: usize = 256;

/// Why a client's certificate counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No path to the authority, or one that breaks a rule.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its key may not be used so.
    #[error(
        "keyUsage of the certificate lacks digitalSignature, with which a client proves that it holds the key"
    )]
    KeyUsage,
    /// It names nobody.
    #[error(
        "the certificate has no URI, DNS or e-mail name, nor one common name, of at most {MAX_NAME} printable characters"
    )]
    Nameless,
}

/// Who issues the certificates of some clients.
#[derive(Debug)]
pub struct ClientAuthority {
    anchors: Anchors,
}

/// A client whose certificate was verified; made only by [`ClientAuthority::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedClient {
    name: String,
    not_after: u64,
}

impl ClientAuthority {
    /// The authority with these certificates. One that cannot be read or breaks a rule is left out, with the reason.
    #[must_use]
    pub fn new<'a>(roots: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> (Self, Vec<PathError>) {
        let (anchors, mut unusable) = Anchors::new(roots, |_| Ok(()));
        unusable.extend(anchors.first_violation().map(PathError::from));
        (Self { anchors }, unusable)
    }

    /// Whether it can vouch for anybody.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.anchors.usable() > 0
    }

    /// Who the holder of a chain (leaf first) is, by this authority's word at `now`. That it holds the key is the handshake's to prove.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<VerifiedClient, ClientError> {
        let leaf = Certificate::parse(chain.first().ok_or(PathError::Empty)?).map_err(PathError::from)?;
        profile::check(&leaf, Position::Leaf).map_err(PathError::from)?;
        if leaf.extensions.key_usage.is_some_and(|usage| !usage.value.digital_signature()) {
            return Err(ClientError::KeyUsage);
        }
        let options = PathOptions {
            anchors: &self.anchors,
            crls: &[],
            max_intermediates: MAX_INTERMEDIATES,
            shared_suffix_wildcards: false,
            now,
            usage: Usage::Client,
        };
        let ends = find_path(chain, &options, |_| Ok::<(), Violation>(()))?;
        let name = name_of(&leaf).ok_or(ClientError::Nameless)?;
        Ok(VerifiedClient { name, not_after: u64::try_from(ends).unwrap_or(0) })
    }
}

impl VerifiedClient {
    /// Its name: the first URI, DNS name or e-mail address that it has, in this order, or else its one common name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last second, since 1970, in which every certificate of its path is valid.
    #[must_use]
    pub fn not_after_unix(&self) -> u64 {
        self.not_after
    }
}

fn name_of(leaf: &Certificate<'_>) -> Option<String> {
    let legible = |name: &&str| {
        (1..=MAX_NAME).contains(&name.len()) && name.trim() == *name && !name.chars().any(char::is_control)
    };
    let names = leaf.extensions.subject_alt_name.map(|names| names.value);
    let first = |pick: for<'n> fn(GeneralName<'n>) -> Option<&'n str>| {
        names.iter().flat_map(|n| n.iter()).find_map(pick)
    };
    let named = first(|name| if let GeneralName::Uri(uri) = name { Some(uri) } else { None })
        .or_else(|| first(|name| if let GeneralName::Dns(dns) = name { Some(dns) } else { None }))
        .or_else(|| first(|name| if let GeneralName::Email(email) = name { Some(email) } else { None }));
    if let Some(name) = named {
        return Some(name).filter(legible).map(ToOwned::to_owned);
    }
    // Which of several is meant nobody can say.
    match leaf.common_names().ok()?[..] {
        [name] => std::str::from_utf8(name).ok().filter(legible).map(ToOwned::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        KeyUsagePurpose, SanType,
    };

    use super::*;

    struct Ca {
        root: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca() -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "partners");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Ca { root: params.self_signed(&key).unwrap().der().clone(), issuer: Issuer::new(params, key) }
    }

    impl Ca {
        fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.is_ca = IsCa::ExplicitNoCa;
            params.distinguished_name.push(DnType::CommonName, "lab-7");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
            params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
            change(&mut params);
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }

        fn judge(&self, leaf: &CertificateDer<'_>) -> Result<VerifiedClient, ClientError> {
            let (authority, unusable) = ClientAuthority::new([&self.root]);
            assert_eq!((authority.is_usable(), unusable), (true, vec![]));
            authority.verify(std::slice::from_ref(leaf), UnixTime::now())
        }

        fn name(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<String, ClientError> {
            self.judge(&self.issue(change)).map(|client| client.name().to_owned())
        }
    }

    #[test]
    fn a_client_is_named_by_its_first_uri_dns_name_or_address_or_its_common_name() {
        let ca = ca();
        let uri = || SanType::URI("urn:lab:7".try_into().unwrap());
        let dns = || SanType::DnsName("lab-7.partner.example".try_into().unwrap());
        let email = || SanType::Rfc822Name("lab-7@partner.example".try_into().unwrap());
        assert_eq!(ca.name(|_| ()).unwrap(), "lab-7");
        assert_eq!(ca.name(|p| p.subject_alt_names = vec![email()]).unwrap(), "lab-7@partner.example");
        assert_eq!(ca.name(|p| p.subject_alt_names = vec![email(), dns()]).unwrap(), "lab-7.partner.example");
        assert_eq!(ca.name(|p| p.subject_alt_names = vec![email(), dns(), uri()]).unwrap(), "urn:lab:7");
        for name in ["", "a\nb", " lab-7", &"x".repeat(MAX_NAME + 1)] {
            let nameless = ca.name(|p| p.distinguished_name.push(DnType::CommonName, name));
            assert_eq!(nameless, Err(ClientError::Nameless), "{name:?}");
        }
        let ends = ca.judge(&ca.issue(|_| ())).unwrap().not_after_unix();
        let now = UnixTime::now().as_secs();
        assert!(ends > now + 3500 && ends <= now + 3600);
    }

    #[test]
    fn a_certificate_that_is_expired_of_a_server_or_of_somebody_else_counts_for_nothing() {
        let (ca, other) = (ca(), ca());
        let path = |result| match result {
            Err(ClientError::Path(error)) => error,
            other => panic!("{other:?}"),
        };
        let expired = ca.name(|p| p.not_after = (SystemTime::now() - Duration::from_secs(5)).into());
        assert!(path(expired).to_string().contains("CertExpired"));
        let early = ca.name(|p| p.not_before = (SystemTime::now() + Duration::from_secs(60)).into());
        assert!(path(early).to_string().contains("CertNotValidYet"));
        let server = ca.name(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert!(path(server).to_string().contains("RequiredEku"));
        path(ca.judge(&other.issue(|_| ())).map(|client| client.name().to_owned()));
        path(ca.judge(&ca.root).map(|client| client.name().to_owned()));
        let ca_as_leaf = ca.name(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(path(ca_as_leaf), PathError::Violation(Violation::LeafIsCa));
        let encrypts = ca.name(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
        assert_eq!(encrypts, Err(ClientError::KeyUsage));
        let (authority, _) = ClientAuthority::new([&ca.root]);
        assert_eq!(authority.verify(&[], UnixTime::now()), Err(PathError::Empty.into()));
        assert!(authority.verify(&[CertificateDer::from(vec![0x30, 0x00])], UnixTime::now()).is_err());
    }

    #[test]
    fn an_authority_that_is_none_says_so() {
        let ca = ca();
        let leaf = ca.issue(|_| ());
        let (authority, unusable) = ClientAuthority::new([&leaf]);
        assert!(!authority.is_usable() && !unusable.is_empty());
        let (authority, unusable) = ClientAuthority::new([&CertificateDer::from(vec![1])]);
        assert!(!authority.is_usable() && unusable.len() == 1);
    }
}
