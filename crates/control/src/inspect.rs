//! Whether rules and descriptions that a fence names can be used, and the rules themselves for whoever measures them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ringfence_model::content::crs_rules;
use ringfence_model::{Diagnostic, Diagnostics, Excluded, Fence, Position, Protocol, SourceFile, Waf};
use ringfence_openapi::Api;
use ringfence_waf::{ExclusionError, LoadError, Rules, Selection, Set, Source};

/// Files by name.
pub type Files = BTreeMap<String, Arc<[u8]>>;

/// What was found of a fence's files.
#[derive(Debug, Default)]
pub struct Judged {
    /// What is worth one.
    pub warnings: Vec<Diagnostic>,
    /// The rules that requests are inspected by, for people: `the embedded baseline, 37 rules`. None if nobody looks.
    pub rules: Option<String>,
}

/// Judges the files of a fence.
///
/// # Errors
/// Everything that is wrong with them.
pub fn judge(fence: &Fence, files: &Files) -> Result<Judged, Diagnostics> {
    let (mut out, mut named) = (Diagnostics::default(), Vec::new());
    let mut title = None;
    let source = |name: &str, text: &[u8]| SourceFile {
        name: name.into(),
        owner: None,
        text: String::from_utf8_lossy(text).into(),
    };
    if let Some(waf) = &fence.waf {
        match rules(waf, files) {
            Ok(rules) => {
                rules.warnings().iter().for_each(|warning| out.push(of_rule(warning, Diagnostic::warning)));
                exclusions(waf, &rules, &mut out);
                title = is_used(fence, waf).then(|| rules.title());
            }
            Err(errors) => errors.iter().for_each(|error| out.push(of_rule(error, Diagnostic::error))),
        }
    }
    for openapi in fence.services.iter().filter_map(|service| service.openapi.as_ref()) {
        // Several services may share one.
        if named.contains(&&openapi.file) {
            continue;
        }
        named.push(&openapi.file);
        let bytes = files.get(&openapi.file).map_or(&[][..], |bytes| bytes);
        let at = |place: Option<(u32, u32)>| {
            let name = openapi.file.as_str().into();
            place.map_or_else(
                || Position::whole(Arc::clone(&name)),
                |(line, column)| Position::new(name.clone(), line, column),
            )
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            out.push(Diagnostic::error("bad-character", at(None), "a description of an API is UTF-8"));
            continue;
        };
        let (problems, make): (Vec<_>, fn(_, _, _) -> _) = match Api::load(text) {
            Ok(api) => (api.warnings().to_vec(), Diagnostic::warning),
            Err(problems) => (problems, Diagnostic::error),
        };
        for problem in problems {
            let message = match problem.at {
                None if !problem.pointer.is_empty() => format!("{}: {}", problem.pointer, problem.message),
                _ => problem.message,
            };
            out.push(make("openapi", at(problem.at), message));
        }
    }
    let told = out.errors.iter().chain(&out.warnings).map(|told| &told.position.file);
    let told: std::collections::BTreeSet<&str> = told.map(|file| &**file).collect();
    let sources = files.iter().filter(|(name, _)| told.contains(name.as_str()));
    let sources: Vec<SourceFile> =
        sources.map(|(name, text)| source(name, text)).chain(fence.files.iter().cloned()).collect();
    let out = out.finish(&sources);
    if out.is_valid() { Ok(Judged { warnings: out.warnings, rules: title }) } else { Err(out) }
}

/// Whether requests are inspected on any route.
pub(crate) fn is_used(fence: &Fence, waf: &Waf) -> bool {
    let services = fence.services.iter().filter(|service| service.protocol != Protocol::Tcp);
    services.flat_map(|service| &service.routes).any(|route| !route.waf.unwrap_or(waf.mode).is_off())
}

/// The rules that a fence asks for.
///
/// # Errors
/// Everything that is wrong with them.
pub fn rules(waf: &Waf, files: &Files) -> Result<Rules, Vec<LoadError>> {
    let (mut setup, rules): (Vec<Source>, _) = waf.crs.as_ref().map_or_else(Default::default, |folder| {
        let order = crs_rules(folder, files.keys().map(String::as_str));
        let read = |name: &str| Source::new(name, files.get(name).map_or(&[][..], |bytes| bytes));
        (order.setup.into_iter().map(read).collect(), order.rules.into_iter().map(read).collect())
    });
    if waf.responses {
        setup.push(Source::new("(responses)", "SecResponseBodyAccess On\n"));
    }
    let set = Set {
        setup,
        rules,
        paranoia: waf.paranoia,
        inbound: waf.inbound,
        outbound: waf.outbound,
        inspect: usize::try_from(waf.inspect).unwrap_or(usize::MAX),
        file: &|name: &str| files.get(name).map(|bytes| bytes.to_vec()),
    };
    set.load()
}

/// Exclusions that are still in force must be about something.
fn exclusions(waf: &Waf, rules: &Rules, out: &mut Diagnostics) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for exclusion in waf.exclusions(now) {
        let mut selection = Selection { target: exclusion.target.clone(), ..Selection::default() };
        match &exclusion.of {
            Excluded::Rules(rules) => selection.rules = rules.iter().copied().map(u64::from).collect(),
            Excluded::Tag(tag) => selection.tags = vec![tag.clone()],
        }
        let position = exclusion.position.clone();
        match rules.exclusion(&selection) {
            Ok(_) => {}
            // It may be of another paranoia level.
            Err(e @ (ExclusionError::Rule(_) | ExclusionError::Tag(_))) => {
                out.push(Diagnostic::warning("never", position, e.to_string()));
            }
            Err(e) => out.push(Diagnostic::error("bad-value", position, e.to_string())),
        }
    }
}

fn of_rule(told: &LoadError, make: fn(&'static str, Position, String) -> Diagnostic) -> Diagnostic {
    make("rule", Position::new(told.file.as_str().into(), told.line, told.column), told.text.clone())
}
