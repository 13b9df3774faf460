//! What a refused packet was: a bounded look at frames that a hostile service may have made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP_V6: u8 = 58;
const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Most IPv6 extension headers that are followed.
const MAX_EXTENSIONS: usize = 8;

/// One IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its transport protocol.
    pub protocol: u8,
    /// Where from.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// Source port, 0 without one.
    pub source_port: u16,
    /// Destination port, 0 without one.
    pub destination_port: u16,
    /// From the IP header on.
    pub ip: &'a [u8],
    /// After the transport header of UDP and ICMP, else what follows the IP header.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an Ethernet frame; `None` if it holds no IP.
    pub fn from_frame(frame: &'a [u8]) -> Option<Self> {
        let (header, ip) = frame.split_at_checked(ETHERNET)?;
        match header[12..14].try_into().ok()? {
            IPV4 | IPV6 => Self::from_ip(ip),
            _ => None,
        }
    }

    /// Reads an IP packet, perhaps cut short.
    pub fn from_ip(ip: &'a [u8]) -> Option<Self> {
        let (protocol, source, destination, rest) = match ip.first()? >> 4 {
            4 => ipv4(ip)?,
            6 => ipv6(ip)?,
            _ => return None,
        };
        let port = |at: usize| rest.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let (source_port, destination_port) =
            if matches!(protocol, TCP | UDP) { (port(0), port(2)) } else { (0, 0) };
        let payload =
            if matches!(protocol, UDP | ICMP | ICMP_V6) { rest.get(8..).unwrap_or(&[]) } else { rest };
        Some(Self { protocol, source, destination, source_port, destination_port, ip, payload })
    }

    /// The packet that this ICMP error answers.
    pub fn refused(&self) -> Option<Self> {
        match self.protocol {
            ICMP | ICMP_V6 => Self::from_ip(self.payload),
            _ => None,
        }
    }

    /// Name of the protocol in events.
    pub(crate) fn protocol_name(protocol: u8) -> std::borrow::Cow<'static, str> {
        match protocol {
            TCP => "tcp".into(),
            UDP => "udp".into(),
            ICMP | ICMP_V6 => "icmp".into(),
            other => other.to_string().into(),
        }
    }
}

type Parts<'a> = (u8, IpAddr, IpAddr, &'a [u8]);

fn ipv4(ip: &[u8]) -> Option<Parts<'_>> {
    let header = ip.get(..20)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    // A later fragment has no transport header.
    let rest = if fragment == 0 && length >= 20 { ip.get(length..).unwrap_or(&[]) } else { &[] };
    Some((header[9], address(12), address(16), rest))
}

fn ipv6(ip: &[u8]) -> Option<Parts<'_>> {
    let header = ip.get(..40)?;
    let address =
        |at: usize| header[at..at + 16].try_into().map(|b: [u8; 16]| IpAddr::V6(Ipv6Addr::from(b))).ok();
    let (source, destination) = (address(8)?, address(24)?);
    let (mut next, mut rest) = (header[6], &ip[40..]);
    for _ in 0..MAX_EXTENSIONS {
        let length = match (next, rest) {
            // Hop-by-hop, routing, destination options.
            (0 | 43 | 60, [_, length, ..]) => 8 + usize::from(*length) * 8,
            // A fragment; a later one has no transport header.
            (44, [_, _, high, low, ..]) if u16::from_be_bytes([*high, *low]) >> 3 == 0 => 8,
            (44, [inner, ..]) => return Some((*inner, source, destination, &[])),
            _ => break,
        };
        next = rest[0];
        rest = rest.get(length..).unwrap_or(&[]);
    }
    Some((next, source, destination, rest))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with an IPv4 header, for these tests and the sink's.
    pub(crate) fn frame(protocol: u8, to: [u8; 4], transport: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4);
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 2]);
        frame.extend(to);
        frame.extend(transport);
        frame
    }

    #[test]
    fn a_dial_is_read_from_its_first_bytes() {
        let frame = frame(TCP, [203, 0, 113, 9], &[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0]);
        let packet = Packet::from_frame(&frame).unwrap();
        assert_eq!(packet.destination, IpAddr::from([203, 0, 113, 9]));
        assert_eq!((packet.source_port, packet.destination_port), (40_000, 443));
    }

    #[test]
    fn an_icmp_error_tells_what_it_answers() {
        let inner = frame(UDP, [127, 0, 0, 1], &[0, 7, 0, 53, 0, 8, 0, 0]);
        let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
        error.extend(&inner[ETHERNET..]);
        let frame = frame(ICMP, [198, 18, 0, 2], &error);
        let packet = Packet::from_frame(&frame).unwrap();
        assert_eq!(packet.refused().unwrap().destination_port, 53);
    }

    #[test]
    fn extension_headers_are_followed() {
        let mut frame = vec![0; 12];
        frame.extend(IPV6);
        frame.extend([0x60, 0, 0, 0, 0, 16, 60, 64]);
        frame.extend([0xfd; 32]);
        frame.extend([TCP, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend([0, 1, 0, 22, 0, 0, 0, 0]);
        let packet = Packet::from_frame(&frame).unwrap();
        assert_eq!((packet.protocol, packet.destination_port), (TCP, 22));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, version in 4u8..8) {
            let mut frame = vec![0; 12];
            frame.extend(if version == 4 { IPV4 } else { IPV6 });
            frame.push(version << 4 | 5);
            frame.extend(&bytes);
            for cut in 0..frame.len() {
                if let Some(packet) = Packet::from_frame(&frame[..cut]) {
                    let _ = packet.refused();
                }
            }
        }
    }
}
