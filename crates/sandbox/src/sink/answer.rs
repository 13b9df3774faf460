//! Answers a dial to the outside: unreachable, forbidden. The kernel would answer too, but a few times a second only, and
//! only while it forwards, which it never shall here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::filter;
use super::packet::{ICMP, ICMP_V6, Packet};
use crate::{SandboxError, error::Context as _};

/// Answers a second.
const MAX_RATE: u32 = 5000;
/// Bytes of the packet that the answer quotes.
const QUOTE: usize = 64;

/// Sends ICMP errors to the service.
pub(crate) struct Answerer {
    v4: Socket,
    v6: Option<Socket>,
    window: Instant,
    sent: u32,
}

impl Answerer {
    pub(crate) fn open() -> Result<Self, SandboxError> {
        let socket = |domain, protocol| -> std::io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.attach_filter(&filter::nothing())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            v4: socket(Domain::IPV4, Protocol::ICMPV4).step(|| "open a socket for ICMP".into())?,
            v6: socket(Domain::IPV6, Protocol::ICMPV6).ok(),
            window: Instant::now(),
            sent: 0,
        })
    }

    /// Tells the sender of `packet` that it reaches nothing.
    pub(crate) fn refuse(&mut self, packet: &Packet<'_>) {
        let now = Instant::now();
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            (self.window, self.sent) = (now, 0);
        }
        if self.sent >= MAX_RATE || !deserves_answer(packet) {
            return;
        }
        self.sent += 1;
        let quote = &packet.ip[..packet.ip.len().min(QUOTE)];
        let socket = match packet.source {
            IpAddr::V4(_) => Some(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        if let Some(socket) = socket {
            // A lost answer costs the service a timeout, and nothing else.
            let _ = socket
                .send_to(&message(packet.source.is_ipv4(), quote), &SocketAddr::new(packet.source, 0).into());
        }
    }
}

/// Never an answer to an error, a multicast or what claims to come from somewhere else.
fn deserves_answer(packet: &Packet<'_>) -> bool {
    let local = match packet.source {
        IpAddr::V4(ip) => ip == Ipv4Addr::new(198, 18, 0, 2),
        IpAddr::V6(ip) => ip == Ipv6Addr::new(0xfd52, 0x4600, 0, 0, 0, 0, 0, 2),
    };
    let to_us = match packet.destination {
        IpAddr::V4(ip) => ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18,
        IpAddr::V6(ip) => ip == Ipv6Addr::new(0xfd52, 0x4600, 0, 0, 0, 0, 0, 1),
    };
    let echo = !matches!(packet.protocol, ICMP | ICMP_V6) || is_echo(packet);
    local && !to_us && echo && !packet.destination.is_multicast()
}

fn is_echo(packet: &Packet<'_>) -> bool {
    let kind = packet.ip.len().checked_sub(packet.payload.len() + 8).and_then(|at| packet.ip.get(at));
    matches!(kind, Some(8 | 128))
}

/// Destination unreachable, administratively prohibited.
fn message(v4: bool, quote: &[u8]) -> Vec<u8> {
    let (kind, code) = if v4 { (3, 13) } else { (1, 1) };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quote);
    if v4 {
        // The kernel computes the one of ICMPv6.
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::packet::{TCP, tests::frame};

    #[test]
    fn an_answer_has_a_valid_checksum_and_quotes_the_dial() {
        let answer = message(true, b"odd");
        assert_eq!(checksum(&answer), 0);
        assert_eq!((answer[0], answer[1], &answer[8..]), (3, 13, &b"odd"[..]));
    }

    #[test]
    fn only_dials_to_the_outside_are_answered() {
        let deserves = |frame: &[u8]| deserves_answer(&Packet::from_frame(frame).unwrap());
        assert!(deserves(&frame(TCP, [203, 0, 113, 9], &[0; 20])));
        assert!(!deserves(&frame(TCP, [198, 19, 3, 4], &[0; 20])));
        assert!(!deserves(&frame(TCP, [224, 0, 0, 251], &[0; 20])));
        assert!(deserves(&frame(ICMP, [203, 0, 113, 9], &[8, 0, 0, 0, 0, 0, 0, 0])));
        assert!(!deserves(&frame(ICMP, [203, 0, 113, 9], &[3, 1, 0, 0, 0, 0, 0, 0])));
    }
}
