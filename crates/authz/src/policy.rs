//! Policies from texts: read within bounds, named, checked against the schema, filed.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy_core::ast::{
    EntityUID, Expr, ExprKind, Literal, Policy, PolicyID, PolicySet, PrincipalOrResourceConstraint, Var,
};
use cedar_policy_core::parser::{Loc, parse_policyset};
use ringfence_model::{Diagnostic, Diagnostics, OUTSIDE, Position, SourceFile};
use smol_str::SmolStr;

use crate::decision::{Effect, Mode, PolicyRef};
use crate::files::MAX_FILE_BYTES;
use crate::index::{Index, depth};
use crate::names::{CLIENT, GROUP, PATH, SERVICE, USER};
use crate::position::Lines;
use crate::schema::Schema;
use crate::text::{plain, short};
use crate::types::{check_types, told};

/// Policies of one fence.
pub const MAX_POLICIES: usize = 50_000;
/// How deep an expression may be: evaluation recurses, and must never run out of stack.
pub const MAX_POLICY_NESTING: usize = 100;
/// Brackets within brackets in a text.
const MAX_BRACKETS: usize = 64;
/// Operators of one policy: what a parser may have to nest.
const MAX_OPERATORS: usize = 4_000;
/// Characters of `@reason`.
const MAX_REASON: usize = 500;
/// Parsing and checking recurse; their thread has room for whatever the bounds above let through.
const STACK_BYTES: usize = 256 << 20;

/// Policies that may take part in decisions.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) index: Index,
    /// By number in the index.
    pub(crate) refs: Vec<Filed>,
    /// Those in mode `off`.
    pub(crate) off: Vec<Arc<PolicyRef>>,
    pub(crate) lines: Vec<Lines>,
    /// What of the context they read; none: all of it.
    pub(crate) context: Option<Vec<SmolStr>>,
    /// The same of those that are enforced.
    pub(crate) deciding: Option<Vec<SmolStr>>,
    /// Entities that their conditions name.
    pub(crate) named: Vec<EntityUID>,
}

/// A policy and the file it stands in.
#[derive(Debug)]
pub(crate) struct Filed {
    pub(crate) policy: Arc<PolicyRef>,
    pub(crate) file: usize,
}

impl Policies {
    /// Reads all files; warnings come with the policies.
    pub(crate) fn parse(
        files: &[SourceFile],
        schema: &Schema,
    ) -> Result<(Self, Vec<Diagnostic>), Diagnostics> {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("policies".into())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || read(files, schema))
                .map_err(|error| format!("cannot start a thread to read them: {error}"))
                .and_then(|thread| thread.join().map_err(|_| "they made their reader fail".to_owned()))
        })
        .unwrap_or_else(|message| {
            let mut out = Diagnostics::default();
            out.push(Diagnostic::error("policies", Position::whole("policies".into()), message));
            Err(out)
        })
    }
}

/// A policy on its way.
pub(crate) struct Read {
    pub(crate) policy: Policy,
    pub(crate) reference: Arc<PolicyRef>,
    pub(crate) file: usize,
}

fn read(files: &[SourceFile], schema: &Schema) -> Result<(Policies, Vec<Diagnostic>), Diagnostics> {
    let mut out = Diagnostics::default();
    let mut lines = Vec::with_capacity(files.len());
    let mut read = Vec::new();
    for (number, file) in files.iter().enumerate() {
        lines.push(Lines::new(Arc::clone(&file.name), Arc::clone(&file.text)));
        if let Err((offset, message)) = within_bounds(&file.text) {
            out.push(Diagnostic::error("too-large", lines[number].position(offset), message));
            continue;
        }
        match parse_policyset(&file.text) {
            Ok(set) => take(&set, number, &lines[number], &mut read, &mut out),
            Err(errors) => {
                for error in errors.iter() {
                    out.push(told(&lines[number], "syntax", error));
                }
            }
        }
    }
    if read.len() > MAX_POLICIES {
        let message = format!("there are more than {MAX_POLICIES} policies");
        out.push(Diagnostic::error("too-large", Position::whole("policies".into()), message));
        return Err(out);
    }
    unique(&read, &mut out);
    for one in &read {
        check_words(one, &lines[one.file], schema, &mut out);
    }
    check_types(&read, &lines, schema, &mut out);
    let mut out = out.finish(files);
    if !out.is_valid() {
        return Err(out);
    }
    let mut policies = Policies { lines, ..Policies::default() };
    let (mut context, mut deciding) = (Some(Vec::new()), Some(Vec::new()));
    let mut filed = Vec::with_capacity(read.len());
    for one in read {
        if one.reference.mode == Mode::Off {
            policies.off.push(one.reference);
            continue;
        }
        let condition = one.policy.condition();
        context_use(&condition, &mut context);
        if one.reference.mode == Mode::Enforce {
            context_use(&condition, &mut deciding);
        }
        // Those of the scope are compared with, never looked into.
        let named = one.policy.non_scope_constraints().into_iter().flat_map(literals);
        policies.named.extend(named.map(|(uid, _)| uid.clone()));
        policies.refs.push(Filed { policy: one.reference, file: one.file });
        filed.push(one.policy);
    }
    policies.named.sort();
    policies.named.dedup();
    let in_order = |mut names: Vec<SmolStr>| {
        names.sort();
        names.dedup();
        names
    };
    policies.context = context.map(in_order);
    policies.deciding = deciding.map(in_order);
    policies.index = Index::new(filed);
    Ok((policies, std::mem::take(&mut out.warnings)))
}

/// Takes the policies of one file, in order.
fn take(set: &PolicySet, file: usize, lines: &Lines, read: &mut Vec<Read>, out: &mut Diagnostics) {
    for template in set.templates() {
        let position = lines.position(template.loc().map_or(0, Loc::start));
        out.push(
            Diagnostic::error("template", position, "this is a template: it has a slot that nothing fills")
                .help("write the entity instead of `?principal` or `?resource`".to_owned()),
        );
    }
    let mut policies: Vec<&Policy> = set.static_policies().collect();
    policies.sort_by_key(|policy| policy.loc().map_or(0, Loc::start));
    for policy in policies {
        let start = policy.loc().map_or(0, Loc::start);
        let position = lines.position(start);
        let end = policy.loc().map_or(0, Loc::end);
        if depth(&policy.condition()) > MAX_POLICY_NESTING {
            let message = format!("its condition is nested deeper than {MAX_POLICY_NESTING}");
            let help =
                "ask a set (`[…].contains(…)`) instead of many alternatives, or split the policy".to_owned();
            out.push(
                Diagnostic::error("too-large", position, message)
                    .help(help)
                    .width(lines.width(start, end - start)),
            );
            continue;
        }
        let mut mode = Mode::Enforce;
        let (mut id, mut reason) = (None, None);
        for (name, annotation) in policy.annotations() {
            let value = annotation.val.as_str();
            let at = annotation.loc.as_ref().map_or(start, Loc::start);
            match name.as_ref() {
                "id" if !value.is_empty() && value.len() <= 128 && plain(value) == value => id = Some(value),
                "id" => {
                    let message = "an id has from 1 to 128 bytes, none of them a control character";
                    out.push(Diagnostic::error("annotation", lines.position(at), message));
                }
                "reason" => reason = Some(value),
                "mode" => match value {
                    "enforce" => {}
                    "observe" => mode = Mode::Observe,
                    "off" => mode = Mode::Off,
                    other => {
                        let message = format!("`{}` is no mode", other.escape_debug());
                        let error = Diagnostic::error("annotation", lines.position(at), message);
                        out.push(error.did_you_mean(other, ["enforce", "observe", "off"]));
                    }
                },
                other => annotation_slip(other, lines.position(at), out),
            }
        }
        let id: Arc<str> = match id {
            Some(id) => id.into(),
            None if lines.first_on_line(start) => format!("{}:{}", position.file, position.line).into(),
            None => position.to_string().into(),
        };
        let effect = match policy.effect() {
            cedar_policy_core::ast::Effect::Permit => Effect::Permit,
            cedar_policy_core::ast::Effect::Forbid => Effect::Forbid,
        };
        let reason = reason.map(|reason| short(reason, MAX_REASON).into());
        let reference = Arc::new(PolicyRef { id, position, effect, mode, reason });
        // Numbers in their order, so that the validator's answers find their file.
        let policy = policy.new_id(PolicyID::from_string(read.len().to_string()));
        read.push(Read { policy, reference, file });
    }
}

/// Other annotations are free; one that looks like ours would be taken for it by whoever reads the policy.
fn annotation_slip(name: &str, position: Position, out: &mut Diagnostics) {
    let known = ["id", "mode", "reason"];
    let lower = name.to_lowercase();
    let slip = known.iter().any(|ours| lower.starts_with(&ours[..2]) && lower.len() <= ours.len() + 2);
    if slip {
        let message = format!("`@{name}` says nothing to Ringfence");
        out.push(Diagnostic::error("annotation", position, message).did_you_mean(name, known));
    }
}

fn unique(read: &[Read], out: &mut Diagnostics) {
    let mut seen: HashMap<&str, &Position> = HashMap::new();
    for one in read {
        if let Some(first) = seen.insert(&one.reference.id, &one.reference.position) {
            let message = format!("another policy has the id `{}`", one.reference.id.escape_debug());
            let error = Diagnostic::error("duplicate-id", one.reference.position.clone(), message);
            out.push(error.related(first, "it stands here first"));
        }
    }
}

/// Names of the fence's own things: the validator knows types, not which services exist.
fn check_words(one: &Read, lines: &Lines, schema: &Schema, out: &mut Diagnostics) {
    let condition = one.policy.condition();
    let start = one.policy.loc().map_or(0, Loc::start);
    for (uid, loc) in literals(&condition) {
        let (at, length) = loc.map_or((start, 1), |loc| (loc.start(), loc.end() - loc.start()));
        let error = |code: &'static str, message: String| {
            Diagnostic::error(code, lines.position(at), message).width(lines.width(at, length))
        };
        let id: &str = uid.eid().as_ref();
        let shown = id.chars().take(64).collect::<String>().escape_debug().to_string();
        match uid.entity_type().to_string().as_str() {
            SERVICE if id != OUTSIDE && !schema.services.contains_key(id) => {
                let error = error("unknown-service", format!("the fence has no service `{shown}`"));
                out.push(error.did_you_mean(id, schema.services.keys().map(String::as_str)));
            }
            PATH => {
                let known: Vec<String> = schema
                    .services
                    .iter()
                    .flat_map(|(name, paths)| {
                        paths.templates().iter().map(move |t| format!("{name}{}", t.text))
                    })
                    .collect();
                if !known.iter().any(|known| known == id) {
                    let error = error(
                        "unknown-path",
                        format!("no `allow` and no route of the fence names the path `{shown}`"),
                    );
                    out.push(error.did_you_mean(id, known.iter().map(String::as_str)));
                }
            }
            kind @ (USER | CLIENT | GROUP) => match id.split_once('/') {
                None => out.push(
                    error("unqualified", format!("{kind}::\"{shown}\" does not say whose"))
                        .help(format!("it is written {kind}::\"PROVIDER/NAME\"")),
                ),
                Some((provider, _)) if !schema.providers.contains(provider) => {
                    let known: Vec<&str> = schema.providers.iter().map(String::as_str).collect();
                    let provider_shown =
                        provider.chars().take(64).collect::<String>().escape_debug().to_string();
                    let error =
                        error("unknown-provider", format!("the fence has no provider `{provider_shown}`"));
                    out.push(error.did_you_mean(provider, known));
                }
                Some(_) => {}
            },
            _ => {}
        }
    }
    if let PrincipalOrResourceConstraint::Eq(_) = one.policy.resource_constraint().as_inner()
        && let Some(uid) = one.policy.resource_constraint().as_inner().get_euid()
        && uid.entity_type().to_string() == SERVICE
    {
        let at = uid.loc().map_or(start, Loc::start);
        let message =
            "this holds only for paths of the service that neither `allow` nor route of the fence names";
        let warning = Diagnostic::warning("resource-eq", lines.position(at), message);
        out.push(warning.help("for the whole service, write `resource in …`".to_owned()));
    }
}

/// Entities that an expression names, and where.
fn literals(expr: &Expr) -> impl Iterator<Item = (&EntityUID, Option<&Loc>)> {
    expr.subexpressions().filter_map(|part| match part.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) => {
            Some((uid.as_ref(), part.source_loc().or_else(|| uid.loc())))
        }
        _ => None,
    })
}

/// Collects the attributes of the context that an expression reads; none when it takes the context as a whole.
fn context_use(expr: &Expr, names: &mut Option<Vec<SmolStr>>) {
    let is_context = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Context));
    let Some(found) = names else { return };
    let (mut whole, mut read) = (0, 0);
    for part in expr.subexpressions() {
        match part.expr_kind() {
            ExprKind::Var(Var::Context) => whole += 1,
            ExprKind::GetAttr { expr, attr } | ExprKind::HasAttr { expr, attr } if is_context(expr) => {
                read += 1;
                found.push(attr.clone());
            }
            ExprKind::ExtHasAttr { expr, attrs } if is_context(expr) => {
                read += 1;
                found.push(attrs.first().clone());
            }
            _ => {}
        }
    }
    if whole != read {
        *names = None;
    }
}

/// Refuses, before any recursion, a text that would make a parser recurse without bound.
fn within_bounds(text: &str) -> Result<(), (usize, String)> {
    if text.len() > MAX_FILE_BYTES {
        return Err((0, format!("a policy file has at most {} MiB", MAX_FILE_BYTES >> 20)));
    }
    let bytes = text.as_bytes();
    let (mut brackets, mut operators, mut at) = (0_usize, 0_usize, 0_usize);
    let (mut in_string, mut in_word) = (false, false);
    while let Some(&byte) = bytes.get(at) {
        let here = at;
        at += 1;
        if in_string {
            match byte {
                b'\\' => at += 1,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        let word = byte.is_ascii_alphanumeric() || byte == b'_';
        if word {
            // `if`, `in`, `is`, `has`, `like`: each word may be one.
            operators += usize::from(!in_word);
        }
        in_word = word;
        match byte {
            b'"' => in_string = true,
            b'/' if bytes.get(at) == Some(&b'/') => {
                at += bytes
                    .get(at..)
                    .and_then(|rest| rest.iter().position(|b| *b == b'\n'))
                    .unwrap_or(bytes.len());
            }
            b'(' | b'[' | b'{' => {
                brackets += 1;
                if brackets > MAX_BRACKETS {
                    return Err((here, format!("brackets are nested deeper than {MAX_BRACKETS}")));
                }
            }
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            b';' if brackets == 0 => operators = 0,
            b'&' | b'|' | b'+' | b'-' | b'*' | b'.' | b'!' | b'<' | b'>' | b'=' => operators += 1,
            _ => {}
        }
        if operators > MAX_OPERATORS {
            return Err((here, format!("a policy has at most {MAX_OPERATORS} words and operators")));
        }
    }
    Ok(())
}
