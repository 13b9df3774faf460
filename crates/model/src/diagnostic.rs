//! What is wrong with a fence, told so that it can be repaired: place, picture, reason, next step.
//!
//! All errors are collected, not the first one; their number is bounded, since the file may be anything.

use std::fmt::{self, Write as _};

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::fence::SourceFile;
use crate::position::Position;
use crate::suggest::{did_you_mean, visible};

/// How many errors, and how many warnings, are kept; the rest is counted.
const MAX_KEPT: usize = 100;
/// Characters of a source line that a picture shows.
const PICTURE_WIDTH: usize = 110;

/// Whether the fence can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The fence is refused.
    Error,
    /// The fence is valid, and probably not what was meant.
    Warning,
}

/// A second place that explains the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub position: Position,
    /// What is there.
    pub message: String,
}

/// One thing that is wrong, or probably wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable word for programs, such as `unknown-service`.
    pub code: &'static str,
    /// What is wrong, and why.
    pub message: String,
    /// Where.
    pub position: Position,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that matter.
    pub related: Vec<Related>,
    /// How many characters are meant, when the reader of the text knows; else the token at the place.
    width: Option<usize>,
    picture: Option<Picture>,
}

/// The source line and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    line: String,
    indent: usize,
    width: usize,
}

/// Everything wrong with a fence at once. Display draws it, Serialize gives it to programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// What refuses the fence.
    pub errors: Vec<Diagnostic>,
    /// What is worth a look.
    pub warnings: Vec<Diagnostic>,
    /// How many more there were.
    pub omitted: usize,
}

impl Diagnostic {
    pub(crate) fn new(
        severity: Severity,
        code: &'static str,
        position: Position,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            position,
            help: None,
            related: Vec::new(),
            width: None,
            picture: None,
        }
    }

    /// Something that refuses what was read.
    pub fn error(code: &'static str, position: Position, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, position, message)
    }

    /// Something worth a look.
    pub fn warning(code: &'static str, position: Position, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, position, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// Adds the word that was probably meant, or the few that exist, unless it already has a help line.
    #[must_use]
    pub fn did_you_mean<'a>(mut self, word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        self.help = self.help.or_else(|| did_you_mean(word, known));
        self
    }

    /// Says how many characters of the line are meant.
    #[must_use]
    pub fn width(mut self, characters: usize) -> Self {
        self.width = Some(characters.max(1));
        self
    }

    /// Adds a second place that explains the first.
    #[must_use]
    pub fn related(mut self, position: &Position, message: impl Into<String>) -> Self {
        self.related.push(Related { position: position.clone(), message: message.into() });
        self
    }

    /// Draws it; `colour` only when the reader is a terminal.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &'static str| if colour { code } else { "" };
        let (word, tone) = match self.severity {
            Severity::Error => ("error", paint("\x1b[1;31m")),
            Severity::Warning => ("warning", paint("\x1b[1;33m")),
        };
        let (bold, blue, reset) = (paint("\x1b[1m"), paint("\x1b[1;34m"), paint("\x1b[0m"));
        let gutter = self.position.line.max(1).ilog10() as usize + 1;
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{tone}{word}{reset}{bold}: {}{reset}", self.message);
        let _ = writeln!(out, "{:gutter$}{blue}-->{reset} {}", "", self.position);
        if let Some(picture) = &self.picture {
            let _ = writeln!(out, "{:gutter$} {blue}|{reset}", "");
            let _ = writeln!(out, "{blue}{} |{reset} {}", self.position.line, picture.line);
            let carets = "^".repeat(picture.width);
            let _ = write!(
                out,
                "{:gutter$} {blue}|{reset} {:indent$}{tone}{carets}{reset}",
                "",
                "",
                indent = picture.indent
            );
            match &self.help {
                Some(help) => {
                    let _ = writeln!(out, " {tone}{help}{reset}");
                }
                None => out.push('\n'),
            }
        } else if let Some(help) = &self.help {
            let _ = writeln!(out, "{:gutter$} {blue}={reset} {help}", "");
        }
        for related in &self.related {
            let _ = writeln!(out, "{:gutter$} {blue}={reset} {}: {}", "", related.position, related.message);
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct At<'a> {
            file: &'a str,
            line: u32,
            column: u32,
            message: &'a str,
        }
        let related: Vec<At<'_>> = self
            .related
            .iter()
            .map(|r| At {
                file: &r.position.file,
                line: r.position.line,
                column: r.position.column,
                message: &r.message,
            })
            .collect();
        let mut object = serializer.serialize_struct("Diagnostic", 8)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("code", self.code)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("help", &self.help)?;
        object.serialize_field("file", &self.position.file)?;
        object.serialize_field("line", &self.position.line)?;
        object.serialize_field("column", &self.position.column)?;
        object.serialize_field("related", &related)?;
        object.end()
    }
}

impl Diagnostics {
    /// Whether nothing refuses the fence.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// Draws all of it; `colour` only when the reader is a terminal.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for diagnostic in self.errors.iter().chain(&self.warnings) {
            out.push_str(&diagnostic.render(colour));
            out.push('\n');
        }
        if self.omitted > 0 {
            let _ = writeln!(out, "and {} more like these: repair the ones above first", self.omitted);
        }
        out
    }

    /// Whether another error would only be counted: looking for its cause is then work for nothing.
    pub(crate) const fn is_full(&self) -> bool {
        self.errors.len() >= MAX_KEPT
    }

    /// How many there have been.
    pub(crate) const fn count(&self) -> usize {
        self.errors.len() + self.warnings.len() + self.omitted
    }

    /// Keeps one more, or only counts it when there are many.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let kept = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if kept.len() < MAX_KEPT {
            kept.push(diagnostic);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds the source lines, and sorts by place: what was found late may stand early.
    #[must_use]
    pub fn finish(mut self, files: &[SourceFile]) -> Self {
        for diagnostic in self.errors.iter_mut().chain(&mut self.warnings) {
            diagnostic.picture = files
                .iter()
                .find(|file| file.name == diagnostic.position.file)
                .and_then(|file| picture(&file.text, &diagnostic.position, diagnostic.width));
        }
        self.errors.sort_by(|a, b| a.position.cmp(&b.position));
        self.warnings.sort_by(|a, b| a.position.cmp(&b.position));
        self
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Diagnostics", 3)?;
        object.serialize_field("errors", &self.errors)?;
        object.serialize_field("warnings", &self.warnings)?;
        object.serialize_field("omitted", &self.omitted)?;
        object.end()
    }
}

fn picture(text: &str, position: &Position, width: Option<usize>) -> Option<Picture> {
    let line =
        text.split('\n').nth(usize::try_from(position.line).ok()?.checked_sub(1)?)?.trim_end_matches('\r');
    let column = usize::try_from(position.column).ok()?.checked_sub(1)?;
    let length = width.unwrap_or_else(|| token_length(line, column));
    // A long line is shown from a little before the place that is meant.
    let skip = if column + length.min(40) > PICTURE_WIDTH { column.saturating_sub(20) } else { 0 };
    let mut shown = String::new();
    let (mut indent, mut width) = (None, 0);
    let mut used = 0;
    for (at, c) in line.chars().enumerate().skip(skip).take(PICTURE_WIDTH) {
        if at == column {
            indent = Some(used);
        }
        let c = if c == '\t' { ' ' } else { c };
        let before = shown.chars().count();
        shown.extend(visible(c));
        let grown = shown.chars().count() - before;
        used += grown;
        if at >= column && at < column + length {
            width += grown;
        }
    }
    let indent = indent.unwrap_or(used);
    Some(Picture { line: shown.trim_end().to_owned(), indent, width: width.max(1) })
}

/// The length of the YAML token at `column`, in characters.
fn token_length(line: &str, column: usize) -> usize {
    let mut rest = line.chars().skip(column).peekable();
    match rest.peek().copied() {
        Some(quote @ ('"' | '\'')) => rest.skip(1).position(|c| c == quote).map_or(1, |end| end + 2),
        Some('{' | '[' | '&' | '*' | '!') | None => 1,
        Some(_) => {
            let mut length = 0;
            while let Some(c) = rest.next() {
                let ends_key = c == ':' && rest.peek().is_none_or(|next| next.is_whitespace());
                if ends_key || c.is_whitespace() || matches!(c, ',' | ']' | '}') {
                    break;
                }
                length += 1;
            }
            length.max(1)
        }
    }
}
