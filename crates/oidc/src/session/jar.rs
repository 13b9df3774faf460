//! `Cookie` headers: finding ours, hiding them from services, and keeping services from writing them.

/// What the names of all our cookies start with. `__Host-` makes browsers refuse them without `Secure`, with a `Domain`, and from
/// a neighbouring host name.
pub(crate) const PREFIX: &str = "__Host-ringfence-";
/// The same of sign-ins that are under way. No provider's name has a dot.
pub(crate) const LOGIN_PREFIX: &str = "__Host-ringfence-login.";

/// What a request carries under a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    None,
    One(&'a str),
    /// A browser keeps one, so somebody else wrote the header.
    Several,
}

/// The cookie with this name.
pub(crate) fn find<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &str) -> Found<'a> {
    let mut values = headers
        .into_iter()
        .flat_map(pairs)
        .filter(|(found, _)| *found == name.as_bytes())
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Found::None,
        // What is no text was not written here, and opens to nothing.
        (Some(value), None) => Found::One(std::str::from_utf8(value).unwrap_or_default()),
        (Some(_), Some(_)) => Found::Several,
    }
}

/// The names that begin so and are spelt as we spell them.
pub(crate) fn names<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
    prefix: &str,
) -> impl Iterator<Item = &'a str> {
    let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let named = headers.into_iter().flat_map(pairs).filter_map(|(name, _)| std::str::from_utf8(name).ok());
    named.filter(move |name| name.starts_with(prefix)).filter(plain)
}

/// Whether a part of a `Cookie` header, or a `Set-Cookie` header, could be read as one of ours: clients and servers differ in how they
/// trim names, in whether case counts, and in what they make of a cookie without a name.
#[must_use]
pub fn is_ours(text: &[u8]) -> bool {
    let start = text.iter().position(|b| !b.is_ascii_whitespace() && *b != b'=').unwrap_or(text.len());
    let name = text.get(start..start + PREFIX.len());
    name.is_some_and(|name| name.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

/// A `Cookie` header without our cookies, which no service has a use for and none should hold; `None` if nothing is left.
#[must_use]
pub fn without_ours(header: &[u8]) -> Option<Vec<u8>> {
    let mut rest = Vec::with_capacity(header.len());
    for part in header.split(|b| *b == b';') {
        let part = part.trim_ascii();
        if part.is_empty() || is_ours(part) {
            continue;
        }
        if !rest.is_empty() {
            rest.extend(b"; ");
        }
        rest.extend(part);
    }
    (!rest.is_empty()).then_some(rest)
}

/// What goes on in place of the `Cookie` headers of a request, if they hold any of ours; empty if nothing is left.
#[must_use]
pub fn stripped<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let headers: Vec<&[u8]> = headers.collect();
    let ours = headers.iter().flat_map(|header| header.split(|b| *b == b';')).any(is_ours);
    let rest = || headers.iter().filter_map(|header| without_ours(header)).collect::<Vec<_>>();
    ours.then(|| rest().join(&b"; "[..]))
}

fn pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|b| *b == b';').filter_map(|part| {
        let part = part.trim_ascii();
        let at = part.iter().position(|b| *b == b'=')?;
        Some((&part[..at], &part[at + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ours_is_found_once_and_never_passed_on() {
        let header = b"a=b;  __Host-ringfence-staff=x=y ; c=d; __host-RINGFENCE-login.1=z".as_slice();
        assert_eq!(find([header], "__Host-ringfence-staff"), Found::One("x=y"));
        assert_eq!(find([header], "a"), Found::One("b"));
        assert_eq!(find([header, b"a=c"], "a"), Found::Several);
        assert_eq!(find([b"a".as_slice()], "a"), Found::None);
        assert_eq!(without_ours(header), Some(b"a=b; c=d".to_vec()));
        assert_eq!(without_ours(b"__Host-ringfence-staff=x"), None);
        assert_eq!(stripped([b"a=b".as_slice(), b"c=d"].into_iter()), None);
        assert_eq!(
            stripped([header, b"=__Host-ringfence-staff=x", b"e=f"].into_iter()),
            Some(b"a=b; c=d; e=f".to_vec())
        );
        assert_eq!(stripped([b"__Host-ringfence-staff=x".as_slice()].into_iter()), Some(Vec::new()));
    }

    #[test]
    fn no_service_can_write_what_a_browser_would_send_back_as_ours() {
        for ours in [
            "__Host-ringfence-staff=x; Path=/; Secure",
            "__host-Ringfence-staff=x",
            " \t__Host-ringfence-staff=x",
            "=__Host-ringfence-staff=x",
            " = __Host-ringfence-staff=x",
        ] {
            assert!(is_ours(ours.as_bytes()), "{ours}");
        }
        for other in ["__Host-session=x", "a=__Host-ringfence-staff", "ringfence-staff=x", "", "="] {
            assert!(!is_ours(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_ours_is_left_and_nothing_else_is_lost(
            parts in prop::collection::vec("(__Host-ringfence-)?[a-z]{1,4}=[!-:<-~]{0,6}", 0..8),
        ) {
            let ours = |part: &&String| part.starts_with(PREFIX);
            let left = without_ours(parts.join(";  ").as_bytes()).unwrap_or_default();
            let expected: Vec<_> = parts.iter().filter(|p| !ours(p)).cloned().collect();
            prop_assert_eq!(String::from_utf8(left).unwrap(), expected.join("; "));
        }

        #[test]
        fn arbitrary_headers_never_panic(header: Vec<u8>) {
            let left = without_ours(&header).unwrap_or_default();
            prop_assert_eq!(find([left.as_slice()], "__Host-ringfence-staff"), Found::None);
            prop_assert_eq!(stripped([left.as_slice()].into_iter()), None);
            let _ = names([header.as_slice()], LOGIN_PREFIX).count();
        }
    }
}
