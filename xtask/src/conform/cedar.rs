//! Cedar: the corpus of cedar-integration-tests, every request judged through our index and nothing else.
//!
//! A case is one request. It agrees when decision, reasons and the policies in error are those of the corpus. Whether a
//! set is valid by its schema is not compared: that is Cedar's own code, and newer than the corpus.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cedar_policy_core::ast::{Context, Eid, EntityType, EntityUID, PolicySet, Request};
use cedar_policy_core::entities::{ContextJsonParser, Entities, EntityJsonParser, TCComputation};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser::parse_policyset;
use cedar_policy_core::validator::{CoreSchema, ValidatorSchema, context_schema_for_action};
use ringfence_authz::index::Index;
use serde::Deserialize;

use super::Outcome;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    policies: PathBuf,
    entities: PathBuf,
    schema: PathBuf,
    requests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    description: String,
    principal: Uid,
    action: Uid,
    resource: Uid,
    context: serde_json::Value,
    #[serde(default = "yes")]
    validate_request: bool,
    decision: String,
    reason: BTreeSet<String>,
    errors: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Uid {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// Outcomes by the number of their set.
type Judged = Vec<(usize, Vec<Outcome>)>;

const fn yes() -> bool {
    true
}

/// Runs the corpus and the hand-written tests below `golden`; the corpus is unpacked below `target`.
pub(crate) fn run(golden: &Path, target: &Path) -> Result<Vec<Outcome>, String> {
    let corpus = unpack(&golden.join("corpus-tests.tar.gz"), &target.join("conform/cedar"))?;
    let mut sets: Vec<(PathBuf, PathBuf)> = Vec::new();
    for file in files(&corpus.join("corpus-tests"))? {
        sets.push((file, corpus.clone()));
    }
    let mut by_hand = Vec::new();
    for folder in folders(&golden.join("tests"))? {
        by_hand.extend(files(&folder)?);
    }
    if golden.join("sample-data").is_dir() {
        sets.extend(by_hand.into_iter().map(|file| (file, golden.to_owned())));
    } else {
        println!("NOT RUN: {} hand-written sets, whose entities (sample-data/) are not there", by_hand.len());
    }
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let total = sets.len();
    let results: Vec<Result<Judged, String>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|worker| {
                let (sets, next) = (&sets, &next);
                scope.spawn(move || {
                    let mut done = Vec::new();
                    let mut told = begun;
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some((file, root)) = sets.get(at) else { return Ok(done) };
                        if worker == 0 && told.elapsed() > Duration::from_secs(2) {
                            told = Instant::now();
                            eprintln!("{at} of {total} policy sets");
                        }
                        done.push((at, judge(file, root)?));
                    }
                })
            })
            .collect();
        running
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a policy set made the engine panic".into())))
            .collect()
    });
    let mut outcomes = Vec::new();
    for result in results {
        outcomes.extend(result?);
    }
    outcomes.sort_by_key(|(at, _)| *at);
    Ok(outcomes.into_iter().flat_map(|(_, outcomes)| outcomes).collect())
}

fn judge(file: &Path, root: &Path) -> Result<Vec<Outcome>, String> {
    let tell = |problem: String| format!("{}: {problem}", file.display());
    let set: Set = serde_json::from_str(&read(file)?).map_err(|error| tell(error.to_string()))?;
    let find = |name: &Path| read(&root.join(name));
    let extensions = Extensions::all_available();
    let (schema, _) = ValidatorSchema::from_cedarschema_str(&find(&set.schema)?, extensions)
        .map_err(|error| tell(error.to_string()))?;
    let policies = parse_policyset(&find(&set.policies)?).map_err(|error| tell(error.to_string()))?;
    let core = CoreSchema::new(&schema);
    let entities = EntityJsonParser::new(Some(&core), extensions, TCComputation::ComputeNow)
        .from_json_str(&find(&set.entities)?)
        .map_err(|error| tell(error.to_string()))?;
    let index = Index::of_set(&policies);
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("?");
    Ok(set
        .requests
        .iter()
        .map(|case| Outcome {
            case: format!("{name}: {}", case.description),
            expected_accept: true,
            verdict: compare(case, &policies, &index, &entities, &schema),
        })
        .collect())
}

fn compare(
    case: &Case,
    policies: &PolicySet,
    index: &Index,
    entities: &Entities,
    schema: &ValidatorSchema,
) -> Result<(), String> {
    let extensions = Extensions::all_available();
    let action = case.action.entity()?;
    let context_schema = context_schema_for_action(schema, &action);
    let context: Context = ContextJsonParser::new(context_schema.as_ref(), extensions)
        .from_json_value(case.context.clone())
        .map_err(|error| error.to_string())?;
    let request = Request::new(
        (case.principal.entity()?, None),
        (action, None),
        (case.resource.entity()?, None),
        context,
        case.validate_request.then_some(schema),
        extensions,
    )
    .map_err(|error| error.to_string())?;
    let outcome = index.judge(request, entities);
    let id = |number: usize| index.policies().nth(number).map_or_else(String::new, |p| p.id().to_string());
    let decision = if outcome.allowed() { "allow" } else { "deny" };
    let reasons: BTreeSet<String> = outcome.reasons().iter().map(|number| id(*number)).collect();
    let errors: BTreeSet<String> = outcome.errors.iter().map(|(number, _)| id(*number)).collect();
    if index.len() != policies.policies().count() {
        return Err("the index lost a policy".into());
    }
    if decision != case.decision.to_lowercase() {
        return Err(format!("decided {decision}, by the corpus {}", case.decision));
    }
    if reasons != case.reason || errors != case.errors {
        return Err(format!(
            "reasons {reasons:?}, errors {errors:?}; by the corpus {:?}, {:?}",
            case.reason, case.errors
        ));
    }
    Ok(())
}

impl Uid {
    fn entity(&self) -> Result<EntityUID, String> {
        let kind = EntityType::from_normalized_str(&self.kind).map_err(|error| error.to_string())?;
        Ok(EntityUID::from_components(kind, Eid::new(self.id.as_str()), None))
    }
}

/// Unpacks the corpus once; a corpus that changed is unpacked again.
fn unpack(archive: &Path, folder: &Path) -> Result<PathBuf, String> {
    let tell = |error: std::io::Error| format!("cannot unpack {}: {error}", archive.display());
    let size = archive.metadata().map_err(tell)?.len().to_string();
    let stamp = folder.join("unpacked");
    if std::fs::read_to_string(&stamp).is_ok_and(|of| of == size) {
        return Ok(folder.to_owned());
    }
    std::fs::create_dir_all(folder).map_err(tell)?;
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder).status().map_err(tell)?;
    if !status.success() {
        return Err(format!("tar cannot unpack {}", archive.display()));
    }
    std::fs::write(&stamp, size).map_err(tell)?;
    Ok(folder.to_owned())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The tests of a folder: its `*.json` that are not entities.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = list(folder)?;
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.ends_with(".json") && !name.ends_with(".entities.json")
    });
    Ok(files)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = list(folder)?;
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let tell = |error: std::io::Error| format!("cannot list {}: {error}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(tell)?;
    let mut paths =
        entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(tell)?;
    paths.sort();
    Ok(paths)
}
