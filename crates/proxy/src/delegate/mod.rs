//! On whose behalf a request is, from the gateway to the last service: transaction tokens.
//!
//! The gateway exchanges the credential that it verified for a token of the keeper's ([`exchange`]). The callee's sidecar
//! verifies it, says in plain headers who it is, and remembers that its service has it; the service passes the one header
//! `Txn-Token` on, and its sidecar lets only what it delivered count ([`taken`]). Services need no library, and a stolen token
//! is of no use to one that was not given it.

pub mod chain;
mod exchange;
mod fifo;
mod record;
mod verify;

use std::rc::Rc;

use ringfence_event::TraceId;
use ringfence_keys::digest::sha256;
use ringfence_snapshot::Identity;
use ringfence_spiffe::{Kind as IdKind, SpiffeId};
use ringfence_token::MAX_TOKEN;

use self::chain::{Chain, HEADER as CHAIN, MAX_CHAIN};
pub(crate) use self::exchange::{Exchange, exchange};
pub(crate) use self::record::Record;
pub(crate) use self::verify::{Behalf, Behalves, TxnKeys};
use crate::access::{name_field, scopes_field};
use crate::deny::Deny;
use crate::h1::Kind;
use crate::handle::Ctx;
use crate::peer::Way;
use crate::table::{Edge, EdgeRef, Table};
use crate::view::HeadView;
use crate::worker::unix_now;

/// The header that carries a transaction token.
const TOKEN: &str = "txn-token";
/// What a service is told in plain words.
const NAMED: [&str; 3] = ["ringfence-user", "ringfence-provider", "ringfence-scopes"];

/// On whose behalf a request is, and which way it took.
#[derive(Clone, Debug)]
pub(crate) struct OnBehalf {
    pub(crate) behalf: Rc<Behalf>,
    /// The services before the caller.
    before: Chain,
    /// The caller too, if it is a service.
    pub(crate) chain: Chain,
}

/// What the next hop is told of whom a request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Telling<'a> {
    Nothing,
    /// A service without a sidecar of ours: the name in plain words.
    Named(&'a Identity),
    /// Another sidecar: the token, and the services that it passed.
    Passed(&'a OnBehalf),
    /// The service: the token, and the name in plain words.
    Delivered(&'a OnBehalf),
}

impl Telling<'_> {
    /// Calls `put` with each field. All values are visible characters.
    pub(crate) fn fields(self, mut put: impl FnMut(&'static str, &[u8])) {
        match self {
            Self::Nothing => {}
            Self::Named(who) => {
                for (name, value) in
                    NAMED.into_iter().zip([name_field(&who.id), name_field(&who.provider), scopes_field(who)])
                {
                    put(name, value.as_bytes());
                }
            }
            Self::Passed(on) => {
                put(TOKEN, on.behalf.text().as_bytes());
                if !on.before.as_str().is_empty() {
                    put(CHAIN, on.before.as_str().as_bytes());
                }
            }
            Self::Delivered(on) => {
                put(TOKEN, on.behalf.text().as_bytes());
                for (name, value) in NAMED.into_iter().zip(&on.behalf.named) {
                    put(name, value.as_bytes());
                }
            }
        }
    }
}

/// The one field of this name.
fn single<'v>(view: HeadView<'v>, name: &'static str) -> Result<Option<&'v [u8]>, Deny> {
    // A bit test for most requests.
    if view.present() & Kind::Ringfence.bit() == 0 {
        return Ok(None);
    }
    let mut of_name = view.fields().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
    let first = of_name.next().map(|(_, value)| value);
    if of_name.next().is_some() {
        let reason = format!("there is more than one `{name}`");
        return Err(Deny::new(400, "delegate", "delegate.several", reason));
    }
    Ok(first)
}

/// Whether a request brings a token.
pub(crate) fn brings(view: HeadView<'_>) -> bool {
    view.present() & Kind::Ringfence.bit() != 0 && view.field(TOKEN).is_some()
}

/// Why a request on nobody's behalf does not pass, if the edge demands one.
pub(crate) fn required(edge: &Edge, brought: bool) -> Result<(), Deny> {
    let Some(position) = &edge.on_behalf else { return Ok(()) };
    let what = if brought {
        unknown(&edge.caller)
    } else {
        format!("no transaction token came: {} has to pass `Txn-Token` on", edge.caller)
    };
    let reason = format!(
        "the edge {} → {} is for requests on somebody's behalf, and {what}",
        edge.caller, edge.callee
    );
    Err(Deny::new(403, "delegate", "delegate.required", reason).position(Some(position.to_string())))
}

/// For the operator, of a token that does not count.
pub(crate) fn unknown(caller: &str) -> String {
    format!("dropped a transaction token, because {caller} was not given it, or it has ended")
}

fn too_long(caller: &str) -> Deny {
    let reason = format!(
        "the request has passed more than {MAX_CHAIN} services with {caller}: do they call each other in circles?"
    );
    Deny::new(403, "delegate", "delegate.chain", reason)
}

/// On whose behalf a request is, by the token that comes with it. None counts that comes from outside.
pub(crate) fn taken(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    edge: &EdgeRef,
    trace: TraceId,
) -> Result<Option<OnBehalf>, Deny> {
    match ctx.peer.way {
        Way::Gateway => Ok(None),
        Way::Outbound { .. } => sent(ctx, view, edge, trace),
        Way::Inbound { .. } => arrived(ctx, view, edge),
    }
}

/// At the callee's sidecar: on whose behalf another side says that a request is.
fn arrived(ctx: &Ctx<'_>, view: HeadView<'_>, edge: &EdgeRef) -> Result<Option<OnBehalf>, Deny> {
    let (token, chain) = (single(view, TOKEN)?, single(view, CHAIN)?);
    let strange =
        |what| Deny::new(400, "delegate", "delegate.chain", format!("the caller's side sends {what}"));
    let Some(token) = token else {
        if chain.is_some() {
            return Err(strange("a chain without a transaction token"));
        }
        required(edge, false)?;
        return Ok(None);
    };
    let (worker, table) = (ctx.worker, edge.table());
    let text = std::str::from_utf8(token).unwrap_or_default();
    let verified = worker.behalves.verify(&table.txn, &worker.tokens, text);
    let behalf = verified.map_err(|wrong| wrong.deny())?;
    let workload = behalf.token().workload().unwrap_or_default();
    let caller = ctx.peer.caller_id.as_ref();
    if ctx.forwarding.is_from_gateway() {
        if caller.is_none_or(|id| id.as_str() != workload) {
            let reason = format!("the transaction token was asked for by {workload}, not by this gateway");
            return Err(Deny::new(403, "delegate", "delegate.workload", reason));
        }
        if chain.is_some() {
            return Err(strange("a chain, and is the gateway"));
        }
        return Ok(Some(OnBehalf { behalf, before: Chain::default(), chain: Chain::default() }));
    }
    let gateway = SpiffeId::parse(workload).ok().filter(|id| {
        id.trust_domain() == &table.trust_domain && matches!(id.kind(), Some(IdKind::Gateway(_)))
    });
    if gateway.is_none() {
        let reason =
            format!("the transaction token was asked for by {workload}, which is no gateway of ours");
        return Err(Deny::new(403, "delegate", "delegate.workload", reason));
    }
    let before = match chain {
        None => Chain::default(),
        Some(chain) => Chain::parse(chain).ok_or_else(|| strange("what is no chain of services"))?,
    };
    let chain = before.with(&ctx.peer.caller).ok_or_else(|| too_long(&ctx.peer.caller))?;
    Ok(Some(OnBehalf { behalf, before, chain }))
}

/// The service gets the token now: from here on it may act by it.
pub(crate) fn deliver(ctx: &Ctx<'_>, on: &OnBehalf, trace: TraceId) {
    if let Way::Inbound { callee } = &ctx.peer.way {
        let token = on.behalf.token();
        let record = &ctx.worker.shared.delivered;
        record.deliver(callee, token.digest(), token.expires_at(), trace, &on.chain, unix_now());
    }
}

/// Whom a service works for that asks its own sidecar: by a token that it was given, with the services on the way to it.
pub(crate) fn held(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &Table,
    trace: TraceId,
) -> Result<Option<(Rc<Behalf>, Chain)>, Deny> {
    let Some(token) = single(view, TOKEN)? else { return Ok(None) };
    let (worker, caller) = (ctx.worker, &ctx.peer.caller);
    let Some((text, chain)) = given(ctx, table, token, trace)? else {
        let reason = format!("{caller} was not given this transaction token, or it has ended");
        return Err(Deny::new(403, "delegate", "delegate.unknown", reason));
    };
    let behalf = worker.behalves.verify(&table.txn, &worker.tokens, text).map_err(|wrong| wrong.deny())?;
    Ok(Some((behalf, chain)))
}

/// At the caller's sidecar: on whose behalf its service acts. A token that the service was not given counts for nothing.
fn sent(ctx: &Ctx<'_>, view: HeadView<'_>, edge: &EdgeRef, trace: TraceId) -> Result<Option<OnBehalf>, Deny> {
    let token = single(view, TOKEN)?;
    let (worker, table, caller) = (ctx.worker, edge.table(), &ctx.peer.caller);
    let given = token.map(|token| given(ctx, table, token, trace)).transpose()?.flatten();
    let Some((text, before)) = given else {
        required(edge, token.is_some())?;
        return Ok(None);
    };
    let behalf = worker.behalves.verify(&table.txn, &worker.tokens, text).map_err(|wrong| wrong.deny())?;
    let chain = before.with(caller).ok_or_else(|| too_long(caller))?;
    Ok(Some(OnBehalf { behalf, before, chain }))
}

/// A token that the calling service was given, as text, and the way that it came. Where it came over several and the trace does not tell which,
/// the newest does only if no policy decides by it: a service must not come to choose.
fn given<'t>(
    ctx: &Ctx<'_>,
    table: &Table,
    token: &'t [u8],
    trace: TraceId,
) -> Result<Option<(&'t str, Chain)>, Deny> {
    let caller = &ctx.peer.caller;
    let Some(text) = std::str::from_utf8(token).ok().filter(|_| token.len() <= MAX_TOKEN) else {
        return Ok(None);
    };
    let Some(came) = ctx.worker.shared.delivered.find(caller, &sha256(token), trace, unix_now()) else {
        return Ok(None);
    };
    let decides = || table.policy.as_ref().is_some_and(|policy| policy.engine().is_decided_by("chain"));
    if !came.is_sure && decides() {
        let reason = format!(
            "the transaction token came to {caller} over several ways, policies decide by the way (`context.chain`), and the trace does not tell which it was: {caller} has to pass `traceparent` of the request that it serves on"
        );
        return Err(Deny::new(403, "delegate", "delegate.chain", reason));
    }
    Ok(Some((text, came.chain)))
}
