//! Waiting for the report: the event that an attack must leave behind.

use std::path::Path;
use std::time::{Duration, Instant};

use ringfence_event::{Filter, Follow, Record};

use super::Unable;

/// How soon an event must be there, on a busy machine too.
const SOON: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Events since a moment.
pub(crate) struct Watch {
    follow: Follow,
    seen: Vec<Record>,
}

impl Watch {
    pub(crate) fn begin(events: &Path) -> Result<Self, Unable> {
        let follow = Follow::from_now(events, Filter::default())
            .map_err(|e| Unable::new(format!("cannot read the events in {}: {e}", events.display())))?;
        Ok(Self { follow, seen: Vec::new() })
    }

    /// The first event since that is `wanted`. Each is found once, so that two attacks need two events.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.iter().position(&wanted) {
                return Some(self.seen.remove(at));
            }
            if begun.elapsed() > SOON {
                return None;
            }
            match self.follow.poll() {
                Ok(more) if !more.is_empty() => self.seen.extend(more),
                _ => std::thread::sleep(POLL),
            }
        }
    }
}

/// The stable name of the rule in an event.
pub(crate) fn rule(record: &Record) -> &str {
    record.json["firewall_rule"]["uid"].as_str().unwrap_or("")
}

/// The enforcement point in an event.
pub(crate) fn point(record: &Record) -> &str {
    record.json["unmapped"]["point"].as_str().unwrap_or("")
}

/// Whether an event is of this trace.
pub(crate) fn is_of(record: &Record, trace: &str) -> bool {
    record.trace() == Some(trace)
}

/// Whether an event's destination is this address and port.
pub(crate) fn went_to(record: &Record, ip: &str, port: u16) -> bool {
    let endpoint = &record.json["dst_endpoint"];
    endpoint["ip"] == ip && endpoint["port"] == port
}
