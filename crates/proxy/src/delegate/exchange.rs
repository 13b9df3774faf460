//! At the gateway: the credential that was verified is exchanged for a transaction token, which is what services get.
//!
//! Each thread asks once per credential and half minute, however many requests come with it at once. The question goes on when whoever
//! asked it first hangs up, so that hanging up asks for nothing again.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_snapshot::Identity;
use ringfence_snapshot::node::{Ask, Mint, NoAnswer, NoAnswerCode, Told};
use ringfence_spiffe::SpiffeId;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::fifo::Fifo;
use super::verify::Behalf;
use super::{Chain, OnBehalf};
use crate::access::{Principal, RouteAccess, to_show};
use crate::deny::Deny;
use crate::handle::Ctx;
use crate::shared::Shared;
use crate::table::{EdgeId, TableRef};
use crate::view::HeadView;
use crate::worker::unix_now;

/// Member of the request's context (`rctx`) with the client's address.
pub(super) const ADDRESS: &str = "ip";
/// Credentials that a thread keeps a token for.
const MAX_HELD: usize = 8_192;
/// How long a token is used again.
const REUSE: Duration = Duration::from_secs(30);
/// How long what was refused is refused again without asking.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a request waits for its token.
const PATIENCE: Duration = Duration::from_secs(5);

/// The digest of a credential, where the request came from, and the edge that it takes: two that come to one service by different ways
/// have different tokens, so that the client of both cannot have the one taken for the other.
type Key = ([u8; 32], IpAddr, EdgeId);
type Outcome = Result<Rc<Held>, NoAnswer>;

/// The tokens that a thread was given.
pub(crate) struct Exchange {
    entries: RefCell<Fifo<Key, Entry>>,
}

struct Entry {
    /// Who it was asked for: the same credential may mean another after a change of the fence.
    identity: Arc<Identity>,
    flight: Rc<Flight>,
}

/// One question and its answer.
#[derive(Default)]
struct Flight {
    outcome: OnceCell<(Outcome, Instant)>,
    done: Notify,
}

/// A token that was given.
struct Held {
    text: String,
    expires_at: u64,
    /// Once it was looked at.
    behalf: OnceCell<Rc<Behalf>>,
}

impl Exchange {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { entries: RefCell::new(Fifo::new(MAX_HELD)) })
    }

    /// The question that is under way or answered, if its answer still counts.
    fn flight(&self, key: &Key, identity: &Arc<Identity>) -> Option<Rc<Flight>> {
        let entries = self.entries.borrow();
        let entry = entries.get(key)?;
        let same = Arc::ptr_eq(&entry.identity, identity) || entry.identity == *identity;
        let counts = match entry.flight.outcome.get() {
            None => true,
            Some((Ok(held), since)) => since.elapsed() < REUSE && unix_now() < held.expires_at,
            Some((Err(_), since)) => since.elapsed() < PAUSE,
        };
        (same && counts).then(|| entry.flight.clone())
    }

    fn ask(&self, shared: &Arc<Shared>, key: Key, identity: &Arc<Identity>, mint: Mint) -> Rc<Flight> {
        let flight = Rc::new(Flight::default());
        let entry = Entry { identity: identity.clone(), flight: flight.clone() };
        self.entries.borrow_mut().insert(key, entry);
        let (shared, asked, since) = (shared.clone(), flight.clone(), Instant::now());
        tokio::task::spawn_local(async move {
            let told = shared.asks.ask(Ask::Mint(Box::new(mint))).await;
            let (outcome, since) = match told {
                Ok(Told::Minted { token, expires_at }) => {
                    (Ok(Rc::new(Held { text: token, expires_at, behalf: OnceCell::new() })), since)
                }
                Ok(_) => (
                    Err(unavailable("control answered another question: is it of the same version?")),
                    Instant::now(),
                ),
                Err(error) => (Err(error), Instant::now()),
            };
            let _ = asked.outcome.set((outcome, since));
            asked.done.notify_waiters();
        });
        flight
    }

    /// What was given for this is not used again.
    fn spoil(&self, key: &Key, identity: &Arc<Identity>, why: &NoAnswer) {
        let flight = Flight::default();
        let _ = flight.outcome.set((Err(why.clone()), Instant::now()));
        let entry = Entry { identity: identity.clone(), flight: Rc::new(flight) };
        self.entries.borrow_mut().insert(*key, entry);
    }
}

impl Flight {
    async fn wait(&self) -> Outcome {
        let done = self.done.notified();
        if self.outcome.get().is_none() {
            let _ = timeout(PATIENCE, done).await;
        }
        match self.outcome.get() {
            Some((outcome, _)) => outcome.clone(),
            None => Err(unavailable("control gave no answer in time")),
        }
    }
}

fn unavailable(reason: &str) -> NoAnswer {
    NoAnswer::new(NoAnswerCode::Unavailable, reason)
}

/// The transaction token of a request that was let in, for the services that it goes to.
pub(crate) async fn exchange(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    access: &RouteAccess,
    principal: &Principal,
    gateway: &SpiffeId,
    edge: EdgeId,
) -> Result<OnBehalf, Deny> {
    let (worker, identity) = (ctx.worker, principal.identity());
    let address = ctx.peer.source.ip().to_canonical();
    let key = (principal.digest(), address, edge);
    let flight = match worker.exchange.flight(&key, identity) {
        Some(flight) => flight,
        None => {
            let mint = Mint {
                shown: to_show(view, table, access, principal)?,
                workload: gateway.to_string(),
                scope: String::new(),
                request: Map::from_iter([(ADDRESS.to_owned(), Value::from(address.to_string()))]),
            };
            worker.exchange.ask(&worker.shared, key, identity, mint)
        }
    };
    let refuse = |error: &NoAnswer| refusal(error, access, &table.snapshot.fence);
    let held = flight.wait().await.map_err(|error| refuse(&error))?;
    let behalf = match held.behalf.get() {
        Some(behalf) => behalf.clone(),
        None => match look_at(ctx, table, &held, principal, gateway) {
            Ok(behalf) => held.behalf.get_or_init(|| behalf).clone(),
            Err(reason) => {
                let error = unavailable(&reason);
                worker.exchange.spoil(&key, identity, &error);
                return Err(refuse(&error));
            }
        },
    };
    Ok(OnBehalf { behalf, before: Chain::default(), chain: Chain::default() })
}

/// Control only relays: what it brings must be a token that the keeper signed for whoever asked, and no other.
fn look_at(
    ctx: &Ctx<'_>,
    table: &TableRef,
    held: &Held,
    principal: &Principal,
    gateway: &SpiffeId,
) -> Result<Rc<Behalf>, String> {
    let (worker, identity) = (ctx.worker, principal.identity());
    let behalf = worker
        .behalves
        .verify(&table.txn, &worker.tokens, &held.text)
        .map_err(|wrong| format!("the transaction token that control brought does not count: {wrong}"))?;
    let theirs = behalf.identity();
    let same =
        (theirs.kind, &theirs.provider, &theirs.id) == (identity.kind, &identity.provider, &identity.id);
    if !same || *behalf.shown() != principal.shown() || behalf.token().workload() != Some(gateway.as_str()) {
        return Err("the transaction token that control brought is for somebody else".into());
    }
    Ok(behalf)
}

fn refusal(error: &NoAnswer, access: &RouteAccess, realm: &str) -> Deny {
    let deny = match error.code {
        NoAnswerCode::Denied => {
            let reason = format!("the keeper gives no transaction token: {error}");
            Deny::new(401, "delegate", "delegate.denied", reason)
                .challenge(access.challenge(realm, ", error=\"invalid_token\""))
        }
        NoAnswerCode::Malformed => {
            let reason = format!("there can be no transaction token for it: {error}");
            Deny::new(403, "delegate", "delegate.denied", reason)
        }
        NoAnswerCode::Busy | NoAnswerCode::Unavailable => {
            let reason = format!("there is no transaction token: {error}");
            Deny::new(503, "delegate", "delegate.unavailable", reason)
        }
    };
    deny.position(access.position())
}
