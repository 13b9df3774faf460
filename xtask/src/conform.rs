//! Conformance suites: other people's test material, run against our code.
//!
//! Each suite ends with the line `SUITE: passed/total`. `conformance/SUITE.toml` lists every case on which we differ
//! on purpose, with the reason; a case that is missing there, or is there without differing, fails the run. A suite
//! that says "refuse" where we accept can not be excused.

mod cedar;
mod crs;
mod desync;
mod limbo;
mod modsecurity;
mod schemathesis;
mod seclang;
mod wycheproof;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

pub(crate) use crs::Options;
pub(crate) use desync::run as desync;

/// Runs one suite on the material below `golden`.
pub(crate) fn run(suite: &str, options: &Options, golden: &Path, repository: &Path) -> ExitCode {
    let own = match suite {
        "crs" => Some(crs::run(options, golden, repository)),
        "modsecurity" => Some(modsecurity::run(options.requests, options.seed, options.at_once, golden)),
        "schemathesis" => Some(schemathesis::run(options.seed, repository)),
        _ => None,
    };
    if let Some(outcome) = own {
        return outcome.unwrap_or_else(|problem| {
            eprintln!("{problem}");
            ExitCode::from(3)
        });
    }
    let outcome = match suite {
        "cedar" => cedar::run(&golden.join("cedar"), &crate::environment::target()),
        "x509-limbo" => limbo::run(&golden.join("x509-limbo/limbo.json")),
        "seclang" => seclang::run(&golden.join("seclang")),
        "wycheproof-jose" => wycheproof::run(&golden.join("wycheproof")),
        _ => Err(format!(
            "there is no suite `{suite}`; there are: cedar, crs, desync, modsecurity, schemathesis, seclang, wycheproof-jose, x509-limbo"
        )),
    };
    let list = repository.join("conformance").join(format!("{suite}.toml"));
    match outcome.and_then(|outcomes| Ok((outcomes, deviations(&list)?))) {
        Ok((outcomes, deviations)) => {
            let report = judge(&outcomes, &deviations);
            for line in &report.lines {
                println!("{line}");
            }
            println!("{suite}: {}/{}", report.passed, outcomes.len());
            if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(3)
        }
    }
}

/// What a suite expects of a case and what we did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) case: String,
    pub(crate) expected_accept: bool,
    /// `Err` with our reason for refusing.
    pub(crate) verdict: Result<(), String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviationList {
    #[serde(default)]
    refusal: Vec<Deviation>,
}

/// A case that we refuse although the suite accepts it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    case: String,
    reason: String,
}

fn deviations(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let list: DeviationList =
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut by_case = BTreeMap::new();
    for deviation in list.refusal {
        if deviation.reason.trim().is_empty() {
            return Err(format!("{}: {} is listed without a reason", path.display(), deviation.case));
        }
        if by_case.insert(deviation.case.clone(), deviation.reason).is_some() {
            return Err(format!("{}: {} is listed twice", path.display(), deviation.case));
        }
    }
    Ok(by_case)
}

struct Report {
    lines: Vec<String>,
    passed: usize,
    ok: bool,
}

fn judge(outcomes: &[Outcome], deviations: &BTreeMap<String, String>) -> Report {
    let mut report = Report { lines: Vec::new(), passed: 0, ok: true };
    let mut unused = deviations.clone();
    let (mut agreed, mut refused) = (0, 0);
    for outcome in outcomes {
        let excuse = unused.remove(&outcome.case);
        match (outcome.expected_accept, &outcome.verdict, excuse) {
            (true, Ok(()), None) | (false, Err(_), None) => agreed += 1,
            (true, Err(why), Some(reason)) => {
                refused += 1;
                report.lines.push(format!("refused  {}: {why} (documented: {reason})", outcome.case));
            }
            (true, Err(why), None) => {
                report.ok = false;
                report.lines.push(format!("FAILED   {}: refused, must be accepted: {why}", outcome.case));
            }
            (false, Ok(()), _) => {
                report.ok = false;
                report.lines.push(format!("FAILED   {}: accepted, must be refused", outcome.case));
            }
            (_, _, Some(_)) => {
                report.ok = false;
                report
                    .lines
                    .push(format!("FAILED   {}: listed as a deviation, but there is none", outcome.case));
            }
        }
    }
    for case in unused.into_keys() {
        report.ok = false;
        report.lines.push(format!("FAILED   {case}: listed as a deviation, but the suite has no such case"));
    }
    report.passed = agreed + refused;
    report.lines.push(format!("{agreed} agree, {refused} documented refusals"));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(case: &str, expected_accept: bool, accepted: bool) -> Outcome {
        let verdict = if accepted { Ok(()) } else { Err("no".to_owned()) };
        Outcome { case: case.to_owned(), expected_accept, verdict }
    }

    fn listed(cases: &[&str]) -> BTreeMap<String, String> {
        cases.iter().map(|case| ((*case).to_owned(), "reason".to_owned())).collect()
    }

    #[test]
    fn agreement_and_documented_refusals_pass() {
        let outcomes = [outcome("a", true, true), outcome("b", false, false), outcome("c", true, false)];
        let report = judge(&outcomes, &listed(&["c"]));
        assert_eq!((report.passed, report.ok), (3, true));
        let report = judge(&outcomes, &listed(&[]));
        assert_eq!((report.passed, report.ok), (2, false));
    }

    #[test]
    fn a_false_accept_cannot_be_excused() {
        let report = judge(&[outcome("a", false, true)], &listed(&["a"]));
        assert_eq!((report.passed, report.ok), (0, false));
    }

    #[test]
    fn a_stale_deviation_fails() {
        assert!(!judge(&[outcome("a", true, true)], &listed(&["a"])).ok);
        assert!(!judge(&[outcome("a", true, true)], &listed(&["b"])).ok);
    }
}
