//! From directives to the plan: files in their order, chains tied, defaults applied, later amendments carried out.

use std::{collections::HashMap, sync::Arc};

use regex_automata::{meta, util::syntax};

use super::{
    Chains, Disruption, Names, Plan, Settings, Step,
    action::{self, Pending},
    rule::{Members, Rule, Target, Test},
    text::Text,
};
use crate::{
    Mode,
    lang::{self, ActionNode, Directive, Finding, Item, Position, RuleNode, Selector, Setting, Variable},
    operator::Operator,
    rules::{Files, Options, Source},
    transform::Transformation,
};

/// Files that may be included within each other.
const INCLUDE_DEPTH: usize = 8;
/// Files altogether.
const FILES: usize = 4096;
/// Rules altogether, links of chains included.
pub(super) const RULES: usize = 50_000;

/// Collects sources and compiles them.
pub(crate) struct Loader<'a> {
    files: &'a dyn Files,
    options: &'a Options,
    names: Vec<Arc<str>>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    items: Vec<Item>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(files: &'a dyn Files, options: &'a Options) -> Self {
        Self {
            files,
            options,
            names: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            items: Vec::new(),
        }
    }

    /// Reads one source and what it includes.
    pub(crate) fn source(&mut self, source: &Source) {
        self.text(&source.name, &source.text, 0);
    }

    fn text(&mut self, name: &str, text: &[u8], depth: usize) {
        let Ok(file) = u16::try_from(self.names.len()) else { return };
        self.names.push(name.into());
        for item in lang::parse(file, text, &mut self.errors) {
            let Directive::Include { path, optional } = &item.directive else {
                self.items.push(item);
                continue;
            };
            if depth >= INCLUDE_DEPTH || self.names.len() >= FILES {
                let text = format!(
                    "'{path}' is included too deep, or there are too many files: does a file include itself?"
                );
                self.errors.push(Finding { position: item.position, text });
                continue;
            }
            for file in self.files.expand(name, path) {
                match self.files.read(name, &file) {
                    Some(text) => self.text(&file, &text, depth + 1),
                    None if *optional => {}
                    None => {
                        let text =
                            format!("cannot read '{file}': put it beside the rules or remove the Include");
                        self.errors.push(Finding { position: item.position, text });
                    }
                }
            }
        }
    }

    pub(super) fn file(&self, position: Position) -> Arc<str> {
        self.names[usize::from(position.file)].clone()
    }

    /// The plan, names of files by number, errors, warnings.
    pub(crate) fn finish(mut self) -> (Plan, Vec<Arc<str>>, Vec<Finding>, Vec<Finding>) {
        let items = std::mem::take(&mut self.items);
        let settings = Settings {
            mode: Mode::Enforce,
            request_body: true,
            request_body_limit: self.options.request_body_limit,
            request_body_partial: true,
            json_depth: 512,
            response_body: false,
            response_body_limit: self.options.response_body_limit,
            response_types: Vec::new(),
            arguments: self.options.arguments,
            sniff: self.options.sniff,
            separator: b'&',
            web_app: String::new(),
            components: Vec::new(),
        };
        let mut compiler = Compiler {
            loader: &mut self,
            settings,
            names: Names::new(),
            chains: Chains::new(),
            defaults: Default::default(),
            drafts: Vec::new(),
            open: None,
            ids: HashMap::new(),
            markers: Vec::new(),
            amendments: Vec::new(),
            left_out: Vec::new(),
        };
        for item in items {
            compiler.item(item);
        }
        let plan = compiler.finish();
        (plan, self.names, self.errors, self.warnings)
    }
}

/// Defaults of one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    pub(super) transformations: Vec<Transformation>,
    /// What `block` means.
    pub(super) disruption: Option<(Disruption, Option<u16>)>,
    pub(super) log: Option<bool>,
    pub(super) status: Option<u16>,
}

/// A rule that still waits for what only the end of the files decides.
pub(super) struct Draft {
    pub(super) rule: Rule,
    pub(super) position: Position,
    pub(super) pending: Vec<Pending>,
    /// The first link of its chain, itself if it is that.
    pub(super) starter: usize,
}

pub(super) struct Compiler<'l, 'a> {
    pub(super) loader: &'l mut Loader<'a>,
    pub(super) settings: Settings,
    pub(super) names: Names,
    pub(super) chains: Chains,
    pub(super) defaults: [Defaults; 5],
    pub(super) drafts: Vec<Draft>,
    /// The link whose chain is not complete.
    pub(super) open: Option<usize>,
    ids: HashMap<u64, Position>,
    /// Name, and how many drafts were before it.
    pub(super) markers: Vec<(String, usize)>,
    pub(super) amendments: Vec<Item>,
    /// First links of chains that cannot be run.
    left_out: Vec<usize>,
}

impl Compiler<'_, '_> {
    pub(super) fn error(&mut self, position: Position, text: impl Into<String>) {
        self.loader.errors.push(Finding { position, text: text.into() });
    }

    pub(super) fn warn(&mut self, position: Position, text: impl Into<String>) {
        self.loader.warnings.push(Finding { position, text: text.into() });
    }

    fn item(&mut self, item: Item) {
        let position = item.position;
        match item.directive {
            Directive::Rule(node) => self.rule(position, node),
            Directive::Marker(name) => self.markers.push((name, self.drafts.len())),
            Directive::DefaultAction(actions) => self.default_action(position, &actions),
            Directive::Set(setting) => self.setting(position, setting),
            Directive::NoEffect(name) => self.warn(position, format!("{name} has no effect here")),
            Directive::Include { .. } => {}
            // The file says what happens to rules before and after it.
            _ => self.amendments.push(item),
        }
    }

    fn default_action(&mut self, position: Position, actions: &[ActionNode]) {
        match action::defaults(actions) {
            Ok((phase, defaults)) => self.defaults[usize::from(phase) - 1] = defaults,
            Err(text) => self.error(position, text),
        }
    }

    fn setting(&mut self, position: Position, setting: Setting) {
        let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let settings = &mut self.settings;
        match setting {
            Setting::RuleEngine(word) => {
                settings.mode = match word.as_str() {
                    "on" => Mode::Enforce,
                    "off" => Mode::Off,
                    _ => Mode::Observe,
                }
            }
            Setting::RequestBodyAccess(on) => settings.request_body = on,
            Setting::RequestBodyLimit(limit) => {
                settings.request_body_limit = self.loader.options.request_body_limit.min(bytes(limit));
            }
            Setting::RequestBodyNoFilesLimit(_) => {
                self.warn(
                    position,
                    "SecRequestBodyNoFilesLimit has no effect here: one limit holds for all of the body",
                );
            }
            Setting::RequestBodyLimitAction(word) => settings.request_body_partial = word == "processpartial",
            Setting::RequestBodyJsonDepthLimit(depth) => settings.json_depth = bytes(depth).min(512),
            Setting::ResponseBodyAccess(on) => settings.response_body = on,
            Setting::ResponseBodyLimit(limit) => {
                settings.response_body_limit = self.loader.options.response_body_limit.min(bytes(limit));
            }
            Setting::ResponseBodyLimitAction(word) => {
                if word == "reject" {
                    self.warn(
                        position,
                        "SecResponseBodyLimitAction Reject has no effect here: the head is inspected",
                    );
                }
            }
            Setting::ResponseBodyMimeTypes(types) => settings.response_types.extend(types),
            Setting::ResponseBodyMimeTypesClear => settings.response_types.clear(),
            Setting::ArgumentsLimit(limit) => {
                settings.arguments = self.loader.options.arguments.min(bytes(limit))
            }
            Setting::ArgumentSeparator(byte) => settings.separator = byte,
            Setting::WebAppId(id) => settings.web_app = id,
            Setting::ComponentSignature(text) => settings.components.push(text),
        }
    }

    fn rule(&mut self, position: Position, node: RuleNode) {
        if self.drafts.len() >= RULES {
            return self.error(position, format!("more than {RULES} rules"));
        }
        let starter = self.open.map(|open| self.drafts[open].starter);
        let Some(mut parsed) = action::compile(self, position, &node, starter) else { return };
        let index = self.drafts.len();
        if let Some(open) = self.open.take() {
            self.drafts[open].rule.next = Some(index as u32);
        } else {
            let id = parsed.rule.info.id;
            if id == 0 {
                self.error(position, "this rule has no id; every rule needs one (id:NUMBER)");
            } else if let Some(first) = self.ids.insert(id, position) {
                let file = self.loader.names[usize::from(first.file)].clone();
                let text = format!(
                    "rule {id} is there twice, first at {file}:{}; give one of them another id",
                    first.line
                );
                self.error(position, text);
            }
        }
        if parsed.chained {
            self.open = Some(index);
        }
        let mut targets = Vec::new();
        let mut exclusions = Vec::new();
        for target in &node.targets {
            if let Some(compiled) = self.target(position, target) {
                if target.exclude { exclusions.push(compiled) } else { targets.push(compiled) }
            }
        }
        if let Some(operator) = &node.operator {
            let loader = &*self.loader;
            let from = loader.names[usize::from(position.file)].clone();
            let read = |path: &str| loader.files.read(&from, path);
            match Operator::compile(&operator.name, &operator.argument, &read) {
                Ok(compiled) => {
                    let argument = if compiled.takes_macro() {
                        self.macros(operator.position, &operator.argument)
                    } else {
                        Text { pieces: Box::new([super::Piece::Bytes(operator.argument.clone().into())]) }
                    };
                    parsed.rule.test =
                        Test::Operator { operator: compiled, argument, negated: operator.negated };
                }
                Err(error) if error.is_refusal() => {
                    let id = parsed.rule.info.id;
                    self.warn(operator.position, format!("rule {id} is left out: {error}"));
                    self.left_out.push(starter.unwrap_or(index));
                }
                Err(error) => self.error(operator.position, error.to_string()),
            }
        }
        parsed.rule.targets = targets;
        parsed.rule.exclusions = exclusions;
        self.drafts.push(Draft {
            rule: parsed.rule,
            position,
            pending: parsed.pending,
            starter: starter.unwrap_or(index),
        });
    }

    /// A text with its macros; what names nothing known stays as written, which is said.
    pub(super) fn macros(&mut self, position: Position, text: &[u8]) -> Text {
        let mut unknown = Vec::new();
        let compiled = Text::parse(text, &mut self.names, |name| unknown.push(name.to_owned()));
        for name in unknown {
            self.warn(
                position,
                format!("%{{{name}}} names no variable of this engine and stays as it is written"),
            );
        }
        compiled
    }

    pub(super) fn target(&mut self, position: Position, target: &lang::Target) -> Option<Target> {
        let members = match &target.selector {
            Selector::All => Members::All,
            Selector::Name(name) if target.variable == Variable::Tx => {
                Members::Slot(self.names.slot(name.as_bytes()))
            }
            Selector::Name(name) => {
                if target.variable == Variable::Xml && !matches!(name.as_str(), "/*" | "//@*") {
                    self.warn(
                        position,
                        format!("XML:{name}: of paths only /* and //@* are known here; it sees nothing"),
                    );
                }
                Members::Name(name.to_ascii_lowercase().into_bytes().into())
            }
            Selector::Regex(pattern) => match member_pattern(pattern) {
                Ok(regex) => Members::Regex(Box::new(regex)),
                Err(text) => {
                    self.error(position, text);
                    return None;
                }
            },
        };
        Some(Target { count: target.count, variable: target.variable, members })
    }

    fn finish(mut self) -> Plan {
        if let Some(open) = self.open {
            let position = self.drafts[open].position;
            self.error(position, "a chain ends without its last rule: remove 'chain' or add the rule");
        }
        self.amend();
        for starter in std::mem::take(&mut self.left_out) {
            self.drafts
                .iter_mut()
                .filter(|draft| draft.starter == starter)
                .for_each(|draft| draft.rule.phase = 0);
        }
        let mut removals = Vec::new();
        let mut phases: [Vec<u32>; 5] = Default::default();
        for (index, draft) in self.drafts.iter().enumerate() {
            // Amended out: a draft without a phase.
            if draft.starter == index && draft.rule.phase != 0 {
                phases[usize::from(draft.rule.phase) - 1].push(index as u32);
            }
        }
        for index in 0..self.drafts.len() {
            let pending = std::mem::take(&mut self.drafts[index].pending);
            let phase = usize::from(self.drafts[self.drafts[index].starter].rule.phase);
            if phase == 0 {
                continue;
            }
            for step in pending {
                let step = match step {
                    Pending::SkipAfter(name) => {
                        let order = &phases[phase - 1];
                        let marker = self.markers.iter().find(|(marker, at)| *marker == name && *at > index);
                        // Without the marker nothing of the phase is left to run, as in the reference.
                        let at = match marker {
                            Some((_, at)) => order.partition_point(|rule| (*rule as usize) < *at),
                            None => {
                                let position = self.drafts[index].position;
                                self.warn(
                                    position,
                                    format!("skipAfter:{name} finds no such marker after it and skips all"),
                                );
                                order.len()
                            }
                        };
                        Step::SkipTo(at as u32)
                    }
                    Pending::Remove(selection, target) => {
                        let rules = self.select(&selection);
                        removals.push(super::Removal { rules: rules.into(), target });
                        Step::Remove((removals.len() - 1) as u32)
                    }
                };
                self.drafts[index].rule.steps.push(step);
            }
        }
        let mut plan = Plan {
            rules: self.drafts.into_iter().map(|draft| draft.rule).collect(),
            phases,
            names: self.names,
            chains: self.chains,
            removals,
            settings: self.settings,
            sieves: Vec::new(),
            bits: Vec::new(),
            chain_infos: Vec::new(),
            triggers: Vec::new(),
            number: 0,
            kept: crate::engine::Kept::default(),
        };
        plan.sieve();
        plan
    }
}

/// A pattern for names of members, in any case.
pub(super) fn member_pattern(pattern: &str) -> Result<meta::Regex, String> {
    let syntax = syntax::Config::new().unicode(false).utf8(false).case_insensitive(true);
    let config = meta::Config::new().utf8_empty(false).nfa_size_limit(Some(1 << 20));
    meta::Builder::new()
        .syntax(syntax)
        .configure(config)
        .build(pattern)
        .map_err(|_| format!("/{pattern}/ is no pattern that can be compiled"))
}
