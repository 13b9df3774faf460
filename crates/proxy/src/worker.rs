//! A data-plane thread: one current-thread runtime, its own listeners, pools, counters and events.
//!
//! Nothing that a request touches is shared with another thread, so nothing is locked and nothing bounces between caches.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_event::{Emitter, Event, Kind};
use ringfence_model::{GatewayTls, Limits};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::access::{Opaques, ProviderKeys, Sessions, Tokens};
use crate::actors::Actors;
use crate::apart::Apart;
use crate::balance::Balance;
use crate::delegate::{Behalves, Exchange};
use crate::door::{Bounds, Door, Full};
use crate::handling::Budgets;
use crate::held::Budget;
use crate::inspect::Scratches;
use crate::limits::Shed;
use crate::live::{BREATH, Registry, TICK};
use crate::pipeline;
use crate::pool::Pool;
use crate::protocol::ListenerKind;
use crate::responses::Reports;
use crate::revoked::Revoked;
use crate::shared::Shared;
use crate::stats::Counters;
use crate::table::{Table, TableRef};

/// Numbers of errors: the process, or the system, has no descriptor left.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Connections that make room at once where there is none in the process.
const AT_ONCE: usize = 16;

/// Bytes that the kernel holds of one connection beyond what it could send. Without a bound it is the socket's whole buffer, some
/// megabytes, and a few hundred clients that do not read would use up what all of the machine's connections may hold together.
const MAX_UNSENT: u32 = 128 << 10;

/// What the control thread tells a data-plane thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Enforce this table from now on.
    Table(Arc<Table>, oneshot::Sender<()>),
    /// Believe these keys from now on.
    Keys(ProviderKeys),
    /// This was revoked.
    Revoked(Arc<Revoked>),
    /// What lets requests pass has changed elsewhere: judge again what is open.
    Judge,
    /// Accept here, and of this kind nowhere else.
    Listen(ListenerKind, Vec<std::net::TcpListener>, oneshot::Sender<()>),
    /// Accept no more here.
    Close(ListenerKind),
    /// Let everything end; answer when the thread is idle or the time is over, with the number that was cut.
    Drain(Duration, oneshot::Sender<u64>),
    /// End now.
    Stop,
}

/// The state of a data-plane thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Rc<Registry>,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    pub(crate) events: Emitter,
    pub(crate) tokens: Tokens,
    pub(crate) sessions: Rc<Sessions>,
    pub(crate) opaques: Rc<Opaques>,
    /// The transaction tokens that were verified here, and those that were got here.
    pub(crate) behalves: Behalves,
    pub(crate) exchange: Rc<Exchange>,
    /// Whom policies judge.
    pub(crate) actors: Actors,
    /// How many reports of browsers are still told.
    pub(crate) reports: Reports,
    /// What bodies that wait to be judged may take.
    pub(crate) budget: Budget,
    /// Buffers of the firewall.
    pub(crate) scratches: Arc<Scratches>,
    /// Where long bodies are judged.
    pub(crate) apart: Apart,
    /// What gives way when this thread has too much to do.
    pub(crate) shed: Shed,
    /// How often requests may be tried again.
    pub(crate) budgets: Budgets,
    /// Which of several addresses is less busy.
    pub(crate) balance: Balance,
    /// Requests that faults hold up.
    pub(crate) held_up: Cell<usize>,
    table: RefCell<Option<TableRef>>,
    stale: Cell<bool>,
    /// What is open is to be judged again at the next tick, however often that is said until then.
    to_judge: Cell<bool>,
    draining: Cell<bool>,
    begun: Instant,
    now_ms: Cell<u64>,
    /// Connections open per kind of listener.
    open: RefCell<HashMap<ListenerKind, Rc<Door>>>,
    /// When it was told last that connections made room, and how many have since.
    told_crowded: Cell<(u64, usize)>,
    /// Connections open per caller over the mesh, which all callers share.
    callers: RefCell<HashMap<Arc<str>, Rc<Cell<usize>>>>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        let counters = Counters::default();
        shared.add_shard(counters.shard());
        Self {
            live: Rc::default(),
            pool: Pool::default(),
            counters,
            events: shared.events.clone(),
            tokens: Tokens::new(),
            sessions: Rc::default(),
            opaques: Rc::default(),
            behalves: Behalves::new(),
            exchange: Exchange::new(),
            actors: Actors::default(),
            reports: Reports::default(),
            budget: Budget::default(),
            scratches: Arc::default(),
            apart: Apart::default(),
            shed: Shed::default(),
            budgets: Budgets::default(),
            balance: Balance::default(),
            held_up: Cell::default(),
            table: RefCell::new(None),
            stale: Cell::new(true),
            to_judge: Cell::new(false),
            draining: Cell::new(false),
            begun: Instant::now(),
            now_ms: Cell::new(0),
            open: RefCell::default(),
            told_crowded: Cell::default(),
            callers: RefCell::default(),
            shared,
        }
    }

    /// The table in force.
    pub(crate) fn table(&self) -> Option<TableRef> {
        self.table.borrow().clone()
    }

    /// Revision of the snapshot in force.
    pub(crate) fn revision(&self) -> u64 {
        self.table.borrow().as_ref().map_or(0, |t| t.snapshot.revision)
    }

    /// Whether the lease of the snapshot has run out.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.get()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The thread's clock in milliseconds: as coarse as the ticker, unless [`Self::touch`] was called.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Reads the clock: microseconds since the thread began.
    pub(crate) fn touch(&self) -> u64 {
        let us = self.begun.elapsed().as_micros() as u64;
        self.now_ms.set(us / 1000);
        us
    }

    /// This thread's share of the connections that a listener, or a caller over the mesh, may have.
    fn most_connections(&self) -> usize {
        let limit = self.table.borrow().as_ref().map_or(64, |t| t.limits.connections as usize);
        limit.div_ceil(self.shared.threads).max(1)
    }

    /// What this thread may have of the connections of a listener, and whether they begin with a handshake.
    fn bounds(&self, kind: &ListenerKind) -> (Bounds, bool) {
        let table = self.table.borrow();
        let gateway = matches!(kind, ListenerKind::Gateway);
        let limits = table
            .as_ref()
            .map_or_else(|| Limits { connections: 64, ..Limits::default() }, |table| table.limits.clone());
        let plain = matches!(kind, ListenerKind::Outbound { .. })
            || gateway
                && table
                    .as_ref()
                    .is_none_or(|t| t.snapshot.gateway.as_ref().is_none_or(|g| g.tls == GatewayTls::Off));
        (Bounds::new(&limits, self.shared.threads, gateway), !plain)
    }

    /// Tells that connections made room, once a second at most.
    fn tell_crowded(&self, kind: &ListenerKind, source: SocketAddr, full: Full) {
        let (told, made) = self.told_crowded.get();
        if told != 0 && self.now_ms() < told + 1_000 {
            self.told_crowded.set((told, made + 1));
            return;
        }
        self.told_crowded.set((self.now_ms().max(1), 0));
        pipeline::tell_crowded(self, kind, source, full, made + 1);
    }

    /// Counts a connection of a caller over the mesh from now on; `None` if it has too many.
    pub(crate) fn admit(&self, caller: &Arc<str>) -> Option<OpenGuard> {
        let open = self.callers.borrow_mut().entry(caller.clone()).or_default().clone();
        (open.get() < self.most_connections()).then(|| OpenGuard::new(&open))
    }

    pub(crate) fn emit(&self, kind: Kind<'_>) {
        self.events.emit(&Event::new(kind).revision(self.revision()));
    }

    fn set_table(&self, table: Arc<Table>) {
        self.touch();
        self.live.recheck(&table, self.now_ms());
        // Who was not asked for a certificate so far has none on this connection; the next one will.
        let asked = self.table.borrow().as_ref().is_none_or(|before| before.asks_certificates);
        if table.asks_certificates && !asked {
            self.live.drain(self.now_ms());
        }
        self.pool.recheck(&table);
        self.tokens.follow(&table);
        self.sessions.follow();
        self.actors.clear();
        self.shed.follow(table.limit.sheds.then_some(table.limits.queue));
        *self.table.borrow_mut() = Some(Rc::new(table));
        self.to_judge.set(true);
        self.tick();
    }

    fn tick(&self) {
        self.touch();
        let unix = unix_now();
        self.stale.set(self.table.borrow().as_ref().is_none_or(|t| unix >= t.fresh_until));
        self.live.tick(self.now_ms(), unix);
        let excess = self.budget.excess();
        if excess > 0 {
            self.live.give_way(excess);
        }
        if self.to_judge.take() {
            let revoked = self.tokens.revoked();
            let svids = revoked.as_ref().map(|revoked| &*revoked.svids);
            self.live.judge_again(svids);
            if let Some(svids) = svids {
                self.pool.recheck_svids(svids);
            }
        }
        let (open, callers) = (self.open.borrow(), self.callers.borrow());
        let of_callers = callers.values().map(|open| open.get());
        self.counters.connections(open.values().map(|door| door.open()).chain(of_callers).sum());
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Runs a data-plane thread until it is told to stop.
pub(crate) fn run(shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let worker = Rc::new(Worker::new(shared));
    // A task of its own: what `block_on` waits for is polled at every turn of the loop.
    local
        .block_on(&runtime, async { tokio::task::spawn_local(serve(worker, commands)).await })
        .map_err(std::io::Error::other)
}

async fn serve(worker: Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
    let mut listeners: HashMap<ListenerKind, Vec<JoinHandle<()>>> = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweep = 0_u32;
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            due = ticks.tick() => {
                // As late as it comes, so long does everything wait.
                worker.shed.sample(due.elapsed());
                worker.tick();
                if worker.live.wake_due(worker.now_ms()) {
                    tokio::task::spawn_local(wake_due(worker.clone()));
                }
                sweep += 1;
                if sweep.is_multiple_of(10) {
                    worker.pool.sweep(worker.now_ms());
                }
                continue;
            }
        };
        match command {
            Some(Command::Table(table, done)) => {
                worker.set_table(table);
                let _ = done.send(());
            }
            Some(Command::Keys(keys)) => worker.tokens.set_keys(keys),
            Some(Command::Revoked(revoked)) => {
                worker.tokens.set_revoked(revoked);
                worker.to_judge.set(true);
            }
            Some(Command::Judge) => worker.to_judge.set(true),
            Some(Command::Listen(kind, sockets, done)) => {
                let opened: std::io::Result<Vec<TcpListener>> = sockets
                    .into_iter()
                    .map(|socket| {
                        ringfence_channel::sys::set_unsent_limit(&socket, MAX_UNSENT)?;
                        socket.set_nonblocking(true)?;
                        TcpListener::from_std(socket)
                    })
                    .collect();
                // What is wrong is learnt from the dropped answer.
                let Ok(opened) = opened else { continue };
                let accepting =
                    |listener| tokio::task::spawn_local(accept(worker.clone(), kind.clone(), listener));
                let tasks: Vec<_> = opened.into_iter().map(accepting).collect();
                listeners.insert(kind, tasks).into_iter().flatten().for_each(|before| before.abort());
                let _ = done.send(());
            }
            Some(Command::Close(kind)) => {
                listeners.remove(&kind).into_iter().flatten().for_each(|task| task.abort());
            }
            Some(Command::Drain(time, done)) => {
                listeners.drain().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
                worker.draining.set(true);
                worker.touch();
                worker.live.drain(worker.now_ms());
                worker.pool.clear();
                tokio::task::spawn_local(drain(worker.clone(), time, done));
            }
            Some(Command::Stop) | None => {
                listeners.drain().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
                worker.live.cut_all();
                return;
            }
        }
    }
}

/// Tells those whose time is over, a few at a time: many connections that were opened at once end at once too, and nobody else is to
/// wait for all of them. What is left by the next tick that one tells.
async fn wake_due(worker: Rc<Worker>) {
    let end = Instant::now() + TICK * 9 / 10;
    while Instant::now() < end {
        tokio::time::sleep(BREATH).await;
        if !worker.live.wake_due(worker.now_ms()) {
            return;
        }
    }
}

async fn drain(worker: Rc<Worker>, time: Duration, done: oneshot::Sender<u64>) {
    let end = Instant::now() + time;
    while worker.live.len() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cut = worker.live.cut_all();
    tokio::task::yield_now().await;
    let _ = done.send(cut as u64);
}

async fn accept(worker: Rc<Worker>, kind: ListenerKind, listener: TcpListener) {
    let door = worker.open.borrow_mut().entry(kind.clone()).or_default().clone();
    let kind = Rc::new(kind);
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, or the client is gone already: neither is cured by asking again at once.
                if e.kind() != std::io::ErrorKind::ConnectionAborted {
                    if matches!(e.raw_os_error(), Some(EMFILE | ENFILE)) {
                        let anybody = Full { address: None, shaking: false };
                        let makes_room = |_: &usize| worker.live.make_room(&door, anybody, worker.now_ms());
                        (0..AT_ONCE).take_while(makes_room).for_each(drop);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                continue;
            }
        };
        let (bounds, shakes) = worker.bounds(&kind);
        if let Some(full) = door.is_full(source.ip(), shakes, &bounds) {
            if !worker.live.make_room(&door, full, worker.now_ms()) {
                pipeline::refuse_connection(&worker, &kind, source, full);
                continue;
            }
            worker.tell_crowded(&kind, source, full);
        }
        let _ = stream.set_nodelay(true);
        let ticket = door.enter(source.ip(), shakes, worker.now_ms());
        tokio::task::spawn_local(pipeline::accepted(worker.clone(), kind.clone(), stream, source, ticket));
    }
}

/// Counts a connection of a listener while it is open.
#[derive(Debug)]
pub(crate) struct OpenGuard(Rc<Cell<usize>>);

impl OpenGuard {
    fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(open.clone())
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
