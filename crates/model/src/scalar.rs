//! The words of the fence that have a grammar of their own: names, hosts, addresses, durations, sizes.
//!
//! Each returns its reason as text, which the decoder puts beside the place.

use std::net::IpAddr;
use std::time::Duration;

use crate::fence::HostPort;

/// Names that mean something else wherever services are named.
pub(crate) const RESERVED: [&str; 3] = ["outside", "gateway", "localhost"];

pub(crate) fn service_name(name: &str) -> Result<(), String> {
    let shaped = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !shaped {
        return Err("a service's name is a DNS label: it begins with a letter, and has only lower-case letters, digits \
                    and hyphens, at most 63"
            .to_owned());
    }
    if RESERVED.contains(&name) {
        return Err(format!("`{name}` has a meaning of its own here, so no service may have that name"));
    }
    Ok(())
}

/// The nearest text that is a service name, for a suggestion.
pub(crate) fn as_service_name(text: &str) -> Option<String> {
    let mapped: String = text
        .chars()
        .take(63)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let name = mapped.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-').to_owned();
    service_name(&name).is_ok().then_some(name)
}

/// A host name: labels of lower-case letters, digits, hyphens and underscores, the last one not a number.
pub(crate) fn dns_name(name: &str) -> Result<(), String> {
    if name.parse::<IpAddr>().is_ok() {
        return Err("an address is not a name".to_owned());
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > 253 || !name.split('.').all(label) || last_is_number {
        return Err(
            "a host name has labels of lower-case letters, digits and hyphens, joined by dots, at most 253 \
                    characters, and does not end in a number"
                .to_owned(),
        );
    }
    Ok(())
}

/// A SPIFFE trust domain that can also be the end of a server name: every service is `NAME.TRUST_DOMAIN` in SNI.
pub(crate) fn trust_domain(name: &str) -> Result<(), String> {
    if name.contains("://") || name.contains('/') {
        return Err("a trust domain is a bare name, without scheme or path".to_owned());
    }
    dns_name(name).map_err(|reason| format!("a trust domain is the end of a server name: {reason}"))?;
    if name.len() > 253 - 64 {
        return Err("a trust domain has at most 189 characters, so that `NAME.TRUST_DOMAIN` is a host name"
            .to_owned());
    }
    Ok(())
}

pub(crate) fn host_port(text: &str) -> Result<HostPort, String> {
    let shape = || "an address is `HOST:PORT`, an IPv6 host in brackets".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
    let port = port_number(port)?;
    let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
        Some(Some(inner)) if matches!(inner.parse(), Ok(IpAddr::V6(_))) => inner,
        Some(_) => return Err(shape()),
        None if host.contains(':') => return Err(shape()),
        None if matches!(host.parse(), Ok(IpAddr::V4(_))) => host,
        None => {
            dns_name(host)?;
            host
        }
    };
    Ok(HostPort { host: host.to_owned(), port })
}

pub(crate) fn port_number(text: &str) -> Result<u16, String> {
    match digits(text).and_then(|n| u16::try_from(n).ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

/// A decimal number without sign, leading zero or separator: YAML 1.1 reads `010` as eight.
pub(crate) fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    (plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const SHAPE: &str = "a duration is written with units, such as `10s`, `5m`, `1h30m` or `500ms`";
    let mut rest = text;
    let mut total = Duration::ZERO;
    // Units come from large to small, each at most once.
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or(SHAPE)?;
        let amount = digits(rest.get(..end).unwrap_or_default()).ok_or(SHAPE)?;
        rest = rest.get(end..).unwrap_or_default();
        let (unit, millis) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or(SHAPE)?;
        if millis >= last {
            return Err(SHAPE.to_owned());
        }
        last = millis;
        let part = amount.checked_mul(millis).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or("the duration is too long")?;
        rest = rest.get(unit.len()..).unwrap_or_default();
    }
    if last == u64::MAX { Err(SHAPE.to_owned()) } else { Ok(total) }
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    const SHAPE: &str = "a size is written with a unit, such as `512B`, `64KiB`, `10MiB` or `1GiB`";
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or(SHAPE)?;
    let (amount, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(SHAPE.to_owned()),
    };
    digits(amount).ok_or(SHAPE)?.checked_mul(factor).ok_or_else(|| "the size is too large".to_owned())
}

/// A SPIFFE ID with a path, as the identity of a workload.
pub(crate) fn spiffe_id(text: &str) -> Result<(), String> {
    let shape = "a SPIFFE ID is `spiffe://TRUST_DOMAIN/PATH`, its path of non-empty segments of letters, digits, `.`, `-` \
                 and `_`, at most 2048 bytes";
    let rest = text.strip_prefix("spiffe://").filter(|_| text.len() <= 2048).ok_or(shape)?;
    let (domain, path) = rest.split_once('/').ok_or(shape)?;
    let domain_ok = (1..=255).contains(&domain.len())
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
    let segment_ok = |s: &str| {
        !s.is_empty()
            && s != "."
            && s != ".."
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    if domain_ok && path.split('/').all(segment_ok) { Ok(()) } else { Err(shape.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_that_no_url_parser_takes_for_an_address() {
        for good in ["a", "portal", "redis-cart", "v2"] {
            assert_eq!(service_name(good), Ok(()), "{good}");
        }
        for bad in ["", "Portal", "1", "0x7f", "-a", "a-", "a_b", "a.b", "é", "outside", &"a".repeat(64)] {
            assert!(service_name(bad).is_err(), "{bad}");
        }
        assert_eq!(as_service_name("Cart_Service").as_deref(), Some("cart-service"));
        assert_eq!(as_service_name("---"), None);
    }

    #[test]
    fn durations_have_units_in_order() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "s", "30m1h", "1s1s", "1.5s", "-1s", "1 s", "010s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("64KiB"), Ok(65536));
        for bad in ["64", "64KB", "KiB", "1.5MiB", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_host_and_port() {
        assert_eq!(host_port("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(host_port("db.internal:5432").unwrap().port, 5432);
        for bad in
            ["db", "db:0", "db:70000", "::1:80", "[::1]", "[127.0.0.1]:80", "http://db:80", "1.2.3:80", ":80"]
        {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trust_domain_can_be_the_end_of_a_server_name() {
        assert_eq!(trust_domain("clinic.example"), Ok(()));
        for bad in
            ["", "Clinic.example", "spiffe://a", "a/b", "10.0.0.1", "a..b", ".a", "a.1", &"a.".repeat(120)]
        {
            assert!(trust_domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_names_a_workload() {
        assert_eq!(spiffe_id("spiffe://other.example/ns/a/sa/b"), Ok(()));
        for bad in
            ["spiffe://other.example", "spiffe://o/", "spiffe://O/a", "https://o/a", "spiffe://o/a/../b"]
        {
            assert!(spiffe_id(bad).is_err(), "{bad}");
        }
    }
}
