//! Actions of a rule, from text to what the engine does.

use std::sync::Arc;

use super::{
    Allow, Change, Disruption, Place, SEVERITIES, SetVar, Step,
    compile::{Compiler, Defaults},
    rule::{Rule, Target, Test},
};
use crate::{
    Mode,
    body::Kind,
    lang::{ActionNode, Position, RuleNode, Variable, parse_targets},
    rules::RuleInfo,
    transform::Transformation,
};

/// What can be decided only when all rules are known.
pub(super) enum Pending {
    SkipAfter(String),
    Remove(Selection, Option<Target>),
}

/// Rules by what they have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    Ids(Vec<(u64, u64)>),
    Tag(String),
    Message(String),
}

/// A rule without its targets and test.
pub(super) struct Parsed {
    pub(super) rule: Rule,
    pub(super) pending: Vec<Pending>,
    pub(super) chained: bool,
}

/// Actions that say something about logs, or about a process that is not ours.
const NO_EFFECT: &[&str] = &[
    "auditlog",
    "noauditlog",
    "sanitisearg",
    "sanitisematched",
    "sanitisematchedbytes",
    "sanitiserequestheader",
    "sanitiseresponseheader",
    "sanitizearg",
    "sanitizematched",
    "sanitizematchedbytes",
    "sanitizerequestheader",
    "sanitizeresponseheader",
    "ver",
    "rev",
    "maturity",
    "accuracy",
    "expirevar",
    "deprecatevar",
    "exec",
    "append",
    "prepend",
    "xmlns",
    "proxy",
    "pause",
    "logtag",
];

/// Number of a phase from its number or name.
fn phase(text: &str) -> Option<u8> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" => Some(1),
        "2" | "request" => Some(2),
        "3" => Some(3),
        "4" | "response" => Some(4),
        "5" | "logging" => Some(5),
        _ => None,
    }
}

fn severity(text: &str) -> Option<u8> {
    match text.trim().parse::<u8>() {
        Ok(number) if number < 8 => Some(number),
        Ok(_) => None,
        Err(_) => SEVERITIES
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text.trim()))
            .and_then(|index| u8::try_from(index).ok()),
    }
}

/// `SecDefaultAction`.
pub(super) fn defaults(actions: &[ActionNode]) -> Result<(u8, Defaults), String> {
    let mut out = Defaults::default();
    let mut at = None;
    for action in actions {
        let text = action.text();
        match action.name.as_str() {
            "phase" => at = Some(phase(&text).ok_or("the phase is a number from 1 to 5")?),
            "log" => out.log = Some(true),
            "nolog" => out.log = Some(false),
            "deny" => out.disruption = Some((Disruption::Deny, None)),
            "drop" => out.disruption = Some((Disruption::Drop, None)),
            "pass" => out.disruption = Some((Disruption::None, None)),
            "status" => out.status = Some(text.trim().parse().map_err(|_| "the status is a number")?),
            "t" => match Transformation::parse(&text) {
                Some(Transformation::None) => out.transformations.clear(),
                Some(transformation) => out.transformations.push(transformation),
                None => return Err(format!("unknown transformation '{text}'")),
            },
            "tag" | "auditlog" | "noauditlog" => {}
            other => {
                return Err(format!(
                    "'{other}' cannot be a default: log, nolog, deny, drop, pass, status and t can"
                ));
            }
        }
    }
    if let Some((_, status)) = &mut out.disruption {
        *status = out.status;
    }
    Ok((at.ok_or("SecDefaultAction needs a phase")?, out))
}

/// What is read before the rest, as the rest depends on it.
#[derive(Default)]
struct Head {
    id: u64,
    phase: Option<u8>,
    tags: Vec<Box<str>>,
    message: Option<Vec<u8>>,
}

/// Compiles a rule's actions. None: an error was told.
pub(super) fn compile(
    compiler: &mut Compiler<'_, '_>,
    position: Position,
    node: &RuleNode,
    starter: Option<usize>,
) -> Option<Parsed> {
    let head = match head(&node.actions) {
        Ok(head) => head,
        Err(text) => {
            compiler.error(position, text);
            return None;
        }
    };
    // Links take their chain's phase; rules without one run in the second, as in the reference.
    let phase = starter.map_or_else(|| head.phase.unwrap_or(2), |index| compiler.drafts[index].rule.phase);
    let defaults = compiler.defaults[usize::from(phase) - 1].clone();
    let id = starter.map_or(head.id, |index| compiler.drafts[index].rule.info.id);
    let operator = node.operator.as_ref().map_or_else(String::new, |operator| {
        let argument = String::from_utf8_lossy(&operator.argument);
        format!("{}@{} {argument}", if operator.negated { "!" } else { "" }, operator.name)
    });
    let file = compiler.file(position);
    let mut rule = Rule {
        info: RuleInfo {
            id,
            file,
            line: position.line,
            phase,
            message: String::from_utf8_lossy(head.message.as_deref().unwrap_or_default()).into(),
            tags: head.tags.into(),
            severity: None,
            transformations: Arc::new([]),
            operator: operator.into(),
        },
        phase,
        targets: Vec::new(),
        exclusions: Vec::new(),
        test: Test::Always,
        chain: 0,
        multi_match: false,
        capture: false,
        setvars: Vec::new(),
        steps: Vec::new(),
        message: None,
        data: None,
        disruption: Disruption::None,
        status: defaults.status.unwrap_or(403),
        log: defaults.log.unwrap_or(true),
        next: None,
        quick: None,
    };
    let mut transformations = defaults.transformations.clone();
    let mut pending = Vec::new();
    let mut chained = false;
    for action in &node.actions {
        let result =
            one(compiler, position, action, &defaults, &mut rule, &mut transformations, &mut pending);
        match result {
            Ok(true) => chained = true,
            Ok(false) => {}
            Err(text) => {
                compiler.error(
                    Position { column: node.actions_at.column, line: node.actions_at.line, ..position },
                    text,
                );
                return None;
            }
        }
    }
    rule.message = head.message.map(|text| compiler.macros(position, &text));
    compiler.set_chain(position, &mut rule, &transformations);
    Some(Parsed { rule, pending, chained })
}

fn head(actions: &[ActionNode]) -> Result<Head, String> {
    let mut head = Head::default();
    for action in actions {
        let text = action.text();
        match action.name.as_str() {
            "id" => {
                head.id = text.trim().parse().map_err(|_| format!("'{text}' is no rule id: a number is"))?
            }
            "phase" => {
                head.phase = Some(phase(&text).ok_or_else(|| format!("'{text}' is no phase: 1 to 5 are"))?);
            }
            "tag" => head.tags.push(text.into()),
            "msg" => head.message.clone_from(&action.value),
            _ => {}
        }
    }
    Ok(head)
}

/// Applies one action; true for `chain`.
fn one(
    compiler: &mut Compiler<'_, '_>,
    position: Position,
    action: &ActionNode,
    defaults: &Defaults,
    rule: &mut Rule,
    transformations: &mut Vec<Transformation>,
    pending: &mut Vec<Pending>,
) -> Result<bool, String> {
    let text = action.text();
    let value = action.value.as_deref().unwrap_or_default();
    match action.name.as_str() {
        "id" | "phase" | "tag" | "msg" => {}
        "chain" => return Ok(true),
        "t" => match Transformation::parse(text.trim()) {
            Some(Transformation::None) => transformations.clear(),
            Some(transformation) => transformations.push(transformation),
            None => return Err(format!("unknown transformation 't:{text}'")),
        },
        "capture" => rule.capture = true,
        "multimatch" => rule.multi_match = true,
        "log" => rule.log = true,
        "nolog" => rule.log = false,
        "severity" => {
            rule.info.severity = Some(severity(&text).ok_or_else(|| format!("'{text}' is no severity"))?);
        }
        "logdata" => rule.data = Some(compiler.macros(position, value)),
        "status" => rule.status = text.trim().parse().map_err(|_| format!("'{text}' is no status"))?,
        "setvar" => rule.setvars.extend(setvar(compiler, position, value)?),
        "block" => {
            if let Some((disruption, status)) = &defaults.disruption {
                rule.disruption = disruption.clone();
                rule.status = status.unwrap_or(rule.status);
            }
        }
        "deny" => rule.disruption = Disruption::Deny,
        "drop" => rule.disruption = Disruption::Drop,
        "pass" => rule.disruption = Disruption::None,
        "redirect" => rule.disruption = Disruption::Redirect(compiler.macros(position, value)),
        "allow" => {
            rule.disruption = Disruption::Allow(match text.trim().to_ascii_lowercase().as_str() {
                "" => Allow::All,
                "phase" => Allow::Phase,
                "request" => Allow::Request,
                _ => return Err(format!("'allow:{text}': only phase and request can stand there")),
            });
        }
        "skip" => {
            rule.steps
                .push(Step::Skip(text.trim().parse().map_err(|_| format!("'skip:{text}' needs a number"))?));
        }
        "skipafter" => pending.push(Pending::SkipAfter(text.trim().to_owned())),
        "initcol" => {
            let (collection, key) = text.split_once('=').ok_or("initcol needs COLLECTION=KEY")?;
            let collection =
                stored(collection).ok_or_else(|| format!("'{collection}' is no collection to be kept"))?;
            let key = compiler.macros(position, key.as_bytes());
            rule.steps.push(Step::Collection(collection, key));
        }
        "setuid" => rule.steps.push(Step::SetUser(compiler.macros(position, value))),
        "setsid" => rule.steps.push(Step::SetSession(compiler.macros(position, value))),
        "setrsc" => {
            let key = compiler.macros(position, value);
            rule.steps.push(Step::Collection(Variable::Resource, key));
        }
        "setenv" => {
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            let name = name.trim().to_ascii_lowercase().into_bytes().into();
            let value = compiler.macros(position, value.as_bytes());
            rule.steps.push(Step::SetEnv(name, value));
        }
        "ctl" => control(compiler, position, &text, rule, pending)?,
        other if NO_EFFECT.contains(&other) => {
            if matches!(
                other,
                "exec" | "append" | "prepend" | "proxy" | "pause" | "deprecatevar" | "expirevar"
            ) {
                compiler.warn(position, format!("the action '{other}' has no effect here"));
            }
        }
        other => return Err(format!("unknown action '{other}'")),
    }
    Ok(false)
}

fn stored(name: &str) -> Option<Variable> {
    match name.trim().to_ascii_lowercase().as_str() {
        "ip" => Some(Variable::Ip),
        "global" => Some(Variable::Global),
        "session" => Some(Variable::Session),
        "user" => Some(Variable::User),
        "resource" => Some(Variable::Resource),
        _ => None,
    }
}

fn setvar(
    compiler: &mut Compiler<'_, '_>,
    position: Position,
    text: &[u8],
) -> Result<Option<SetVar>, String> {
    let text = text.trim_ascii();
    let (remove, text) = match text.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let equals = text.iter().position(|byte| *byte == b'=');
    let (target, value) = match equals {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let dot = target.iter().position(|byte| matches!(byte, b'.' | b':'));
    let shown = || String::from_utf8_lossy(target).into_owned();
    let dot = dot.ok_or_else(|| format!("setvar:{}: expected COLLECTION.NAME", shown()))?;
    let (collection, name) = (target[..dot].trim_ascii(), target[dot + 1..].trim_ascii());
    let place = if collection.eq_ignore_ascii_case(b"tx") {
        let text = compiler.macros(position, name);
        match text.constant() {
            Some(name) => Place::Slot(compiler.names.slot(name)),
            None => Place::Named(text),
        }
    } else {
        let collection = std::str::from_utf8(collection).ok().and_then(stored);
        let collection =
            collection.ok_or_else(|| format!("setvar:{}: such a collection cannot be written", shown()))?;
        Place::Stored(collection, compiler.macros(position, name))
    };
    let lower = name.to_ascii_lowercase();
    let score = memchr::memmem::find(&lower, b"anomaly_score_pl").is_some();
    let change = match value {
        _ if remove => Change::Remove,
        None => Change::Set(compiler.macros(position, b"1")),
        Some([b'+', rest @ ..]) => Change::Add(compiler.macros(position, rest)),
        Some([b'-', rest @ ..]) => Change::Subtract(compiler.macros(position, rest)),
        Some(value) => Change::Set(compiler.macros(position, value)),
    };
    Ok(Some(SetVar { place, change, score }))
}

fn control(
    compiler: &mut Compiler<'_, '_>,
    position: Position,
    text: &str,
    rule: &mut Rule,
    pending: &mut Vec<Pending>,
) -> Result<(), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("ctl:{text}: expected NAME=VALUE"))?;
    let value = value.trim();
    let on = || match value.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("ctl:{text}: expected On or Off")),
    };
    match name.trim().to_ascii_lowercase().as_str() {
        "ruleengine" => rule.steps.push(Step::Engine(match value.to_ascii_lowercase().as_str() {
            "on" => Mode::Enforce,
            "off" => Mode::Off,
            "detectiononly" => Mode::Observe,
            _ => return Err(format!("ctl:{text}: expected On, Off or DetectionOnly")),
        })),
        "requestbodyaccess" => rule.steps.push(Step::RequestBodyAccess(on()?)),
        "responsebodyaccess" => rule.steps.push(Step::ResponseBodyAccess(on()?)),
        "forcerequestbodyvariable" => rule.steps.push(Step::ForceRequestBody(on()?)),
        "requestbodyprocessor" => {
            let processor = Kind::from_name(value.as_bytes())
                .ok_or_else(|| format!("ctl:{text}: URLENCODED, MULTIPART, JSON and XML can stand there"))?;
            rule.steps.push(Step::BodyProcessor(processor));
        }
        "ruleremovebyid" => pending.push(Pending::Remove(Selection::Ids(ids(value)?), None)),
        "ruleremovebytag" => pending.push(Pending::Remove(Selection::Tag(value.into()), None)),
        "ruleremovebymsg" => pending.push(Pending::Remove(Selection::Message(value.into()), None)),
        kind @ ("ruleremovetargetbyid" | "ruleremovetargetbytag" | "ruleremovetargetbymsg") => {
            let (what, targets) =
                value.split_once(';').ok_or_else(|| format!("ctl:{text}: expected RULES;TARGET"))?;
            let selection = match kind {
                "ruleremovetargetbyid" => Selection::Ids(ids(what)?),
                "ruleremovetargetbytag" => Selection::Tag(what.trim().into()),
                _ => Selection::Message(what.trim().into()),
            };
            for target in parse_targets(targets.as_bytes()).map_err(|(_, text)| text)? {
                let target = compiler.target(position, &target).ok_or("this target cannot be compiled")?;
                pending.push(Pending::Remove(selection.clone(), Some(target)));
            }
        }
        "auditengine" | "auditlogparts" | "debugloglevel" | "hashengine" | "hashenforcement"
        | "parsexmlintoargs" => {}
        other => return Err(format!("unknown control '{other}'")),
    }
    Ok(())
}

fn ids(text: &str) -> Result<Vec<(u64, u64)>, String> {
    text.split([',', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            match (from.trim().parse(), to.trim().parse()) {
                (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
                _ => Err(format!("'{part}' is no rule id and no range of ids")),
            }
        })
        .collect()
}
