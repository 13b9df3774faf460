//! Who runs where, as the Consul API tells it: to a service of itself and of whom it may call.
//!
//! A registration says no more than what the fence does: it is accepted for the service whose network it comes from, at the port where
//! that service is seen to listen. Whatever else it claims is refused, and the attempt is an event.

use std::time::Duration;

use ringfence_registry::consul::{Blocking, Change, Query, change, is_own, methods, read};
use ringfence_registry::{Claim, MAX_BODY, Registration, Seat};

use super::{JSON, Reply, Told, refused};
use crate::deny::Deny;
use crate::front::Front;
use crate::handle::Ctx;
use crate::peer::in_force;
use crate::table::{self, Via};
use crate::upload::{self, Gone};
use crate::view::HeadView;

/// How long it may take until a service is seen to listen.
const PROOF: Duration = Duration::from_secs(2);
/// How often a request that waits looks whether the node drains.
const LOOK: Duration = Duration::from_secs(1);

/// Answers a request at a path that exists, with a method that it takes.
pub(super) async fn answer(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
) -> Result<Result<Reply, Deny>, Gone> {
    let caller = &*ctx.peer.caller;
    let Some(seat) = ctx.worker.shared.registry.seat(caller) else {
        return Ok(Err(refused(
            503,
            "registry.unknown",
            format!("{caller} is not in the snapshot in force"),
        )));
    };
    let Some(query) = Query::parse(view.query().unwrap_or_default()) else {
        return Ok(Err(refused(400, "registry.query", "the query is malformed, or has too many parameters")));
    };
    if methods(view.path()) != Some("PUT") {
        return Ok(look(ctx, view, &seat, &query).await);
    }
    let refuse = |status, reason| refused(status, "registry.body", reason);
    let body = match upload::read(ctx, view, front, MAX_BODY, refuse).await? {
        Ok(body) => body,
        Err(deny) => return Ok(Err(deny)),
    };
    Ok(match change(view.path(), &query, &body, ctx.worker.shared.registry_ms()) {
        Err(reply) => Err(refused(reply.status, "registry.change", reply.body)),
        Ok(change) => carry_out(ctx, change).await,
    })
}

async fn look(ctx: &Ctx<'_>, view: HeadView<'_>, seat: &Seat, query: &Query) -> Result<Reply, Deny> {
    let blocking = query.blocking().map_err(|reason| refused(400, "registry.query", reason))?;
    if let Some(blocking) = blocking
        // What has no index is never news.
        && read(&seat.view(), view.path(), query).index == Some(blocking.index)
    {
        wait(ctx, seat, blocking).await?;
        // Nobody is told by what is not in force any more.
        in_force(ctx.worker)?;
    }
    let found = read(&seat.view(), view.path(), query);
    if found.status == 200 {
        return Ok(Reply { index: found.index, ..Reply::json(found.body) });
    }
    Err(refused(found.status, "registry.read", found.body))
}

/// Until there is news, the time is over, or the node drains.
async fn wait(ctx: &Ctx<'_>, seat: &Seat, blocking: Blocking) -> Result<(), Deny> {
    let Some(mut waiting) = seat.wait() else {
        return Err(refused(
            429,
            "registry.waiting",
            "too many requests of this service wait for news already",
        ));
    };
    ctx.live.disarm();
    let over = tokio::time::Instant::now() + Duration::from_millis(blocking.wait_ms);
    let mut newer = std::pin::pin!(waiting.newer(blocking.index));
    while !ctx.live.draining() && tokio::time::Instant::now() < over {
        let until = over.min(tokio::time::Instant::now() + LOOK);
        if tokio::time::timeout_at(until, newer.as_mut()).await.is_ok() {
            break;
        }
    }
    Ok(())
}

async fn carry_out(ctx: &Ctx<'_>, change: Change) -> Result<Reply, Deny> {
    let (caller, shared) = (&*ctx.peer.caller, &ctx.worker.shared);
    let missing = |found: bool, what: &str, id: &str| {
        let reason = || format!("{caller} has registered no {what} `{}`", id.escape_debug());
        found.then(nothing).ok_or_else(|| refused(404, "registry.missing", reason()))
    };
    match change {
        Change::Register(claim, registration) => register(ctx, &claim, registration).await,
        Change::Deregister(id) => missing(shared.registry.deregister(caller, &id), "service", &id),
        Change::Check { id, status, output } => {
            let found = shared.registry.report(caller, &id, status, &output, shared.registry_ms());
            missing(found, "check", &id)
        }
        Change::Maintain { id, reason } => {
            missing(shared.registry.maintain(caller, &id, reason.as_deref()), "service", &id)
        }
    }
}

async fn register(ctx: &Ctx<'_>, claim: &Claim, registration: Registration) -> Result<Reply, Deny> {
    let (caller, shared) = (&*ctx.peer.caller, &ctx.worker.shared);
    let listen = shared.registry.listens(caller);
    let port = listen.filter(|_| is_own(caller, listen, claim));
    let Some(port) = port else {
        let reason = format!(
            "{caller} may register itself alone, where it listens, and claimed to be `{}` at `{}` port {}",
            claim.name.escape_debug(),
            claim.address.escape_debug(),
            claim.port
        );
        return Err(refused(403, "registry.hijack", reason));
    };
    if !listens(ctx, port).await {
        let reason = format!("{caller} registered itself, but nothing listens at port {port} of its network");
        return Err(refused(403, "registry.unproved", reason));
    }
    shared.registry.register(caller, registration);
    Ok(nothing())
}

/// Whether the caller is seen to listen at its port, inside its own network.
async fn listens(ctx: &Ctx<'_>, port: u16) -> bool {
    let Ok(table) = in_force(ctx.worker) else { return false };
    let Some(edge) = table::delivery(&table, &ctx.peer.caller) else { return false };
    let Via::Shim { shim, .. } = &edge.via else { return false };
    matches!(tokio::time::timeout(PROOF, shim.connect(port)).await, Ok(Ok(_)))
}

/// It was done, and there is no more to say.
fn nothing() -> Reply {
    Reply {
        status: 200,
        media_type: JSON,
        body: String::new(),
        field: None,
        index: None,
        told: Told::default(),
    }
}
