//! A part of a corpus, asked of both engines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::classes::{Difference, Request, RuleKinds, SCORE, UNREADABLE, refuses};
use crate::environment::root;
use crate::process;

pub(super) struct Part {
    pub(super) corpus: &'static str,
    pub(super) level: u8,
    pub(super) count: usize,
    pub(super) seed: u64,
}

pub(super) struct Runs {
    pub(super) python: PathBuf,
    pub(super) judge: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) tests: PathBuf,
    pub(super) kinds: RuleKinds,
    /// Of paranoia level 1 and 2.
    pub(super) configurations: [Vec<PathBuf>; 2],
}

/// What came of requests. Of two numbers the first is ours.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) total: usize,
    pub(super) same: usize,
    /// Alike in whether they are refused.
    pub(super) verdicts: usize,
    pub(super) refused: [usize; 2],
    /// By what requests are about: asked, refused by each.
    pub(super) kinds: BTreeMap<String, [usize; 3]>,
    /// In how many refused requests a rule matched.
    pub(super) rules: BTreeMap<u64, [usize; 2]>,
    /// By the name of the class: differences, and those in verdict.
    pub(super) classes: BTreeMap<&'static str, [usize; 2]>,
    pub(super) unexplained: Vec<String>,
}

impl Runs {
    /// Asks both about a part.
    pub(super) fn compare(&self, part: &Part) -> Result<Tally, String> {
        let Part { corpus, level, count, seed } = part;
        let scripts = root().join("conformance/modsecurity");
        let file = |name: &str| self.folder.join(format!("{corpus}-{level}-{seed}.{name}"));
        let (requests, ours) = (file("requests"), file("ours"));
        let mut make = Command::new(&self.python);
        make.arg(scripts.join("corpus.py")).args([corpus, count.to_string().as_str(), &seed.to_string()]);
        make.arg(&self.tests);
        finish(make, None, &requests)?;
        let configuration = &self.configurations[usize::from(*level) - 1];
        let theirs = file(&format!("{:016x}.theirs", digest(&requests, configuration)?));
        if !theirs.is_file() {
            let mut command = Command::new(&self.python);
            command.arg(scripts.join("peer.py")).args(configuration);
            let begun = file("begun");
            finish(command, Some(&requests), &begun)?;
            fs::rename(&begun, &theirs).map_err(|e| format!("cannot keep {}: {e}", theirs.display()))?;
        }
        let mut command = Command::new(&self.judge);
        command.args(configuration);
        finish(command, Some(&requests), &ours)?;
        let mut tally = Tally::default();
        for ((request, ours), theirs) in lines(&requests)?.zip(lines(&ours)?).zip(lines(&theirs)?) {
            let told = |e: std::io::Error| e.to_string();
            let request: Request =
                serde_json::from_str(&request.map_err(told)?).map_err(|e| format!("a request: {e}"))?;
            let (ours, theirs) = (ids(&ours.map_err(told)?)?, ids(&theirs.map_err(told)?)?);
            tally.count(&self.kinds, part, &request, &ours, &theirs);
        }
        if tally.total != *count {
            return Err(format!("{corpus}: {count} requests, {} answers", tally.total));
        }
        for made in [requests, ours] {
            fs::remove_file(&made).map_err(|e| format!("cannot remove {}: {e}", made.display()))?;
        }
        Ok(tally)
    }
}

impl Tally {
    fn count(
        &mut self,
        rules: &RuleKinds,
        part: &Part,
        request: &Request,
        ours: &BTreeSet<u64>,
        theirs: &BTreeSet<u64>,
    ) {
        let at = self.total;
        self.total += 1;
        let kind = self.kinds.entry(request.kind.clone()).or_default();
        kind[0] += 1;
        for (who, ids) in [ours, theirs].into_iter().enumerate().filter(|(_, ids)| refuses(ids)) {
            self.refused[who] += 1;
            kind[who + 1] += 1;
            for id in ids.iter().filter(|id| ![SCORE, UNREADABLE].contains(id)) {
                self.rules.entry(*id).or_default()[who] += 1;
            }
        }
        self.verdicts += usize::from(refuses(ours) == refuses(theirs));
        if ours == theirs {
            self.same += 1;
            return;
        }
        let difference = Difference::new(rules, request, ours, theirs);
        if let Some(class) = difference.class() {
            let counts = self.classes.entry(class.name).or_default();
            counts[0] += 1;
            counts[1] += usize::from(difference.differ_in_verdict());
        } else {
            self.unexplained.push(format!(
                "request {at} of seed {}, {} {}: only ours {:?}, only theirs {:?}",
                part.seed,
                request.method,
                request.uri,
                ours.difference(theirs).collect::<Vec<_>>(),
                theirs.difference(ours).collect::<Vec<_>>()
            ));
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.total += other.total;
        self.same += other.same;
        self.verdicts += other.verdicts;
        sum(&mut self.refused, other.refused);
        for (kind, counts) in other.kinds {
            sum(self.kinds.entry(kind).or_default(), counts);
        }
        for (id, counts) in other.rules {
            sum(self.rules.entry(id).or_default(), counts);
        }
        for (class, counts) in other.classes {
            sum(self.classes.entry(class).or_default(), counts);
        }
        self.unexplained.extend(other.unexplained);
    }
}

fn sum<const N: usize>(to: &mut [usize; N], from: [usize; N]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

fn ids(line: &str) -> Result<BTreeSet<u64>, String> {
    line.split_whitespace().map(|id| id.parse().map_err(|_| format!("no id: {id}"))).collect()
}

fn lines(path: &Path) -> Result<std::io::Lines<BufReader<File>>, String> {
    let file = File::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(BufReader::new(file).lines())
}

/// By what libmodsecurity's answers are kept: requests, rules and what lies beside these.
fn digest(requests: &Path, configuration: &[PathBuf]) -> Result<u64, String> {
    let mut files = configuration.to_vec();
    if let Some(folder) = configuration.iter().rev().nth(1).and_then(|file| file.parent()) {
        let beside = fs::read_dir(folder).map_err(|e| e.to_string())?.flatten().map(|entry| entry.path());
        let mut data: Vec<_> = beside.filter(|p| p.extension().is_some_and(|e| e == "data")).collect();
        data.sort();
        files.extend(data);
    }
    files.push(requests.to_owned());
    let mut hasher = DefaultHasher::new();
    for path in files {
        let text = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        hasher.write_usize(text.len());
        hasher.write(&text);
    }
    Ok(hasher.finish())
}

fn finish(mut command: Command, input: Option<&Path>, output: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let input =
        input.map_or_else(|| Ok(Stdio::null()), |path| File::open(path).map(Stdio::from)).map_err(told)?;
    // libxml2 writes what it thinks of hostile documents.
    let status =
        command.stdin(input).stdout(File::create(output).map_err(told)?).stderr(Stdio::null()).status();
    let status = status.map_err(|e| process::cannot_start(&command, &e).to_string())?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", process::line(&command))) }
}
