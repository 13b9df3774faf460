//! Addresses of a provider. They come from a document that the provider wrote, so they are read strictly, in one way.

use http::Uri;

/// Longest address.
const MAX: usize = 2048;

/// An absolute `https` address, or `http` where that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    uri: Uri,
    https: bool,
}

/// Why an address is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("it is no absolute address")]
    Malformed,
    #[error(
        "it is not https; a provider without TLS is accepted at a loopback address only, with `allow_private: true`"
    )]
    NotHttps,
}

impl Endpoint {
    /// Reads an address. Whether its host may be called is judged where it is dialled.
    pub(crate) fn new(text: &str, allow_private: bool) -> Result<Self, EndpointError> {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>' | b'`');
        if text.len() > MAX || !text.bytes().all(plain) {
            return Err(EndpointError::Malformed);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::Malformed)?;
        let authority = uri.authority().ok_or(EndpointError::Malformed)?;
        let host = authority.host();
        if authority.as_str().contains('@')
            || host.is_empty()
            || host.len() > 253
            || authority.port_u16() == Some(0)
        {
            return Err(EndpointError::Malformed);
        }
        // `host:` and `host:x` have a colon and no port.
        let bare = authority.as_str().strip_prefix(host).ok_or(EndpointError::Malformed)?;
        if !bare.is_empty() && authority.port_u16().is_none() {
            return Err(EndpointError::Malformed);
        }
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if allow_private => false,
            _ => return Err(EndpointError::NotHttps),
        };
        Ok(Self { uri, https })
    }

    pub(crate) const fn is_https(&self) -> bool {
        self.https
    }

    /// The host as it is resolved: an IPv6 address without its brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.https { 443 } else { 80 })
    }

    /// For the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |a| a.as_str())
    }

    /// For the request line.
    pub(crate) fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |p| p.as_str())
    }

    /// The address with more parameters.
    pub(crate) fn with_query(&self, parameters: &[(&str, &str)]) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let separator = if self.uri.query().is_some() { "&" } else { "?" };
        let query = form(parameters);
        format!("{scheme}://{}{}{separator}{query}", self.authority(), self.path_and_query())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.uri)
    }
}

/// `application/x-www-form-urlencoded`.
pub(crate) fn form(parameters: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if !text.is_empty() {
            text.push('&');
        }
        escape(name, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    text
}

/// Percent-encodes all but the unreserved characters.
pub(crate) fn escape(text: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn only_plain_https_addresses_are_taken() {
        let endpoint = Endpoint::new("https://id.clinic.example/token?x=1", false).unwrap();
        assert_eq!((endpoint.host(), endpoint.port()), ("id.clinic.example", 443));
        assert_eq!(
            endpoint.with_query(&[("a", "b c&d"), ("é", "/")]),
            "https://id.clinic.example/token?x=1&a=b%20c%26d&%C3%A9=%2F"
        );
        let local = Endpoint::new("http://[::1]:8080", true).unwrap();
        assert_eq!((local.host(), local.port(), local.path_and_query()), ("::1", 8080, "/"));
        for bad in [
            "http://id.clinic.example/",
            "ftp://id.clinic.example/",
            "/token",
            "//id.clinic.example/token",
            "https://",
            "https://user@id.clinic.example/",
            "https://id.clinic.example:0/",
            "https://id.clinic.example:/",
            "https://id.clinic.example:99999/",
            "https://id.clinic.example/#f",
            "https://id.clinic.example\\@evil.example/",
            "https://id.clinic.example/ x",
            "https:id.clinic.example",
            "javascript:alert(1)",
            &format!("https://id.clinic.example/{}", "a".repeat(2048)),
        ] {
            assert!(Endpoint::new(bad, false).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn another_reader_sees_the_same_host(text in "https?://[a-z0-9.:@\\[\\]\\\\/?#%-]{0,30}|.*") {
            if let (Ok(endpoint), Ok(url)) = (Endpoint::new(&text, true), Url::parse(&text)) {
                let host = url.host_str().unwrap().trim_matches(['[', ']']);
                // An odd way to write an IPv4 address is a name to one and an address to the other; what it resolves to is judged.
                if host.parse::<std::net::IpAddr>().is_err() {
                    prop_assert_eq!(host.to_ascii_lowercase(), endpoint.host().to_ascii_lowercase());
                }
                prop_assert_eq!(url.port_or_known_default(), Some(endpoint.port()));
            }
        }

        #[test]
        fn what_is_escaped_is_read_by_others(name: String, value: String) {
            let text = Endpoint::new("https://a.example/", false).unwrap().with_query(&[(&name, &value)]);
            let url = Url::parse(&text).unwrap();
            prop_assert_eq!(url.query_pairs().next().unwrap(), (name.into(), value.into()));
        }
    }
}
