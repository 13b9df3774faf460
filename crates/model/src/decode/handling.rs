//! `timeout`, `retries`, `breaker`, `fault` and `split` of a route or a call.

use std::time::Duration;

use super::{Decoder, Fields, spec};
use crate::fence::{Bound, Breaker, Fault, GRPC_STATUSES, Handling, Mode, Protocol, Retries, Timeout, Trip};
use crate::yaml::Node;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(86_400);
/// Most tries that one request is given beyond its first, and how many there are where nobody says.
const MOST: u64 = 5;
const USUAL: u64 = 2;
/// Tries that are added where nobody says, in percent of the requests.
const BUDGET: u64 = 20;
/// Most requests that are under way at once, or wait, where that is said.
const REQUESTS: u64 = 1_000_000;
const PENDING: u64 = 100_000;
/// How long a request waits where nobody says, and what else a breaker does then.
const QUEUE: Duration = Duration::from_millis(200);
const FAILURES: u32 = 5;
const OPEN: Duration = Duration::from_secs(10);
/// How long a fault holds a request up at most.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
const LONGEST_OPEN: Duration = Duration::from_secs(300);

impl Decoder<'_> {
    /// How requests along a route or a call are handled.
    pub(super) fn handling(&mut self, fields: Fields<'_>, protocol: Protocol) -> Handling {
        if protocol == Protocol::Tcp {
            for entry in ["timeout", "retries", "breaker", "fault", "split"]
                .into_iter()
                .filter_map(|key| fields.entry(key))
            {
                let message = "tcp has no requests that could be timed, tried again, counted or split";
                let help = Some(format!("leave `{}` out", entry.key));
                self.error("conflict", entry.mark, message, help);
            }
        }
        let timeout = fields.get("timeout").and_then(|node| {
            let time = self.time_in(node, SHORTEST, LONGEST)?;
            Some(Timeout { time, position: self.at(node.mark) })
        });
        let retries = fields.get("retries").and_then(|node| self.retries(node));
        let breaker = fields.get("breaker").and_then(|node| self.breaker(node));
        let fault = fields.get("fault").and_then(|node| self.fault(node));
        let split = fields.get("split").and_then(|node| self.split(node));
        Handling { timeout, retries, breaker, fault, split }
    }

    fn retries(&mut self, node: &Node) -> Option<Retries> {
        let fields = self.fields(node, &spec::RETRIES)?;
        let number = |this: &mut Self, key, from, to, usual| {
            let number = fields.get(key).map_or(Some(usual), |node| this.number(node, from, to));
            number.and_then(|number| u32::try_from(number).ok())
        };
        let most = number(self, "most", 1, MOST, USUAL);
        let budget = number(self, "budget", 1, 100, BUDGET);
        let idempotent = fields.get("idempotent").and_then(|node| self.truth(node)).unwrap_or(false);
        let mut grpc = Vec::new();
        if let Some(node) = fields.get("grpc") {
            for item in self.nonempty(node, "gRPC statuses", "[UNAVAILABLE]") {
                grpc.extend(self.choice(item, &GRPC_STATUSES));
            }
        }
        Some(Retries { most: most?, budget: budget?, idempotent, grpc, position: self.at(node.mark) })
    }

    fn fault(&mut self, node: &Node) -> Option<Fault> {
        let fields = self.fields(node, &spec::FAULT)?;
        let delay = fields.get("delay").map(|node| self.time_in(node, SHORTEST, LONGEST_DELAY));
        let abort = fields.get("abort").map(|node| self.number(node, 400, 599));
        if delay.is_none() && abort.is_none() {
            let help = Some("say `delay: 2s`, `abort: 503`, or both".to_owned());
            self.error("empty", node.mark, "in this fault nothing goes wrong", help);
        }
        if fields.get("percent").is_none() {
            self.missing(
                node.mark,
                "percent",
                "this fault",
                "say how many of a hundred requests it happens to: `percent: 5`",
            );
        }
        let percent = fields.get("percent").and_then(|node| self.number(node, 1, 100));
        let mode = fields.get("mode").map_or(Some(Mode::Enforce), |node| self.mode(node));
        let abort = abort.flatten().and_then(|status| u16::try_from(status).ok());
        let percent = u32::try_from(percent?).ok()?;
        Some(Fault { delay: delay.flatten(), abort, percent, mode: mode?, position: self.at(node.mark) })
    }

    fn breaker(&mut self, node: &Node) -> Option<Breaker> {
        let fields = self.fields(node, &spec::BREAKER)?;
        let number = |this: &mut Self, key, from, to| {
            let number = fields.get(key).and_then(|node| this.number(node, from, to));
            number.and_then(|number| u32::try_from(number).ok())
        };
        let time = |this: &mut Self, key, usual| {
            fields.get(key).map_or(Some(usual), |node| this.time_in(node, SHORTEST, LONGEST))
        };
        let requests = number(self, "requests", 1, REQUESTS);
        let pending = number(self, "pending", 0, PENDING);
        let queue = time(self, "queue", QUEUE)?;
        let usual = || requests.map(|requests| requests.min(PENDING as u32));
        let bound =
            requests.and_then(|requests| Some(Bound { requests, pending: pending.or_else(usual)?, queue }));
        if fields.get("requests").is_none() {
            self.pointless(
                fields,
                &["pending", "queue"],
                "nothing waits where all is sent at once",
                "add `requests`, how many are under way at once",
            );
        }
        let off = fields.get("failures").is_some_and(|node| node.text() == Some("off"));
        let failures = match fields.get("failures") {
            _ if off => None,
            Some(_) => Some(number(self, "failures", 1, 1_000)?),
            None => Some(FAILURES),
        };
        let rate = number(self, "rate", 1, 100);
        let open = time(self, "open", OPEN)?;
        let longest = time(self, "longest", LONGEST_OPEN.max(open))?;
        if let (true, Some(node)) = (longest < open, fields.get("longest")) {
            let message = format!("`longest` is {longest:?}, less than the {open:?} that `open` begins with");
            self.error("out-of-range", node.mark, message, None);
        }
        let trip = (failures.is_some() || rate.is_some()).then_some(Trip { failures, rate, open, longest });
        if trip.is_none() {
            self.pointless(
                fields,
                &["open", "longest"],
                "a breaker that counts no failures never opens",
                "say `failures` or `rate`",
            );
        }
        if bound.is_none() && trip.is_none() && fields.get("requests").is_none() {
            let help = Some("say `requests`, `failures` or `rate`".to_owned());
            self.error("empty", node.mark, "this breaker never opens and bounds nothing", help);
        }
        Some(Breaker { bound, trip, position: self.at(node.mark) })
    }

    /// Keys that say nothing without another one.
    fn pointless(&mut self, fields: Fields<'_>, keys: &[&'static str], message: &str, help: &str) {
        for entry in keys.iter().filter_map(|key| fields.entry(key)) {
            self.error(
                "conflict",
                entry.mark,
                message,
                Some(format!("{help}, or leave `{}` out", entry.key)),
            );
        }
    }
}
