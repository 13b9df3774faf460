//! `ringfence waf`: why the firewall matched, what could be excluded, what its rules cost.

mod cost;
mod explain;
mod mix;
mod tune;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ringfence_event::Record;
use serde::Deserialize;
use serde_json::Value;

use crate::view::finish;

#[derive(Debug, Args)]
pub(crate) struct WafArgs {
    #[command(subcommand)]
    command: WafCommand,
}

#[derive(Debug, Subcommand)]
enum WafCommand {
    /// What the rules found in a request: rule, variable, bytes, transformations, score, and the rule's own text
    Explain(explain::ExplainArgs),
    /// Propose exclusions from what the rules found, to be looked at and pasted into the fence
    Tune(tune::TuneArgs),
    /// What each rule costs, measured here with the fence's rules
    Cost(cost::CostArgs),
}

pub(crate) fn run(args: &WafArgs, fence: &Path, data: &Path, colour: bool) -> ExitCode {
    finish(match &args.command {
        WafCommand::Explain(args) => explain::explain(args, fence, data, colour),
        WafCommand::Tune(args) => tune::tune(args, data, colour),
        WafCommand::Cost(args) => cost::cost(args, fence, colour),
    })
}

/// What the rules found in one value of a request, as an event says it.
#[derive(Clone, Debug, Deserialize)]
struct Found {
    rule: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    transformations: Vec<String>,
    #[serde(default)]
    score: u64,
    #[serde(default)]
    observed: bool,
}

impl Found {
    /// All of an event.
    fn all(record: &Record) -> Vec<Self> {
        let all = record.json["unmapped"]["findings"].as_array();
        let inspected = all.into_iter().flatten().filter(|found| found["stage"] == "inspect");
        inspected.filter_map(|found| Self::deserialize(found).ok()).collect()
    }

    /// The rule's number.
    fn number(&self) -> Option<u32> {
        self.rule.strip_prefix("waf.")?.parse().ok()
    }
}

/// A text at a place of an event.
fn text<'r>(record: &'r Record, place: &str) -> &'r str {
    record.json.pointer(place).and_then(Value::as_str).unwrap_or_default()
}
