//! One form of an address for each that means the same request (RFC 3986, 6.2.2 and 6.2.3), as far as DPoP compares them.

/// Longest address.
const MAX_ADDRESS: usize = 4096;

/// Scheme, authority and path in their normal form, without query and fragment; `None` for what is no plain http address.
pub(crate) fn normalize(uri: &str) -> Option<String> {
    if uri.len() > MAX_ADDRESS || !uri.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b)) {
        return None;
    }
    let (scheme, rest) = uri.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "https" => "443",
        "http" => "80",
        _ => return None,
    };
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)),
    };
    if !valid || !port.bytes().all(|b| b.is_ascii_digit()) || port.len() > 5 {
        return None;
    }
    let mut normal = format!("{scheme}://{}", host.to_ascii_lowercase());
    let port = port.trim_start_matches('0');
    if !port.is_empty() && port != default {
        normal.push(':');
        normal.push_str(port);
    }
    normal.push_str(&without_dots(&decoded(path)?));
    Some(normal)
}

/// Percent-encoding only where it is needed, in upper case.
fn decoded(path: &str) -> Option<String> {
    let mut normal = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            normal.push(char::from(byte));
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let byte = (digit()? << 4 | digit()?) as u8;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            normal.push(char::from(byte));
        } else {
            normal.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(normal)
}

/// RFC 3986, 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    let mut folder = path.is_empty();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                folder |= last;
            }
            _ => kept.push(segment),
        }
    }
    let slash = if folder { "/" } else { "" };
    kept.into_iter().map(|segment| format!("/{segment}")).collect::<String>() + slash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_mean_the_same_are_the_same_and_others_are_not() {
        let normal = |uri| normalize(uri).unwrap();
        for (uri, expected) in [
            ("https://api.example/a/b", "https://api.example/a/b"),
            ("HTTPS://API.Example:443/a/b?x=1#y", "https://api.example/a/b"),
            ("https://api.example:0443/a/%62", "https://api.example/a/b"),
            ("https://api.example:8443", "https://api.example:8443/"),
            ("https://api.example?x", "https://api.example/"),
            ("http://api.example:80/", "http://api.example/"),
            ("https://api.example/a/../b/./c", "https://api.example/b/c"),
            ("https://api.example/a/%2e%2e/b", "https://api.example/b"),
            ("https://api.example/a/..", "https://api.example/"),
            ("https://api.example/a/.", "https://api.example/a/"),
            ("https://api.example/a%2fb", "https://api.example/a%2Fb"),
            ("https://api.example//a", "https://api.example//a"),
            ("https://[::1]:8443/a", "https://[::1]:8443/a"),
            ("https://api.example/a/", "https://api.example/a/"),
        ] {
            assert_eq!(normal(uri), expected, "{uri}");
        }
        for bad in [
            "",
            "api.example/a",
            "ftp://api.example/",
            "https:///a",
            "https://u@api.example/",
            "https://a:b/",
            "https://a:123456/",
            "https://api.example/%",
            "https://api.example/%zz",
            "https://api.example/ä",
            "https://api.example/a b",
            "https://[::1/",
            "https://[x]/",
            "//api.example/",
            "https://api.example/a\\b",
        ] {
            assert_eq!(normalize(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own(uri in "https?://[a-zA-Z0-9.]{1,8}(:[0-9]{0,5})?(/[a-zA-Z0-9.%/-]{0,24})?([?#][a-z]{0,4})?|.{0,40}") {
            if let Some(normal) = normalize(&uri) {
                prop_assert_eq!(normalize(&normal), Some(normal.clone()));
                let path = normal.splitn(4, '/').nth(3).unwrap_or_default();
                let path = ["/", path, "/"].concat();
                prop_assert!(!path.contains("/../") && !path.contains(['?', '#']));
            }
        }
    }
}
