//! A request head: parsed, checked and normalized in one go, or refused.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};

use super::field::{self, Field, Fields, Summary};
use super::framing::{self, Framing};
use super::kind::{self, Kind};
use super::target::{self, Form};
use super::{Limits, MAX_FIELDS, Refusal, Scratch, Version, authority, find_head_end};
use crate::normalize::{self, Oddities};

/// The bytes with which a client begins HTTP/2 without asking.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the buffer begins with.
#[derive(Debug)]
pub enum Parsed {
    /// Not enough to say; read more and ask again.
    NeedMore,
    /// A whole request head, taken out of the buffer.
    Request(RequestHead),
    /// The connection speaks HTTP/2; the preface is still in the buffer.
    Http2,
}

/// A request head that holds all the rules of this module.
#[derive(Debug, Clone)]
pub struct RequestHead {
    bytes: Bytes,
    fields: Vec<Field>,
    summary: Summary,
    version: Version,
    framing: Framing,
    method_len: u8,
    target: (u32, u32),
    /// Start and end of the path as received within `bytes`; the query follows its `?`.
    path: Option<(u32, u32)>,
    /// The normalized path, where it differs from the received one.
    normal: Option<Box<str>>,
    asterisk: bool,
    oddities: Oddities,
    host: (u32, u32),
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

/// Takes one request head out of `buf`, if it is all there.
///
/// # Errors
/// The first rule that the bytes break. The connection must not be read on after an error.
pub fn parse_request(buf: &mut BytesMut, limits: &Limits, scratch: &mut Scratch) -> Result<Parsed, Refusal> {
    match skip_one_empty_line(buf, scratch)? {
        Start::Incomplete => return Ok(Parsed::NeedMore),
        Start::Preface => return Ok(Parsed::Http2),
        Start::Line => {}
    }
    // The usual head is complete at first sight. One that is not is only parsed again when its end has come.
    if scratch.tried
        && let Err(scanned) = find_head_end(buf, scratch.scanned)
    {
        scratch.scanned = scanned;
        return incomplete(buf, limits);
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parser = httparse::Request::new(&mut []);
    let allowed = &mut headers[..limits.fields.min(MAX_FIELDS)];
    let head_len = match parser.parse_with_uninit_headers(&buf[..], allowed) {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) => {
            scratch.tried = true;
            scratch.scanned = find_head_end(buf, scratch.scanned).err().ok_or(Refusal::BareLineEnd)?;
            return incomplete(buf, limits);
        }
        Err(error) => return Err(explain(error, buf, limits)),
    };
    let (Some(method), Some(target), Some(minor)) = (parser.method, parser.path, parser.version) else {
        return Err(Refusal::StartLine);
    };
    if target.len() > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    if head_len > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let head = &buf[..head_len];
    let mut fields = std::mem::take(&mut scratch.fields);
    let checked = field::index(head, parser.headers, &mut fields).and_then(|summary| {
        check(head, method.as_bytes(), target.as_bytes(), version, &mut fields, summary, limits)
    });
    let checked = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            scratch.fields = fields;
            return Err(refusal);
        }
    };
    let target_at = method.len() + 1;
    let target_end = target_at + target.len();
    let method_len = u8::try_from(method.len()).map_err(|_| Refusal::Method)?;
    scratch.head_done();
    Ok(Parsed::Request(RequestHead {
        bytes: buf.split_to(head_len).freeze(),
        fields,
        summary: checked.summary,
        version,
        framing: checked.framing,
        method_len,
        target: span(target_at, target_end)?,
        path: match checked.path {
            Some((start, end)) => Some(span(target_at + start, target_at + end)?),
            None => None,
        },
        normal: checked.normal,
        asterisk: checked.asterisk,
        oddities: checked.oddities,
        host: checked.host,
        close: checked.options.close,
        keep_alive: checked.options.keep_alive,
        upgrade: checked.options.upgrade,
    }))
}

enum Start {
    Incomplete,
    Preface,
    Line,
}

/// One CRLF before a request is allowed, because old clients send one after a body. More is not.
fn skip_one_empty_line(buf: &mut BytesMut, scratch: &mut Scratch) -> Result<Start, Refusal> {
    let Some(first) = buf.first() else { return Ok(Start::Incomplete) };
    if *first > b' ' {
        if *first == b'P' && !scratch.begun && !scratch.skipped {
            let seen = buf.len().min(PREFACE.len());
            if buf[..seen] == PREFACE[..seen] {
                return Ok(if seen == PREFACE.len() { Start::Preface } else { Start::Incomplete });
            }
        }
        return Ok(Start::Line);
    }
    if scratch.skipped || *first != b'\r' {
        return Err(Refusal::LeadingWhitespace);
    }
    match buf.get(1) {
        None => Ok(Start::Incomplete),
        Some(b'\n') => {
            buf.advance(2);
            scratch.skipped = true;
            skip_one_empty_line(buf, scratch)
        }
        Some(_) => Err(Refusal::BareLineEnd),
    }
}

/// Waits for more, unless what is there is too much already.
fn incomplete(buf: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
    // Method and version take at most 48 bytes of the line.
    if buf.len() > limits.target + 48 && memchr::memchr(b'\n', &buf[..limits.target + 48]).is_none() {
        return Err(Refusal::TargetTooLong);
    }
    if buf.len() > limits.head { Err(Refusal::HeadTooLarge) } else { Ok(Parsed::NeedMore) }
}

/// Says what is wrong with a head that `httparse` did not take. Off the usual path, so that it may look again.
fn explain(error: httparse::Error, buf: &[u8], limits: &Limits) -> Refusal {
    let line_end = memchr::memchr2(b'\r', b'\n', buf).unwrap_or(buf.len());
    let line = &buf[..line_end];
    if error == httparse::Error::Token || error == httparse::Error::NewLine {
        let mut words = line.split(|byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        if !framing::is_token(method) {
            return Refusal::StartLine;
        }
        if line.len() > limits.target + 48 {
            return Refusal::TargetTooLong;
        }
        if words
            .next()
            .is_some_and(|target| target.first() == Some(&b'/') && target.iter().all(u8::is_ascii_graphic))
            && words.next().is_none()
            && line_end < buf.len()
        {
            return Refusal::Http09;
        }
    }
    if error == httparse::Error::Version {
        let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let well_formed = matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
        let two_spaces = line.split(|byte| *byte == b' ').count() == 3;
        return if well_formed && two_spaces { Refusal::Version } else { Refusal::StartLine };
    }
    field::refusal_of(error)
}

struct Checked {
    summary: Summary,
    framing: Framing,
    options: framing::ConnectionOptions,
    path: Option<(usize, usize)>,
    normal: Option<Box<str>>,
    asterisk: bool,
    oddities: Oddities,
    host: (u32, u32),
}

fn check(
    head: &[u8],
    method: &[u8],
    target: &[u8],
    version: Version,
    fields: &mut [Field],
    summary: Summary,
    limits: &Limits,
) -> Result<Checked, Refusal> {
    target::check_method(method)?;
    // A target that begins the line directly after one space: what `span` of the caller relies on.
    if head.get(method.len()) != Some(&b' ') || !head[method.len() + 1..].starts_with(target) {
        return Err(Refusal::StartLine);
    }
    let list = Fields::new(head, fields);
    let framing = framing::framing(list, summary, version)?.unwrap_or(Framing::None);
    if summary.repeated & Kind::Host.bit() != 0 {
        return Err(Refusal::HostRepeated);
    }
    if summary.repeated & kind::SINGLE != 0 {
        return Err(Refusal::FieldRepeated);
    }
    let host = list.first_of(Kind::Host).ok_or(Refusal::HostMissing)?;
    authority::check_authority(host)?;
    let host_at = host.as_ptr() as usize - head.as_ptr() as usize;
    let host_span = span(host_at, host_at + host.len())?;
    if version == Version::Http11
        && summary.has(Kind::Expect)
        && list.of_kind(Kind::Expect).any(|field| !field.value(head).eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal::Expectation);
    }
    if method == b"TRACE" && framing != Framing::None {
        return Err(Refusal::TraceBody);
    }
    let form = target::check_target(method, target, host, limits)?;
    let options = framing::connection(head, fields, summary)?;
    let mut checked = Checked {
        summary,
        framing,
        options,
        path: None,
        normal: None,
        asterisk: form == Form::Asterisk,
        oddities: Oddities::NONE,
        host: host_span,
    };
    if let Form::Path(start) = form {
        let end = memchr::memchr(b'?', &target[start..]).map_or(target.len(), |found| start + found);
        if let Some((path, oddities)) = normalize::path_of_head(&target[start..end], limits.allow)? {
            checked.oddities = oddities;
            // Kept only where it differs; an encoded character makes a path go the long way, not another one.
            checked.normal = (path.as_bytes() != &target[start..end]).then_some(path);
        }
        checked.path = Some((start, end));
    }
    Ok(checked)
}

fn span(start: usize, end: usize) -> Result<(u32, u32), Refusal> {
    match (u32::try_from(start), u32::try_from(end)) {
        (Ok(start), Ok(end)) => Ok((start, end)),
        _ => Err(Refusal::HeadTooLarge),
    }
}

/// What the first line of a request says, and to whom.
pub(super) struct Line<'a> {
    pub(super) method: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a [u8]>,
    pub(super) authority: &'a [u8],
}

impl RequestHead {
    fn text(&self, (start, end): (u32, u32)) -> &str {
        std::str::from_utf8(&self.bytes[start as usize..end as usize]).unwrap_or_default()
    }

    /// Method, path, query and authority, without a look at whether they are text: they were checked.
    pub(super) fn line(&self) -> Line<'_> {
        let bytes = |(start, end): (u32, u32)| &self.bytes[start as usize..end as usize];
        let path = match (&self.normal, self.path) {
            (None, Some(span)) => bytes(span),
            _ => self.path().as_bytes(),
        };
        let query = self.query_span().map(bytes);
        Line { method: bytes((0, u32::from(self.method_len))), path, query, authority: bytes(self.host) }
    }

    fn query_span(&self) -> Option<(u32, u32)> {
        let (_, path_end) = self.path?;
        let (_, target_end) = self.target;
        (path_end < target_end).then_some((path_end + 1, target_end))
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text((0, u32::from(self.method_len)))
    }

    /// The target as received, for logs and rules that look at the raw form. It is never sent on.
    #[must_use]
    pub fn raw_target(&self) -> &str {
        self.text(self.target)
    }

    /// The normalized path: what is judged and what is sent. `*` for OPTIONS of the server as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        match (&self.normal, self.path) {
            (Some(path), _) => path,
            (None, Some(span)) => self.text(span),
            (None, None) => {
                if self.asterisk {
                    "*"
                } else {
                    "/"
                }
            }
        }
    }

    /// The query as received, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query_span().map(|span| self.text(span))
    }

    /// What is unusual about the path, each only because [`Limits::allow`] let it through; a route must agree.
    #[must_use]
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// HTTP/1.0 or HTTP/1.1.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The authority as received: the value of Host.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.text(self.host)
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// All fields, in order, as received.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.bytes, &self.fields)
    }

    /// Value of the first field of a kind; a bit test where there is none.
    #[must_use]
    pub fn known(&self, kind: Kind) -> Option<&[u8]> {
        if self.summary.has(kind) { self.fields().first_of(kind) } else { None }
    }

    /// Whether the client wants the connection kept open after this exchange.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.close && (self.version == Version::Http11 || self.keep_alive)
    }

    /// Whether the client waits for 100 before it sends the body. An HTTP/1.0 client does not.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11
            && self.summary.has(Kind::Expect)
            && !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether the client takes trailers.
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        self.fields().of_kind(Kind::Te).any(|field| takes_trailers(field.value(&self.bytes)))
    }

    /// Whether this is a proper WebSocket handshake: the only upgrade that is passed on.
    #[must_use]
    pub fn websocket_upgrade(&self) -> bool {
        let once = |kind: Kind| self.summary.present & !self.summary.repeated & kind.bit() != 0;
        self.upgrade
            && self.version == Version::Http11
            && self.method() == "GET"
            && self.framing == Framing::None
            && once(Kind::Upgrade)
            && once(Kind::SecWebsocketKey)
            && once(Kind::SecWebsocketVersion)
            && self.known(Kind::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
    }

    /// Length of the head on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_fields(self) -> Vec<Field> {
        self.fields
    }

    pub(crate) fn present(&self) -> u64 {
        self.summary.present
    }
}

/// Whether a TE value lists `trailers`.
pub(crate) fn takes_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}
