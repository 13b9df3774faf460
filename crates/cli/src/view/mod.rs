//! What commands show: each view is one file with its arguments, its text for people and its JSON.
//!
//! Everything shown goes through [`clean`]: paths, reasons and names come from requests, and a terminal obeys what it prints.

pub(crate) mod events;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod why;

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a command that could do its work ends, if nobody closed its output.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Why a command stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Could not do it: exit code 3.
    Cannot(String),
    /// Wrong use: exit code 2.
    Wrong(String),
    /// Whoever read the output has gone, as `head` does: nothing to complain about.
    Closed,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Cannot(error.to_string())
    }
}

/// The exit code, with the error on standard error.
pub(crate) fn finish(done: Done) -> ExitCode {
    let (text, code) = match done {
        Ok(code) => return code,
        Err(Failure::Closed) => return ExitCode::SUCCESS,
        Err(Failure::Cannot(text)) => (text, 3),
        Err(Failure::Wrong(text)) => (text, 2),
    };
    eprintln!("ringfence: {}", clean(&text));
    ExitCode::from(code)
}

/// Writes to standard output at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Cannot(format!("cannot write: {error}")),
    })
}

/// One JSON value on a line of its own.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    print(&text)
}

/// How a text looks on a terminal that has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
    Bold,
}

impl Paint {
    pub(crate) fn on(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            _ if !colour || text.is_empty() => return text.to_owned(),
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The text with everything escaped that a terminal would obey or that would reorder what is read.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let obeyed = c.is_control();
        let reorders =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if obeyed || reorders {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A duration in its two largest units, such as `1h 12m`.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(3);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units.iter().skip(first).take(2) {
        if rest / size > 0 || parts.is_empty() {
            parts.push(format!("{}{name}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// RFC 3339 in UTC.
pub(crate) fn timestamp(milliseconds: u64) -> impl Display {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_cannot_write_to_the_operator_s_terminal() {
        assert_eq!(
            clean("/a\u{1b}[2J\r\nb\u{9b}c\u{202e}d é"),
            "/a\\u{1b}[2J\\u{d}\\u{a}b\\u{9b}c\\u{202e}d é"
        );
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (90_061, "1d 1h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
