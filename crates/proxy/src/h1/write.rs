//! Heads on their way out, written from the parsed form.
//!
//! Neighbouring fields that go on unchanged, and that were received exactly as they would be written, are copied as one
//! run of bytes; it is the same output as writing each, for a fraction of the work.

use bytes::{BufMut, BytesMut};

use ringfence_oidc::session::is_ours;

use super::convert::KeptFields;
use super::field::Fields;
use super::framing::Framing;
use super::kind::{self, Kind};
use super::request::Line;
use super::{MAX_FIELDS, Version};
use crate::view::{HeadView, ResponseView};

/// Further fields that a route drops: names, or prefixes that end in `*`. Compared without case, and an underscore
/// counts as a hyphen.
#[derive(Debug, Clone, Default)]
pub struct DropList {
    names: Vec<Box<[u8]>>,
    prefixes: Vec<Box<[u8]>>,
    /// Bit n: some name has n bytes (63: that many or more).
    lengths: u64,
}

impl DropList {
    /// A list of these names.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut list = Self::default();
        for name in names {
            let folded = |name: &str| name.bytes().map(fold).collect::<Box<[u8]>>();
            match name.strip_suffix('*') {
                Some(prefix) => list.prefixes.push(folded(prefix)),
                None => {
                    list.lengths |= 1 << name.len().min(63);
                    list.names.push(folded(name));
                }
            }
        }
        list
    }

    /// The same and one more.
    pub(crate) fn and(&self, name: &str) -> Self {
        let (mut list, more) = (self.clone(), Self::new([name]));
        list.names.extend(more.names);
        list.prefixes.extend(more.prefixes);
        list.lengths |= more.lengths;
        list
    }

    fn is_empty(&self) -> bool {
        self.lengths == 0 && self.prefixes.is_empty()
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        let same = |folded: &[u8]| name.iter().zip(folded).all(|(a, b)| fold(*a) == *b);
        (self.lengths >> name.len().min(63) & 1 == 1
            && self.names.iter().any(|folded| folded.len() == name.len() && same(folded)))
            || self.prefixes.iter().any(|folded| folded.len() <= name.len() && same(folded))
    }
}

fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// How a request goes out.
#[derive(Debug, Clone, Copy)]
pub struct Outbound<'a> {
    /// How the body will be delimited: what [`HeadView::framing`] says, unless the caller holds a changed body.
    pub framing: Framing,
    /// Host to send instead of the received one.
    pub host: Option<&'a str>,
    /// Pass a WebSocket upgrade on; only when [`HeadView::websocket_upgrade`] holds.
    pub upgrade: bool,
    /// Pass `Expect: 100-continue` on.
    pub expect: bool,
    /// Further fields to drop.
    pub drop: &'a DropList,
}

/// Writes one request head: start line, Host, framing and the fields that go on; then the caller's own, then the end.
#[derive(Debug)]
#[must_use = "a head without `finish` has no end"]
pub struct RequestWriter<'b> {
    out: &'b mut BytesMut,
}

impl<'b> RequestWriter<'b> {
    /// Appends the head as far as it comes from the request.
    pub fn new(out: &'b mut BytesMut, view: HeadView<'_>, how: &Outbound<'_>) -> Self {
        let Line { method, path, query, authority } = match view {
            HeadView::H1(head) => head.line(),
            HeadView::H2(_) => Line {
                method: view.method().as_bytes(),
                path: view.path().as_bytes(),
                query: view.query().map(str::as_bytes),
                authority: view.authority().as_bytes(),
            },
        };
        let host = how.host.map_or(authority, str::as_bytes);
        out.reserve(method.len() + path.len() + query.map_or(0, <[u8]>::len) + host.len() + 256);
        out.put_slice(method);
        out.put_u8(b' ');
        out.put_slice(path);
        if let Some(query) = query {
            out.put_u8(b'?');
            out.put_slice(query);
        }
        out.put_slice(b" HTTP/1.1\r\nHost: ");
        out.put_slice(host);
        out.put_slice(b"\r\n");
        match view {
            HeadView::H1(head) => copy_runs(out, head.fields(), kind::NOT_COPIED, how.drop),
            HeadView::H2(_) => copy_h2(out, KeptFields::of_request(view, how.drop)),
        }
        put_framing(out, how.framing);
        let trailers = view.present() & Kind::Te.bit() != 0 && view.takes_trailers();
        match (how.upgrade, trailers) {
            (true, _) => out.put_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            (false, true) => out.put_slice(b"Connection: TE\r\nTE: trailers\r\n"),
            (false, false) => {}
        }
        if how.expect {
            out.put_slice(b"Expect: 100-continue\r\n");
        }
        Self { out }
    }

    /// Adds a field of the caller's.
    pub fn field(&mut self, name: &'static str, value: &[u8]) {
        put_own(self.out, name, value);
    }

    /// Adds whole lines that the proxy wrote itself, from values that hold no control byte.
    pub(crate) fn lines(&mut self, lines: &[u8]) {
        self.out.put_slice(lines);
    }

    /// Ends the head.
    pub fn finish(self) {
        self.out.put_slice(b"\r\n");
    }
}

/// What the client is told about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientConnection {
    /// It stays open, as HTTP/1.1 has it.
    KeepAlive,
    /// It stays open for an HTTP/1.0 client that asked for it.
    KeepAlive10,
    /// It closes after this response.
    Close,
    /// It becomes a WebSocket (101).
    Upgrade,
}

/// How a response goes out.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// How the body will be delimited: [`super::reply_framing`] of what the upstream sent.
    pub framing: Framing,
    /// What happens to the client's connection.
    pub connection: ClientConnection,
    /// Further fields to drop.
    pub drop: &'a DropList,
}

/// Writes one response head: status line, framing and the fields that go back; then the caller's own, then the end.
#[derive(Debug)]
#[must_use = "a head without `finish` has no end"]
pub struct ResponseWriter<'b> {
    out: &'b mut BytesMut,
}

impl<'b> ResponseWriter<'b> {
    /// Appends the head as far as it comes from the upstream.
    pub fn new(out: &'b mut BytesMut, view: ResponseView<'_>, how: &Reply<'_>) -> Self {
        let status = view.status();
        put_status_line(out, status);
        match view {
            ResponseView::H1(head) => copy_runs(out, head.fields(), kind::NOT_COPIED_BACK, how.drop),
            ResponseView::H2(_) => copy_h2(out, KeptFields::of_response(view, how.drop)),
        }
        match (how.framing, view) {
            // A response to HEAD and a 304 say how long the body would be.
            (Framing::None, ResponseView::H1(head)) if status >= 200 && status != 204 => {
                if let Some(length) = head.declared_length() {
                    put_framing(out, Framing::Length(length));
                }
            }
            (Framing::None, ResponseView::H2(_)) if status >= 200 && status != 204 => {
                if let Some(Ok(length)) = view.field("content-length").map(super::content_length) {
                    put_framing(out, Framing::Length(length));
                }
            }
            (framing, _) => put_framing(out, framing),
        }
        put_connection(
            out,
            if how.framing == Framing::UntilClose { ClientConnection::Close } else { how.connection },
        );
        Self { out }
    }

    /// A response of the proxy's own.
    pub fn own(out: &'b mut BytesMut, status: u16, framing: Framing, connection: ClientConnection) -> Self {
        put_status_line(out, status);
        put_framing(out, framing);
        put_connection(out, connection);
        Self { out }
    }

    /// Adds a field of the caller's.
    pub fn field(&mut self, name: &'static str, value: &[u8]) {
        put_own(self.out, name, value);
    }

    /// Ends the head.
    pub fn finish(self) {
        self.out.put_slice(b"\r\n");
    }
}

/// Tells a client that waits to send its body.
pub fn write_continue(out: &mut BytesMut) {
    out.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

fn put_status_line(out: &mut BytesMut, status: u16) {
    out.reserve(512);
    out.put_slice(b"HTTP/1.1 ");
    put_number(out, u64::from(status));
    out.put_u8(b' ');
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.put_slice(reason.unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

fn put_connection(out: &mut BytesMut, connection: ClientConnection) {
    out.put_slice(match connection {
        ClientConnection::KeepAlive => b"",
        ClientConnection::KeepAlive10 => b"Connection: keep-alive\r\n",
        ClientConnection::Close => b"Connection: close\r\n",
        ClientConnection::Upgrade => b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    });
}

fn put_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.put_slice(b"Content-Length: ");
            put_number(out, length);
            out.put_slice(b"\r\n");
        }
        Framing::Chunked => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn put_number(out: &mut BytesMut, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

fn put_own(out: &mut BytesMut, name: &'static str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    // What the proxy sets comes from what it verified; should a control byte ever be in it, it ends no line.
    if value.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        out.extend(value.iter().map(|byte| if *byte < b' ' || *byte == 0x7f { b'_' } else { *byte }));
    } else {
        out.put_slice(value);
    }
    out.put_slice(b"\r\n");
}

fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn copy_runs(out: &mut BytesMut, fields: Fields<'_>, not_copied: u64, drop: &DropList) {
    let (head, list) = fields.raw();
    debug_assert!(list.len() <= MAX_FIELDS, "invariant: the parser bounds the field count");
    let nothing_more = drop.is_empty();
    let mut run = (0, 0);
    for field in list {
        let goes_on = not_copied & field.kind().bit() == 0
            && !field.nominated
            && !(field.kind() == Kind::SetCookie && is_ours(field.value(head)))
            && (nothing_more || !drop.has(field.name(head)));
        match field.canonical_line() {
            _ if !goes_on => {}
            Some((start, end)) if start == run.1 => run.1 = end,
            Some(line) => {
                out.put_slice(&head[run.0..run.1]);
                run = line;
            }
            None => {
                out.put_slice(&head[run.0..run.1]);
                run = (0, 0);
                put_field(out, field.name(head), field.value(head));
            }
        }
    }
    out.put_slice(&head[run.0..run.1]);
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 has them in one.
fn copy_h2(out: &mut BytesMut, fields: KeptFields<'_>) {
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (kind, name, value) in fields {
        if kind == Kind::Cookie {
            cookies.push(value);
        } else {
            put_field(out, name, value);
        }
    }
    if !cookies.is_empty() {
        put_field(out, b"cookie", &cookies.join(&b"; "[..]));
    }
}

impl ClientConnection {
    /// What to tell a client of this version that wants its connection kept, or does not.
    #[must_use]
    pub fn of(version: Version, keep: bool) -> Self {
        match (version, keep) {
            (_, false) => Self::Close,
            (Version::Http10, true) => Self::KeepAlive10,
            (_, true) => Self::KeepAlive,
        }
    }
}
