//! What goes wrong on purpose, after a request was let pass and before it is sent: so nobody passes by a fault who would not pass without
//! it, and what an event says of it is what the fence says.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use ringfence_model::Fault;

use super::pause;
use crate::deny::Deny;
use crate::exchange::Outcome;
use crate::front::Front;
use crate::handle::Report;
use crate::note::Note;
use crate::table::EdgeId;

/// Most requests that one thread holds up at a time; others pass as if there were no fault.
const MOST_HELD: usize = 1_000;

/// So many of a hundred, evenly, over all threads.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicU32);

impl Share {
    /// Whether it is this one's turn.
    fn falls(&self, percent: u32) -> bool {
        let next = |before: u32| Some((before + percent) % 100);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        before + percent >= 100
    }
}

/// A request that is held up.
struct Held<'a>(&'a Cell<usize>);

impl<'a> Held<'a> {
    fn of(held: &'a Cell<usize>) -> Option<Self> {
        (held.get() < MOST_HELD).then(|| {
            held.set(held.get() + 1);
            Self(held)
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Lets go wrong what is said to, if it is this request's turn. `end_ms`: until when it may take.
pub(crate) async fn inject(
    report: &Report<'_>,
    front: &mut Front<'_>,
    edge: EdgeId,
    (fault, share): (&Fault, &Share),
    end_ms: u64,
) -> Result<(), Outcome> {
    if fault.mode.is_off() || !share.falls(fault.percent) {
        return Ok(());
    }
    let worker = report.ctx.worker;
    let note = |rule: &str, message: String| {
        let message = format!("{message} ({})", fault.position);
        let observed = !fault.mode.enforces();
        report.notes.add(Note { stage: "fault", rule: rule.into(), message, observed, ..Note::default() });
    };
    if !fault.mode.enforces() {
        if let Some(delay) = fault.delay {
            note("fault.delay", format!("it would be held up for {delay:?}"));
        }
        if let Some(status) = fault.abort {
            note("fault.abort", format!("it would be answered with {status}"));
            report.notes.would_deny("fault.abort".into());
        }
        return Ok(());
    }
    if let Some(delay) = fault.delay
        && let Some(_held) = Held::of(&worker.held_up)
    {
        worker.counters.fault(edge);
        note("fault.delay", format!("it was held up for {delay:?}"));
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let left_ms = end_ms.saturating_sub(worker.touch() / 1000);
        if !Box::pin(pause(report.ctx.live, front, delay_ms.min(left_ms))).await {
            return Err(Outcome::Gone);
        }
        if left_ms <= delay_ms {
            return Err(Outcome::Late);
        }
    }
    if let Some(status) = fault.abort {
        worker.counters.fault(edge);
        let reason = "the fence has this go wrong on purpose";
        let deny = Deny::new(status, "fault", "fault.abort", reason);
        return Err(Outcome::Failed(deny.position(Some(fault.position.to_string()))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_a_hundred_and_evenly() {
        for percent in 1..=100 {
            let share = Share::default();
            let fallen: Vec<bool> = (0..1_000).map(|_| share.falls(percent)).collect();
            assert_eq!(fallen.iter().filter(|falls| **falls).count(), percent as usize * 10);
            let most = fallen[..100].iter().filter(|falls| **falls).count();
            assert_eq!(most, percent as usize, "of the first hundred too");
        }
    }
}
