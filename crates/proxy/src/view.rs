//! One way to read a request head, whichever version of HTTP it came in.
//!
//! An HTTP/2 head is checked here by the rules that HTTP/1.1 heads are parsed by, as far as the `h2` crate does not
//! enforce them, so that a stage never has to ask how a request came.

use http::request::Parts;

use crate::h1::{
    Fields, FieldsIter, Framing, Kind, Limits, Refusal, RequestHead, Version, check_authority, check_method,
    classify, content_length,
};
use crate::normalize::{self, Oddities};

/// An HTTP/2 request head that passed.
#[derive(Debug)]
pub struct H2Head {
    parts: Parts,
    normal: Option<Box<str>>,
    oddities: Oddities,
    authority: Box<str>,
    framing: Framing,
    present: u64,
}

impl H2Head {
    /// Checks what `h2` gives. `end_of_stream` is what the receiving stream says: no body follows.
    ///
    /// # Errors
    /// The first rule that the head breaks.
    pub fn new(parts: Parts, end_of_stream: bool, limits: &Limits) -> Result<Self, Refusal> {
        check_method(parts.method.as_str().as_bytes())?;
        let (present, authority, declared) = check_fields(&parts, limits)?;
        let framing = match (declared, end_of_stream) {
            (None | Some(0), true) => declared.map_or(Framing::None, Framing::Length),
            (Some(_), true) => return Err(Refusal::LengthInvalid),
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::Chunked,
        };
        if parts.method == http::Method::TRACE && framing != Framing::None {
            return Err(Refusal::TraceBody);
        }
        if parts.uri.scheme().is_some_and(|scheme| scheme != "http" && scheme != "https") {
            return Err(Refusal::Pseudo);
        }
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        if target.len() > limits.target {
            return Err(Refusal::TargetTooLong);
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refusal::TargetByte);
        }
        let raw = parts.uri.path();
        let mut normal = None;
        let mut oddities = Oddities::NONE;
        if raw == "*" {
            if parts.method != http::Method::OPTIONS || parts.uri.query().is_some() {
                return Err(Refusal::TargetForm);
            }
        } else {
            let found = normalize::path(raw, limits.allow)?;
            oddities = found.oddities;
            if let std::borrow::Cow::Owned(path) = found.path {
                normal = Some(path.into_boxed_str());
            }
        }
        Ok(Self { parts, normal, oddities, authority, framing, present })
    }

    /// What `h2` gave.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}

fn check_fields(parts: &Parts, limits: &Limits) -> Result<(u64, Box<str>, Option<u64>), Refusal> {
    if parts.headers.len() > limits.fields {
        return Err(Refusal::TooManyFields);
    }
    let mut summary = crate::h1::Seen::default();
    let mut host = None;
    let mut length = None;
    for (name, value) in &parts.headers {
        let kind = classify(name.as_str().as_bytes());
        summary.add(kind);
        // RFC 9113, section 8.2.1; over HTTP/1.1 it would be read as another value.
        if let (Some(b' ' | b'\t'), _) | (_, Some(b' ' | b'\t')) =
            (value.as_bytes().first(), value.as_bytes().last())
        {
            return Err(Refusal::FieldValue);
        }
        match kind {
            Kind::Host => host = Some(value.as_bytes()),
            Kind::ContentLength => length = Some(content_length(value.as_bytes())?),
            Kind::Te if value.as_bytes() != b"trailers" => return Err(Refusal::Http2Field),
            Kind::Expect if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                return Err(Refusal::Expectation);
            }
            _ => {}
        }
    }
    summary.refuse_for_h2()?;
    let authority = match (parts.uri.authority().map(|authority| authority.as_str()), host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host) => {
            return Err(Refusal::HostMismatch);
        }
        (Some(authority), _) => authority.as_bytes(),
        (None, Some(host)) => host,
        (None, None) => return Err(Refusal::HostMissing),
    };
    check_authority(authority)?;
    let authority = std::str::from_utf8(authority).map_err(|_| Refusal::HostInvalid)?;
    Ok((summary.present, authority.into(), length))
}

/// A request head, owned.
#[derive(Debug)]
pub enum Head {
    /// It came over HTTP/1.
    H1(RequestHead),
    /// It came over HTTP/2.
    H2(H2Head),
}

impl Head {
    /// The borrowed view that stages read.
    #[must_use]
    pub fn view(&self) -> HeadView<'_> {
        match self {
            Self::H1(head) => HeadView::H1(head),
            Self::H2(head) => HeadView::H2(head),
        }
    }
}

/// A request head, borrowed: what stages read.
#[derive(Debug, Clone, Copy)]
pub enum HeadView<'a> {
    /// It came over HTTP/1.
    H1(&'a RequestHead),
    /// It came over HTTP/2.
    H2(&'a H2Head),
}

impl<'a> HeadView<'a> {
    /// The version that the client speaks.
    #[must_use]
    pub fn version(self) -> Version {
        match self {
            Self::H1(head) => head.version(),
            Self::H2(_) => Version::Http2,
        }
    }

    /// The method.
    #[must_use]
    pub fn method(self) -> &'a str {
        match self {
            Self::H1(head) => head.method(),
            Self::H2(head) => head.parts.method.as_str(),
        }
    }

    /// The normalized path: what is judged and what is sent. `*` for OPTIONS of the server as a whole.
    #[must_use]
    pub fn path(self) -> &'a str {
        match self {
            Self::H1(head) => head.path(),
            Self::H2(head) => head.normal.as_deref().unwrap_or_else(|| head.parts.uri.path()),
        }
    }

    /// The query as received, without its `?`.
    #[must_use]
    pub fn query(self) -> Option<&'a str> {
        match self {
            Self::H1(head) => head.query(),
            Self::H2(head) => head.parts.uri.query(),
        }
    }

    /// The target as received, for logs and rules on the raw form. Over HTTP/2 this is path and query.
    #[must_use]
    pub fn raw_target(self) -> &'a str {
        match self {
            Self::H1(head) => head.raw_target(),
            Self::H2(head) => head.parts.uri.path_and_query().map_or("", |target| target.as_str()),
        }
    }

    /// What is unusual about the path, each only because [`Limits::allow`] let it through; a route must agree.
    #[must_use]
    pub fn oddities(self) -> Oddities {
        match self {
            Self::H1(head) => head.oddities(),
            Self::H2(head) => head.oddities,
        }
    }

    /// The authority as received: Host, or `:authority`.
    #[must_use]
    pub fn authority(self) -> &'a str {
        match self {
            Self::H1(head) => head.authority(),
            Self::H2(head) => &head.authority,
        }
    }

    /// The host of the authority, without its port.
    #[must_use]
    pub fn host(self) -> &'a str {
        let authority = self.authority();
        check_authority(authority.as_bytes()).map_or(authority, |(host_len, _)| &authority[..host_len])
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(self) -> Framing {
        match self {
            Self::H1(head) => head.framing(),
            Self::H2(head) => head.framing,
        }
    }

    /// How many fields there are.
    #[must_use]
    pub fn field_count(self) -> usize {
        match self {
            Self::H1(head) => head.fields().len(),
            Self::H2(head) => head.parts.headers.len(),
        }
    }

    /// Name and value of each field, as received.
    #[must_use]
    pub fn fields(self) -> ViewFields<'a> {
        match self {
            Self::H1(head) => ViewFields::H1(head.fields().iter()),
            Self::H2(head) => ViewFields::H2(head.parts.headers.iter()),
        }
    }

    /// Value of the first field of this name, which is compared without case.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::H1(head) => Fields::first(head.fields(), name),
            Self::H2(head) => head.parts.headers.get(name).map(|value| value.as_bytes()),
        }
    }

    /// Value of the first field of a kind that is one name; a bit test where there is none.
    #[must_use]
    pub fn known(self, kind: Kind) -> Option<&'a [u8]> {
        match self {
            Self::H1(head) => head.known(kind),
            Self::H2(head) if head.present & kind.bit() == 0 => None,
            Self::H2(head) => head.parts.headers.get(kind.name()?).map(|value| value.as_bytes()),
        }
    }

    /// Whether the client takes trailers.
    #[must_use]
    pub fn takes_trailers(self) -> bool {
        match self {
            Self::H1(head) => head.takes_trailers(),
            Self::H2(_) => true,
        }
    }

    /// Whether this is a proper WebSocket handshake.
    #[must_use]
    pub fn websocket_upgrade(self) -> bool {
        match self {
            Self::H1(head) => head.websocket_upgrade(),
            Self::H2(_) => false,
        }
    }

    /// Whether the client waits for 100 before it sends the body.
    #[must_use]
    pub fn expects_continue(self) -> bool {
        match self {
            Self::H1(head) => head.expects_continue(),
            Self::H2(head) => head.present & Kind::Expect.bit() != 0 && head.framing != Framing::None,
        }
    }

    pub(crate) fn present(self) -> u64 {
        match self {
            Self::H1(head) => head.present(),
            Self::H2(head) => head.present,
        }
    }
}

/// Iterator of [`HeadView::fields`].
#[derive(Debug)]
pub enum ViewFields<'a> {
    /// Over HTTP/1.
    H1(FieldsIter<'a>),
    /// Over HTTP/2.
    H2(http::header::Iter<'a, http::HeaderValue>),
}

impl<'a> Iterator for ViewFields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::H1(fields) => fields.next(),
            Self::H2(fields) => {
                fields.next().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            }
        }
    }
}

/// A response head, borrowed.
#[derive(Debug, Clone, Copy)]
pub enum ResponseView<'a> {
    /// It came over HTTP/1.
    H1(&'a crate::h1::ResponseHead),
    /// It came over HTTP/2; `h2` has checked it.
    H2(&'a http::response::Parts),
}

impl<'a> ResponseView<'a> {
    /// The status code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::H1(head) => head.status(),
            Self::H2(parts) => parts.status.as_u16(),
        }
    }

    /// Name and value of each field, as received.
    #[must_use]
    pub fn fields(self) -> ViewFields<'a> {
        match self {
            Self::H1(head) => ViewFields::H1(head.fields().iter()),
            Self::H2(parts) => ViewFields::H2(parts.headers.iter()),
        }
    }

    /// Value of the first field of this name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::H1(head) => head.fields().first(name),
            Self::H2(parts) => parts.headers.get(name).map(|value| value.as_bytes()),
        }
    }
}

/// How the body of an HTTP/2 response is delimited. `end_of_stream` is what the receiving stream says.
///
/// # Errors
/// A malformed or repeated Content-Length.
pub fn h2_response_framing(
    parts: &http::response::Parts,
    end_of_stream: bool,
    head_request: bool,
) -> Result<Framing, Refusal> {
    let mut lengths = parts.headers.get_all(http::header::CONTENT_LENGTH).iter();
    let length = lengths.next().map(|value| content_length(value.as_bytes())).transpose()?;
    if lengths.next().is_some() {
        return Err(Refusal::LengthRepeated);
    }
    let bodiless = head_request || matches!(parts.status.as_u16(), 100..=199 | 204 | 304);
    Ok(match length {
        _ if bodiless => Framing::None,
        Some(length) => Framing::Length(length),
        None if end_of_stream => Framing::Length(0),
        None => Framing::Chunked,
    })
}
