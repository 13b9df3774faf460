//! Why a message is refused, and with which status.

use thiserror::Error;

/// A message that is not passed on. In a response from an upstream the caller answers 502 whatever [`Refusal::status`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message is the documentation of its variant")]
pub enum Refusal {
    #[error("a line ends in a bare CR or LF; end each line with CRLF")]
    BareLineEnd,
    #[error("empty lines or white space before the start line")]
    LeadingWhitespace,
    #[error("the start line is malformed")]
    StartLine,
    #[error("HTTP/0.9 is not spoken; send HTTP/1.1 or HTTP/2")]
    Http09,
    #[error("this HTTP version is not spoken; send HTTP/1.0, HTTP/1.1 or HTTP/2")]
    Version,
    #[error("the method is not a known form: upper-case letters, digits, `-`, `_`, at most 32")]
    Method,
    #[error("CONNECT is not offered; this is not a forward proxy")]
    Connect,
    #[error("TRACE carries no body")]
    TraceBody,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is larger than allowed")]
    HeadTooLarge,
    #[error("more header fields than allowed")]
    TooManyFields,
    #[error(
        "a header field name is empty, followed by white space, folded or has a byte that names may not have"
    )]
    FieldName,
    #[error("a header field value has a control byte")]
    FieldValue,
    #[error("the request target has a byte that is not allowed in it")]
    TargetByte,
    #[error("the request target has a fragment")]
    Fragment,
    #[error("the request target has a form that is not allowed here")]
    TargetForm,
    #[error("the Host field is missing")]
    HostMissing,
    #[error("more than one Host field")]
    HostRepeated,
    #[error("the host is not a name or address with an optional port")]
    HostInvalid,
    #[error("the request target and the Host field name different authorities")]
    HostMismatch,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("more than one Content-Length")]
    LengthRepeated,
    #[error("the Content-Length is not one plain decimal number")]
    LengthInvalid,
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingIn10,
    #[error("the Transfer-Encoding is not exactly `chunked`")]
    EncodingInvalid,
    #[error("a transfer coding other than `chunked` is not implemented")]
    EncodingUnknown,
    #[error("an expectation other than `100-continue`")]
    Expectation,
    #[error("the Connection field is malformed or names a field that is meant for every recipient")]
    ConnectionField,
    #[error("a field that may appear once appears twice")]
    FieldRepeated,
    #[error("a field that HTTP/2 does not allow")]
    Http2Field,
    #[error("a pseudo-header field is missing or malformed")]
    Pseudo,
    #[error("the path has an invalid percent-encoding")]
    PathEncoding,
    #[error("the path has a control character")]
    PathControl,
    #[error("the path has a backslash")]
    PathBackslash,
    #[error("the path has an encoded slash or backslash")]
    PathEncodedSlash,
    #[error("the path has a path parameter (`;`)")]
    PathParameter,
    #[error("the path is encoded twice")]
    PathDoubleEncoding,
    #[error("the path is not UTF-8 when decoded")]
    PathUtf8,
    #[error("the path climbs above its root")]
    PathAboveRoot,
    #[error("a chunk size is not a plain hexadecimal number or too large")]
    ChunkSize,
    #[error("chunk extensions are malformed or larger than allowed")]
    ChunkExtension,
    #[error("chunk data does not end where its size says")]
    ChunkEnd,
    #[error("the trailer section is malformed or larger than allowed")]
    TrailerSection,
    #[error("the peer closed the connection within a message")]
    Truncated,
    #[error("the response status is not between 100 and 599, or not one that was asked for")]
    ResponseStatus,
    #[error("a response that can have no body declares one")]
    ResponseBody,
}

impl Refusal {
    /// The status that a client is answered with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Http09 | Self::Version => 505,
            Self::Method | Self::EncodingUnknown => 501,
            Self::Connect => 405,
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailerSection => 431,
            Self::Expectation => 417,
            Self::ResponseStatus | Self::ResponseBody => 502,
            _ => 400,
        }
    }
}
