//! The request, as it comes in.

use std::{net::IpAddr, ops::ControlFlow};

use super::{
    Transaction,
    act::set_processor,
    report::{Mode, Verdict},
    state::{Bag, NONE, State},
};
use crate::{
    body::{self, Kind, multipart::Flags},
    lang::Variable,
};

/// Headers that are looked at; more are counted as none, and protocol limits stand before this.
const HEADERS: usize = 512;

/// Puts what a parser finds into bags.
pub(super) struct Filler<'a> {
    state: &'a mut State,
    bag: Bag,
    second: bool,
    room: usize,
    /// Bytes of names.
    names: usize,
}

/// Bytes of names that a source may have beyond its own: of nested values each has its whole way, so that a few bytes may say much.
const NAMES: usize = 256 << 10;

impl<'a> Filler<'a> {
    pub(super) fn new(state: &'a mut State, bag: Bag, second: bool, room: usize, text: &[u8]) -> Self {
        Self { state, bag, second, room, names: NAMES + text.len() }
    }

    fn count(&mut self, name: &[u8]) -> ControlFlow<()> {
        match (self.room.checked_sub(1), self.names.checked_sub(name.len())) {
            (Some(room), Some(names)) => {
                (self.room, self.names) = (room, names);
                ControlFlow::Continue(())
            }
            _ => {
                self.state.arguments_full = true;
                ControlFlow::Break(())
            }
        }
    }
}

impl body::Sink for Filler<'_> {
    fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
        self.count(name)?;
        self.state.push(self.bag, name, value, self.second);
        ControlFlow::Continue(())
    }

    fn part_header(&mut self, name: &[u8], line: &[u8]) -> ControlFlow<()> {
        self.count(name)?;
        self.state.push(Bag::PartHeaders, name, line, false);
        ControlFlow::Continue(())
    }

    fn file(&mut self, name: &[u8], filename: &[u8], size: usize) -> ControlFlow<()> {
        self.count(name)?;
        self.state.push(Bag::Files, name, filename, false);
        self.state.push(Bag::FileSizes, name, size.to_string().as_bytes(), false);
        ControlFlow::Continue(())
    }

    fn xml_attribute(&mut self, value: &[u8]) -> ControlFlow<()> {
        self.count(b"")?;
        self.state.push(Bag::Xml, b"//@*", value, true);
        ControlFlow::Continue(())
    }

    fn xml_text(&mut self, text: &[u8]) -> ControlFlow<()> {
        self.state.push(Bag::Xml, b"/*", text, false);
        ControlFlow::Continue(())
    }
}

impl Transaction {
    /// Who is connected to whom.
    pub fn connection(&mut self, client: (IpAddr, u16), server: (IpAddr, u16)) {
        let mut text = [client.0.to_string(), server.0.to_string()];
        for address in &mut text {
            // A dual-stack listener sees IPv4 clients this way.
            if let Some(plain) = address.strip_prefix("::ffff:").filter(|rest| rest.contains('.')) {
                *address = plain.to_owned();
            }
        }
        self.state.set(Variable::RemoteAddr, text[0].as_bytes());
        self.state.set(Variable::RemoteHost, text[0].as_bytes());
        self.state.set_number(Variable::RemotePort, u64::from(client.1));
        self.state.set(Variable::ServerAddr, text[1].as_bytes());
        self.state.set_number(Variable::ServerPort, u64::from(server.1));
    }

    /// The request line as it was received; of HTTP/2 requests, as HTTP/1 would write it.
    pub fn request_line(&mut self, method: &[u8], uri: &[u8], protocol: &[u8]) {
        let state = &mut self.state;
        // A line without a version is of HTTP before versions were.
        let spoken: &[u8] = if protocol.is_empty() { b"HTTP/0.9" } else { protocol };
        let line = [method, b" ", uri, b" ", protocol].concat();
        state.set(Variable::RequestLine, &line);
        state.set(Variable::RequestMethod, method);
        state.set(Variable::RequestProtocol, spoken);
        state.set(Variable::RequestUriRaw, uri);
        let mut decoded = Vec::with_capacity(uri.len());
        percent_decode(uri, &mut decoded);
        let local = match decoded.first() {
            None | Some(b'/') => &decoded[..],
            Some(_) => without_authority(&decoded),
        };
        state.set(Variable::RequestUri, local);
        // The query is cut off the text as received: a decoded question mark begins none.
        let mark = memchr::memchr(b'?', uri);
        let path = &uri[..mark.unwrap_or(uri.len())];
        decoded.clear();
        percent_decode(path, &mut decoded);
        state.set(Variable::RequestFilename, &decoded);
        state.set(Variable::PathInfo, &decoded);
        let base = decoded.iter().rposition(|byte| matches!(byte, b'/' | b'\\')).map_or(0, |at| at + 1);
        state.set(Variable::RequestBasename, &decoded[base..]);
        let query = mark.map_or(&b""[..], |at| &uri[at + 1..]);
        state.set(Variable::QueryString, query);
        if !query.is_empty() {
            let outcome = self.form(query, false);
            self.state.arguments_full |= is_short(&outcome);
        }
    }

    /// One header field, in order.
    pub fn request_header(&mut self, name: &[u8], value: &[u8]) {
        if self.state.bag(Bag::RequestHeaders).len() >= HEADERS {
            return;
        }
        self.state.push(Bag::RequestHeaders, name, value, false);
        if name.eq_ignore_ascii_case(b"cookie") {
            let room = self.room();
            let limits = body::Limits { items: room, ..body::Limits::default() };
            let mut filler = Filler::new(&mut self.state, Bag::Cookies, false, room, value);
            let outcome = body::cookie::parse(value, body::cookie::Format::Netscape, &limits, &mut filler);
            self.state.arguments_full |= is_short(&outcome);
        } else if name.eq_ignore_ascii_case(b"content-type") {
            // Rules may ask for another reader.
            if let Some(kind) = Kind::of_content_type(value.trim_ascii_start()) {
                set_processor(&mut self.state, kind);
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            let host = match memchr::memrchr(b':', value) {
                Some(at) if value[at + 1..].iter().all(u8::is_ascii_digit) => &value[..at],
                _ => value,
            };
            self.state.set(Variable::ServerName, host);
        }
    }

    /// The rules about the request's head.
    pub fn phase1(&mut self) -> Verdict {
        if self.state.mode == Mode::Off {
            return Verdict::Pass;
        }
        for (variable, value) in [(Variable::ReqbodyError, 0), (Variable::ReqbodyProcessorError, 0)] {
            self.state.set_number(variable, value);
        }
        self.tell_full();
        if self.state.scalars[Variable::ReqbodyProcessor as usize] == NONE {
            self.state.set(Variable::ReqbodyProcessor, b"");
        }
        self.combined_size();
        self.phase(1)
    }

    /// A piece of the request's body. What goes beyond the limit is not inspected.
    pub fn request_body(&mut self, piece: &[u8]) {
        let limit = self.rules.plan.settings.request_body_limit;
        let room = limit.saturating_sub(self.state.body.len());
        self.state.body_cut |= piece.len() > room;
        self.state.body.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// The rules about the whole request; the body is taken apart first.
    pub fn phase2(&mut self) -> Verdict {
        if self.state.mode == Mode::Off {
            return Verdict::Pass;
        }
        if self.state.request_body_access {
            self.take_apart();
        }
        self.combined_size();
        self.phase(2)
    }

    /// What is not looked at must not pass as if it were: there were more arguments than are.
    fn tell_full(&mut self) {
        if self.state.arguments_full {
            self.state.set_number(Variable::ReqbodyError, 1);
            self.state.set(Variable::ReqbodyErrorMsg, b"there are more arguments than are looked at");
        }
    }

    pub(super) fn room(&self) -> usize {
        let used: usize = [Bag::Args, Bag::Cookies, Bag::PartHeaders, Bag::Files, Bag::Xml]
            .into_iter()
            .map(|bag| self.state.bag(bag).len())
            .sum();
        self.rules.plan.settings.arguments.saturating_sub(used)
    }

    pub(super) fn form(&mut self, text: &[u8], second: bool) -> body::Outcome {
        let settings = &self.rules.plan.settings;
        let room = self.room();
        let limits = body::Limits { items: room, ..body::Limits::default() };
        let mut scratch = std::mem::take(&mut self.state.body_scratch);
        let mut filler = Filler::new(&mut self.state, Bag::Args, second, room, text);
        let outcome = body::form::parse(text, settings.separator, &limits, &mut scratch, &mut filler);
        self.state.body_scratch = scratch;
        if outcome.encoding_error {
            self.state.set_number(Variable::UrlencodedError, 1);
        }
        outcome
    }

    fn take_apart(&mut self) {
        let text = std::mem::take(&mut self.state.body);
        let cut = self.state.body_cut;
        self.state.set_number(Variable::RequestBodyLength, text.len() as u64);
        if cut {
            self.state.set_number(Variable::InboundDataError, 1);
        }
        let processor = self.state.processor;
        // As ModSecurity 2 has it: the raw text of a body that a parser understands is not looked at as well.
        if !text.is_empty()
            && (processor == Some(Kind::Form) || (processor.is_none() && self.state.force_request_body))
        {
            self.state.set(Variable::RequestBody, &text);
        }
        let outcome = match processor {
            Some(Kind::Form) => self.form(&text, true),
            Some(kind) if !text.is_empty() || kind == Kind::Multipart => {
                let content_type = self.state.bag(Bag::RequestHeaders).iter().find_map(|entry| {
                    let is_it = self.state.values.get(entry.name).eq_ignore_ascii_case(b"content-type");
                    is_it.then(|| self.state.values.get(entry.value).to_vec())
                });
                let outcome = self.parse(kind, &content_type.unwrap_or_default(), &text);
                if kind == Kind::Multipart {
                    self.multipart_flags(&outcome.multipart);
                }
                outcome
            }
            None if self.sniffs() && !text.is_empty() => self.guess(&text, self.is_opaque(), cut),
            _ => body::Outcome::default(),
        };
        // What is said to be a form may be JSON to a service that does not ask for the type.
        if self.sniffs() && matches!(processor, Some(Kind::Form | Kind::Multipart)) {
            let guessed = self.guess(&text, true, cut);
            self.state.arguments_full |= is_short(&guessed);
        }
        self.state.body = text;
        // A body that was cut ends early by our doing.
        let error = outcome.error.filter(|error| !(cut && *error == body::Error::Incomplete));
        if let Some(error) = error {
            let told = error.to_string();
            for variable in [Variable::ReqbodyError, Variable::ReqbodyProcessorError] {
                self.state.set_number(variable, 1);
            }
            for variable in [Variable::ReqbodyErrorMsg, Variable::ReqbodyProcessorErrorMsg] {
                self.state.set(variable, told.as_bytes());
            }
        }
        self.tell_full();
    }

    /// Takes a body apart as what it is said to be.
    pub(super) fn parse(&mut self, kind: Kind, content_type: &[u8], text: &[u8]) -> body::Outcome {
        let room = self.room();
        let depth = self.rules.plan.settings.json_depth;
        let limits = body::Limits { items: room, depth, ..body::Limits::default() };
        let mut scratch = std::mem::take(&mut self.state.body_scratch);
        let mut filler = Filler::new(&mut self.state, Bag::Args, true, room, text);
        let outcome = body::parse(kind, content_type, text, &limits, &mut scratch, &mut filler);
        self.state.body_scratch = scratch;
        outcome
    }

    fn multipart_flags(&mut self, flags: &Flags) {
        use Variable as V;
        for (variable, set) in [
            (V::MultipartBoundaryQuoted, flags.boundary_quoted),
            (V::MultipartBoundaryWhitespace, flags.boundary_whitespace),
            (V::MultipartDataBefore, flags.data_before),
            (V::MultipartDataAfter, flags.data_after),
            (V::MultipartHeaderFolding, flags.header_folding),
            (V::MultipartLfLine, flags.lf_line),
            (V::MultipartCrlfLfLines, flags.mixed_lines()),
            (V::MultipartMissingSemicolon, flags.missing_semicolon),
            (V::MultipartSemicolonMissing, flags.missing_semicolon),
            (V::MultipartInvalidQuoting, flags.invalid_quoting),
            (V::MultipartInvalidPart, flags.invalid_part),
            (V::MultipartInvalidHeaderFolding, flags.invalid_header_folding),
            (V::MultipartFileLimitExceeded, false),
            (V::MultipartStrictError, flags.strict_error()),
        ] {
            self.state.set_number(variable, u64::from(set));
        }
        self.state.set_number(V::MultipartUnmatchedBoundary, u64::from(flags.unmatched_boundary));
    }

    fn combined_size(&mut self) {
        let state = &mut self.state;
        let size = |id| state.values.get(id).len() as u64;
        let arguments: u64 =
            state.bag(Bag::Args).iter().map(|entry| size(entry.name) + size(entry.value)).sum();
        let files: u64 = state
            .bag(Bag::FileSizes)
            .iter()
            .map(|entry| super::state::leading_number(state.values.get(entry.value)).unsigned_abs())
            .sum();
        state.set_number(Variable::ArgsCombinedSize, arguments);
        state.set_number(Variable::FilesCombinedSize, files);
    }
}

/// Whether a parser ended before its text did, because there is no room for more.
pub(super) fn is_short(outcome: &body::Outcome) -> bool {
    use body::Error::{TooDeep, TooLong, TooMany};
    matches!(outcome.error, Some(TooMany | TooLong | TooDeep))
}

/// Decodes `%XX`; what is none stays.
fn percent_decode(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).and_then(|digits| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
        });
        match digits {
            Some(byte) => {
                out.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                out.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

/// The path of an absolute URI.
fn without_authority(uri: &[u8]) -> &[u8] {
    let Some(scheme) = memchr::memmem::find(uri, b"://") else { return uri };
    if uri[..scheme].iter().any(|byte| !byte.is_ascii_alphanumeric()) {
        return uri;
    }
    match memchr::memchr(b'/', &uri[scheme + 3..]) {
        Some(slash) => &uri[scheme + 3 + slash..],
        None => uri,
    }
}
