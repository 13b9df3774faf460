//! Until when a request may take: what the fence says, and what the caller still waits. The earlier counts, and goes on.

use std::fmt::Write as _;

use ringfence_model::Handling;

use crate::deny::Deny;
use crate::h1::Kind;
use crate::view::HeadView;

/// How many milliseconds the caller still waits: set by a sidecar or the gateway, and by services that pass it on.
pub(crate) const TIMEOUT: &str = "ringfence-timeout";
/// The same in gRPC ("PROTOCOL-HTTP2", Timeout).
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// When a request is over, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// By the worker's clock, in milliseconds.
    pub(crate) at_ms: u64,
    /// The caller waits no longer than this; the fence would.
    by_caller: bool,
    /// The caller says so in the way of gRPC, and so it is said to the callee.
    grpc: bool,
}

impl Deadline {
    /// Until when a request may take that came at `began_ms`. What clients outside say in our own words counts for nothing: `inside`.
    pub(crate) fn of(
        view: HeadView<'_>,
        handling: Option<&Handling>,
        inside: bool,
        began_ms: u64,
    ) -> Option<Self> {
        let said = handling.and_then(|handling| handling.timeout.as_ref());
        let said = said.map(|timeout| u64::try_from(timeout.time.as_millis()).unwrap_or(u64::MAX));
        let is_grpc =
            || view.known(Kind::ContentType).is_some_and(|value| value.starts_with(b"application/grpc"));
        let by_grpc = view.known(Kind::GrpcTimeout).filter(|_| is_grpc()).and_then(grpc_timeout);
        let ours = inside && view.present() & Kind::Ringfence.bit() != 0;
        let by_us = if ours { view.field(TIMEOUT).and_then(millis) } else { None };
        let waits = by_grpc.into_iter().chain(by_us).min();
        let left = said.into_iter().chain(waits).min()?;
        let by_caller = said.is_none_or(|said| waits.is_some_and(|waits| waits < said));
        let grpc = by_grpc.is_some() || (said.is_some() && is_grpc());
        Some(Self { at_ms: began_ms.saturating_add(left), by_caller, grpc })
    }

    /// How long that is from now on; none when it is over.
    pub(crate) fn left(&self, now_ms: u64) -> Option<u64> {
        self.at_ms.checked_sub(now_ms).filter(|left| *left > 0)
    }

    /// Whether it is told to the callee in the way of gRPC, in place of what the caller said.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// The value of [`GRPC_TIMEOUT`] for so many milliseconds: at most eight digits, never more than there is.
    pub(crate) fn grpc(left_ms: u64) -> String {
        let mut text = String::with_capacity(9);
        let _ = match left_ms {
            ..=99_999_999 => write!(text, "{left_ms}m"),
            _ => write!(text, "{}S", (left_ms / 1000).min(99_999_999)),
        };
        text
    }

    /// What a request is answered that took longer.
    pub(crate) fn passed(&self, handling: Option<&Handling>) -> Deny {
        match handling.and_then(|handling| handling.timeout.as_ref()).filter(|_| !self.by_caller) {
            Some(timeout) => {
                let reason = format!("it took longer than the {:?} of {}", timeout.time, timeout.position);
                Deny::failure(504, "timeout", reason)
            }
            None => Deny::failure(504, "timeout.caller", "it took longer than its caller waits"),
        }
    }
}

fn millis(value: &[u8]) -> Option<u64> {
    let digits = (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(value).ok()?.parse().ok() } else { None }
}

/// Milliseconds, rounded down; what is no timeout counts for nothing, as gRPC servers take it.
fn grpc_timeout(value: &[u8]) -> Option<u64> {
    let (unit, amount) = value.split_last()?;
    let amount = millis(amount).filter(|_| amount.len() <= 8)?;
    Some(match unit {
        b'H' => amount * 3_600_000,
        b'M' => amount * 60_000,
        b'S' => amount * 1_000,
        b'm' => amount,
        b'u' => amount / 1_000,
        b'n' => amount / 1_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_of_grpc_are_read_as_written() {
        for (text, ms) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("5S", Some(5_000)),
            ("70m", Some(70)),
            ("1500u", Some(1)),
            ("99999999n", Some(99)),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("123456789m", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), ms, "{text}");
        }
        assert_eq!(millis(b"250"), Some(250));
        assert!(millis(b"").is_none() && millis(b"1.5").is_none() && millis(b"9999999999").is_none());
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_longer(left in 1..u64::MAX / 2) {
            let text = Deadline::grpc(left);
            prop_assert!(text.len() <= 9);
            let told = grpc_timeout(text.as_bytes()).unwrap();
            prop_assert!(told <= left);
            if left <= 99_999_999_000 {
                prop_assert!(left - told < 1_000);
            }
        }

        #[test]
        fn whatever_is_sent_is_read_or_not(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = (grpc_timeout(&value), millis(&value));
        }
    }
}
