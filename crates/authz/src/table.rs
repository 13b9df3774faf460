//! `authz test`: a table of requests and what is expected of them, kept beside the policies and run by CI.
//!
//! ```yaml
//! - name: nurses read through the portal
//!   principal: { user: staff/nora, groups: [nurse] }
//!   request: GET patients/patients/7
//!   from: portal
//!   expect: allow
//!   by: [nurses-read]
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ringfence_model::yaml::{self, Dialect, Mark, Node, Value};
use ringfence_model::{Diagnostic, Diagnostics, Position, SourceFile};
use serde::Serialize;

use crate::actor::{Principal, PrincipalKind};
use crate::decision::Decision;
use crate::engine::Engine;
use crate::question::Question;

/// Rows of one table.
const MAX_CASES: usize = 10_000;
/// Bytes of one table.
const MAX_BYTES: usize = 4 << 20;

/// A table, read.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its rows.
    pub cases: Vec<Case>,
}

/// A row: a question and the expected answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// `name`, or the question in words.
    pub name: String,
    /// The question.
    pub question: Question,
    /// Whether it is to be allowed.
    pub allow: bool,
    /// The ids of the policies that are to decide; none: whichever.
    pub by: Option<Vec<String>>,
    /// Where it stands.
    pub position: Position,
}

/// What came of a row.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// The row's name.
    pub name: String,
    /// Where it stands.
    pub position: Position,
    /// What is wrong; none when it is as expected.
    pub problem: Option<String>,
    /// The decision.
    pub decision: Decision,
}

impl Table {
    /// Reads a table, in YAML or JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line and column.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut reader = Reader { file: name.into(), out: Diagnostics::default() };
        if text.len() > MAX_BYTES {
            let message = format!("a table has at most {} MiB", MAX_BYTES >> 20);
            reader.out.push(Diagnostic::error(
                "too-large",
                Position::whole(Arc::clone(&reader.file)),
                message,
            ));
            return Err(reader.out);
        }
        let parsed = yaml::parse(text, Dialect::Strict);
        for problem in parsed.problems {
            let diagnostic = Diagnostic::error(problem.code, reader.position(problem.mark), problem.message);
            reader.out.push(diagnostic.help(problem.help));
        }
        let mut cases = Vec::new();
        match parsed.documents.first() {
            Some(Node { value: Value::List(rows), .. }) if rows.len() <= MAX_CASES => {
                cases.extend(rows.iter().filter_map(|row| reader.case(row)));
            }
            Some(node) => reader.error(node.mark, format!("a table is a list of at most {MAX_CASES} rows")),
            None => reader.error(Mark { line: 1, column: 1 }, "the table is empty".into()),
        }
        let file = SourceFile { name: Arc::clone(&reader.file), owner: None, text: text.into() };
        let out = reader.out.finish(&[file]);
        if out.is_valid() { Ok(Self { cases }) } else { Err(out) }
    }
}

impl Engine {
    /// Runs a table.
    #[must_use]
    pub fn test(&self, table: &Table, now: SystemTime) -> Vec<CaseResult> {
        let run = |case: &Case| {
            let decision = self.answer(&case.question, now);
            CaseResult {
                name: case.name.clone(),
                position: case.position.clone(),
                problem: case.problem(&decision),
                decision,
            }
        };
        table.cases.iter().map(run).collect()
    }
}

impl Case {
    fn problem(&self, decision: &Decision) -> Option<String> {
        let word = |allowed| if allowed { "allow" } else { "deny" };
        let told = |ids: &[&str]| if ids.is_empty() { "no policy".to_owned() } else { ids.join(", ") };
        let mut ids: Vec<&str> = decision.determining.iter().map(|policy| policy.id.as_ref()).collect();
        ids.sort_unstable();
        if decision.allowed != self.allow {
            return Some(format!(
                "expected {}, got {} by {}",
                word(self.allow),
                word(decision.allowed),
                told(&ids)
            ));
        }
        let mut expected: Vec<&str> = self.by.as_ref()?.iter().map(String::as_str).collect();
        expected.sort_unstable();
        expected.dedup();
        (ids != expected).then(|| {
            format!("as expected {}, but by {} instead of {}", word(self.allow), told(&ids), told(&expected))
        })
    }
}

struct Reader {
    file: Arc<str>,
    out: Diagnostics,
}

impl Reader {
    fn position(&self, mark: Mark) -> Position {
        Position::new(Arc::clone(&self.file), mark.line, mark.column)
    }

    fn error(&mut self, mark: Mark, message: String) {
        let error = Diagnostic::error("table", self.position(mark), message);
        self.out.push(error);
    }

    fn unknown(&mut self, mark: Mark, word: &str, known: &[&'static str]) {
        let message =
            format!("`{}` is unknown here", word.chars().take(64).collect::<String>().escape_debug());
        let error = Diagnostic::error("unknown-key", self.position(mark), message);
        self.out.push(error.did_you_mean(word, known.iter().copied()));
    }

    fn case(&mut self, row: &Node) -> Option<Case> {
        let Value::Map(entries) = &row.value else {
            self.error(row.mark, "a row is a mapping with `principal`, `request` and `expect`".into());
            return None;
        };
        const KEYS: [&str; 10] =
            ["name", "principal", "request", "from", "chain", "host", "source", "time", "expect", "by"];
        let mut principal = Principal::default();
        let (mut request, mut allow, mut by, mut name, mut from, mut chain, mut host) =
            (None, None, None, None, None, None, None);
        let (mut source, mut time) = (None, None);
        for entry in entries {
            let value = &entry.value;
            match entry.key.as_str() {
                "name" => name = self.text(value),
                "principal" => principal = self.principal(value)?,
                "request" => request = self.request(value),
                "from" => from = self.text(value),
                "chain" => chain = self.list(value),
                "host" => host = self.text(value),
                "source" => {
                    let text = self.text(value)?;
                    source = self.parsed::<IpAddr>(value, text.parse().ok(), "an IP address")?.into();
                }
                "time" => {
                    let text = self.text(value)?;
                    let read = humantime::parse_rfc3339(&text).ok();
                    time = self.parsed(value, read, "a time such as 2030-01-31T12:00:00Z")?.into();
                }
                "expect" => match value.text() {
                    Some("allow") => allow = Some(true),
                    Some("deny") => allow = Some(false),
                    _ => self.error(value.mark, "`expect` is `allow` or `deny`".into()),
                },
                "by" => by = self.list(value),
                key => self.unknown(entry.mark, key, &KEYS),
            }
        }
        let (Some((method, service, path)), Some(allow)) = (request, allow) else {
            if self.out.is_valid() {
                self.error(row.mark, "a row needs `request` and `expect`".into());
            }
            return None;
        };
        let mut question = Question::new(principal, &method, &service, &path);
        if let Some(from) = from {
            question = question.through(&from);
        }
        question.chain = chain.unwrap_or(question.chain);
        question.host = host.unwrap_or(question.host);
        (question.source, question.time) = (source, time);
        let name = name.unwrap_or_else(|| question.to_string());
        Some(Case { name, question, allow, by, position: self.position(row.mark) })
    }

    fn principal(&mut self, node: &Node) -> Option<Principal> {
        const KEYS: [&str; 8] =
            ["user", "client", "service", "through", "groups", "scopes", "acr", "auth_time"];
        if node.text() == Some("anonymous") {
            return Some(Principal::default());
        }
        let mut principal = Principal::default();
        for entry in node.entries() {
            let value = &entry.value;
            match entry.key.as_str() {
                "user" | "client" => {
                    let text = self.text(value)?;
                    let Some((provider, id)) = text.split_once('/') else {
                        self.error(value.mark, format!("`{}` is written PROVIDER/NAME", entry.key));
                        return None;
                    };
                    principal.kind =
                        if entry.key == "user" { PrincipalKind::User } else { PrincipalKind::Client };
                    (principal.provider, principal.id) = (provider.to_owned(), id.to_owned());
                }
                "service" => {
                    principal.kind = PrincipalKind::Service;
                    principal.id = self.text(value)?;
                }
                "through" => principal.client = Some(self.text(value)?),
                "groups" => principal.groups = self.list(value)?,
                "scopes" => principal.scopes = self.list(value)?,
                "acr" => principal.acr = Some(self.text(value)?),
                "auth_time" => {
                    let text = self.text(value)?;
                    let seconds = self.parsed(value, text.parse().ok(), "seconds since 1970")?;
                    principal.auth_time = Some(seconds);
                }
                key => self.unknown(entry.mark, key, &KEYS),
            }
        }
        if principal.kind == PrincipalKind::Anonymous {
            self.error(node.mark, "a principal is `anonymous`, or has `user`, `client` or `service`".into());
            return None;
        }
        Some(principal)
    }

    /// `METHOD SERVICE/PATH`.
    fn request(&mut self, node: &Node) -> Option<(String, String, String)> {
        let text = self.text(node)?;
        let parts = text.split_once(' ').and_then(|(method, rest)| {
            let rest = rest.trim();
            let slash = rest.find('/').unwrap_or(rest.len());
            let path = if slash == rest.len() { "/" } else { &rest[slash..] };
            let good = !method.is_empty() && slash > 0 && !rest.contains(char::is_whitespace);
            good.then(|| (method.to_owned(), rest[..slash].to_owned(), path.to_owned()))
        });
        if parts.is_none() {
            self.error(
                node.mark,
                "`request` is written METHOD SERVICE/PATH, such as `GET patients/patients/7`".into(),
            );
        }
        parts
    }

    fn parsed<T>(&mut self, node: &Node, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() {
            self.error(node.mark, format!("this is not {what}"));
        }
        value
    }

    fn text(&mut self, node: &Node) -> Option<String> {
        let text = node.text().map(ToOwned::to_owned);
        if text.is_none() {
            self.error(node.mark, "a text is expected here".into());
        }
        text
    }

    fn list(&mut self, node: &Node) -> Option<Vec<String>> {
        let Value::List(items) = &node.value else {
            self.error(node.mark, "a list is expected here".into());
            return None;
        };
        items.iter().map(|item| self.text(item)).collect()
    }
}
