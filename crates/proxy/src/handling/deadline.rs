//! Until when a request may take: what the fence says, and what the caller still waits. The earlier counts, and goes on.

use ringfence_model::Handling;

use super::timeout::{grpc_timeout, millis};
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
