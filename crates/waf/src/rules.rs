//! A loaded rule set: what callers see of it.

use std::sync::Arc;

use crate::{
    lang::{Finding, Position},
    plan::{self, Plan},
};

/// A file of rules.
#[derive(Clone, Debug)]
pub struct Source {
    /// How findings call it: a path as the operator knows it.
    pub name: String,
    /// What stands in it.
    pub text: Vec<u8>,
}

impl Source {
    /// A file by its name and text.
    pub fn new(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The engine's own settings, which go first: bodies are read, JSON and XML are taken apart by their content type, and
    /// a body that cannot be taken apart is refused.
    #[must_use]
    pub fn base() -> Self {
        Self::new("(base)", include_str!("base.conf"))
    }

    /// A paranoia level and anomaly thresholds for the Core Rule Set; goes after `crs-setup.conf` and before `rules/*.conf`.
    #[must_use]
    pub fn levels(paranoia: u8, inbound: u32, outbound: u32) -> Self {
        Self::new(
            "(fence)",
            format!(
                "SecAction \"id:4600001,phase:1,pass,nolog,t:none,setvar:tx.blocking_paranoia_level={paranoia},\
                 setvar:tx.paranoia_level={paranoia},\
                 setvar:tx.detection_paranoia_level={paranoia},setvar:tx.executing_paranoia_level={paranoia},\
                 setvar:tx.inbound_anomaly_score_threshold={inbound},\
                 setvar:tx.outbound_anomaly_score_threshold={outbound}\"\n"
            ),
        )
    }
}

/// Files beside the rules: phrases, address lists, and what `Include` names.
pub trait Files {
    /// The content of `path`, as written in a rule that stands in the source `from`.
    fn read(&self, from: &str, path: &str) -> Option<Vec<u8>>;

    /// The files that an `Include` names, when it is a pattern; sorted.
    fn expand(&self, from: &str, pattern: &str) -> Vec<String> {
        let _ = from;
        vec![pattern.to_owned()]
    }
}

/// No files.
impl Files for () {
    fn read(&self, _: &str, _: &str) -> Option<Vec<u8>> {
        None
    }
}

/// A set in memory, by name.
impl Files for std::collections::HashMap<String, Vec<u8>> {
    fn read(&self, _: &str, path: &str) -> Option<Vec<u8>> {
        self.get(path).cloned()
    }
}

/// What stands above the rules.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most bytes of a request body that are inspected; rule files may only lower it.
    pub request_body_limit: usize,
    /// The most bytes of a response body that are inspected.
    pub response_body_limit: usize,
    /// The most arguments.
    pub arguments: usize,
    /// Whether bodies are looked at whose type does not say how, or lies. The rules of ModSecurity expect that they are not.
    pub sniff: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_body_limit: 128 * 1024,
            response_body_limit: 128 * 1024,
            arguments: 4096,
            sniff: false,
        }
    }
}

/// What is wrong, or without effect, in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {text}")]
pub struct LoadError {
    /// The name of the source.
    pub file: String,
    /// From one.
    pub line: u32,
    /// From one.
    pub column: u32,
    /// What to do about it.
    pub text: String,
}

/// What is known of a rule besides what it does.
#[derive(Clone, Debug)]
pub struct RuleInfo {
    /// Its number; links of a chain have that of the chain.
    pub id: u64,
    /// The name of the source.
    pub file: Arc<str>,
    /// Where it begins.
    pub line: u32,
    /// 1 to 5.
    pub phase: u8,
    /// Its message as written, with macros.
    pub message: Arc<str>,
    /// All tags.
    pub tags: Arc<[Box<str>]>,
    /// 0 (emergency) to 7 (debug).
    pub severity: Option<u8>,
    /// The names of its transformations.
    pub transformations: Arc<[&'static str]>,
    /// The operator as written, with `!` when negated.
    pub operator: Arc<str>,
}

impl RuleInfo {
    /// The name of a severity as the reference writes it.
    #[must_use]
    pub fn severity_name(&self) -> Option<&'static str> {
        self.severity.and_then(|number| plan::SEVERITIES.get(usize::from(number)).copied())
    }
}

/// Ids of what comes with every set.
const OURS: std::ops::Range<u64> = 4_600_000..4_610_000;

/// A compiled rule set, shared by all requests.
#[derive(Debug)]
pub struct Rules {
    pub(crate) plan: Plan,
    pub(crate) warnings: Vec<LoadError>,
}

impl Rules {
    /// Compiles rule files, in their order. All mistakes are told at once, with positions.
    pub fn load(sources: &[Source], files: &dyn Files, options: &Options) -> Result<Self, Vec<LoadError>> {
        let mut loader = plan::Loader::new(files, options);
        for source in sources {
            loader.source(source);
        }
        let (plan, names, errors, warnings) = loader.finish();
        let tell = |findings: Vec<Finding>| -> Vec<LoadError> {
            findings.into_iter().map(|Finding { position, text }| error(&names, position, text)).collect()
        };
        if errors.is_empty() { Ok(Self { plan, warnings: tell(warnings) }) } else { Err(tell(errors)) }
    }

    /// What was accepted and has no effect.
    #[must_use]
    pub fn warnings(&self) -> &[LoadError] {
        &self.warnings
    }

    /// Every rule once, chains by their first link, in the order of the files.
    pub fn rules(&self) -> impl Iterator<Item = &RuleInfo> {
        self.plan.starters().map(|rule| &rule.info)
    }

    /// What they are, for people: the name and version that a rule set gives itself, and how many rules it has.
    #[must_use]
    pub fn title(&self) -> String {
        // Those that every set is given are none of its own.
        let count = self.rules().filter(|rule| !OURS.contains(&rule.id) && !rule.operator.is_empty()).count();
        let mut components = self.plan.settings.components.iter();
        match components.find(|component| component.starts_with("OWASP_CRS/")) {
            Some(component) => format!("{}, {count} rules", component.replace('/', " ")),
            None if self.plan.settings.sniff => format!("the embedded baseline, {count} rules"),
            None => format!("{count} rules"),
        }
    }

    /// A rule by its id.
    #[must_use]
    pub fn rule(&self, id: u64) -> Option<&RuleInfo> {
        self.rules().find(|info| info.id == id)
    }
}

fn error(names: &[Arc<str>], position: Position, text: String) -> LoadError {
    let file = names.get(usize::from(position.file)).map_or_else(String::new, |name| name.to_string());
    LoadError { file, line: position.line, column: position.column, text }
}
