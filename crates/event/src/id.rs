//! Identifiers: event ids (UUIDv7) and W3C trace ids, made without a system call per event.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// The id of an event, a UUIDv7; what a problem document shows as `instance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// A new id for now.
    pub fn new() -> Self {
        Self::at(now_ms())
    }

    pub(crate) fn at(ms: u64) -> Self {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&next_random().to_le_bytes());
        random[8..].copy_from_slice(&next_random().to_le_bytes()[..2]);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    /// Parses what [`fmt::Display`] printed.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        out.extend_from_slice(self.0.hyphenated().encode_lower(&mut buffer).as_bytes());
    }
}

impl Default for EventId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A W3C trace id: 16 bytes, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// What a `traceparent` header carries (W3C Trace Context, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace that all hops share.
    pub trace: TraceId,
    /// The span of the sender: ours, once it is a [`Self::child`].
    pub parent: [u8; 8],
    /// The span that ours came out of, if it did.
    pub sender: Option<[u8; 8]>,
    /// The sampled flag and its like.
    pub flags: u8,
}

/// Length of a version 00 `traceparent` value.
const TRACEPARENT: usize = 55;

impl TraceContext {
    /// Starts a new trace.
    pub fn start() -> Self {
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&next_random().to_be_bytes());
        // All zero is invalid; one bit is worth the certainty.
        trace[8..].copy_from_slice(&(next_random() | 1).to_be_bytes());
        Self { trace: TraceId(trace), parent: next_span(), sender: None, flags: 1 }
    }

    /// Parses a `traceparent` value; `None` for anything that is not exactly version 00 (a new trace is then started).
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() != TRACEPARENT || !value.starts_with(b"00-") || value[35] != b'-' || value[52] != b'-'
        {
            return None;
        }
        let trace: [u8; 16] = unhex(&value[3..35])?;
        let parent: [u8; 8] = unhex(&value[36..52])?;
        let [flags] = unhex(&value[53..55])?;
        (trace != [0; 16] && parent != [0; 8]).then_some(Self {
            trace: TraceId(trace),
            parent,
            sender: None,
            flags,
        })
    }

    /// The same trace with a span of our own, for the next hop.
    pub fn child(self) -> Self {
        Self { parent: next_span(), sender: Some(self.parent), ..self }
    }

    /// The header value, written without allocating.
    pub fn encode(&self) -> [u8; TRACEPARENT] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&self.trace.0, &mut out[3..35]);
        hex(&self.parent, &mut out[36..52]);
        hex(&[self.flags], &mut out[53..55]);
        out
    }
}

/// Appends a span's id as 16 hexadecimal digits.
pub(crate) fn write_span(span: [u8; 8], out: &mut Vec<u8>) {
    let mut text = [0; 16];
    hex(&span, &mut text);
    out.extend_from_slice(&text);
}

impl TraceId {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let mut text = [0; 32];
        hex(&self.0, &mut text);
        out.extend_from_slice(&text);
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn next_span() -> [u8; 8] {
    (next_random() | 1).to_be_bytes()
}

/// SplitMix64, seeded per thread from the operating system. These ids must be unique, not secret.
fn next_random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        // Lower case only: the recommendation allows nothing else.
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_survives_a_round_trip_and_its_child_keeps_the_trace() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).unwrap();
        assert_eq!(&context.encode(), text);
        let child = context.child();
        assert_eq!(child.trace, context.trace);
        assert_ne!(child.parent, context.parent);
        assert_eq!((context.sender, child.sender), (None, Some(context.parent)));
        assert_eq!(TraceContext::parse(&TraceContext::start().encode()).unwrap().flags, 1);
    }

    #[test]
    fn what_the_recommendation_calls_invalid_is_not_a_traceparent() {
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn event_ids_are_unique_and_ordered_by_time() {
        let earlier = EventId::at(1);
        assert!(earlier < EventId::at(2));
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| EventId::new()).collect();
        assert_eq!(ids.len(), 10_000);
        assert_eq!(EventId::parse(&earlier.to_string()), Some(earlier));
    }
}
