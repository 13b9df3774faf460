//! Chunked framing: size lines read and written, trailers checked on both ways.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::field::{self, Field, Fields};
use super::kind::{NOT_IN_TRAILERS, classify};
use super::{MAX_TRAILERS, Refusal};

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// A chunk-size line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SizeLine {
    /// Bytes of the line with its CRLF.
    pub(super) len: usize,
    pub(super) size: u64,
    /// Bytes of extensions. They are dropped: they end at this hop.
    pub(super) extensions: usize,
}

/// Reads a chunk-size line: hexadecimal digits, then CRLF or extensions that start at once with `;`.
pub(super) fn size_line(buf: &[u8], limit: usize) -> Result<Option<SizeLine>, Refusal> {
    let mut size: u64 = 0;
    let mut digits = 0;
    let mut next = None;
    for byte in buf {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            other => {
                next = Some(*other);
                break;
            }
        };
        digits += 1;
        // Sixteen digits fill the number; more is either too large or a disguise of leading zeros.
        if digits > 16 {
            return Err(Refusal::ChunkSize);
        }
        size = size << 4 | u64::from(digit);
    }
    if size > i64::MAX as u64 {
        return Err(Refusal::ChunkSize);
    }
    match next {
        None => return Ok(None),
        Some(_) if digits == 0 => return Err(Refusal::ChunkSize),
        Some(b'\r') => {
            return match buf.get(digits + 1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(SizeLine { len: digits + 2, size, extensions: 0 })),
                Some(_) => Err(Refusal::BareLineEnd),
            };
        }
        Some(b'\n') => return Err(Refusal::BareLineEnd),
        Some(b';') => {}
        Some(_) => return Err(Refusal::ChunkSize),
    }
    let extensions = &buf[digits..];
    let end = extensions.iter().position(|byte| (*byte < b' ' && *byte != b'\t') || *byte >= 0x7f);
    let Some(end) = end else {
        return if buf.len() > limit { Err(Refusal::ChunkExtension) } else { Ok(None) };
    };
    if digits + end + 2 > limit {
        return Err(Refusal::ChunkExtension);
    }
    match extensions[end..] {
        [b'\r', b'\n', ..] => Ok(Some(SizeLine { len: digits + end + 2, size, extensions: end })),
        [b'\r'] => Ok(None),
        [b'\r' | b'\n', ..] => Err(Refusal::BareLineEnd),
        _ => Err(Refusal::ChunkExtension),
    }
}

/// Writes the size line of a chunk of `len` bytes; the data and [`CHUNK_END`] follow. Nothing for no bytes, because a
/// chunk of size zero ends the body.
pub fn write_chunk_start(out: &mut BytesMut, len: usize) {
    if len == 0 {
        return;
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut line = [b'\n'; 18];
    line[16] = b'\r';
    let mut at = 16;
    let mut rest = len;
    while rest > 0 {
        at -= 1;
        line[at] = HEX[rest & 15];
        rest >>= 4;
    }
    out.put_slice(&line[at..]);
}

/// Ends a chunked body, with trailers where there are any.
pub fn write_last_chunk(out: &mut BytesMut, trailers: Option<&Trailers>) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flat_map(|trailers| trailers.fields().iter()) {
        put_field(out, name, value);
    }
    out.put_slice(b"\r\n");
}

/// Ends a chunked body with trailers that came over HTTP/2, less those that trailers must not bring.
pub fn write_last_chunk_with_map(out: &mut BytesMut, trailers: &HeaderMap) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers {
        if may_trail(name.as_str().as_bytes()) {
            put_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
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

fn may_trail(name: &[u8]) -> bool {
    NOT_IN_TRAILERS & classify(name).bit() == 0
}

/// Trailer fields that passed, in order. Those that trailers must not bring are gone.
#[derive(Debug, Clone)]
pub struct Trailers {
    bytes: Bytes,
    fields: Vec<Field>,
}

impl Trailers {
    pub(super) fn parse(bytes: Bytes, limit: usize) -> Result<Self, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        let mut fields = Vec::new();
        match httparse::parse_headers(&bytes, &mut headers[..limit.min(MAX_TRAILERS)]) {
            Ok(httparse::Status::Complete((len, found))) if len == bytes.len() => {
                field::index(&bytes, found, &mut fields)?;
            }
            Ok(_) => return Err(Refusal::TrailerSection),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TrailerSection),
            Err(error) => return Err(field::refusal_of(error)),
        }
        fields.retain(|field| NOT_IN_TRAILERS & field.kind().bit() == 0);
        Ok(Self { bytes, fields })
    }

    /// Whether no field passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.bytes, &self.fields)
    }

    /// The fields as HTTP/2 sends them.
    #[must_use]
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in self.fields() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
    }

    /// Removes from trailers that came over HTTP/2 what trailers must not bring.
    pub fn filter_map(trailers: &mut HeaderMap) {
        let refused: Vec<HeaderName> =
            trailers.keys().filter(|name| !may_trail(name.as_str().as_bytes())).cloned().collect();
        for name in refused {
            trailers.remove(name);
        }
    }
}
