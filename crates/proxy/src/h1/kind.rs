//! Which header fields the proxy itself cares about.
//!
//! Each name is classified once, by its length and first byte, when the head is parsed. Later questions ("is there a
//! Host", "may this pass") are a bit test. Whatever is no letter and no digit counts as a hyphen, because CGI and WSGI servers read
//! `X_Forwarded_For`, some also `X.Forwarded.For`, and `X-Forwarded-For` as the same variable.

/// What a header field is to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the field of that name")]
pub enum Kind {
    /// Any other field; passed on as received.
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    Te,
    Trailer,
    KeepAlive,
    ProxyConnection,
    /// `Proxy-Authorization`, `Proxy-Authenticate` and `Proxy-Authentication-Info`.
    ProxyAuth,
    Http2Settings,
    /// A field by which a proxy tells who called: `Forwarded`, `X-Forwarded-*`, `X-Real-IP` and the like, `Client-Cert`
    /// (RFC 9440); or that has a service do something else than was judged: `X-Original-URL`, `X-Rewrite-URL`,
    /// `X-HTTP-Method-Override` and its spellings.
    Forwarding,
    /// `Ringfence-*`, and `Txn-Token`, by which services pass on for whom they act.
    Ringfence,
    /// A field of the above kinds spelt with underscores or dots.
    Alias,
    Authorization,
    /// The proof that goes with a token (RFC 9449).
    Dpop,
    Cookie,
    ContentType,
    ContentEncoding,
    Traceparent,
    Tracestate,
    UserAgent,
    Origin,
    SecWebsocketKey,
    SecWebsocketVersion,
    GrpcTimeout,
    SetCookie,
    /// It would let a script of one service stand before all paths of the host.
    ServiceWorkerAllowed,
    Location,
    Server,
    Date,
}

impl Kind {
    /// This kind's bit in a mask of kinds.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The field's name in lower case, where the kind is one name.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Other | Self::ProxyAuth | Self::Forwarding | Self::Ringfence | Self::Alias => return None,
            Self::Host => "host",
            Self::ContentLength => "content-length",
            Self::TransferEncoding => "transfer-encoding",
            Self::Connection => "connection",
            Self::Upgrade => "upgrade",
            Self::Expect => "expect",
            Self::Te => "te",
            Self::Trailer => "trailer",
            Self::KeepAlive => "keep-alive",
            Self::ProxyConnection => "proxy-connection",
            Self::Http2Settings => "http2-settings",
            Self::Authorization => "authorization",
            Self::Dpop => "dpop",
            Self::Cookie => "cookie",
            Self::ContentType => "content-type",
            Self::ContentEncoding => "content-encoding",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::UserAgent => "user-agent",
            Self::Origin => "origin",
            Self::SecWebsocketKey => "sec-websocket-key",
            Self::SecWebsocketVersion => "sec-websocket-version",
            Self::GrpcTimeout => "grpc-timeout",
            Self::SetCookie => "set-cookie",
            Self::ServiceWorkerAllowed => "service-worker-allowed",
            Self::Location => "location",
            Self::Server => "server",
            Self::Date => "date",
        })
    }
}

/// Fields that end at this hop.
pub(crate) const HOP: u64 = Kind::Connection.bit()
    | Kind::Upgrade.bit()
    | Kind::Te.bit()
    | Kind::KeepAlive.bit()
    | Kind::ProxyConnection.bit()
    | Kind::ProxyAuth.bit()
    | Kind::Http2Settings.bit()
    | Kind::TransferEncoding.bit();

/// Fields that a client could lie in, and that only Ringfence sets.
pub(crate) const SPOOFABLE: u64 = Kind::Forwarding.bit() | Kind::Ringfence.bit() | Kind::Alias.bit();

/// Request fields that the writer never copies: it leaves them out or writes its own.
pub(crate) const NOT_COPIED: u64 =
    HOP | SPOOFABLE | Kind::Host.bit() | Kind::ContentLength.bit() | Kind::Expect.bit() | Kind::Trailer.bit();

/// Response fields that the writer never copies.
pub(crate) const NOT_COPIED_BACK: u64 = HOP
    | Kind::Ringfence.bit()
    | Kind::Alias.bit()
    | Kind::ContentLength.bit()
    | Kind::Trailer.bit()
    | Kind::ServiceWorkerAllowed.bit();

/// Fields that HTTP/2 does not allow at all.
pub(crate) const NOT_IN_H2: u64 = Kind::Connection.bit()
    | Kind::Upgrade.bit()
    | Kind::KeepAlive.bit()
    | Kind::ProxyConnection.bit()
    | Kind::Http2Settings.bit()
    | Kind::TransferEncoding.bit();

/// Fields that frame, route or authenticate: refused when repeated in a request or named by Connection.
pub(crate) const SINGLE: u64 = Kind::Host.bit()
    | Kind::ContentLength.bit()
    | Kind::TransferEncoding.bit()
    | Kind::Authorization.bit()
    | Kind::Dpop.bit()
    | Kind::ContentType.bit()
    | Kind::Expect.bit();

/// Fields that are meant for every recipient, so that no Connection field may have them dropped on the way.
pub(crate) const END_TO_END: u64 = Kind::Host.bit()
    | Kind::ContentLength.bit()
    | Kind::Authorization.bit()
    | Kind::Dpop.bit()
    | Kind::Cookie.bit()
    | Kind::ContentType.bit()
    | Kind::ContentEncoding.bit()
    | Kind::Expect.bit()
    | Kind::Origin.bit();

/// Fields that a trailer section must not bring, because they frame, route, authenticate or describe the body.
pub(crate) const NOT_IN_TRAILERS: u64 = HOP
    | SPOOFABLE
    | END_TO_END
    | Kind::Trailer.bit()
    | Kind::SetCookie.bit()
    | Kind::Location.bit()
    | Kind::Date.bit();

/// Kinds whose other spelling is an [`Kind::Alias`].
const ALIASED: u64 = HOP | SPOOFABLE | SINGLE | Kind::Cookie.bit() | Kind::ContentEncoding.bit();

/// How a name compares with a literal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    No,
    Exact,
    /// With something else where the literal has a hyphen.
    Alias,
}

/// Compares a name of `N` bytes. `| 0x20` is lower case for the letters that names may have; it leaves a hyphen as it is.
#[inline]
fn is<const N: usize>(name: &[u8], literal: &[u8; N]) -> Match {
    let Some(name) = name.first_chunk::<N>() else { return Match::No };
    let mut differs = 0;
    let mut at = 0;
    while at < N {
        differs |= (name[at] | 0x20) ^ literal[at];
        at += 1;
    }
    let alike = |(a, b): (&u8, &u8)| a | 0x20 == *b || (*b == b'-' && !a.is_ascii_alphanumeric());
    match differs {
        0 => Match::Exact,
        _ if name.iter().zip(literal).all(alike) => Match::Alias,
        _ => Match::No,
    }
}

/// Classifies a field name in any case.
pub(crate) fn classify(name: &[u8]) -> Kind {
    let Some(first) = name.first() else { return Kind::Other };
    // One candidate for each length and first byte; a name that only begins like one is told apart by `is`.
    let (matched, kind) = match (name.len(), first | 0x20) {
        (2, b't') => (is(name, b"te"), Kind::Te),
        (4, b'h') => (is(name, b"host"), Kind::Host),
        (4, b'd') if is(name, b"dpop") != Match::No => (Match::Exact, Kind::Dpop),
        (4, b'd') => (is(name, b"date"), Kind::Date),
        (6, b'c') => (is(name, b"cookie"), Kind::Cookie),
        (6, b'e') => (is(name, b"expect"), Kind::Expect),
        (6, b'o') => (is(name, b"origin"), Kind::Origin),
        (6, b's') => (is(name, b"server"), Kind::Server),
        (7, b'u') => (is(name, b"upgrade"), Kind::Upgrade),
        (7, b't') => (is(name, b"trailer"), Kind::Trailer),
        (8, b'l') => (is(name, b"location"), Kind::Location),
        (9, b'f') => (is(name, b"forwarded"), Kind::Forwarding),
        (9, b't') => (is(name, b"txn-token"), Kind::Ringfence),
        (9, b'x') => (is(name, b"x-real-ip"), Kind::Forwarding),
        (10, b'c') => (is(name, b"connection"), Kind::Connection),
        (10, b'k') => (is(name, b"keep-alive"), Kind::KeepAlive),
        (10, b'u') => (is(name, b"user-agent"), Kind::UserAgent),
        (10, b's') => (is(name, b"set-cookie"), Kind::SetCookie),
        (10, b't') => (is(name, b"tracestate"), Kind::Tracestate),
        (11, b't') => (is(name, b"traceparent"), Kind::Traceparent),
        (11, b'c') => (is(name, b"client-cert"), Kind::Forwarding),
        (17, b'c') => (is(name, b"client-cert-chain"), Kind::Forwarding),
        (14, b't') => (is(name, b"true-client-ip"), Kind::Forwarding),
        (12, b'c') => (is(name, b"content-type"), Kind::ContentType),
        (12, b'g') => (is(name, b"grpc-timeout"), Kind::GrpcTimeout),
        (13, b'a') => (is(name, b"authorization"), Kind::Authorization),
        (14, b'c') => (is(name, b"content-length"), Kind::ContentLength),
        (14, b'h') => (is(name, b"http2-settings"), Kind::Http2Settings),
        (16, b'c') => (is(name, b"content-encoding"), Kind::ContentEncoding),
        (16, b'p') => (is(name, b"proxy-connection"), Kind::ProxyConnection),
        (17, b't') => (is(name, b"transfer-encoding"), Kind::TransferEncoding),
        (17, b's') => (is(name, b"sec-websocket-key"), Kind::SecWebsocketKey),
        (18, b'p') => (is(name, b"proxy-authenticate"), Kind::ProxyAuth),
        (19, b'p') => (is(name, b"proxy-authorization"), Kind::ProxyAuth),
        (22, b's') => (is(name, b"service-worker-allowed"), Kind::ServiceWorkerAllowed),
        (21, b's') => (is(name, b"sec-websocket-version"), Kind::SecWebsocketVersion),
        (25, b'p') => (is(name, b"proxy-authentication-info"), Kind::ProxyAuth),
        (length, b'x') => (is_forwarding(name, length), Kind::Forwarding),
        (11, b'r') if is(name, b"remote-user") != Match::No => (is(name, b"remote-user"), Kind::Forwarding),
        (_, b'r') => (begins(name, b"ringfence-"), Kind::Ringfence),
        (_, b'w') => (begins(name, b"workload-"), Kind::Ringfence),
        _ => return Kind::Other,
    };
    match matched {
        Match::No => Kind::Other,
        Match::Exact => kind,
        Match::Alias if ALIASED & kind.bit() != 0 => Kind::Alias,
        Match::Alias => Kind::Other,
    }
}

fn is_forwarding(name: &[u8], length: usize) -> Match {
    match (begins(name, b"x-forwarded-"), length) {
        (Match::No, 11) => is(name, b"x-client-ip"),
        (Match::No, 13) => {
            either(either(is(name, b"x-rewrite-url"), is(name, b"x-http-method")), is(name, b"x-remote-user"))
        }
        (Match::No, 14) => is(name, b"x-original-url"),
        (Match::No, 17) => is(name, b"x-method-override"),
        (Match::No, 19) => is(name, b"x-cluster-client-ip"),
        (Match::No, 22) => is(name, b"x-http-method-override"),
        (matched, _) => matched,
    }
}

fn either(a: Match, b: Match) -> Match {
    if a == Match::No { b } else { a }
}

/// A prefix, where anything but letters, digits and hyphens anywhere in the name makes it an alias.
fn begins<const N: usize>(name: &[u8], prefix: &[u8; N]) -> Match {
    match is(name, prefix) {
        Match::Exact if name.iter().any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-') => {
            Match::Alias
        }
        matched => matched,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_kind_is_found_by_its_name_in_any_case() {
        for number in 0..=Kind::Date as u8 {
            let Some(kind) = ALL.iter().copied().find(|kind| *kind as u8 == number) else {
                panic!("kind {number} is missing from the list");
            };
            if let Some(name) = kind.name() {
                assert_eq!(classify(name.as_bytes()), kind, "{name}");
                assert_eq!(classify(name.to_uppercase().as_bytes()), kind, "{name}");
            }
        }
    }

    #[test]
    fn an_underscore_does_not_hide_a_field_that_matters() {
        for name in [
            "X_Forwarded_For",
            "x-forwarded_for",
            "Content_Length",
            "Transfer_Encoding",
            "RINGFENCE_CALLER",
            "X_Real_IP",
            "Ringfence.User",
            "ringfence--user_",
            "Ringfence~Scopes",
            "Ringfence-User.Name",
            "Txn.Token",
            "txn_token",
            "Workload.Identity",
            "content^length",
            "content~length",
            "set-cookie_",
        ] {
            let expected = if name == "set-cookie_" { Kind::Other } else { Kind::Alias };
            assert_eq!(classify(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(classify(b"Ringfence--User"), Kind::Ringfence);
        assert_eq!(classify(b"ringfenceXuser"), Kind::Other);
        assert_eq!(classify(b"api_key"), Kind::Other);
        assert_eq!(classify(b"user_agent"), Kind::Other);
    }

    #[test]
    fn whatever_speaks_for_the_caller_or_changes_what_was_judged_is_only_ours_to_set() {
        for name in [
            "Client-Cert",
            "Client-Cert-Chain",
            "True-Client-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "X-HTTP-Method",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "X-Rewrite-URL",
            "Remote-User",
            "X-Remote-User",
        ] {
            assert_eq!(classify(name.as_bytes()), Kind::Forwarding, "{name}");
            assert_eq!(classify(name.replace('-', "_").as_bytes()), Kind::Alias, "{name}");
        }
    }

    #[test]
    fn what_speaks_for_a_workload_is_only_ours_to_set() {
        for name in ["Workload-Identity-Token", "Workload-Proof-Token", "Txn-Token", "Ringfence-User"] {
            assert_eq!(classify(name.as_bytes()), Kind::Ringfence, "{name}");
        }
        assert_eq!(classify(b"workloads"), Kind::Other);
    }

    #[test]
    fn a_name_that_only_looks_alike_is_another_field() {
        for name in [
            "hosts",
            "hos",
            "x-forwarded",
            "ringfence",
            "connectio~",
            "contentXlength",
            "content0length",
            "dpo~",
            "",
        ] {
            assert_eq!(classify(name.as_bytes()), Kind::Other, "{name}");
        }
    }

    const ALL: [Kind; 33] = [
        Kind::Other,
        Kind::Host,
        Kind::ContentLength,
        Kind::TransferEncoding,
        Kind::Connection,
        Kind::Upgrade,
        Kind::Expect,
        Kind::Te,
        Kind::Trailer,
        Kind::KeepAlive,
        Kind::ProxyConnection,
        Kind::ProxyAuth,
        Kind::Http2Settings,
        Kind::Forwarding,
        Kind::Ringfence,
        Kind::Alias,
        Kind::Authorization,
        Kind::Dpop,
        Kind::Cookie,
        Kind::ContentType,
        Kind::ContentEncoding,
        Kind::Traceparent,
        Kind::Tracestate,
        Kind::UserAgent,
        Kind::Origin,
        Kind::SecWebsocketKey,
        Kind::SecWebsocketVersion,
        Kind::GrpcTimeout,
        Kind::SetCookie,
        Kind::ServiceWorkerAllowed,
        Kind::Location,
        Kind::Server,
        Kind::Date,
    ];
}
