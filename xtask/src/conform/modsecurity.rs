//! The engine beside libmodsecurity: the same rules, the same requests, and what each of the two says matched. Every class of difference
//! is listed in `classes.rs` with who is right; a difference of no class fails the run.
//!
//! Requests are made by `conformance/modsecurity/corpus.py`: mutations of hostile ones, and what honest people send. They are asked in
//! parts; what libmodsecurity said of a part is kept, so that a run that was ended goes on, and one after a change of ours is short.

mod classes;
mod part;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::environment::{root, target};
use crate::process::{self, cargo};
use crate::tools;

use part::{Part, Runs, Tally};

/// Requests of a part.
const PART: usize = 5_000;
/// Rules that are told by name among those that refuse honest requests.
const TOLD: usize = 12;

/// What is asked: a corpus at a paranoia level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    corpus: &'static str,
    level: u8,
}

const QUESTIONS: [Question; 3] = [
    Question { corpus: "hostile", level: 2 },
    Question { corpus: "benign", level: 1 },
    Question { corpus: "benign", level: 2 },
];

/// Compares the two on `count` requests, a quarter of them honest, at paranoia level 2; then how many of the honest ones each refuses at 1 and 2.
pub(crate) fn run(count: usize, seed: u64, at_once: usize, golden: &Path) -> Result<ExitCode, String> {
    let python = tools::python().map_err(|e| e.to_string())?.join("python3");
    let build = ["build", "--release", "--quiet", "--package", "ringfence-waf", "--example", "judge"];
    process::run(&mut cargo(build)).map_err(|e| e.to_string())?;
    let judge = target().join("release/examples/judge");
    let folder = target().join("conform-modsecurity");
    fs::create_dir_all(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    let rules = golden.join("crs");
    let kinds = classes::kinds(&rules.join("rules"))?;
    let files = [1, 2].map(|level| configuration(&folder, &rules, level));
    let [first, second] = files;
    let configurations = [first?, second?];
    let runs = Runs { python, judge, folder, tests: rules.join("tests"), kinds, configurations };

    let parts: Vec<(Question, Part)> = QUESTIONS
        .iter()
        .flat_map(|question| {
            let requests = if question.corpus == "hostile" { count - count / 4 } else { count / 4 };
            let parts = (0..requests.div_ceil(PART)).map(move |at| Part {
                corpus: question.corpus,
                level: question.level,
                count: PART.min(requests - at * PART),
                seed: seed * 100_000 + at as u64,
            });
            parts.map(|part| (*question, part))
        })
        .collect();
    let (next, tallies) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<Question, Tally>::new()));
    let worker = || -> Result<(), String> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((question, part)) = parts.get(at) else { return Ok(()) };
            let tally = runs.compare(part)?;
            eprintln!(
                "part {} of {}: {}, paranoia level {}: {} of {} alike",
                at + 1,
                parts.len(),
                part.corpus,
                part.level,
                tally.same,
                tally.total
            );
            let mut tallies = tallies.lock().map_err(|_| "another part failed".to_owned())?;
            tallies.entry(*question).or_default().add(tally);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(worker)).collect();
        let ends = workers.into_iter().map(|worker| worker.join());
        ends.map(|end| end.unwrap_or_else(|_| Err("a part could not be judged".to_owned())))
            .collect::<Result<Vec<()>, String>>()
    })?;
    let tallies = tallies.into_inner().map_err(|_| "a part could not be judged".to_owned())?;
    let (mut same, mut total, mut unexplained) = (0, 0, 0);
    for (question, tally) in &tallies {
        report(*question, tally);
        unexplained += tally.unexplained.len();
        if question.level == 2 {
            same += tally.same;
            total += tally.total;
        }
    }
    println!("modsecurity: {same}/{total}");
    Ok(if unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files that both read, in their order: what refuses is taken out, since libmodsecurity ends the phase there.
fn configuration(folder: &Path, rules: &Path, level: u8) -> Result<Vec<PathBuf>, String> {
    let told = |error: std::io::Error| error.to_string();
    let base = String::from_utf8(ringfence_waf::Source::base().text).map_err(|e| e.to_string())?;
    let passing = base.replace("SecRuleEngine On", "SecRuleEngine DetectionOnly");
    let levels = format!(
        "SecAction \"id:4600001,phase:1,pass,nolog,t:none,setvar:tx.blocking_paranoia_level={level},\
         setvar:tx.detection_paranoia_level={level},setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT'\"\n"
    );
    let (first, second) = (folder.join("base.conf"), folder.join(format!("level-{level}.conf")));
    fs::write(&first, passing).map_err(told)?;
    fs::write(&second, levels).map_err(told)?;
    let mut files = vec![first, rules.join("crs-setup.conf.example"), second];
    let mut own: Vec<PathBuf> =
        fs::read_dir(rules.join("rules")).map_err(told)?.flatten().map(|entry| entry.path()).collect();
    own.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    own.sort();
    files.extend(own);
    files.push(root().join("conformance/modsecurity/verdict.conf"));
    Ok(files)
}

/// Tells what came of a question: how often the two agree, what each refuses, and the classes of differences.
fn report(question: Question, tally: &Tally) {
    let Question { corpus, level } = question;
    let Tally { total, same, verdicts, refused: [ours, theirs], .. } = tally;
    println!(
        "{corpus}, paranoia level {level}: {same} of {total} alike, {verdicts} alike in verdict; refused: {ours} by ours, \
         {theirs} by libmodsecurity"
    );
    if corpus == "benign" {
        for (kind, [asked, ours, theirs]) in &tally.kinds {
            let share = |part: &usize| 100.0 * *part as f64 / (*asked).max(1) as f64;
            println!(
                "  {kind:<9} {asked:>6} asked, refused {:.2} % by ours, {:.2} % by libmodsecurity",
                share(ours),
                share(theirs)
            );
        }
        let mut rules: Vec<_> = tally.rules.iter().collect();
        rules.sort_by_key(|(_, [ours, theirs])| std::cmp::Reverse(ours + theirs));
        for (id, [ours, theirs]) in rules.into_iter().take(TOLD) {
            println!("  rule {id} in {ours} that ours refuses, in {theirs} that libmodsecurity does");
        }
    }
    for line in &tally.unexplained {
        println!("FAILED   {line}");
    }
    for (class, [count, verdicts]) in &tally.classes {
        let (right, why) = classes::said_of(class);
        println!("  {count:>6} {class} ({verdicts} verdicts); right: {right}: {why}");
    }
}
