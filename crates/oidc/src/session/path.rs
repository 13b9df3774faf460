//! Where a browser goes after login or logout. A place that the caller names is the caller's to abuse: only paths of the same
//! host are taken, and of these only what every browser reads as one.

/// Longest path.
const MAX: usize = 1024;

/// A path and query on the host that was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPath(String);

impl ReturnPath {
    /// Takes a path of this host; `None` for whatever could lead elsewhere: other schemes and hosts, two slashes at the start,
    /// backslashes (which browsers read as slashes), characters that they drop, fragments.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let second = text.strip_prefix('/')?;
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>');
        let good = text.len() <= MAX && !second.starts_with('/') && text.bytes().all(plain);
        good.then(|| Self(text.to_owned()))
    }

    /// The host's front page.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// For a `Location` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn no_other_host_is_reached() {
        for good in ["/", "/records?id=3&x=%2F%2Fevil", "/a//b", "/./x", "/@evil.example", "/.//evil.example"]
        {
            assert!(ReturnPath::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "records",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\nSet-Cookie: a=b",
            " /x",
            "https://evil.example/",
            "javascript:alert(1)",
            "/a#b",
            "/\u{fffd}",
            &format!("/{}", "a".repeat(1024)),
        ] {
            assert!(ReturnPath::new(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_stays_on_the_host_for_a_browser(text in "[/\\\\:@.?#%a-c\t\n ]{0,12}|/[ -~]{0,20}|.*") {
            let base = Url::parse("https://portal.clinic.example/deep/page?x=1").unwrap();
            if let Some(path) = ReturnPath::new(&text) {
                let url = base.join(path.as_str()).unwrap();
                prop_assert_eq!(url.origin(), base.origin());
                prop_assert!(url.username().is_empty() && url.fragment().is_none());
            }
        }
    }
}
