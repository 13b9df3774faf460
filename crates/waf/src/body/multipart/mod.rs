//! `multipart/form-data` bodies, as strict as ModSecurity reads them: what two parsers might read differently raises a flag or is an
//! error. File contents are skipped, never kept; the value of a part is a slice of the body, line breaks included.

mod boundary;
mod disposition;

use std::ops::Range;

use memchr::{memchr, memmem};

use super::{Counted, Error, Limits, Outcome, Scratch, Sink};
use boundary::Boundary;
use disposition::Disposition;

/// What was unusual: the variables `MULTIPART_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a variable of its own")]
pub struct Flags {
    /// `MULTIPART_BOUNDARY_QUOTED`
    pub boundary_quoted: bool,
    /// `MULTIPART_BOUNDARY_WHITESPACE`
    pub boundary_whitespace: bool,
    /// `MULTIPART_DATA_BEFORE`
    pub data_before: bool,
    /// `MULTIPART_DATA_AFTER`
    pub data_after: bool,
    /// `MULTIPART_HEADER_FOLDING`
    pub header_folding: bool,
    /// `MULTIPART_LF_LINE`
    pub lf_line: bool,
    /// A line of a header or boundary ended with CR LF.
    pub crlf_line: bool,
    /// `MULTIPART_MISSING_SEMICOLON`
    pub missing_semicolon: bool,
    /// `MULTIPART_INVALID_QUOTING`
    pub invalid_quoting: bool,
    /// `MULTIPART_INVALID_PART`
    pub invalid_part: bool,
    /// `MULTIPART_INVALID_HEADER_FOLDING`
    pub invalid_header_folding: bool,
    /// The body could not be read: part of `MULTIPART_STRICT_ERROR`.
    pub error: bool,
    /// `MULTIPART_UNMATCHED_BOUNDARY`: 1 after something like a boundary, 2 after a second true one.
    pub unmatched_boundary: u8,
}

impl Flags {
    /// `MULTIPART_CRLF_LF_LINES`
    pub fn mixed_lines(&self) -> bool {
        self.crlf_line && self.lf_line
    }

    /// `MULTIPART_STRICT_ERROR`
    pub fn strict_error(&self) -> bool {
        self.error
            || self.boundary_quoted
            || self.boundary_whitespace
            || self.data_before
            || self.data_after
            || self.header_folding
            || self.lf_line
            || self.missing_semicolon
            || self.invalid_quoting
            || self.invalid_part
            || self.invalid_header_folding
    }
}

/// Hands on the parts of `body`: headers of a part first, then its value, or its file name and size.
pub fn parse<S: Sink + ?Sized>(
    content_type: &[u8],
    body: &[u8],
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Outcome {
    let mut outcome = Outcome::default();
    if body.is_empty() {
        return outcome;
    }
    let result = boundary::find(content_type, &mut outcome.multipart).and_then(|boundary| {
        let flags = &mut outcome.multipart;
        Reader { body, boundary, limits, flags, scratch, sink: Counted::new(sink, limits), seen: 0 }.parts()
    });
    outcome.error = result.err();
    // A body that ends early is no sign of two readings.
    outcome.multipart.error = outcome.error.is_some_and(|error| error != Error::Incomplete);
    outcome
}

struct Reader<'a, S: ?Sized> {
    body: &'a [u8],
    boundary: Boundary<'a>,
    limits: &'a Limits,
    flags: &'a mut Flags,
    scratch: &'a mut Scratch,
    sink: Counted<'a, S>,
    /// Boundaries so far.
    seen: usize,
}

/// What a line is.
enum Line {
    Text,
    Boundary { last: bool },
}

impl<S: Sink + ?Sized> Reader<'_, S> {
    fn parts(&mut self) -> Result<(), Error> {
        let mut at = 0;
        let mut last = loop {
            let Some(end) = self.line_end(at) else {
                let closed = self.boundary.closes(&self.body[at..]);
                return Err(if closed || at > 0 {
                    malformed(at, "it has no boundary")
                } else {
                    Error::Incomplete
                });
            };
            let line = self.line(at, end)?;
            at = end;
            match line {
                Line::Boundary { last } => break last,
                Line::Text => self.flags.data_before = true,
            }
        };
        while !last {
            let part = self.headers(&mut at)?;
            last = self.content(&mut at, &part)?;
        }
        self.flags.data_after |= at < self.body.len();
        Ok(())
    }

    /// Where the line that begins at `at` ends, its line feed included.
    fn line_end(&self, at: usize) -> Option<usize> {
        memchr(b'\n', &self.body[at..]).map(|feed| at + feed + 1)
    }

    /// Tells whether a line is a boundary, and flags or refuses what only looks like one.
    fn line(&mut self, at: usize, end: usize) -> Result<Line, Error> {
        let line = &self.body[at..end];
        let Some(name) = line.strip_prefix(b"--").filter(|_| line.len() > 3) else {
            if self.boundary.within(line) {
                self.flags.unmatched_boundary = 1;
            }
            return Ok(Line::Text);
        };
        let Some(rest) = name.strip_prefix(self.boundary.name) else {
            let bare = name.trim_ascii_start();
            if self.flags.boundary_quoted
                && name.strip_prefix(b"\"").is_some_and(|n| n.starts_with(self.boundary.name))
            {
                return Err(malformed(at, "a boundary in quotes"));
            }
            if bare.len() < name.len() && bare.starts_with(self.boundary.name) {
                return Err(malformed(at, "a boundary after white space"));
            }
            self.flags.unmatched_boundary = 1;
            return Ok(Line::Text);
        };
        if self.seen > 0 {
            self.flags.unmatched_boundary = 2;
        }
        let (last, line_break) = match rest.strip_prefix(b"--") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        match line_break {
            b"\r\n" => self.flags.crlf_line = true,
            b"\n" => self.flags.lf_line = true,
            _ => return Err(malformed(at, "more text after a boundary")),
        }
        self.seen += 1;
        Ok(Line::Boundary { last })
    }

    /// Reads the headers of a part up to the empty line, and leaves `at` behind it.
    fn headers(&mut self, at: &mut usize) -> Result<Disposition, Error> {
        let mut lines = std::mem::take(&mut self.scratch.lines);
        lines.clear();
        let part = self.header_lines(at, &mut lines);
        self.scratch.lines = lines;
        part
    }

    fn header_lines(&mut self, at: &mut usize, lines: &mut Vec<Range<usize>>) -> Result<Disposition, Error> {
        loop {
            let start = *at;
            let limit = self.body.len().min(start + self.limits.line + 1);
            let Some(feed) = memchr(b'\n', &self.body[start..limit]) else {
                return Err(if limit < self.body.len() { Error::TooLong } else { Error::Incomplete });
            };
            let end = start + feed + 1;
            if let Line::Boundary { .. } = self.line(start, end)? {
                self.flags.invalid_part = true;
                return Err(malformed(start, "a boundary among the headers of a part"));
            }
            let line = &self.body[start..end];
            if memchr(0, line).is_some() {
                return Err(malformed(start, "a zero byte in the headers of a part"));
            }
            let crlf = line.ends_with(b"\r\n");
            self.flags.crlf_line |= crlf;
            self.flags.lf_line |= !crlf;
            *at = end;
            let text = start..end - 1 - usize::from(crlf);
            if text.is_empty() {
                return self.end_of_headers(start, lines);
            }
            self.header(text, lines)?;
        }
    }

    /// Notes one line of a header; a folded one joins the line before it.
    fn header(&mut self, text: Range<usize>, lines: &mut Vec<Range<usize>>) -> Result<(), Error> {
        let line = &self.body[text.clone()];
        let space = line.iter().take_while(|b| is_space(**b)).count();
        if space > 0 {
            self.flags.header_folding = true;
            self.flags.invalid_header_folding |= line[..space].iter().any(|b| !matches!(b, b' ' | b'\t'));
            let Some(header) = lines.last_mut() else {
                return Err(malformed(text.start, "a folded line without a header"));
            };
            header.end = text.end;
            return if header.len() > self.limits.line { Err(Error::TooLong) } else { Ok(()) };
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(malformed(text.start, "a header of a part without a colon"));
        };
        let name = &line[..colon];
        if name.is_empty() {
            return Err(malformed(text.start, "a header of a part without a name"));
        }
        if lines.iter().any(|known| name_of(&self.body[known.clone()]).eq_ignore_ascii_case(name)) {
            return Err(malformed(text.start, "a header of a part given twice"));
        }
        if lines.len() >= MAX_HEADERS {
            return Err(Error::TooMany);
        }
        lines.push(text);
        Ok(())
    }

    fn end_of_headers(&mut self, at: usize, lines: &[Range<usize>]) -> Result<Disposition, Error> {
        let is_disposition = |line: &&Range<usize>| {
            name_of(&self.body[(*line).clone()]).eq_ignore_ascii_case(b"content-disposition")
        };
        let Some(line) = lines.iter().find(is_disposition) else {
            self.flags.invalid_part = true;
            return Err(malformed(at, "a part without Content-Disposition"));
        };
        unfold(&self.body[line.clone()], &mut self.scratch.value);
        let value = self.scratch.value.split(|b| *b == b':').next().map_or(0, |name| name.len() + 1);
        let part = match disposition::parse(self.scratch.value[value..].trim_ascii_start(), self.flags) {
            Ok(part) => part,
            Err(what) => {
                self.flags.invalid_part = true;
                return Err(malformed(line.start, what));
            }
        };
        for line in lines {
            unfold(&self.body[line.clone()], &mut self.scratch.value);
            let line = &self.scratch.value;
            self.sink.give(|sink| sink.part_header(&part.name, line))?;
        }
        // White space or bytes beyond ASCII in a name: servers differ in what they make of them. Told once the rules have the line.
        for line in lines {
            let name = name_of(&self.body[line.clone()]);
            if name.iter().any(|b| !(0x21..=0x7e).contains(b)) {
                self.flags.invalid_part = true;
            }
        }
        Ok(part)
    }

    /// Reads the content of a part up to its boundary, hands the part on and leaves `at` behind the boundary: whether it was the last.
    fn content(&mut self, at: &mut usize, part: &Disposition) -> Result<bool, Error> {
        let start = *at;
        let mut from = start;
        loop {
            // Only a line that begins with two dashes can be a boundary; anything else is skipped at the speed of memory.
            let candidate = match self.body[from..].starts_with(b"--") {
                true => Some(from),
                false => memmem::find(&self.body[from..], b"\n--").map(|feed| from + feed + 1),
            };
            let Some(line) = candidate else {
                self.give(part, start..self.body.len())?;
                return Err(Error::Incomplete);
            };
            let Some(end) = self.line_end(line) else {
                let closed = self.boundary.closes(&self.body[line..]);
                let content_end = if closed { before_break(self.body, start, line) } else { self.body.len() };
                self.give(part, start..content_end)?;
                *at = self.body.len();
                return if closed { Ok(true) } else { Err(Error::Incomplete) };
            };
            match self.line(line, end)? {
                Line::Boundary { last } => {
                    self.give(part, start..before_break(self.body, start, line))?;
                    *at = end;
                    return Ok(last);
                }
                // The line feed may begin the next candidate.
                Line::Text => from = end - 1,
            }
        }
    }

    fn give(&mut self, part: &Disposition, content: Range<usize>) -> Result<(), Error> {
        match &part.filename {
            Some(filename) => {
                self.sink.give(|sink| sink.file(&part.name, filename, content.len()))?;
                match &part.extended {
                    Some(filename) => self.sink.give(|sink| sink.file(&part.name, filename, 0)),
                    None => Ok(()),
                }
            }
            None => self.sink.pair(&part.name, &self.body[content]),
        }
    }
}

/// Headers that one part may have.
const MAX_HEADERS: usize = 32;

fn malformed(at: usize, what: &'static str) -> Error {
    Error::Malformed { at, what }
}

/// White space of the C locale.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn name_of(header: &[u8]) -> &[u8] {
    memchr(b':', header).map_or(header, |colon| &header[..colon])
}

/// The end of the content before a boundary at `line`: its line break belongs to the boundary.
fn before_break(body: &[u8], start: usize, line: usize) -> usize {
    match &body[start..line] {
        [.., b'\r', b'\n'] => line - 2,
        [.., b'\n'] => line - 1,
        _ => line,
    }
}

/// One header without its folds: each becomes a space.
fn unfold(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    for (nth, line) in raw.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if nth == 0 {
            out.extend_from_slice(line);
        } else {
            out.push(b' ');
            let text = line.iter().position(|b| !is_space(*b)).unwrap_or(line.len());
            out.extend_from_slice(&line[text..]);
        }
    }
}

#[cfg(test)]
mod tests;
