//! Names: trust domains and SPIFFE IDs, parsed once, then compared and cloned cheaply.
//!
//! The grammar is the one of the SPIFFE-ID standard, sections 2.1 to 2.3, with nothing normalized: two IDs are
//! equal exactly when their bytes are, so no two components can disagree about who somebody is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE ID (SPIFFE-ID, section 2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain name (SPIFFE-ID, section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";
/// Longest DNS label, hence longest service, gateway and node name.
const MAX_NAME_BYTES: usize = 63;

/// Why a text is not a trust domain or a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// No `spiffe://` in front.
    #[error("a SPIFFE ID starts with `spiffe://`, in lower case")]
    Scheme,
    /// Longer than [`MAX_ID_BYTES`].
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
    /// The trust domain is missing.
    #[error("the trust domain is empty: write `spiffe://TRUST_DOMAIN/PATH`")]
    TrustDomainEmpty,
    /// Longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("a trust domain has at most 255 bytes")]
    TrustDomainTooLong,
    /// A character that a trust domain may not hold.
    #[error(
        "a trust domain holds only a-z, 0-9, dot, dash and underscore; no user, port or percent-encoding"
    )]
    TrustDomainCharacter,
    /// A path that ends with a slash.
    #[error("the path of a SPIFFE ID does not end with a slash")]
    TrailingSlash,
    /// `//` in the path.
    #[error("the path of a SPIFFE ID has no empty segment")]
    EmptySegment,
    /// `.` or `..` in the path.
    #[error("the path of a SPIFFE ID has no `.` or `..` segment")]
    DotSegment,
    /// A character that a path segment may not hold.
    #[error(
        "a path segment holds only letters, digits, dot, dash and underscore; no query, fragment or percent-encoding"
    )]
    PathCharacter,
    /// A path where a trust domain alone was expected.
    #[error("only a trust domain is expected here: remove the path")]
    PathNotAllowed,
    /// A service, gateway or node name that is not a DNS label.
    #[error("a name is a DNS label: 1 to 63 of a-z, 0-9 and dash, with no dash at either end")]
    Name,
}

/// The name of a trust domain, such as `clinic.example`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare name (`clinic.example`).
    pub fn new(name: &str) -> Result<Self, IdError> {
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }

    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own ID, `spiffe://NAME`, which its signing certificates carry.
    pub fn id(&self) -> SpiffeId {
        SpiffeId { uri: format!("{SCHEME}{}", self.0).into(), trust_domain: self.clone() }
    }
}

/// What one of our own IDs names. Foreign IDs have no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind<'a> {
    /// `/control/NAME`
    Control(&'a str),
    /// `/gateway/NAME`
    Gateway(&'a str),
    /// `/node/ID`
    Node(&'a str),
    /// `/service/NAME`
    Service(&'a str),
}

/// A SPIFFE ID. Cloning counts references.
#[derive(Clone)]
pub struct SpiffeId {
    uri: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Parses `spiffe://TRUST_DOMAIN/PATH`; the path may be absent.
    pub fn parse(uri: &str) -> Result<Self, IdError> {
        let (trust_domain, _) = split(uri)?;
        Ok(Self { uri: uri.into(), trust_domain: TrustDomain(trust_domain.into()) })
    }

    /// As [`SpiffeId::parse`], sharing the name of a trust domain already held.
    pub(crate) fn parse_in(uri: &str, trust_domain: &TrustDomain) -> Result<Option<Self>, IdError> {
        let (name, _) = split(uri)?;
        Ok((name == trust_domain.as_str())
            .then(|| Self { uri: uri.into(), trust_domain: trust_domain.clone() }))
    }

    /// `spiffe://TRUST_DOMAIN/service/NAME`
    pub fn service(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdError> {
        Self::of_kind(trust_domain, "service", name)
    }

    /// `spiffe://TRUST_DOMAIN/control/NAME`
    pub fn control(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdError> {
        Self::of_kind(trust_domain, "control", name)
    }

    /// `spiffe://TRUST_DOMAIN/gateway/NAME`
    pub fn gateway(trust_domain: &TrustDomain, name: &str) -> Result<Self, IdError> {
        Self::of_kind(trust_domain, "gateway", name)
    }

    /// `spiffe://TRUST_DOMAIN/node/ID`
    pub fn node(trust_domain: &TrustDomain, id: &str) -> Result<Self, IdError> {
        Self::of_kind(trust_domain, "node", id)
    }

    fn of_kind(trust_domain: &TrustDomain, kind: &str, name: &str) -> Result<Self, IdError> {
        if !is_name(name) {
            return Err(IdError::Name);
        }
        Ok(Self {
            uri: format!("{SCHEME}{trust_domain}/{kind}/{name}").into(),
            trust_domain: trust_domain.clone(),
        })
    }

    /// What the ID names by our convention, or `None` for any other path.
    pub fn kind(&self) -> Option<Kind<'_>> {
        let (kind, name) = self.path().strip_prefix('/')?.split_once('/')?;
        if !is_name(name) {
            return None;
        }
        match kind {
            "control" => Some(Kind::Control(name)),
            "gateway" => Some(Kind::Gateway(name)),
            "node" => Some(Kind::Node(name)),
            "service" => Some(Kind::Service(name)),
            _ => None,
        }
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, or an empty text.
    pub fn path(&self) -> &str {
        &self.uri[SCHEME.len() + self.trust_domain.0.len()..]
    }
}

/// The trust domain and the path of a valid SPIFFE ID.
pub(crate) fn split(uri: &str) -> Result<(&str, &str), IdError> {
    if uri.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong);
    }
    let rest = uri.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
    let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    check_trust_domain(trust_domain)?;
    check_path(path)?;
    Ok((trust_domain, path))
}

fn check_trust_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::TrustDomainEmpty);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(IdError::TrustDomainTooLong);
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !name.bytes().all(allowed) {
        return Err(IdError::TrustDomainCharacter);
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() {
        return Ok(());
    }
    if path.ends_with('/') {
        return Err(IdError::TrailingSlash);
    }
    for segment in path[1..].split('/') {
        match segment {
            "" => return Err(IdError::EmptySegment),
            "." | ".." => return Err(IdError::DotSegment),
            _ => {}
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(IdError::PathCharacter);
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri
    }
}

impl Eq for SpiffeId {}

impl std::hash::Hash for SpiffeId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.uri.hash(state);
    }
}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uri.cmp(&other.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::parse(s)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor("a SPIFFE ID", Self::parse))
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::new(s)
    }
}

impl AsRef<str> for TrustDomain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor("a trust domain", Self::new))
    }
}

/// Parses a text without first copying it.
struct TextVisitor<F>(&'static str, F);

impl<T, F: Fn(&str) -> Result<T, IdError>> serde::de::Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_own_ids_name_their_kind() {
        let td = TrustDomain::new("clinic.example").unwrap();
        let id = SpiffeId::service(&td, "billing").unwrap();
        assert_eq!(id.as_str(), "spiffe://clinic.example/service/billing");
        assert_eq!(id.path(), "/service/billing");
        assert_eq!(id.kind(), Some(Kind::Service("billing")));
        assert_eq!(SpiffeId::gateway(&td, "main").unwrap().kind(), Some(Kind::Gateway("main")));
        assert_eq!(SpiffeId::node(&td, "n1").unwrap().kind(), Some(Kind::Node("n1")));
        assert_eq!(SpiffeId::parse("spiffe://clinic.example/service/a/b").unwrap().kind(), None);
        assert_eq!(SpiffeId::parse("spiffe://clinic.example/ns/x/sa/y").unwrap().kind(), None);
        assert_eq!(td.id().path(), "");
        assert_eq!(td.id().kind(), None);
    }

    #[test]
    fn a_name_that_is_not_a_label_makes_no_id() {
        let td = TrustDomain::new("clinic.example").unwrap();
        for name in ["", "-a", "a-", "A", "a.b", "a/b", "a_b", &"a".repeat(64)] {
            assert_eq!(SpiffeId::service(&td, name), Err(IdError::Name), "{name:?}");
        }
    }

    #[test]
    fn serde_reads_and_writes_text() {
        let id: SpiffeId = serde_json::from_str("\"spiffe://a.example/service/b\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"spiffe://a.example/service/b\"");
        assert!(serde_json::from_str::<SpiffeId>("\"https://a.example\"").is_err());
        assert!(serde_json::from_str::<TrustDomain>("\"A\"").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_every_byte(text in "\\PC{0,80}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }

        #[test]
        fn what_the_grammar_makes_is_accepted(
            td in "[a-z0-9._-]{1,60}",
            segments in proptest::collection::vec("[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", 0..6),
        ) {
            let path: String = segments.iter().map(|s| format!("/{s}")).collect();
            let id = SpiffeId::parse(&format!("spiffe://{td}{path}"));
            prop_assert_eq!(id.as_ref().map(SpiffeId::path), Ok(path.as_str()));
        }
    }
}
