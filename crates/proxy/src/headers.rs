//! What the callee is told about the caller: set afresh from what was verified, never copied from what a caller said.

use std::cell::RefCell;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ringfence_event::TraceContext;
use ringfence_spiffe::Kind as IdKind;
use ringfence_token::TXN_HEADER;

use crate::access::API_KEY;
use crate::h1::{DropList, Kind, RequestWriter, SPOOFABLE, classify};
use crate::handling::TIMEOUT;
use crate::peer::{Peer, Way};
use crate::table::{Edge, Via};
use crate::view::HeadView;

/// What is the same for all requests of a connection.
#[derive(Debug)]
pub(crate) struct Forwarding {
    /// `X-Forwarded-For`: only clients outside have an address that means something.
    address: Option<String>,
    proto: &'static str,
    /// `Forwarded`, up to its host.
    forwarded: String,
    /// `X-Forwarded-Client-Cert` up to the callee.
    identity: Option<String>,
    /// The peer is the gateway, which has verified what it says of its clients.
    from_gateway: bool,
    /// The lines of the last request: on one connection the next one usually has the same.
    written: RefCell<Written>,
}

#[derive(Debug, Default)]
struct Written {
    authority: String,
    mesh: bool,
    lines: Vec<u8>,
}

/// Fields that are not copied besides those that never are: the trace goes on with a span of our own.
pub(crate) fn not_copied() -> &'static DropList {
    static LIST: std::sync::LazyLock<DropList> = std::sync::LazyLock::new(|| DropList::new(["traceparent"]));
    &LIST
}

/// The same for a request whose token was believed: it is ours alone, since whoever has it is taken for its user. So is its proof.
pub(crate) fn not_copied_with_token() -> &'static DropList {
    static LIST: std::sync::LazyLock<DropList> =
        std::sync::LazyLock::new(|| DropList::new(["traceparent", "authorization", "dpop"]));
    &LIST
}

/// The same for a request whose API key was believed.
pub(crate) fn not_copied_with_key() -> &'static DropList {
    static LIST: std::sync::LazyLock<DropList> =
        std::sync::LazyLock::new(|| DropList::new(["traceparent", "authorization", API_KEY]));
    &LIST
}

/// Names that an event lists at most.
const MAX_TOLD: usize = 16;

/// For the operator: which fields a client sent that only we may set. They are not copied. A service passes tokens and deadlines on.
pub(crate) fn spoofed(view: HeadView<'_>, service: bool) -> Option<String> {
    if view.present() & SPOOFABLE == 0 {
        return None;
    }
    let passed =
        |name: &[u8]| [TXN_HEADER, TIMEOUT].iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
    let token = |name: &[u8]| service && passed(name);
    let ours = view.fields().filter(|(name, _)| SPOOFABLE & classify(name).bit() != 0 && !token(name));
    let names: Vec<String> =
        ours.map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase()).take(MAX_TOLD).collect();
    if names.is_empty() {
        return None;
    }
    Some(format!("dropped, because only Ringfence sets it: {}", names.join(", ")))
}

/// The trace that a request belongs to, with a span of our own.
pub(crate) fn trace_of(view: HeadView<'_>) -> TraceContext {
    match view.known(Kind::Traceparent).and_then(TraceContext::parse) {
        Some(context) => context.child(),
        None => TraceContext::start(),
    }
}

impl Forwarding {
    pub(crate) fn of(peer: &Peer) -> Self {
        let proto = if peer.tls && matches!(peer.way, Way::Gateway) { "https" } else { "http" };
        let (address, node) = match peer.way {
            Way::Gateway => {
                let ip = peer.source.ip().to_canonical();
                let node = match ip {
                    IpAddr::V4(v4) => v4.to_string(),
                    IpAddr::V6(v6) => format!("\"[{v6}]\""),
                };
                (Some(ip.to_string()), node)
            }
            // RFC 7239, section 6.3: a name of our own instead of an address.
            Way::Outbound { .. } | Way::Inbound { .. } => (None, format!("_{}", peer.caller)),
        };
        let from_gateway = matches!(peer.way, Way::Inbound { .. })
            && peer.caller_id.as_ref().is_some_and(|id| matches!(id.kind(), Some(IdKind::Gateway(_))));
        Self {
            address,
            proto,
            forwarded: format!("for={node};proto={proto};host="),
            identity: peer.caller_id.as_ref().map(|id| format!("URI={id}")),
            from_gateway,
            written: RefCell::default(),
        }
    }

    /// Whether the peer is the gateway.
    pub(crate) fn is_from_gateway(&self) -> bool {
        self.from_gateway
    }

    /// Adds the fields to the head of an HTTP/1 request.
    pub(crate) fn write(
        &self,
        view: HeadView<'_>,
        edge: &Edge,
        trace: &TraceContext,
        writer: &mut RequestWriter<'_>,
    ) {
        if self.from_gateway {
            self.fields(view, edge, |name, value| writer.field(name, value));
        } else {
            let (authority, mesh) = (view.authority(), is_mesh(edge));
            let written = &mut *self.written.borrow_mut();
            if written.lines.is_empty() || written.mesh != mesh || written.authority != authority {
                (written.authority, written.mesh) = (authority.to_owned(), mesh);
                let lines = &mut written.lines;
                lines.clear();
                // Addresses, SPIFFE IDs and a checked authority: none can hold a control byte.
                self.fields(view, edge, |name, value| {
                    lines.extend([name.as_bytes(), b": ", value, b"\r\n"].concat())
                });
            }
            writer.lines(&written.lines);
        }
        let mut line = *b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";
        let end = line.len() - 2;
        line[13..end].copy_from_slice(&trace.encode());
        writer.lines(&line);
    }

    /// Calls `put` with each field that the callee is sent, but for the trace.
    fn fields(&self, view: HeadView<'_>, edge: &Edge, mut put: impl FnMut(&'static str, &[u8])) {
        let authority = view.authority();
        if self.from_gateway {
            for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"] {
                if let Some(value) = view.field(name) {
                    put(name, value);
                }
            }
        } else {
            if let Some(address) = &self.address {
                put("x-forwarded-for", address.as_bytes());
            }
            put("x-forwarded-proto", self.proto.as_bytes());
            put("x-forwarded-host", authority.as_bytes());
            let mut forwarded = [0_u8; 512];
            let (prefix, host) = (self.forwarded.as_bytes(), authority.as_bytes());
            // A host with a port or in brackets is quoted (RFC 7239, section 4).
            let quote = usize::from(host.iter().any(|b| matches!(b, b':' | b'[')));
            let length = prefix.len() + host.len() + 2 * quote;
            if let Some(value) = forwarded.get_mut(..length) {
                value[..prefix.len()].copy_from_slice(prefix);
                value[prefix.len()..].fill(b'"');
                value[prefix.len() + quote..length - quote].copy_from_slice(host);
                put("forwarded", value);
            }
        }
        if let Some(identity) = &self.identity {
            // Only the last hop before the service says who called; on the mesh the handshake does.
            if !is_mesh(edge) {
                put("x-forwarded-client-cert", identity.as_bytes());
            }
        }
    }

    /// The same into the header map of an HTTP/2 request.
    pub(crate) fn insert(&self, view: HeadView<'_>, edge: &Edge, trace: &TraceContext, map: &mut HeaderMap) {
        let mut put = |name: &'static str, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                map.insert(HeaderName::from_static(name), value);
            }
        };
        self.fields(view, edge, &mut put);
        put("traceparent", &trace.encode());
    }
}

fn is_mesh(edge: &Edge) -> bool {
    matches!(edge.via, Via::Mesh { .. })
}
