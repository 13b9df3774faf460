//! What drills show: each attack as it runs, then the scorecard.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Drill, Outcome, Unable};
use crate::view::table::{Cell, Table};
use crate::view::{Paint, clean};

/// How one drill went.
pub(crate) struct Score {
    drill: &'static Drill,
    outcome: Result<Outcome, Unable>,
    took: Duration,
}

impl Score {
    pub(crate) fn new(drill: &'static Drill, outcome: Result<Outcome, Unable>, took: Duration) -> Self {
        Self { drill, outcome, took }
    }

    pub(crate) fn passed(&self) -> bool {
        self.stopped() && self.reported()
    }

    fn stopped(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|o| o.stopped)
    }

    fn reported(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|o| o.reported)
    }

    fn detail(&self) -> String {
        match &self.outcome {
            Ok(outcome) => outcome.detail.clone(),
            Err(unable) => format!("could not be tried: {unable}"),
        }
    }

    /// One line under the description of the drill.
    pub(crate) fn verdict(&self, colour: bool) -> String {
        let word =
            if self.passed() { Paint::Good.on("passed", colour) } else { Paint::Bad.on("FAILED", colour) };
        format!("  {word}: {}\n\n", clean(&self.detail()))
    }
}

/// What a drill is about.
pub(crate) fn describe(drill: &Drill, colour: bool) -> String {
    format!(
        "{}\n  tries        {}\n  must stop    {}\n  must report  {}\n",
        Paint::Bold.on(drill.name, colour),
        drill.tries,
        drill.stops,
        drill.reports
    )
}

pub(crate) fn list(drills: &[&'static Drill]) -> Value {
    let one = |d: &&'static Drill| json!({ "name": d.name, "tries": d.tries, "must_stop": d.stops, "must_report": d.reports });
    json!({ "drills": drills.iter().map(one).collect::<Vec<_>>() })
}

pub(crate) fn json(fence: &str, scores: &[Score]) -> Value {
    let one = |score: &Score| {
        json!({
            "name": score.drill.name,
            "tries": score.drill.tries,
            "must_stop": score.drill.stops,
            "must_report": score.drill.reports,
            "tried": score.outcome.is_ok(),
            "stopped": score.stopped(),
            "reported": score.reported(),
            "passed": score.passed(),
            "detail": score.detail(),
            "milliseconds": u64::try_from(score.took.as_millis()).unwrap_or(u64::MAX),
        })
    };
    json!({
        "fence": fence,
        "drills": scores.iter().map(one).collect::<Vec<_>>(),
        "passed": scores.iter().filter(|s| s.passed()).count(),
        "total": scores.len(),
    })
}

pub(crate) fn table(scores: &[Score], colour: bool) -> String {
    let mut table = Table::new(&["DRILL", "STOPPED", "REPORTED", ">MS"]);
    let mark = |yes: bool| {
        if yes { Cell::from("yes").paint(Paint::Good) } else { Cell::from("NO").paint(Paint::Bad) }
    };
    for score in scores {
        table.row([
            score.drill.name.into(),
            mark(score.stopped()),
            mark(score.reported()),
            score.took.as_millis().into(),
        ]);
    }
    let passed = scores.iter().filter(|s| s.passed()).count();
    let paint = if passed == scores.len() { Paint::Good } else { Paint::Bad };
    let total = paint.on(&format!("{passed} of {}", scores.len()), colour);
    format!("{}\n{total}\n", table.lines(colour).join("\n"))
}
