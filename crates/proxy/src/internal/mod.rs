//! `ringfence.internal`: what a service's own sidecar answers itself, inside the service's network and nowhere else.
//!
//! Whoever reaches this address is the service whose network it is, so nothing has to be proved and nothing can be asked about
//! others: decisions on its own resources (AuthZEN), and the public keys that transaction tokens and JWT-SVIDs are verified with. At a
//! port of its own it is told whom it may call, where they are and how they do.

mod authzen;
mod body;
mod keys;
mod registry;

use std::borrow::Cow;

use ringfence_event::{Call, Event, EventId, Kind as EventKind, User, Verdict};
use ringfence_registry::consul;
use ringfence_snapshot::OWN_HOST;
use serde_json::json;

use crate::deny::{Deny, PROBLEM_TYPE, reason_phrase};
use crate::front::Front;
use crate::handle::{Ctx, Next, finish};
use crate::headers::trace_of;
use crate::peer::in_force;
use crate::table::TableRef;
use crate::upload::Gone;
use crate::view::HeadView;

const JSON: &str = "application/json";
/// Longest request id that is sent back.
const MAX_REQUEST_ID: usize = 256;

/// What is answered.
struct Reply {
    status: u16,
    media_type: &'static str,
    body: String,
    /// Another field.
    field: Option<(&'static str, &'static str)>,
    /// What clients of the registry follow.
    index: Option<u64>,
    told: Told,
}

/// What the operator is told besides who asked.
#[derive(Default)]
struct Told {
    /// Whom it was about: name and provider.
    subject: Option<(String, String)>,
    deny: Option<Deny>,
}

impl Reply {
    fn json(body: String) -> Self {
        Self { status: 200, media_type: JSON, body, field: None, index: None, told: Told::default() }
    }

    /// A problem document (RFC 9457) that says what is wrong: it is the service's own developers who read it.
    fn problem(deny: Deny, id: EventId) -> Self {
        let body = json!({
            "type": "about:blank",
            "title": reason_phrase(deny.status),
            "status": deny.status,
            "detail": deny.reason,
            "instance": format!("urn:uuid:{id}"),
        });
        Self {
            status: deny.status,
            media_type: PROBLEM_TYPE,
            body: body.to_string(),
            field: None,
            index: None,
            told: Told { subject: None, deny: Some(deny) },
        }
    }
}

fn refused(status: u16, rule: &'static str, reason: impl Into<String>) -> Deny {
    Deny::new(status, "internal", rule, reason)
}

/// Answers a request to the sidecar itself.
pub(crate) async fn serve(ctx: &Ctx<'_>, view: HeadView<'_>, front: &mut Front<'_>) -> Next<'static> {
    let started = ctx.worker.touch();
    ctx.live.set_busy(true);
    let id = EventId::new();
    let next = match find(ctx, view, front, id).await {
        Ok(reply) => {
            let next = send(ctx, view, front, &reply).await;
            tell(ctx, view, &reply, ctx.worker.touch().saturating_sub(started), id);
            next
        }
        Err(Gone) => Next::Close,
    };
    ctx.live.set_busy(false);
    next
}

async fn find(ctx: &Ctx<'_>, view: HeadView<'_>, front: &mut Front<'_>, id: EventId) -> Result<Reply, Gone> {
    let found = match in_force(ctx.worker) {
        Ok(table) => answer(ctx, view, front, &table).await?,
        Err(deny) => Err(deny),
    };
    Ok(found.unwrap_or_else(|deny| {
        let field =
            allowed(ctx, view.path()).filter(|_| deny.status == 405).map(|methods| ("allow", methods));
        Reply { field, ..Reply::problem(deny, id) }
    }))
}

/// The methods of what lies at a path.
fn allowed(ctx: &Ctx<'_>, path: &str) -> Option<&'static str> {
    if ctx.peer.asks_registry() {
        return consul::methods(path);
    }
    match path {
        authzen::EVALUATION | authzen::EVALUATIONS => Some("POST"),
        authzen::METADATA | keys::PATH => Some("GET, HEAD"),
        _ => None,
    }
}

async fn answer(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
    table: &TableRef,
) -> Result<Result<Reply, Deny>, Gone> {
    let (path, method) = (view.path(), view.method());
    let Some(methods) = allowed(ctx, path) else {
        return Ok(Err(refused(404, "internal.path", format!("{OWN_HOST} has nothing at {path}"))));
    };
    if !methods.split(", ").any(|known| known == method) {
        return Ok(Err(refused(405, "internal.method", format!("{path} takes {methods}"))));
    }
    if ctx.peer.asks_registry() {
        return registry::answer(ctx, view, front).await;
    }
    let reply = match path {
        keys::PATH => Ok(keys::reply(table)),
        authzen::METADATA => authzen::metadata(ctx, view, table),
        _ => match body::read(ctx, view, front).await? {
            Ok(bytes) => authzen::evaluate(ctx, view, table, &bytes),
            Err(deny) => Err(deny),
        },
    };
    Ok(reply)
}

async fn send(ctx: &Ctx<'_>, view: HeadView<'_>, front: &mut Front<'_>, reply: &Reply) -> Next<'static> {
    let request_id = view.field("x-request-id").and_then(|value| std::str::from_utf8(value).ok());
    let request_id = request_id.filter(|id| {
        id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    });
    let index = reply.index.map(|index| index.to_string());
    let followed = index.iter().flat_map(|index| {
        [("x-consul-index", index.as_str()), ("x-consul-knownleader", "true"), ("x-consul-lastcontact", "0")]
    });
    let fields: Vec<(&'static str, &str)> = [("content-type", reply.media_type)]
        .into_iter()
        .chain(reply.field)
        .chain(followed)
        .chain(request_id.map(|id| ("x-request-id", id)))
        .collect();
    finish(ctx, front, |front| front.put_own(reply.status, &fields, reply.body.clone())).await
}

fn tell(ctx: &Ctx<'_>, view: HeadView<'_>, reply: &Reply, duration_us: u64, id: EventId) {
    let peer = ctx.peer;
    let verdict = reply.told.deny.as_ref().map_or(Verdict::Allowed, Deny::verdict);
    let user = reply.told.subject.as_ref();
    let call = Call {
        caller: &peer.caller,
        caller_id: peer.caller_id.as_ref().map(ringfence_spiffe::SpiffeId::as_str),
        user: user.map(|(name, domain)| User { name, domain, ..User::default() }),
        source: None,
        callee: OWN_HOST,
        point: peer.point(),
        method: view.method().as_bytes(),
        path: view.path().as_bytes(),
        status: reply.status,
        duration_us,
        cut: false,
        observed: None,
        findings: &[],
        shape: "",
        verdict,
    };
    let event = Event::new(EventKind::Call(call)).in_trace(trace_of(view)).revision(ctx.worker.revision());
    ctx.worker.events.emit(&event.with_id(id));
}

/// Where the sidecar answers, as its service knows it: without isolation that is an address of the common loopback.
fn base(view: HeadView<'_>) -> Cow<'static, str> {
    let host = view.host();
    let own =
        |address: &std::net::Ipv4Addr| ringfence_snapshot::place(*address) == ringfence_snapshot::Place::Own;
    match host.parse().ok().filter(own) {
        Some(_) => Cow::Owned(format!("http://{}", view.authority())),
        None => Cow::Owned(format!("http://{OWN_HOST}")),
    }
}
