//! A response head from an upstream, held to the same rules as a request.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

use super::field::{self, Field, Fields, Summary};
use super::framing::{self, Framing};
use super::kind::Kind;
use super::{Limits, MAX_FIELDS, Refusal, Scratch, Version, find_head_end};

/// What the request was that this response answers; it decides whether there is a body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// The method was HEAD.
    pub head: bool,
    /// A WebSocket upgrade was passed on, so 101 is an answer.
    pub upgrade: bool,
}

/// A response head that holds all the rules of this module.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    bytes: Bytes,
    fields: Vec<Field>,
    summary: Summary,
    version: Version,
    status: u16,
    framing: Framing,
    declared: Option<u64>,
    close: bool,
    keep_alive: bool,
}

/// Takes one response head out of `buf`, if it is all there. After a 1xx other than 101 the next head follows.
///
/// # Errors
/// The first rule that the bytes break. The connection must not be used on after an error, and the client gets 502.
pub fn parse_response(
    buf: &mut BytesMut,
    limits: &Limits,
    scratch: &mut Scratch,
    asked: Asked,
) -> Result<Option<ResponseHead>, Refusal> {
    match buf.first() {
        None => return Ok(None),
        Some(b'H') => {}
        Some(_) => return Err(Refusal::StartLine),
    }
    let incomplete = |len: usize| if len > limits.head { Err(Refusal::HeadTooLarge) } else { Ok(None) };
    if scratch.tried
        && let Err(scanned) = find_head_end(buf, scratch.scanned)
    {
        scratch.scanned = scanned;
        return incomplete(buf.len());
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parser = httparse::Response::new(&mut []);
    let allowed = &mut headers[..limits.fields.min(MAX_FIELDS)];
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parser, &buf[..], allowed);
    let head_len = match parsed {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) => {
            scratch.tried = true;
            scratch.scanned = find_head_end(buf, scratch.scanned).err().ok_or(Refusal::BareLineEnd)?;
            return incomplete(buf.len());
        }
        Err(error) => return Err(field::refusal_of(error)),
    };
    if head_len > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    let (Some(minor), Some(status)) = (parser.version, parser.code) else { return Err(Refusal::StartLine) };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let head = &buf[..head_len];
    let mut fields = std::mem::take(&mut scratch.fields);
    let checked = field::index(head, parser.headers, &mut fields)
        .and_then(|summary| check(head, status, version, &mut fields, summary, asked));
    let checked = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            scratch.fields = fields;
            return Err(refusal);
        }
    };
    scratch.head_done();
    Ok(Some(ResponseHead {
        bytes: buf.split_to(head_len).freeze(),
        fields,
        summary: checked.summary,
        version,
        status,
        framing: checked.framing,
        declared: checked.declared,
        close: checked.options.close,
        keep_alive: checked.options.keep_alive,
    }))
}

struct Checked {
    summary: Summary,
    framing: Framing,
    declared: Option<u64>,
    options: framing::ConnectionOptions,
}

fn check(
    head: &[u8],
    status: u16,
    version: Version,
    fields: &mut [Field],
    summary: Summary,
    asked: Asked,
) -> Result<Checked, Refusal> {
    if !(100..=599).contains(&status) {
        return Err(Refusal::ResponseStatus);
    }
    let list = Fields::new(head, fields);
    let said = framing::framing(list, summary, version)?;
    let bodiless = status < 200 || status == 204;
    if bodiless && !matches!(said, None | Some(Framing::Length(0))) {
        return Err(Refusal::ResponseBody);
    }
    let switched = list.first_of(Kind::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    let options = framing::connection(head, fields, summary)?;
    if status == 101 && !(asked.upgrade && options.upgrade && switched && version == Version::Http11) {
        return Err(Refusal::ResponseStatus);
    }
    let declared = match said {
        Some(Framing::Length(length)) => Some(length),
        _ => None,
    };
    let framing = if bodiless || status == 304 || asked.head {
        Framing::None
    } else {
        said.unwrap_or(Framing::UntilClose)
    };
    Ok(Checked { summary, framing, declared, options })
}

impl ResponseHead {
    /// The status code, between 100 and 599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether another head follows for the same request.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// HTTP/1.0 or HTTP/1.1.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The Content-Length that was declared; there need not be a body of it (HEAD, 304).
    #[must_use]
    pub fn declared_length(&self) -> Option<u64> {
        self.declared
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

    /// Whether the connection can carry another exchange once the body was read to its end.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.close
            && self.status != 101
            && self.framing != Framing::UntilClose
            && (self.version == Version::Http11 || self.keep_alive)
    }

    /// Length of the head on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_fields(self) -> Vec<Field> {
        self.fields
    }
}
