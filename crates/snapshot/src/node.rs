//! Messages between control and a proxy. They live here, because both sides hold snapshots and neither depends on the other.

use ringfence_keys::Secret;
use ringfence_token::{KeyPrefix, KeyRecord, Revocation};
use serde::{Deserialize, Serialize};

pub use crate::ask::{Ask, Mint, NoAnswer, NoAnswerCode, Shown, Told};
use crate::{ContentPart, Der, Digest, SignedSnapshot};

/// From control to a proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProxy {
    /// A part of a file that a snapshot to come names, and that this proxy does not have.
    Content(ContentPart),
    /// Enforce this from now on; answered by `Ack` or `Nack`. The files that it names came before it.
    Snapshot(SignedSnapshot),
    /// Answer to [`FromProxy::Sign`].
    Signed {
        /// The request's number.
        request: u64,
        /// The certificate, or why there is none.
        outcome: Result<Issued, String>,
    },
    /// Believe these keys of a provider from now on, in place of those before.
    Keys(ProviderKeys),
    /// API keys. The whole set comes in parts when a proxy is introduced; a change comes at once, in between too.
    ApiKeys(ApiKeys),
    /// What was revoked: the whole list in parts when a proxy is introduced, and what is new at once, in between too.
    Revocations(Revocations),
    /// Answer to [`FromProxy::Ask`].
    Answer {
        /// The request's number.
        request: u64,
        /// What came out, or why nothing did.
        outcome: Result<Told, NoAnswer>,
    },
    /// Answer to [`FromProxy::SignJwt`].
    SignedJwt {
        /// The request's number.
        request: u64,
        /// The token and when it ends, Unix time in seconds; or why there is none.
        outcome: Result<(Secret<String>, u64), String>,
    },
    /// The keys that cookies are sealed under from now on, newest first: number and key. The first seals, all open.
    CookieKeys(Vec<(u32, Secret<[u8; 32]>)>),
    /// Renew every certificate now (an issuing CA was rotated or an identity revoked).
    Renew,
}

/// The keys by which tokens of a provider are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderKeys {
    /// Its name in the fence.
    pub provider: String,
    /// Whose keys they are.
    pub issuer: String,
    /// A JSON Web Key Set (RFC 7517).
    pub jwks: String,
    /// Unix time in seconds from which they are not believed any more.
    pub until: u64,
}

/// Most API keys, or uses of them, in one message.
pub const MAX_API_KEYS: usize = 4096;

/// What a proxy is told of API keys: nothing by which one could be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeys {
    /// A part of the whole set, at most [`MAX_API_KEYS`]. What is in none of the parts is good no more.
    Part {
        /// It begins the set.
        first: bool,
        /// It ends the set, which counts from now on.
        last: bool,
        /// The keys.
        records: Vec<KeyRecord>,
    },
    /// This key is new, or is so from now on.
    Changed(KeyRecord),
}

/// Most revocations in one message.
pub const MAX_REVOCATIONS: usize = 4096;
/// Most revocations that are in force at a time.
pub const MAX_REVOKED: usize = 65_536;

/// What a proxy is told of revocations. SVIDs are among them, under the issuer [`ringfence_token::SVID`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Revocations {
    /// A part of the whole list, at most [`MAX_REVOCATIONS`].
    Part {
        /// It begins the list.
        first: bool,
        /// It ends the list, which counts from now on in place of the one before.
        last: bool,
        /// Revocations.
        entries: Vec<Revocation>,
    },
    /// These are new; they count at once.
    Added(Vec<Revocation>),
}

/// A certificate chain, leaf first, without the root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// DER.
    pub chain: Vec<Der>,
    /// Unix time in seconds.
    pub not_after: u64,
}

/// From a proxy to control.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromProxy {
    /// First message: which version speaks, the highest (epoch, revision) it has seen, and which files it has.
    Hello {
        /// Version of the program.
        version: String,
        /// Highest epoch and revision seen.
        seen: (u64, u64),
        /// Files that need not be sent.
        #[serde(default)]
        content: Vec<Digest>,
    },
    /// Asks for a certificate.
    Sign {
        /// Number for the answer.
        request: u64,
        /// For whom.
        subject: Subject,
        /// SubjectPublicKeyInfo of a key that this proxy made.
        spki: Der,
        /// Signature that proves possession of the key (`keys::possession`).
        proof: Der,
    },
    /// Asks for a JWT-SVID of one of the host's services. Only a host that joined asks: for callers of the Workload API there.
    SignJwt {
        /// Number for the answer.
        request: u64,
        /// For whom: a SPIFFE ID.
        id: String,
        /// For which audiences.
        audiences: Vec<String>,
    },
    /// The snapshot is in force.
    Ack {
        /// Its revision.
        revision: u64,
    },
    /// The snapshot was refused; the one before stays in force.
    Nack {
        /// Its revision as claimed, 0 if it could not be read.
        revision: u64,
        /// Why.
        reason: String,
    },
    /// Asks for what a proxy cannot do by itself, on behalf of one request; answered by [`ToProxy::Answer`].
    Ask {
        /// Number for the answer.
        request: u64,
        /// What is asked.
        ask: Ask,
    },
    /// A token names a key that this provider's set does not have: it may have been rotated.
    WantKeys {
        /// Name of the provider.
        provider: String,
    },
    /// API keys that were used since this was said last, with Unix time in seconds, to the minute; at most [`MAX_API_KEYS`].
    Used(Vec<(KeyPrefix, u64)>),
    /// Once a second, for `top` and metrics.
    Stats(Stats),
}

/// For whom a certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An X.509-SVID of one of the proxy's services, or of the gateway: a SPIFFE ID.
    Svid(String),
    /// The gateway's certificate from the serving CA, for these DNS names or IP addresses.
    Serving(Vec<String>),
}

/// Cumulative counters of a proxy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Revision in force.
    pub revision: u64,
    /// Whether the lease has run out.
    pub stale: bool,
    /// Open client connections.
    pub connections: u64,
    /// Events written and dropped.
    pub events: (u64, u64),
    /// TLS handshakes by negotiated group, such as `X25519MLKEM768`.
    pub groups: Vec<(String, u64)>,
    /// The same by who listened.
    #[serde(default)]
    pub handshakes: Vec<Handshakes>,
    /// Refusals by stage and rule.
    #[serde(default)]
    pub refusals: Vec<(String, String, u64)>,
    /// Per edge.
    pub edges: Vec<EdgeStats>,
    /// When each certificate in use ends: SPIFFE ID, Unix time in seconds.
    pub certificates: Vec<(String, u64)>,
}

/// Cumulative counters of TLS handshakes at one kind of listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Handshakes {
    /// `gateway` or `mesh`.
    pub listener: String,
    /// Completed, by negotiated group.
    pub groups: Vec<(String, u64)>,
    /// Completed with TLS 1.2, and with TLS 1.3.
    pub versions: (u64, u64),
    /// Not completed.
    pub failed: u64,
}

/// Classes of status codes that are counted: 1xx to 5xx.
pub const STATUS_CLASSES: usize = 5;

/// Cumulative counters of one edge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EdgeStats {
    /// Caller, `outside` for the gateway's clients.
    pub caller: String,
    /// Callee or egress host.
    pub callee: String,
    /// Requests (or connections, for bytes).
    pub requests: u64,
    /// Answered with 5xx or broken.
    pub errors: u64,
    /// Refused.
    pub denied: u64,
    /// Tries beyond the first of a request.
    #[serde(default)]
    pub retries: u64,
    /// What went wrong on purpose; present where the fence says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u64>,
    /// How its breakers stand, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStats>,
    /// Latency histogram: counts per bucket of [`latency_bucket`].
    pub latency: Vec<u64>,
    /// The sum of these latencies in microseconds.
    #[serde(default)]
    pub latency_us: u64,
    /// What HTTP requests were answered with, refused ones included, by class of the status: the first is 1xx.
    #[serde(default)]
    pub statuses: [u64; STATUS_CLASSES],
}

/// How the breakers of an edge stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStats {
    /// Ways along it that have one: routes, or the edge itself.
    pub ways: u64,
    /// Ways along which nothing is sent, or one request is tried.
    pub open: u64,
    /// Requests under way.
    pub running: u64,
    /// Requests that wait for one of them to end.
    pub waiting: u64,
    /// How often one opened.
    pub opened: u64,
}

/// Buckets of [`EdgeStats::latency`]: four per power of two of microseconds.
pub const LATENCY_BUCKETS: usize = 112;

/// The bucket of a latency in microseconds. Relative error below 25 %.
pub fn latency_bucket(us: u64) -> usize {
    let us = us.max(1);
    let exponent = us.ilog2() as usize;
    let quarter =
        if exponent >= 2 { (us >> (exponent - 2)) as usize & 3 } else { (us << (2 - exponent)) as usize & 3 };
    (exponent * 4 + quarter).min(LATENCY_BUCKETS - 1)
}

/// Largest latency in microseconds that falls into `bucket`.
pub fn latency_bound(bucket: usize) -> u64 {
    let (exponent, quarter) = (bucket / 4, (bucket % 4) as u64);
    ((4 + quarter + 1) << exponent).div_ceil(4).saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_latency_is_at_most_its_bucket_s_bound_and_close_to_it(us in 1..(1_u64 << 27)) {
            let bound = latency_bound(latency_bucket(us));
            prop_assert!(bound >= us && bound <= us + us / 4 + 1, "{us} in a bucket up to {bound}");
        }
    }
}
