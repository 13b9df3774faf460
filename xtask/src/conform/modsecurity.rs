//! The engine beside libmodsecurity: the same rules, the same requests, and what each of the two says matched. Every class of difference
//! is listed here with who is right; a difference of no class fails the run.
//!
//! Requests are made by `conformance/modsecurity/corpus.py`: mutations of hostile ones, and what honest people send.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::Deserialize;

use super::crs::ftw::base64;
use crate::environment::{root, target};
use crate::process::{self, cargo};
use crate::tools;

/// Matches that stand for a verdict: the score is reached, the body cannot be read.
const SCORE: u64 = 4_600_020;
const UNREADABLE: u64 = 4_600_021;

/// A reason why the two differ.
struct Class {
    name: &'static str,
    right: &'static str,
    why: &'static str,
    holds: fn(&Difference<'_>) -> bool,
}

/// In their order: the first that holds counts.
const CLASSES: &[Class] = &[
    Class {
        name: "body that neither reads",
        right: "both",
        why: "both refuse it; how far the rules still look differs",
        holds: |d| d.ours.contains(&UNREADABLE) && d.theirs.contains(&UNREADABLE),
    },
    Class {
        name: "empty XML",
        right: "ours",
        why: "no body is no malformed document",
        holds: |d| d.theirs.contains(&UNREADABLE) && d.body.is_empty(),
    },
    Class {
        name: "boundary among headers",
        right: "ours",
        why: "a part that ends within its headers is an error here, and only a flag there",
        holds: |d| d.ours.contains(&UNREADABLE) && d.is("multipart/form-data"),
    },
    Class {
        name: "text after JSON",
        right: "ours",
        why: "libmodsecurity takes a document for whole when what follows it is an unfinished string",
        holds: |d| d.ours.contains(&UNREADABLE) && d.is("application/json"),
    },
    Class {
        name: "names of headers of parts",
        right: "both",
        why: "bytes that such a name may not have are an error there, and MULTIPART_INVALID_PART here",
        holds: |d| d.theirs.contains(&UNREADABLE) && d.is("multipart/form-data"),
    },
    Class {
        name: "line breaks of fields",
        right: "ours",
        why: "libmodsecurity drops the line breaks of multi-line fields of multipart bodies, no back end does",
        holds: |d| d.is("multipart/form-data") && d.has_lines(),
    },
    Class {
        name: "first link of a chain",
        right: "ours",
        why: "libmodsecurity tells the first link of a chain that did not match",
        holds: |d| d.only_theirs(|id| d.rules.chains.contains(&id)) && !d.differ_in_verdict(),
    },
    Class {
        name: "raw body",
        right: "ours",
        why: "libmodsecurity sets REQUEST_BODY for every body; the tests of the rule set want it for forms",
        holds: |d| {
            !d.is("application/x-www-form-urlencoded") && d.only_theirs(|id| d.rules.raw_body.contains(&id))
        },
    },
    Class {
        name: "Base64",
        right: "ours",
        why: "text that is not Base64 to its end: the tests of the rule set (934131) want what could be decoded",
        holds: |d| d.all(|id| d.rules.base64.contains(&id)),
    },
    Class {
        name: "wide characters",
        right: "ours",
        why: "libmodsecurity has no mapping to ASCII unless SecUnicodeMapFile names one",
        holds: |d| d.only_ours(|id| d.rules.unicode.contains(&id)),
    },
    Class {
        name: "phrases",
        right: "ours",
        why: "libmodsecurity's search for phrases misses one that begins within another",
        holds: |d| d.only_ours(|id| d.rules.phrases.contains(&id)),
    },
];

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// What is known of rules from their text.
#[derive(Default)]
struct RuleKinds {
    chains: BTreeSet<u64>,
    raw_body: BTreeSet<u64>,
    base64: BTreeSet<u64>,
    unicode: BTreeSet<u64>,
    phrases: BTreeSet<u64>,
}

/// A request of which the two say different things.
struct Difference<'a> {
    rules: &'a RuleKinds,
    request: &'a Request,
    body: Vec<u8>,
    ours: BTreeSet<u64>,
    theirs: BTreeSet<u64>,
}

impl Difference<'_> {
    fn is(&self, content_type: &str) -> bool {
        let field = self.request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        field.is_some_and(|(_, value)| value.to_ascii_lowercase().starts_with(content_type))
    }

    /// Whether more lines stand between two boundaries than headers, an empty line and one of content.
    fn has_lines(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        let contents =
            text.split("\r\n\r\n").skip(1).map(|rest| rest.split("\r\n--").next().unwrap_or_default());
        contents.clone().any(|content| content.contains('\n'))
            || contents.count() == 0
            || text.matches("\r\n\r\n").count() > text.matches("name=").count()
    }

    fn only_theirs(&self, kind: impl Fn(u64) -> bool) -> bool {
        self.ours.difference(&self.theirs).next().is_none() && self.all(kind)
    }

    fn only_ours(&self, kind: impl Fn(u64) -> bool) -> bool {
        self.theirs.difference(&self.ours).next().is_none() && self.all(kind)
    }

    /// Whether all that one of them has alone, but for the score that follows, is of a kind.
    fn all(&self, kind: impl Fn(u64) -> bool) -> bool {
        self.ours.symmetric_difference(&self.theirs).all(|id| *id == SCORE || kind(*id))
    }

    fn differ_in_verdict(&self) -> bool {
        refuses(&self.ours) != refuses(&self.theirs)
    }
}

fn refuses(ids: &BTreeSet<u64>) -> bool {
    ids.contains(&SCORE) || ids.contains(&UNREADABLE)
}

/// Compares the two on `count` requests, a quarter of them honest, at paranoia level 2; then how many of the honest ones each refuses at 1 and 2.
pub(crate) fn run(count: usize, seed: u64, golden: &Path) -> Result<ExitCode, String> {
    let python = tools::python().map_err(|e| e.to_string())?.join("python3");
    let build = ["build", "--release", "--quiet", "--package", "ringfence-waf", "--example", "judge"];
    process::run(&mut cargo(build)).map_err(|e| e.to_string())?;
    let judge = target().join("release/examples/judge");
    let folder = target().join("conform-modsecurity");
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let rules = golden.join("crs");
    let kinds = kinds(&rules.join("rules"))?;
    let runs = Runs { python, judge, folder, rules };
    let hostile = runs.compare("hostile", count - count / 4, seed, 2)?;
    let benign = [1, 2].map(|level| runs.compare("benign", count / 4, seed, level));
    let [benign_1, benign_2] = benign;
    let (benign_1, benign_2) = (benign_1?, benign_2?);
    let mut ok = true;
    for outcome in [&hostile, &benign_1, &benign_2] {
        ok &= outcome.report(&kinds)?;
    }
    let same = hostile.same + benign_2.same;
    println!("modsecurity: {same}/{}", hostile.total + benign_2.total);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Runs {
    python: PathBuf,
    judge: PathBuf,
    folder: PathBuf,
    rules: PathBuf,
}

/// What came of one corpus at one level.
struct Outcome {
    name: String,
    requests: PathBuf,
    total: usize,
    same: usize,
    refused: [usize; 2],
    /// Line number, ours, theirs.
    differences: Vec<(usize, BTreeSet<u64>, BTreeSet<u64>)>,
}

impl Runs {
    fn compare(&self, corpus: &str, count: usize, seed: u64, level: u8) -> Result<Outcome, String> {
        let scripts = root().join("conformance/modsecurity");
        let file = |name: &str| self.folder.join(format!("{corpus}.{name}"));
        let requests = file("requests");
        let mut make = Command::new(&self.python);
        make.arg(scripts.join("corpus.py")).args([corpus, &count.to_string(), &seed.to_string()]);
        make.arg(self.rules.join("tests"));
        finish(make, None, &requests)?;
        let configuration = self.configuration(level)?;
        let mut theirs = Command::new(&self.python);
        theirs.arg(scripts.join("peer.py")).args(&configuration);
        let mut ours = Command::new(&self.judge);
        ours.args(&configuration);
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| finish(theirs, Some(&requests), &file("theirs")));
            let ours = finish(ours, Some(&requests), &file("ours"));
            theirs
                .join()
                .map_err(|_| "libmodsecurity could not be asked".to_owned())
                .and_then(|r| r)
                .and(ours)
        })?;
        let lines = |path: PathBuf| {
            Ok::<_, String>(BufReader::new(File::open(path).map_err(|e| e.to_string())?).lines())
        };
        let mut outcome = Outcome {
            name: format!("{corpus}, paranoia level {level}"),
            requests,
            total: 0,
            same: 0,
            refused: [0; 2],
            differences: Vec::new(),
        };
        for (ours, theirs) in lines(file("ours"))?.zip(lines(file("theirs"))?) {
            let ids = |line: std::io::Result<String>| -> Result<BTreeSet<u64>, String> {
                line.map_err(|e| e.to_string())?
                    .split_whitespace()
                    .map(|id| id.parse().map_err(|_| format!("no id: {id}")))
                    .collect()
            };
            let (ours, theirs) = (ids(ours)?, ids(theirs)?);
            outcome.refused[0] += usize::from(refuses(&ours));
            outcome.refused[1] += usize::from(refuses(&theirs));
            if ours == theirs {
                outcome.same += 1;
            } else {
                outcome.differences.push((outcome.total, ours, theirs));
            }
            outcome.total += 1;
        }
        if outcome.total != count {
            return Err(format!("{}: {count} requests, {} answers", outcome.name, outcome.total));
        }
        Ok(outcome)
    }

    /// The files that both read, in their order: what refuses is taken out, since libmodsecurity ends the phase there.
    fn configuration(&self, level: u8) -> Result<Vec<PathBuf>, String> {
        let told = |error: std::io::Error| error.to_string();
        let base = String::from_utf8(ringfence_waf::Source::base().text).map_err(|e| e.to_string())?;
        let passing = base.replace("SecRuleEngine On", "SecRuleEngine DetectionOnly");
        let levels = format!(
            "SecAction \"id:4600001,phase:1,pass,nolog,t:none,setvar:tx.blocking_paranoia_level={level},\
             setvar:tx.detection_paranoia_level={level},setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT'\"\n"
        );
        let (first, second) = (self.folder.join("base.conf"), self.folder.join("level.conf"));
        fs::write(&first, passing).map_err(told)?;
        fs::write(&second, levels).map_err(told)?;
        let mut rules: Vec<PathBuf> = fs::read_dir(self.rules.join("rules"))
            .map_err(told)?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        rules.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        rules.sort();
        let mut files = vec![first, self.rules.join("crs-setup.conf.example"), second];
        files.extend(rules);
        files.push(root().join("conformance/modsecurity/verdict.conf"));
        Ok(files)
    }
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

impl Outcome {
    /// Tells the classes of differences; false when one has none.
    fn report(&self, rules: &RuleKinds) -> Result<bool, String> {
        let [ours, theirs] = self.refused;
        println!(
            "{}: {} of {} alike; refused: {ours} by ours, {theirs} by libmodsecurity",
            self.name, self.same, self.total
        );
        let wanted: BTreeMap<usize, _> = self.differences.iter().map(|(at, o, t)| (*at, (o, t))).collect();
        let mut counts: BTreeMap<&str, (usize, usize, &Class)> = BTreeMap::new();
        let mut ok = true;
        let lines = BufReader::new(File::open(&self.requests).map_err(|e| e.to_string())?).lines();
        for (at, line) in lines.enumerate() {
            let Some((ours, theirs)) = wanted.get(&at) else { continue };
            let request: Request =
                serde_json::from_str(&line.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
            let body = base64(&request.body).unwrap_or_default();
            let difference = Difference {
                rules,
                request: &request,
                body,
                ours: (*ours).clone(),
                theirs: (*theirs).clone(),
            };
            if let Some(class) = CLASSES.iter().find(|class| (class.holds)(&difference)) {
                let count = counts.entry(class.name).or_insert((0, 0, class));
                count.0 += 1;
                count.1 += usize::from(difference.differ_in_verdict());
            } else {
                ok = false;
                println!(
                    "FAILED   request {at}, {} {}: only ours {:?}, only theirs {:?}",
                    request.method,
                    request.uri,
                    ours.difference(theirs).collect::<Vec<_>>(),
                    theirs.difference(ours).collect::<Vec<_>>()
                );
            }
        }
        for (name, (count, verdicts, class)) in counts {
            println!("  {count:>6} {name} ({verdicts} verdicts); right: {}: {}", class.right, class.why);
        }
        Ok(ok)
    }
}

/// Sorts rules by what their text says.
fn kinds(folder: &Path) -> Result<RuleKinds, String> {
    let mut kinds = RuleKinds::default();
    for entry in fs::read_dir(folder).map_err(|e| e.to_string())?.flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
        let mut id = None;
        for rule in text.split("\nSecRule ").flat_map(|part| part.split("\n    SecRule ")).skip(1) {
            let rule: String =
                rule.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
            let own = rule
                .split("id:")
                .nth(1)
                .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            // A link of a chain has the number of its first.
            id = own.and_then(|digits| digits.parse().ok()).or(id);
            let Some(id) = id else { continue };
            let targets = rule.split('"').next().unwrap_or_default();
            let mut put = |set: fn(&mut RuleKinds) -> &mut BTreeSet<u64>, holds: bool| {
                if holds {
                    set(&mut kinds).insert(id);
                }
            };
            put(|k| &mut k.chains, rule.contains("chain\""));
            put(|k| &mut k.raw_body, targets.contains("REQUEST_BODY"));
            put(|k| &mut k.base64, rule.contains("t:base64Decode"));
            put(|k| &mut k.unicode, rule.contains("t:utf8toUnicode") || rule.contains("t:urlDecodeUni"));
            put(|k| &mut k.phrases, rule.contains("@pmFromFile"));
        }
    }
    Ok(kinds)
}
