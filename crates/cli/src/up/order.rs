//! Which services may start now: callees before callers, cycles broken, and nobody waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ringfence_model::Fence;

/// A service that is not ready after this long no longer holds up its callers.
const PATIENCE: Duration = Duration::from_secs(20);

/// The services that are still to be started.
#[derive(Debug, Default)]
pub(crate) struct Order {
    waiting: BTreeMap<String, BTreeSet<String>>,
    since: Option<Instant>,
}

impl Order {
    /// Wants `names` started, after those of their callees that are also among them.
    pub(crate) fn want(&mut self, fence: &Fence, names: impl IntoIterator<Item = String>) {
        let names: BTreeSet<String> = names.into_iter().collect();
        for name in &names {
            let calls = fence
                .service(name)
                .map(|s| s.calls.iter().map(|c| c.service.clone()).collect::<BTreeSet<_>>());
            let callees =
                calls.unwrap_or_default().intersection(&names).filter(|c| *c != name).cloned().collect();
            self.waiting.insert(name.clone(), callees);
        }
        self.since = Some(Instant::now());
    }

    /// A service is ready, or will never be: it holds up nobody any more.
    pub(crate) fn settled(&mut self, name: &str) {
        for callees in self.waiting.values_mut() {
            callees.remove(name);
        }
        self.since = Some(Instant::now());
    }

    /// Takes the services that may start now. `started` are those that were started and are not ready yet.
    pub(crate) fn due(&mut self, starting: bool) -> Vec<String> {
        let impatient = self.since.is_some_and(|s| s.elapsed() > PATIENCE);
        let mut due: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, callees)| callees.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        if due.is_empty() && (impatient || !starting) {
            // A cycle, or a callee that does not come up: the one that waits for the fewest goes first.
            due.extend(
                self.waiting.iter().min_by_key(|(_, callees)| callees.len()).map(|(name, _)| name.clone()),
            );
        }
        for name in &due {
            self.waiting.remove(name);
        }
        if !due.is_empty() {
            self.since = Some(Instant::now());
        }
        due
    }

    /// Forgets a service that was removed from the fence.
    pub(crate) fn forget(&mut self, name: &str) {
        self.waiting.remove(name);
        self.settled(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(text: &str) -> Fence {
        Fence::parse(vec![("ringfence.yaml", text)]).unwrap()
    }

    const CLINIC: &str = "
fence: clinic
trust_domain: clinic.example
services:
  portal: { run: [portal], listen: 9000, calls: [appointments, patients] }
  patients: { run: [patients], listen: 9001 }
  appointments: { run: [appointments], listen: 9002, calls: [patients] }
";

    #[test]
    fn callees_start_before_callers() {
        let mut order = Order::default();
        order.want(&fence(CLINIC), ["portal", "patients", "appointments"].map(String::from));
        assert_eq!(order.due(false), ["patients"]);
        assert_eq!(order.due(true), [""; 0], "patients is not ready yet");
        order.settled("patients");
        assert_eq!(order.due(false), ["appointments"]);
        order.settled("appointments");
        assert_eq!(order.due(false), ["portal"]);
    }

    #[test]
    fn a_cycle_starts_all_the_same() {
        let text = "
fence: ring
trust_domain: ring.example
services:
  a: { run: [a], listen: 1, calls: [b] }
  b: { run: [b], listen: 2, calls: [a] }
";
        let mut order = Order::default();
        order.want(&fence(text), ["a", "b"].map(String::from));
        let first = order.due(false);
        assert_eq!(first.len(), 1);
        order.settled(&first[0]);
        assert_eq!(order.due(false).len(), 1);
    }
}
