//! From events to nodes, on an explicit stack: depth of the input never becomes depth of ours.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::{Dialect, Entry, MAX_DEPTH, MAX_NODES, Mark, Node, Parsed, Problem, Value};
use crate::suggest::quote;

const MAX_PROBLEMS: usize = 100;

/// Reads a text. Never panics and never recurses on the input; what is wrong is in [`Parsed::problems`].
#[must_use]
pub fn parse(text: &str, dialect: Dialect) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut collector = Collector { dialect, ..Collector::default() };
    if let Some(problem) = unreadable(text) {
        collector.out.problems.push(problem);
        return collector.out;
    }
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if let Err(problem) = collector.event(event, mark(span.start)) {
                    collector.out.problems.push(*problem);
                    return collector.out;
                }
            }
            Err(error) => {
                collector.out.problems.push(syntax(&error));
                return collector.out;
            }
        }
        if collector.out.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    collector.out
}

fn mark(marker: Marker) -> Mark {
    let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: clip(marker.line()).max(1), column: clip(marker.col()).saturating_add(1) }
}

/// Characters that YAML forbids or that readers see differently: a NUL would end the text for the scanner.
fn unreadable(text: &str) -> Option<Problem> {
    let bytes = text.as_bytes();
    let bad = text.char_indices().find(|(at, c)| match c {
        '\n' | '\t' => false,
        '\r' => bytes.get(at + 1) != Some(&b'\n'),
        c => c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'),
    });
    let (at, c) = bad?;
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Problem {
        code: "bad-character",
        mark: Mark { line: clip(line), column: clip(column) },
        message: format!("the character {} may not stand in YAML", c.escape_unicode()),
        help: (c == '\r').then(|| "end lines with \\n or \\r\\n".to_owned()),
        earlier: None,
        fatal: true,
    })
}

fn syntax(error: &ScanError) -> Problem {
    Problem {
        code: "syntax",
        mark: mark(*error.marker()),
        message: format!("this is not valid YAML: {}", error.info()),
        help: None,
        earlier: None,
        fatal: true,
    }
}

fn fatal(code: &'static str, mark: Mark, message: String, help: Option<String>) -> Box<Problem> {
    Box::new(Problem { code, mark, message, help, earlier: None, fatal: true })
}

/// A collection under construction.
#[derive(Debug)]
struct Frame {
    mark: Mark,
    anchor: usize,
    kind: Kind,
    /// Nodes and levels below it so far, for the bounds on aliases.
    nodes: usize,
    depth: usize,
}

#[derive(Debug)]
enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Mark)>, seen: HashMap<String, Mark>, merged: Vec<Node> },
}

/// An anchored node with its measure.
#[derive(Debug)]
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

#[derive(Debug)]
struct Collector {
    dialect: Dialect,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    total: usize,
    out: Parsed,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            dialect: Dialect::Strict,
            stack: Vec::new(),
            anchors: HashMap::new(),
            total: 0,
            out: Parsed::default(),
        }
    }
}

impl Collector {
    fn event(&mut self, event: Event<'_>, at: Mark) -> Result<(), Box<Problem>> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(at),
            Event::Alias(id) => self.alias(id, at),
            Event::Scalar(text, style, anchor, tag) => {
                let refused = self.decorated(anchor, tag.is_some(), at);
                let plain = style == ScalarStyle::Plain;
                let null =
                    plain && tag.is_none() && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = match (refused, null) {
                    (true, _) => Value::Refused,
                    (_, true) => Value::Null,
                    _ => Value::Scalar { text: text.into_owned(), plain: plain && tag.is_none() },
                };
                // An empty value has no place of its own; the parser reports the next token's.
                self.place(Node { mark: at, value }, anchor, 1, 0)
            }
            Event::SequenceStart(anchor, tag) => self.open(Kind::List(Vec::new()), anchor, tag.is_some(), at),
            Event::MappingStart(anchor, tag) => {
                let map =
                    Kind::Map { entries: Vec::new(), key: None, seen: HashMap::new(), merged: Vec::new() };
                self.open(map, anchor, tag.is_some(), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn document(&mut self, at: Mark) -> Result<(), Box<Problem>> {
        self.anchors.clear();
        if self.dialect == Dialect::Strict && !self.out.documents.is_empty() {
            let help = "put each fragment into a file of its own".to_owned();
            return Err(fatal(
                "second-document",
                at,
                "a fence file holds one document".to_owned(),
                Some(help),
            ));
        }
        Ok(())
    }

    /// Reports an anchor or a tag where none may be.
    fn decorated(&mut self, anchor: usize, tagged: bool, at: Mark) -> bool {
        if self.dialect == Dialect::Foreign || (anchor == 0 && !tagged) {
            return false;
        }
        let message = if tagged { "tags are not part of a fence" } else { "anchors are not part of a fence" };
        self.problem(
            "no-anchors",
            at,
            message.to_owned(),
            "write the value out: what is enforced is then what is read",
        );
        true
    }

    fn problem(&mut self, code: &'static str, mark: Mark, message: String, help: &str) {
        self.out.problems.push(Problem {
            code,
            mark,
            message,
            help: Some(help.to_owned()),
            earlier: None,
            fatal: false,
        });
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<(), Box<Problem>> {
        if self.dialect == Dialect::Strict {
            let help = "write the value out: what is enforced is then what is read";
            self.problem("no-anchors", at, "aliases are not part of a fence".to_owned(), help);
            return self.place(Node { mark: at, value: Value::Refused }, 0, 1, 0);
        }
        // An alias inside its own anchor has no node yet.
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(fatal(
                "syntax",
                at,
                "this alias names nothing that stands before it".to_owned(),
                None,
            ));
        };
        if self.total + anchored.nodes > MAX_NODES || self.stack.len() + anchored.depth > MAX_DEPTH {
            let message = "the aliases of this file expand to more than is read".to_owned();
            return Err(fatal("too-large", at, message, None));
        }
        let (node, nodes, depth) = (anchored.node.clone(), anchored.nodes, anchored.depth);
        self.place(node, 0, nodes, depth)
    }

    fn open(&mut self, kind: Kind, anchor: usize, tagged: bool, at: Mark) -> Result<(), Box<Problem>> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("this is nested more than {MAX_DEPTH} levels deep");
            return Err(fatal("too-deep", at, message, None));
        }
        if let Some(Frame { kind: Kind::Map { key: None, .. }, .. }) = self.stack.last() {
            let help = "write a name, then a colon, then the value".to_owned();
            return Err(fatal(
                "bad-key",
                at,
                "a key is a plain word, not a list or a mapping".to_owned(),
                Some(help),
            ));
        }
        self.decorated(anchor, tagged, at);
        self.stack.push(Frame { mark: at, anchor, kind, nodes: 1, depth: 0 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Box<Problem>> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let value = match frame.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { mut entries, mut seen, merged, .. } => {
                for entry in merged.into_iter().flat_map(merge_sources).flatten() {
                    // Keys of the mapping itself win, then those of earlier sources.
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.mark);
                        entries.push(entry);
                    }
                }
                Value::Map(entries)
            }
        };
        // Its nodes have been counted as they came.
        self.total = self.total.saturating_sub(frame.nodes - 1);
        self.place(Node { mark: frame.mark, value }, frame.anchor, frame.nodes, frame.depth + 1)
    }

    /// Puts a finished node where it belongs: a document, an item, a key or a value.
    fn place(
        &mut self,
        mut node: Node,
        anchor: usize,
        nodes: usize,
        depth: usize,
    ) -> Result<(), Box<Problem>> {
        self.total += nodes;
        if self.total > MAX_NODES {
            return Err(fatal(
                "too-large",
                node.mark,
                format!("this file has more than {MAX_NODES} values"),
                None,
            ));
        }
        if anchor != 0 && self.dialect == Dialect::Foreign {
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
            // The copy takes room as well.
            self.total += nodes;
        }
        let Some(frame) = self.stack.last_mut() else {
            self.out.documents.push(node);
            return Ok(());
        };
        frame.nodes += nodes;
        frame.depth = frame.depth.max(depth);
        let strict = self.dialect == Dialect::Strict;
        match &mut frame.kind {
            Kind::List(items) => items.push(node),
            Kind::Map { entries, key, seen, merged } => match key.take() {
                None => {
                    let name = match node.value {
                        Value::Scalar { text, .. } => text,
                        Value::Null | Value::Refused if strict => {
                            let message = "a key is missing before this colon".to_owned();
                            return Err(fatal("bad-key", node.mark, message, None));
                        }
                        _ => String::new(),
                    };
                    if name == "<<" && strict {
                        let message = "merge keys are not part of a fence".to_owned();
                        let help =
                            Some("write the keys out: what is enforced is then what is read".to_owned());
                        return Err(fatal("no-anchors", node.mark, message, help));
                    }
                    *key = Some((name, node.mark));
                }
                Some((name, mark)) => {
                    if node.value == Value::Null && node.mark != mark {
                        node.mark = mark;
                    }
                    if name == "<<" {
                        merged.push(node);
                    } else if let Some(earlier) = seen.get(&name) {
                        let problem = Problem {
                            code: "duplicate-key",
                            mark,
                            message: format!("{} stands here twice", quote(&name)),
                            help: Some("keep one of them".to_owned()),
                            earlier: Some(*earlier),
                            fatal: false,
                        };
                        self.out.problems.push(problem);
                    } else {
                        seen.insert(name.clone(), mark);
                        entries.push(Entry { key: name, mark, value: node });
                    }
                }
            },
        }
        Ok(())
    }
}

/// The mappings a merge key brings in: one, or a list of them.
fn merge_sources(node: Node) -> Vec<Vec<Entry>> {
    match node.value {
        Value::Map(entries) => vec![entries],
        Value::List(items) => items.into_iter().flat_map(|item| merge_sources_once(item.value)).collect(),
        _ => Vec::new(),
    }
}

fn merge_sources_once(value: Value) -> Option<Vec<Entry>> {
    if let Value::Map(entries) = value { Some(entries) } else { None }
}
