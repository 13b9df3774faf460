//! Proofs of possession (DPoP, RFC 9449): what all threads must know together, and what a proof must be made for.
//!
//! A proof counts once on the whole node, so the threads share what they have seen. Nonces are random for each start of the process: a
//! proof that was used before it, and at another node, has none that is in force here.

use ringfence_token::{Algorithm, Algorithms, Nonces, Replays, Request};

use crate::h1::Kind;
use crate::peer::{Peer, Way};
use crate::view::HeadView;
use crate::worker::unix_now;

/// Proofs that are remembered. Each was made by the holder of a good token, and is forgotten within two minutes.
const REMEMBERED: usize = 1 << 20;
/// How often there is a new nonce, in seconds. Each is good until the next but one.
const NONCE: u64 = 60;
/// The field in which a nonce is handed out.
pub(crate) const NONCE_FIELD: &str = "dpop-nonce";

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Proofs {
    replays: Replays,
    nonces: Nonces,
    since: u64,
}

impl Proofs {
    pub(crate) fn new() -> Self {
        Self {
            replays: Replays::new(REMEMBERED),
            nonces: Nonces::new(&ringfence_keys::random(), NONCE),
            since: unix_now(),
        }
    }

    pub(super) fn replays(&self) -> &Replays {
        &self.replays
    }

    /// The nonce to hand out now.
    pub(crate) fn nonce(&self) -> String {
        self.nonces.issue(unix_now())
    }

    /// What a proof must be for that comes with `view`; `strict`: it needs a nonce in any case.
    pub(super) fn request<'r>(&'r self, view: HeadView<'r>, uri: &'r str, strict: bool) -> Request<'r> {
        Request {
            method: view.method(),
            uri,
            nonces: Some(&self.nonces),
            remembered_since: (!strict).then_some(self.since),
            algorithms: Algorithms::ALL,
            now: unix_now(),
        }
    }
}

/// The algorithms that proofs may be signed with, as `algs` of a challenge lists them.
pub(super) fn algorithms() -> String {
    Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(" ")
}

/// Whether the client speaks of proofs, so that it is told how to make one.
pub(super) fn is_spoken(view: HeadView<'_>) -> bool {
    let scheme = |value: &[u8]| value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"dpop "));
    view.known(Kind::Dpop).is_some() || view.known(Kind::Authorization).is_some_and(scheme)
}

/// The address of a request as its client wrote it, without query.
pub(super) fn address(peer: &Peer, from_gateway: bool, view: HeadView<'_>) -> String {
    let scheme = match peer.way {
        Way::Gateway if peer.tls => "https",
        // The gateway has set it afresh.
        Way::Inbound { .. } if from_gateway && view.field("x-forwarded-proto") == Some(b"https") => "https",
        Way::Gateway | Way::Inbound { .. } | Way::Outbound { .. } => "http",
    };
    let raw = view.raw_target();
    let path = if raw.starts_with('/') { raw.split(['?', '#']).next().unwrap_or(raw) } else { view.path() };
    format!("{scheme}://{}{path}", view.authority())
}
