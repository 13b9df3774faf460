//! The authority of a request: the one host it is for.

use super::Refusal;

/// A host and port that were checked, borrowed from the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Host name, IPv4 address, or IPv6 address in brackets, as received.
    pub host: &'a str,
    /// Port, where one was given.
    pub port: Option<u16>,
}

const HOST_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

/// Checks that `raw` is a host with an optional port and nothing else: no user, no percent-encoding, no list.
/// Narrower than RFC 3986, whose other forms no router agrees on.
pub(crate) fn check_authority(raw: &[u8]) -> Result<Authority<'_>, Refusal> {
    let text = std::str::from_utf8(raw).map_err(|_| Refusal::HostInvalid)?;
    let (host, rest) = if raw.first() == Some(&b'[') {
        let end = memchr::memchr(b']', raw).ok_or(Refusal::HostInvalid)?;
        text[1..end].parse::<std::net::Ipv6Addr>().map_err(|_| Refusal::HostInvalid)?;
        text.split_at(end + 1)
    } else {
        let end = raw.iter().position(|byte| !HOST_BYTE[usize::from(*byte)]).unwrap_or(raw.len());
        text.split_at(end)
    };
    if host.is_empty() || host.len() > 255 || host.starts_with('.') || host.contains("..") {
        return Err(Refusal::HostInvalid);
    }
    let port = match rest.as_bytes() {
        [] => None,
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            Some(rest[1..].parse().map_err(|_| Refusal::HostInvalid)?)
        }
        _ => return Err(Refusal::HostInvalid),
    };
    Ok(Authority { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for (raw, host, port) in [
            ("a", "a", None),
            ("a.example:80", "a.example", Some(80)),
            ("under_score.example.", "under_score.example.", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[fd52:4600::2]:9000", "[fd52:4600::2]", Some(9000)),
        ] {
            assert_eq!(check_authority(raw.as_bytes()), Ok(Authority { host, port }), "{raw}");
        }
    }

    #[test]
    fn anything_else_is_no_host() {
        for raw in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:65536",
            "a:+80",
            "a:000080",
            "u@a",
            "a/b",
            "a b",
            "a,b",
            "a%41",
            "[::1",
            "[::1]a",
            "[]",
            "[::g]",
            "[fe80::1%25eth0]",
            "a..b",
            ".a",
            "a:80:80",
            "ä",
            "a\\b",
            "a?b",
            "a#b",
            "'a'",
            "a;b",
        ] {
            assert_eq!(check_authority(raw.as_bytes()), Err(Refusal::HostInvalid), "{raw}");
        }
    }
}
