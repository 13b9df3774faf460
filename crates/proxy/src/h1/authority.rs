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

/// 1: a byte of host names, 2: a dot.
const HOST_BYTE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_') {
            table[byte] = 1;
        }
        byte += 1;
    }
    table[b'.' as usize] = 2;
    table
};

/// Checks that `raw` is a host with an optional port and nothing else: no user, no percent-encoding, no list.
/// Narrower than RFC 3986, whose other forms no router agrees on. Returns the length of the host and the port.
pub(crate) fn check_authority(raw: &[u8]) -> Result<(usize, Option<u16>), Refusal> {
    let host_len = if raw.first() == Some(&b'[') { bracketed(raw)? } else { name(raw)? };
    if host_len == 0 || host_len > 255 {
        return Err(Refusal::HostInvalid);
    }
    match &raw[host_len..] {
        [] => Ok((host_len, None)),
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) => {
            let mut port = 0;
            for byte in digits {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    return Err(Refusal::HostInvalid);
                }
                port = port * 10 + u32::from(digit);
            }
            let port = u16::try_from(port).map_err(|_| Refusal::HostInvalid)?;
            Ok((host_len, Some(port)))
        }
        _ => Err(Refusal::HostInvalid),
    }
}

/// Length of the name at the start: labels without an empty one, except for the root's after the last dot.
fn name(raw: &[u8]) -> Result<usize, Refusal> {
    let mut before = 2;
    for (at, byte) in raw.iter().enumerate() {
        let class = HOST_BYTE[usize::from(*byte)];
        if class == 0 {
            return Ok(at);
        }
        if class & before == 2 {
            return Err(Refusal::HostInvalid);
        }
        before = class;
    }
    Ok(raw.len())
}

fn bracketed(raw: &[u8]) -> Result<usize, Refusal> {
    let end = memchr::memchr(b']', raw).ok_or(Refusal::HostInvalid)?;
    let address = std::str::from_utf8(&raw[1..end]).map_err(|_| Refusal::HostInvalid)?;
    address.parse::<std::net::Ipv6Addr>().map_err(|_| Refusal::HostInvalid)?;
    Ok(end + 1)
}

impl<'a> Authority<'a> {
    /// Checks and splits an authority.
    ///
    /// # Errors
    /// [`Refusal::HostInvalid`]
    pub fn parse(raw: &'a str) -> Result<Self, Refusal> {
        check_authority(raw.as_bytes()).map(|(host_len, port)| Self { host: &raw[..host_len], port })
    }
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
            assert_eq!(Authority::parse(raw), Ok(Authority { host, port }), "{raw}");
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
            assert_eq!(Authority::parse(raw), Err(Refusal::HostInvalid), "{raw}");
        }
    }
}
