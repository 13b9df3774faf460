//! What was negotiated, counted: a downgrade from the hybrid key exchange must be seen.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{CommonState, NamedGroup, ProtocolVersion};

/// A key-exchange group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// None yet, or a resumed session without a new exchange.
    None,
    /// Another group.
    Other,
    /// P-256
    P256,
    /// P-384
    P384,
    /// X25519, classical
    X25519,
    /// X25519 with ML-KEM-768, safe against a quantum computer
    X25519Mlkem768,
}

impl Group {
    const COUNT: usize = 6;
    const ALL: [Self; Self::COUNT] =
        [Self::None, Self::Other, Self::P256, Self::P384, Self::X25519, Self::X25519Mlkem768];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Other => "other",
            Self::P256 => "secp256r1",
            Self::P384 => "secp384r1",
            Self::X25519 => "x25519",
            Self::X25519Mlkem768 => "x25519mlkem768",
        }
    }

    /// Whether recorded traffic stays secret from a quantum computer.
    pub const fn is_post_quantum(self) -> bool {
        matches!(self, Self::X25519Mlkem768)
    }
}

/// The group that a connection's keys were agreed in.
pub fn negotiated_group(connection: &CommonState) -> Group {
    match connection.negotiated_key_exchange_group().map(|group| group.name()) {
        None => Group::None,
        Some(NamedGroup::X25519MLKEM768) => Group::X25519Mlkem768,
        Some(NamedGroup::X25519) => Group::X25519,
        Some(NamedGroup::secp256r1) => Group::P256,
        Some(NamedGroup::secp384r1) => Group::P384,
        Some(_) => Group::Other,
    }
}

/// Counters of handshakes.
#[derive(Debug, Default)]
pub struct HandshakeMetrics {
    groups: [AtomicU64; Group::COUNT],
    tls12: AtomicU64,
    tls13: AtomicU64,
    failed: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeSnapshot {
    /// Completed handshakes by group.
    pub groups: [(Group, u64); Group::COUNT],
    /// Completed with TLS 1.2.
    pub tls12: u64,
    /// Completed with TLS 1.3.
    pub tls13: u64,
    /// Not completed.
    pub failed: u64,
}

impl HandshakeMetrics {
    /// Counts a completed handshake.
    pub fn record(&self, connection: &CommonState) {
        self.groups[negotiated_group(connection) as usize].fetch_add(1, Ordering::Relaxed);
        match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => self.tls13.fetch_add(1, Ordering::Relaxed),
            _ => self.tls12.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Counts a handshake that failed.
    pub fn record_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes completed in a group.
    pub fn count(&self, group: Group) -> u64 {
        self.groups[group as usize].load(Ordering::Relaxed)
    }

    /// All counters.
    pub fn snapshot(&self) -> HandshakeSnapshot {
        HandshakeSnapshot {
            groups: Group::ALL.map(|group| (group, self.count(group))),
            tls12: self.tls12.load(Ordering::Relaxed),
            tls13: self.tls13.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
