//! `limits:`, each within bounds that keep the data plane's memory a known number.

use std::time::Duration;

use super::{Decoder, spec};
use crate::fence::Limits;
use crate::scalar::{duration, size};
use crate::suggest::quote;
use crate::yaml::Node;

const DAY: Duration = Duration::from_secs(86_400);

impl Decoder<'_> {
    pub(super) fn limits(&mut self, node: &Node) -> Limits {
        let mut limits = Limits::default();
        let Some(fields) = self.fields(node, &spec::LIMITS) else { return limits };
        if let Some(value) = fields.get("header_bytes").and_then(|n| self.size_in(n, 1 << 10, 1 << 20)) {
            limits.header_bytes = value;
        }
        if let Some(value) = fields.get("headers").and_then(|n| self.count(n, 10, 1000)) {
            limits.headers = value;
        }
        if let Some(node) = fields.get("body") {
            limits.body = if node.text() == Some("none") { None } else { self.size_in(node, 0, 1 << 40) };
        }
        if let Some(value) = fields.get("idle").and_then(|n| self.time_in(n, Duration::from_secs(1), DAY)) {
            limits.idle = value;
        }
        if let Some(value) = fields
            .get("header_time")
            .and_then(|n| self.time_in(n, Duration::from_millis(100), Duration::from_secs(300)))
        {
            limits.header_time = value;
        }
        if let Some(node) = fields.get("request_time") {
            limits.request_time = if node.text() == Some("none") {
                None
            } else {
                self.time_in(node, Duration::from_millis(1), DAY)
            };
        }
        if let Some(value) = fields.get("connections").and_then(|n| self.count(n, 1, 1_000_000)) {
            limits.connections = value;
        }
        if let Some(node) = fields.get("connections_per_address") {
            limits.connections_per_address =
                if node.text() == Some("none") { None } else { self.count(node, 1, 1_000_000) };
        }
        if let Some(value) = fields.get("handshakes").and_then(|n| self.count(n, 1, 1_000_000)) {
            limits.handshakes = value;
        }
        if let Some(value) = fields.get("handshakes_per_address").and_then(|n| self.count(n, 1, 1_000_000)) {
            limits.handshakes_per_address = value;
        }
        if let Some(value) = fields
            .get("handshake_time")
            .and_then(|n| self.time_in(n, Duration::from_millis(100), Duration::from_secs(300)))
        {
            limits.handshake_time = value;
        }
        if let Some(value) = fields.get("streams").and_then(|n| self.count(n, 1, 10_000)) {
            limits.streams = value;
        }
        if let Some(value) =
            fields.get("drain").and_then(|n| self.time_in(n, Duration::ZERO, Duration::from_secs(3600)))
        {
            limits.drain = value;
        }
        if let Some(value) = fields.get("limit_memory").and_then(|n| self.size_in(n, 1 << 20, 1 << 36)) {
            limits.limit_memory = value;
        }
        if let Some(value) = fields
            .get("queue")
            .and_then(|n| self.time_in(n, Duration::from_millis(1), Duration::from_secs(60)))
        {
            limits.queue = value;
        }
        limits
    }

    fn count(&mut self, node: &Node, from: u32, to: u32) -> Option<u32> {
        self.number(node, from.into(), to.into()).and_then(|n| u32::try_from(n).ok())
    }

    pub(super) fn size_in(&mut self, node: &Node, from: u64, to: u64) -> Option<u64> {
        let value = self.parsed(node, "a size", size)?;
        if (from..=to).contains(&value) {
            return Some(value);
        }
        let text = quote(node.text().unwrap_or_default());
        self.error("out-of-range", node.mark, format!("{text} is not between {from} and {to} bytes"), None);
        None
    }

    pub(super) fn time_in(&mut self, node: &Node, from: Duration, to: Duration) -> Option<Duration> {
        let value = self.parsed(node, "a duration", duration)?;
        if (from..=to).contains(&value) {
            return Some(value);
        }
        let text = quote(node.text().unwrap_or_default());
        self.error("out-of-range", node.mark, format!("{text} is not between {from:?} and {to:?}"), None);
        None
    }
}
