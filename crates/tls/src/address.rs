//! Which addresses an egress host may resolve to. A name is the attacker's to point anywhere (DNS rebinding, SSRF), so
//! what counts is the address that is dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Somewhere on the internet.
    Public,
    /// Inside: allowed only where the fence says `allow_private`.
    Inside(&'static str),
    /// No host at all: never dialled.
    Nowhere(&'static str),
}

/// Judges an address after resolution.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [0, ..] => Reach::Nowhere("unspecified"),
        [127, ..] => Reach::Inside("loopback"),
        [10, ..] | [192, 168, ..] => Reach::Inside("private"),
        [172, b, ..] if b & 0xf0 == 16 => Reach::Inside("private"),
        [100, b, ..] if b & 0xc0 == 64 => Reach::Inside("carrier-grade NAT"),
        [169, 254, ..] => Reach::Inside("link-local or metadata"),
        // 168.63.129.16 is the platform's own address on Azure, 100.100.100.200 (above) that of Alibaba Cloud.
        [168, 63, 129, 16] => Reach::Inside("metadata"),
        [192, 0, 0, _] => Reach::Inside("protocol assignments"),
        [198, 18 | 19, ..] => Reach::Nowhere("a fenced network"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Nowhere("documentation"),
        [192, 88, 99, _] => Reach::Nowhere("6to4 relay"),
        [224..=239, ..] => Reach::Nowhere("multicast"),
        [240..=255, ..] => Reach::Nowhere("reserved or broadcast"),
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nowhere("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Inside("loopback"),
        // No resolver has a reason to answer with these; they would be dialled over IPv4 past every rule for IPv4.
        [0, 0, 0, 0, 0, 0xffff, ..] => Reach::Nowhere("IPv4-mapped"),
        [0, 0, 0, 0, 0, 0, ..] => Reach::Nowhere("IPv4-compatible"),
        // Translated to IPv4 on the way: judged as what they become.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => reach_v4(embedded(high, low)),
        [0x64, 0xff9b, 1, ..] => Reach::Inside("local NAT64"),
        [0x2002, high, low, ..] => reach_v4(embedded(high, low)),
        [0x2001, 0, ..] => Reach::Nowhere("Teredo"),
        [0x2001, 0xdb8, ..] => Reach::Nowhere("documentation"),
        [0x3fff, b, ..] if b & 0xf000 == 0 => Reach::Nowhere("documentation"),
        [0x100, 0, 0, 0, ..] => Reach::Nowhere("discard"),
        [a, ..] if a & 0xfe00 == 0xfc00 => Reach::Inside("private"),
        [a, ..] if a & 0xffc0 == 0xfe80 => Reach::Inside("link-local"),
        [a, ..] if a & 0xffc0 == 0xfec0 => Reach::Inside("site-local"),
        [a, ..] if a & 0xff00 == 0xff00 => Reach::Nowhere("multicast"),
        // Only 2000::/3 is given out as global unicast.
        [a, ..] if a & 0xe000 == 0x2000 => Reach::Public,
        _ => Reach::Nowhere("not allocated"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Reach {
        reach(text.parse().unwrap())
    }

    #[test]
    fn every_way_to_write_an_inner_address_is_inner() {
        for text in [
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::1",
            "fd00:ec2::254",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "64:ff9b:1::1",
        ] {
            assert!(matches!(of(text), Reach::Inside(_)), "{text}: {:?}", of(text));
        }
    }

    #[test]
    fn what_is_no_host_is_never_dialled() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "198.19.0.1",
            "192.0.2.1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "4000::1",
        ] {
            assert!(matches!(of(text), Reach::Nowhere(_)), "{text}: {:?}", of(text));
        }
    }

    #[test]
    fn the_internet_is_public() {
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ] {
            assert_eq!(of(text), Reach::Public, "{text}");
        }
    }
}
