//! How long a body is: the question that two parsers must never answer differently.

use super::field::{Field, Fields, Summary};
use super::kind::{self, Kind, classify};
use super::{Refusal, Version};

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no field that speaks of one.
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// Chunks (HTTP/1.1), or frames until the stream ends (HTTP/2).
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// How a response body of `framing` is delimited towards a client of this version.
#[must_use]
pub fn reply_framing(client: Version, framing: Framing) -> Framing {
    match (client, framing) {
        (Version::Http10, Framing::Chunked) => Framing::UntilClose,
        (Version::Http11, Framing::UntilClose) => Framing::Chunked,
        _ => framing,
    }
}

/// What Content-Length and Transfer-Encoding say together, where both speak at most once and plainly.
pub(super) fn framing(
    fields: Fields<'_>,
    summary: Summary,
    version: Version,
) -> Result<Option<Framing>, Refusal> {
    let (length, encoding) = (summary.has(Kind::ContentLength), summary.has(Kind::TransferEncoding));
    if !length && !encoding {
        return Ok(None);
    }
    if length && encoding {
        return Err(Refusal::LengthAndEncoding);
    }
    if summary.repeated & Kind::ContentLength.bit() != 0 {
        return Err(Refusal::LengthRepeated);
    }
    let (head, _) = fields.raw();
    if let Some(field) = fields.of_kind(Kind::ContentLength).next() {
        if !field.plain_spacing(head) {
            return Err(Refusal::LengthInvalid);
        }
        return content_length(field.value(head)).map(|length| Some(Framing::Length(length)));
    }
    if version == Version::Http10 {
        return Err(Refusal::EncodingIn10);
    }
    let mut chunked = 0;
    let mut last = false;
    let mut other = false;
    for field in fields.of_kind(Kind::TransferEncoding) {
        if !field.plain_spacing(head) {
            return Err(Refusal::EncodingInvalid);
        }
        for coding in field.value(head).split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            last = coding.eq_ignore_ascii_case(b"chunked");
            if last {
                chunked += 1;
            } else if is_token(coding) {
                other = true;
            } else {
                return Err(Refusal::EncodingInvalid);
            }
        }
    }
    match (chunked, last, other) {
        (1, true, false) => Ok(Some(Framing::Chunked)),
        (1, true, true) => Err(Refusal::EncodingUnknown),
        _ => Err(Refusal::EncodingInvalid),
    }
}

/// A Content-Length: plain decimal, no sign, no list, no leading zero, and less than 2^63 so that nobody reads it as negative.
pub(crate) fn content_length(raw: &[u8]) -> Result<u64, Refusal> {
    if raw.is_empty() || raw.len() > 19 || (raw.len() > 1 && raw[0] == b'0') {
        return Err(Refusal::LengthInvalid);
    }
    let mut length: u64 = 0;
    for byte in raw {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Refusal::LengthInvalid);
        }
        // 19 digits stay below 2^64.
        length = length * 10 + u64::from(digit);
    }
    if length > i64::MAX as u64 { Err(Refusal::LengthInvalid) } else { Ok(length) }
}

pub(super) fn is_token(raw: &[u8]) -> bool {
    !raw.is_empty()
        && raw.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The most connection options that are read, because each is compared with each field.
const MAX_OPTIONS: usize = 32;

/// What the Connection field asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// Reads the Connection fields and marks the fields that they name.
pub(super) fn connection(
    head: &[u8],
    fields: &mut [Field],
    summary: Summary,
) -> Result<ConnectionOptions, Refusal> {
    let mut options = ConnectionOptions::default();
    if !summary.has(Kind::Connection) {
        return Ok(options);
    }
    let mut options_left = MAX_OPTIONS;
    for at in 0..fields.len() {
        if fields[at].kind() != Kind::Connection {
            continue;
        }
        let value = fields[at].value(head);
        if value.eq_ignore_ascii_case(b"keep-alive") {
            options.keep_alive = true;
            continue;
        }
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            options_left = options_left.checked_sub(1).ok_or(Refusal::ConnectionField)?;
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if !option.is_empty() && nominated(option)? {
                for field in fields.iter_mut() {
                    field.nominated |= field.name(head).eq_ignore_ascii_case(option);
                }
            }
        }
    }
    Ok(options)
}

/// Whether a connection option names a field to drop; an option that would drop what is meant for every recipient is refused.
fn nominated(option: &[u8]) -> Result<bool, Refusal> {
    if !is_token(option) {
        return Err(Refusal::ConnectionField);
    }
    let kind = classify(option);
    if kind::END_TO_END & kind.bit() != 0 {
        return Err(Refusal::ConnectionField);
    }
    // What is dropped anyway needs no mark.
    Ok(kind::HOP & kind.bit() == 0)
}
