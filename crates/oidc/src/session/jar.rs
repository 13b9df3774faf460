//! `Cookie` headers: finding ours, and hiding them from services.

/// What the names of all our cookies start with. `__Host-` makes browsers refuse them without `Secure`, with a `Domain`, and from
/// a neighbouring host name.
pub(crate) const PREFIX: &str = "__Host-ringfence-";

/// The value of the one cookie with this name. Two of them are none: a browser keeps one, so somebody else wrote the header.
pub(crate) fn find<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &str) -> Option<&'a str> {
    let mut values = headers
        .into_iter()
        .flat_map(pairs)
        .filter(|(found, _)| *found == name.as_bytes())
        .map(|(_, value)| value);
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// A `Cookie` header without our cookies, which no service has a use for and none should hold; `None` if nothing is left.
#[must_use]
pub fn without_ours(header: &[u8]) -> Option<Vec<u8>> {
    let mut rest = Vec::with_capacity(header.len());
    for part in header.split(|b| *b == b';') {
        let part = part.trim_ascii();
        // Servers differ in how they trim names and in whether case counts; what could be read as ours goes.
        let ours = part.get(..PREFIX.len()).is_some_and(|s| s.eq_ignore_ascii_case(PREFIX.as_bytes()));
        if part.is_empty() || ours {
            continue;
        }
        if !rest.is_empty() {
            rest.extend(b"; ");
        }
        rest.extend(part);
    }
    (!rest.is_empty()).then_some(rest)
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
        let header = b"a=b;  __Host-ringfence-staff=x=y ; c=d; __host-RINGFENCE-login-1=z".as_slice();
        assert_eq!(find([header], "__Host-ringfence-staff"), Some("x=y"));
        assert_eq!(find([header], "a"), Some("b"));
        assert_eq!(find([header, b"a=c"], "a"), None, "two are none");
        assert_eq!(find([b"a".as_slice()], "a"), None);
        assert_eq!(without_ours(header), Some(b"a=b; c=d".to_vec()));
        assert_eq!(without_ours(b"__Host-ringfence-staff=x"), None);
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
            prop_assert!(find([left.as_slice()], "__Host-ringfence-staff").is_none());
        }
    }
}
