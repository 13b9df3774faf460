//! `metrics`: where counters are served.

use super::fragment::socket_address;
use super::{Decoder, spec};
use crate::fence::Metrics;
use crate::yaml::Entry;

impl Decoder<'_> {
    pub(super) fn metrics(&mut self, entry: &Entry) -> Option<Metrics> {
        let fields = self.fields(&entry.value, &spec::METRICS)?;
        let Some(node) = fields.get("listen") else {
            // A misspelt key has been said already.
            if fields.entries.is_empty() {
                let help = "name an address of this host alone: `metrics: { listen: 127.0.0.1:9464 }`";
                self.missing(entry.mark, "listen", "`metrics`", help);
            }
            return None;
        };
        let listen = self.parsed(node, "an address", socket_address)?;
        if !listen.ip().is_loopback() {
            let message = format!("nobody is asked who he is at {listen}, and it is not of this host alone");
            let help = format!(
                "listen at `127.0.0.1:{port}`; for a Prometheus elsewhere run an agent that forwards on this host, or forward the port over SSH",
                port = listen.port()
            );
            self.error("not-loopback", node.mark, message, Some(help));
            return None;
        }
        Some(Metrics { listen, position: self.at(entry.mark) })
    }
}
