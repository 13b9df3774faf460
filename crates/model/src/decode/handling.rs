//! `timeout` and `retries` of a route or a call.

use std::time::Duration;

use super::{Decoder, Fields, spec};
use crate::fence::{GRPC_STATUSES, Handling, Protocol, Retries, Timeout};
use crate::yaml::Node;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(86_400);
/// Most tries that one request is given beyond its first, and how many there are where nobody says.
const MOST: u64 = 5;
const USUAL: u64 = 2;
/// Tries that are added where nobody says, in percent of the requests.
const BUDGET: u64 = 20;

impl Decoder<'_> {
    /// How requests along a route or a call are handled.
    pub(super) fn handling(&mut self, fields: Fields<'_>, protocol: Protocol) -> Handling {
        if protocol == Protocol::Tcp {
            for entry in ["timeout", "retries"].into_iter().filter_map(|key| fields.entry(key)) {
                let message = "tcp has no requests that could be timed or tried again";
                let help = Some(format!("leave `{}` out", entry.key));
                self.error("conflict", entry.mark, message, help);
            }
        }
        let timeout = fields.get("timeout").and_then(|node| {
            let time = self.time_in(node, SHORTEST, LONGEST)?;
            Some(Timeout { time, position: self.at(node.mark) })
        });
        let retries = fields.get("retries").and_then(|node| self.retries(node));
        Handling { timeout, retries }
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
}
