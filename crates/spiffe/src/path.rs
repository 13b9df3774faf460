//! Path validation: webpki builds and checks signatures, validity, path length and name constraints; each path
//! that it finds is then held to our profile, and the next one is tried if it fails.
//!
//! Used with the SVID rules by `svid`, and with the rules of public servers wherever a peer is known by a DNS
//! name or an address (gateways, egress).

use std::cell::Cell;

use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};

use crate::certificate::Certificate;
use crate::der::DerError;
use crate::general_name::GeneralName;
pub use crate::profile::Violation;
use crate::profile::{self, Position};
pub use crate::revocation::RevocationList;
use crate::signature_algorithms;

/// Most certificates that a peer may present.
pub const MAX_PRESENTED: usize = 16;
/// Most intermediates between leaf and root, self-issued ones not counted.
pub const MAX_INTERMEDIATES: usize = 6;

/// What a peer wants to be accepted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// The peer opened the connection.
    Client,
    /// The peer accepted it.
    Server,
}

impl Usage {
    pub(crate) fn key_usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

/// Why a chain was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing was presented.
    #[error("the peer presented no certificate")]
    Empty,
    /// More than [`MAX_PRESENTED`] certificates.
    #[error("the peer presented more than {MAX_PRESENTED} certificates")]
    TooMany,
    /// The leaf is not a certificate.
    #[error("the certificate is malformed: {0}")]
    Malformed(#[from] DerError),
    /// The leaf breaks a rule, or a path does and there is no other.
    #[error("a certificate of the path is not acceptable: {0}")]
    Violation(#[from] Violation),
    /// webpki found no path.
    #[error("no path leads from the certificate to a trusted root: {0}")]
    Path(webpki::Error),
    /// The names of the certificate do not include the one expected.
    #[error("the certificate is for other names than the one dialled")]
    Name,
}

/// Trusted roots, examined once.
#[derive(Debug, Default)]
pub struct Anchors {
    trust: Vec<TrustAnchor<'static>>,
    facts: Vec<AnchorFacts>,
}

/// What is checked of a root besides its name and key.
#[derive(Debug, Clone, Copy)]
struct AnchorFacts {
    not_before: i64,
    not_after: i64,
    may_sign_crls: bool,
    path_len: Option<u8>,
    violation: Option<Violation>,
}

impl Anchors {
    /// Examines roots with `extra` rules besides those of RFC 5280. Each comes back as an error of its own if it
    /// cannot be read at all; one that breaks a rule is kept, so that a path to it can say which.
    pub(crate) fn new<'a>(
        roots: impl IntoIterator<Item = &'a CertificateDer<'a>>,
        extra: impl Fn(&Certificate<'_>) -> Result<(), Violation>,
    ) -> (Self, Vec<PathError>) {
        let mut anchors = Self::default();
        let mut unusable = Vec::new();
        for der in roots {
            if let Err(error) = anchors.push(der, &extra) {
                unusable.push(error);
            }
        }
        (anchors, unusable)
    }

    fn push(
        &mut self,
        der: &CertificateDer<'_>,
        extra: &impl Fn(&Certificate<'_>) -> Result<(), Violation>,
    ) -> Result<(), PathError> {
        let cert = Certificate::parse(der)?;
        let trust = anchor_from_trusted_cert(der).map_err(PathError::Path)?.to_owned();
        let violation = profile::check(&cert, Position::Anchor).and_then(|()| extra(&cert)).err();
        self.trust.push(trust);
        self.facts.push(AnchorFacts {
            not_before: cert.not_before,
            not_after: cert.not_after,
            may_sign_crls: cert.extensions.key_usage.is_none_or(|usage| usage.value.crl_sign()),
            path_len: cert.extensions.basic_constraints.and_then(|constraints| constraints.path_len),
            violation,
        });
        Ok(())
    }

    /// Roots for servers that are known by a DNS name or an address. Those that cannot be read are left out, with
    /// the reasons.
    pub fn for_servers<'a>(
        roots: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> (Self, Vec<PathError>) {
        Self::new(roots, |cert| profile::check_server(cert, Position::Anchor))
    }

    /// How many roots there are.
    pub fn len(&self) -> usize {
        self.trust.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.trust.is_empty()
    }

    /// The first rule that a root breaks.
    pub(crate) fn first_violation(&self) -> Option<Violation> {
        self.facts.iter().find_map(|facts| facts.violation)
    }

    /// Those roots that break no rule.
    pub fn usable(&self) -> usize {
        self.facts.iter().filter(|facts| facts.violation.is_none()).count()
    }

    fn facts(&self, anchor: &TrustAnchor<'_>) -> Option<AnchorFacts> {
        // webpki hands back a reference into our own slice.
        self.trust.iter().position(|own| std::ptr::eq(own, anchor)).map(|i| self.facts[i])
    }
}

/// How a path is to be validated.
#[derive(Debug)]
pub struct PathOptions<'a> {
    /// The trusted roots.
    pub anchors: &'a Anchors,
    /// Revocation lists; with none, revocation is not checked.
    pub crls: &'a [RevocationList],
    /// Most intermediates, self-issued ones not counted.
    pub max_intermediates: usize,
    /// Whether a wildcard may stand over a suffix under which a provider gives out names to anybody, such as those of
    /// object stores. One over a registry's suffix (`*.co.uk`) never matches.
    pub shared_suffix_wildcards: bool,
    /// The time to validate for.
    pub now: UnixTime,
    /// What the peer wants to be accepted as.
    pub usage: Usage,
}

impl<'a> PathOptions<'a> {
    /// For a server at this time, without revocation lists.
    pub fn server(anchors: &'a Anchors, now: UnixTime) -> Self {
        Self {
            anchors,
            crls: &[],
            max_intermediates: MAX_INTERMEDIATES,
            shared_suffix_wildcards: false,
            now,
            usage: Usage::Server,
        }
    }
}

/// Accepts the chain of a server (leaf first) that is known by a DNS name or an address.
pub fn verify_server_name(
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    options: &PathOptions<'_>,
) -> Result<(), PathError> {
    let leaf_der = chain.first().ok_or(PathError::Empty)?;
    let leaf = Certificate::parse(leaf_der)?;
    verify_chain(chain, &leaf, options)?;
    let end_entity = EndEntityCert::try_from(leaf_der).map_err(PathError::Path)?;
    end_entity.verify_is_valid_for_subject_name(name).map_err(|_| PathError::Name)?;
    check_wildcard(&leaf, name, options.shared_suffix_wildcards)
}

/// Accepts a chain (leaf first) under the rules of public servers, whatever its names are.
pub fn verify_any_name(chain: &[CertificateDer<'_>], options: &PathOptions<'_>) -> Result<(), PathError> {
    let leaf = Certificate::parse(chain.first().ok_or(PathError::Empty)?)?;
    verify_chain(chain, &leaf, options)
}

fn verify_chain(
    chain: &[CertificateDer<'_>],
    leaf: &Certificate<'_>,
    options: &PathOptions<'_>,
) -> Result<(), PathError> {
    profile::check(leaf, Position::Leaf)?;
    profile::check_server(leaf, Position::Leaf)?;
    find_path(chain, options, |cert| profile::check_server(cert, Position::Intermediate)).map(|_| ())
}

/// A name that matches only `*.SUFFIX` with a public suffix is nobody's name.
fn check_wildcard(leaf: &Certificate<'_>, name: &ServerName<'_>, shared: bool) -> Result<(), PathError> {
    let (ServerName::DnsName(name), Some(names)) = (name, &leaf.extensions.subject_alt_name) else {
        return Ok(());
    };
    let name = name.as_ref();
    let is_name = |presented| matches!(presented, GeneralName::Dns(dns) if dns.eq_ignore_ascii_case(name));
    let parent_is_suffix = || name.split_once('.').is_none_or(|(_, parent)| is_public_suffix(parent, shared));
    if !names.value.iter().any(is_name) && parent_is_suffix() {
        return Err(Violation::PublicSuffixWildcard.into());
    }
    Ok(())
}

/// Whether anybody can have a name directly below this one. Top-level domains that nobody has registered, such as
/// those of private networks, count as suffixes too.
fn is_public_suffix(name: &str, shared_allowed: bool) -> bool {
    let name = name.to_ascii_lowercase();
    match psl::suffix(name.as_bytes()) {
        Some(suffix) if suffix.as_bytes() == name.as_bytes() => {
            !(shared_allowed && suffix.typ() == Some(psl::Type::Private))
        }
        _ => false,
    }
}

/// Builds a path that also satisfies our profile with `extra` rules for intermediates. The leaf's own rules are
/// the caller's. Returns the earliest end of validity along the path.
pub(crate) fn find_path(
    chain: &[CertificateDer<'_>],
    options: &PathOptions<'_>,
    extra: impl Fn(&Certificate<'_>) -> Result<(), Violation>,
) -> Result<i64, PathError> {
    let (leaf, intermediates) = chain.split_first().ok_or(PathError::Empty)?;
    if chain.len() > MAX_PRESENTED {
        return Err(PathError::TooMany);
    }
    let now = i64::try_from(options.now.as_secs()).unwrap_or(i64::MAX);
    let first_violation: Cell<Option<Violation>> = Cell::new(None);
    let earliest_end = Cell::new(i64::MAX);
    let judge = |path: &VerifiedPath<'_>| {
        let verdict = check_path(path, options, now, &extra);
        match verdict {
            Ok(end) => {
                earliest_end.set(end);
                Ok(())
            }
            Err(violation) => {
                first_violation.set(first_violation.get().or(Some(violation)));
                Err(webpki::Error::UnknownIssuer)
            }
        }
    };
    let end_entity = EndEntityCert::try_from(leaf).map_err(PathError::Path)?;
    let crls: Vec<_> = options.crls.iter().map(RevocationList::as_webpki).collect();
    let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|builder| {
        builder
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let found = end_entity.verify_for_usage(
        signature_algorithms(),
        &options.anchors.trust,
        intermediates,
        options.now,
        options.usage.key_usage(),
        revocation,
        Some(&judge),
    );
    match (found, first_violation.get()) {
        (Ok(_), _) => Ok(earliest_end.get()),
        (Err(_), Some(violation)) => Err(violation.into()),
        (Err(error), None) => Err(PathError::Path(error)),
    }
}

fn check_path(
    path: &VerifiedPath<'_>,
    options: &PathOptions<'_>,
    now: i64,
    extra: &impl Fn(&Certificate<'_>) -> Result<(), Violation>,
) -> Result<i64, Violation> {
    // webpki took these fields from the same bytes, so a parse error here means that ours is the stricter parser.
    let unreadable = |_| Violation::Malformed;
    let leaf_der = path.end_entity().der();
    let mut earliest_end = Certificate::parse(&leaf_der).map_err(unreadable)?.not_after;
    let mut counted = 0;
    for intermediate in path.intermediate_certificates() {
        let der = intermediate.der();
        let cert = Certificate::parse(&der).map_err(unreadable)?;
        profile::check(&cert, Position::Intermediate)?;
        extra(&cert)?;
        counted += usize::from(!cert.is_self_issued());
        earliest_end = earliest_end.min(cert.not_after);
    }
    let facts = options.anchors.facts(path.anchor()).ok_or(Violation::NotSigningCertificate)?;
    // webpki knows no pathLenConstraint of roots.
    if counted > options.max_intermediates || facts.path_len.is_some_and(|most| counted > usize::from(most)) {
        return Err(Violation::PathTooLong);
    }
    if let Some(violation) = facts.violation {
        return Err(violation);
    }
    // webpki checks this of intermediates, but knows no key usage of roots.
    if !facts.may_sign_crls && options.crls.iter().any(|crl| crl.is_by(path.anchor())) {
        return Err(Violation::CrlSignMissing);
    }
    if now < facts.not_before {
        return Err(Violation::NotValidYet);
    }
    if now > facts.not_after {
        return Err(Violation::Expired);
    }
    Ok(earliest_end.min(facts.not_after))
}
