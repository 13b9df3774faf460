//! HTTP/1.1 on the wire, both sides, without I/O: functions over buffers.
//!
//! A parser of our own on `httparse` instead of hyper with a guard below it: two parsers of one head can disagree, and
//! that disagreement is what request smuggling lives on. Here the guard *is* the parse: what could be read in two ways
//! is refused, what is accepted is re-serialized from the parsed form, and nothing of a refused message is passed on.

mod authority;
mod body;
mod chunk;
mod convert;
mod field;
mod framing;
mod kind;
mod refusal;
mod request;
mod response;
mod target;
mod write;

pub use authority::Authority;
pub use body::{Decoded, Decoder};
pub use chunk::{CHUNK_END, Trailers, write_chunk_start, write_last_chunk, write_last_chunk_with_map};
pub use convert::{KeptFields, forward_to_h2, respond_to_h2};
pub use field::{Fields, FieldsIter};
pub use framing::{Framing, reply_framing};
pub use kind::Kind;
pub use refusal::Refusal;
pub use request::{Parsed, RequestHead, parse_request};
pub use response::{Asked, ResponseHead, parse_response};
pub use write::{ClientConnection, DropList, Outbound, Reply, RequestWriter, ResponseWriter, write_continue};

pub(crate) use authority::check_authority;
pub(crate) use field::Summary as Seen;
pub(crate) use framing::content_length;
pub(crate) use kind::{SPOOFABLE, classify};
pub(crate) use target::check_method;

use crate::normalize::Oddities;

/// The most header fields that any limit can allow in one head.
pub const MAX_FIELDS: usize = 128;

/// The most trailer fields that any limit can allow.
pub const MAX_TRAILERS: usize = 32;

/// Bounds on one message. Every one is enforced while parsing, before anything is judged or passed on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head, from the first byte of the start line to the empty line.
    pub head: usize,
    /// Bytes of a request target.
    pub target: usize,
    /// Header fields, at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of a trailer section.
    pub trailer: usize,
    /// Trailer fields, at most [`MAX_TRAILERS`].
    pub trailer_fields: usize,
    /// Bytes of one chunk-size line with its extensions.
    pub chunk_line: usize,
    /// Bytes of chunk extensions in one body.
    pub chunk_extensions: usize,
    /// What unusual path forms a listener lets through for its routes to decide on.
    pub allow: Oddities,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 32 * 1024,
            target: 8 * 1024,
            fields: 100,
            trailer: 8 * 1024,
            trailer_fields: MAX_TRAILERS,
            chunk_line: 256,
            chunk_extensions: 4 * 1024,
            allow: Oddities::NONE,
        }
    }
}

/// The HTTP version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// What one connection keeps between messages: how far an unfinished head was searched, and the field list to reuse.
#[derive(Debug, Default)]
pub struct Scratch {
    fields: Vec<field::Field>,
    scanned: usize,
    tried: bool,
    skipped: bool,
    begun: bool,
}

impl Scratch {
    /// Takes back the allocation of a request head that is done with.
    pub fn recycle_request(&mut self, head: RequestHead) {
        self.take_back(head.into_fields());
    }

    /// Takes back the allocation of a response head that is done with.
    pub fn recycle_response(&mut self, head: ResponseHead) {
        self.take_back(head.into_fields());
    }

    fn take_back(&mut self, mut fields: Vec<field::Field>) {
        fields.clear();
        if fields.capacity() > self.fields.capacity() {
            self.fields = fields;
        }
    }

    fn head_done(&mut self) {
        self.scanned = 0;
        self.tried = false;
        self.skipped = false;
        self.begun = true;
    }
}

/// Finds the end of a head, whether its lines end properly or not, so that a wrong one is refused rather than awaited.
/// Returns the length of the head, or how far the search need not look again.
fn find_head_end(buf: &[u8], from: usize) -> Result<usize, usize> {
    let mut at = from;
    while let Some(found) = memchr::memchr(b'\n', &buf[at..]) {
        let line_feed = at + found;
        match buf.get(line_feed + 1..) {
            Some([b'\n', ..]) => return Ok(line_feed + 2),
            Some([b'\r', b'\n', ..]) => return Ok(line_feed + 3),
            _ => at = line_feed + 1,
        }
    }
    Err(buf.len().saturating_sub(2).max(from))
}
