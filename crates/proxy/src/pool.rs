//! Open connections to callees, kept per thread and per edge.
//!
//! The edge's number is (caller, callee); its stamp stands for endpoint, identities and bundle generation. A connection
//! with another stamp, or past the point where an identity shown on it is renewed, is never used again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use ringfence_spiffe::RevokedSvids;
use ringfence_tls::Alpn;

use crate::connect::connect;
use crate::deny::Deny;
use crate::h1::Scratch;
use crate::io::{Gather, Io};
use crate::live::Ends;
use crate::table::{Edge, Table};
use crate::worker::Worker;

/// Most idle HTTP/1 connections per edge and thread: as many as the streams of a few busy HTTP/2 clients need at once.
const MAX_IDLE: usize = 256;
/// How long one may be idle, in milliseconds; shorter than what servers usually allow.
const IDLE_MS: u64 = 15_000;
/// Most streams that are put on one HTTP/2 connection.
const MAX_STREAMS: usize = 100;

/// An HTTP/1 connection to a callee.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) io: Io,
    pub(crate) read: BytesMut,
    pub(crate) scratch: Scratch,
    pub(crate) ends: Option<Rc<Ends>>,
    stamp: u64,
    retire_at: u64,
    idle_since: u64,
}

/// An HTTP/2 connection to a callee, shared by streams.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) ends: Option<Rc<Ends>>,
    streams: Cell<usize>,
    closed: Rc<Cell<bool>>,
    stamp: u64,
    retire_at: u64,
    used: Cell<u64>,
}

/// A stream's hold on its connection.
#[derive(Debug)]
pub(crate) struct Hold(pub(crate) Rc<Shared>);

/// Connections by edge.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: RefCell<Vec<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Upstream>,
    shared: Vec<Rc<Shared>>,
    /// One opens a connection, the others wait for it.
    opening: Rc<tokio::sync::Mutex<()>>,
}

impl Pool {
    fn with<R>(&self, edge: &Edge, work: impl FnOnce(&mut Slot) -> R) -> R {
        let mut slots = self.slots.borrow_mut();
        let at = edge.id as usize;
        if slots.len() <= at {
            slots.resize_with(at + 1, Slot::default);
        }
        work(&mut slots[at])
    }

    /// An idle HTTP/1 connection, if there is a good one.
    pub(crate) fn take(&self, edge: &Edge, now_ms: u64) -> Option<Upstream> {
        self.with(edge, |slot| {
            while let Some(mut upstream) = slot.idle.pop() {
                let good = upstream.stamp == edge.stamp
                    && upstream.retire_at > now_ms
                    && now_ms.saturating_sub(upstream.idle_since) < IDLE_MS;
                if good && upstream.is_quiet() {
                    return Some(upstream);
                }
            }
            None
        })
    }

    /// Gives a connection back after a whole exchange.
    pub(crate) fn put(&self, edge: &Edge, mut upstream: Upstream, now_ms: u64) {
        if upstream.retire_at <= now_ms || !upstream.read.is_empty() {
            return;
        }
        upstream.idle_since = now_ms;
        upstream.read = BytesMut::new();
        self.with(edge, |slot| {
            if slot.idle.len() < MAX_IDLE {
                slot.idle.push(upstream);
            }
        });
    }

    /// Drops what the new table does not allow.
    pub(crate) fn recheck(&self, table: &Table) {
        for (id, slot) in self.slots.borrow_mut().iter_mut().enumerate() {
            if !table.declares(id as u32) {
                slot.idle.clear();
                slot.shared.clear();
            }
        }
    }

    /// Drops what was opened with an SVID that was revoked. What streams on it belong to is cut by itself.
    pub(crate) fn recheck_svids(&self, revoked: &RevokedSvids) {
        let good = |ends: &Option<Rc<Ends>>| ends.as_ref().is_none_or(|ends| !ends.are_revoked(revoked));
        for slot in &mut *self.slots.borrow_mut() {
            slot.idle.retain(|upstream| good(&upstream.ends));
            slot.shared.retain(|shared| {
                let good = good(&shared.ends);
                if !good {
                    shared.retire();
                }
                good
            });
        }
    }

    /// Drops what has been idle for too long.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for slot in &mut *self.slots.borrow_mut() {
            slot.idle.retain(|u| u.retire_at > now_ms && now_ms.saturating_sub(u.idle_since) < IDLE_MS);
            slot.shared.retain(|s| {
                let idle = s.streams.get() == 0 && now_ms.saturating_sub(s.used.get()) >= 4 * IDLE_MS;
                !s.closed.get() && s.retire_at > now_ms && !idle
            });
        }
    }

    pub(crate) fn clear(&self) {
        self.slots.borrow_mut().clear();
    }

    fn shared(&self, edge: &Edge, now_ms: u64) -> Option<Hold> {
        self.with(edge, |slot| {
            let found = slot.shared.iter().find(|s| {
                s.stamp == edge.stamp
                    && s.retire_at > now_ms
                    && !s.closed.get()
                    && s.streams.get() < s.capacity()
            });
            found.map(|shared| Hold::new(shared, now_ms))
        })
    }
}

/// A new HTTP/1 connection along `edge`. What is rare is boxed here and below: a stream's task is as large as all it may wait for.
pub(crate) async fn open(worker: &Worker, edge: &Edge) -> Result<Upstream, Deny> {
    let connected = Box::pin(connect(worker, edge, Alpn::Http1)).await?;
    Ok(Upstream {
        io: connected.io,
        read: BytesMut::new(),
        scratch: Scratch::default(),
        ends: connected.ends,
        stamp: edge.stamp,
        retire_at: connected.retire_at,
        idle_since: 0,
    })
}

/// An HTTP/2 connection along `edge` with room for a stream.
pub(crate) async fn open_h2(worker: &Worker, edge: &Edge) -> Result<Hold, Deny> {
    if let Some(hold) = worker.pool.shared(edge, worker.now_ms()) {
        return Ok(hold);
    }
    let opening = worker.pool.with(edge, |slot| slot.opening.clone());
    let _turn = opening.lock().await;
    if let Some(hold) = worker.pool.shared(edge, worker.now_ms()) {
        return Ok(hold);
    }
    let connected = Box::pin(connect(worker, edge, Alpn::H2)).await?;
    let limits = worker.table().map(|t| t.limits.clone()).unwrap_or_default();
    let gather = Gather::new(BytesMut::new(), connected.io);
    let handshake = h2::client::Builder::new()
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_reset_streams(32)
        .max_send_buffer_size(64 * 1024)
        .enable_push(false)
        .handshake::<_, Bytes>(gather.clone());
    let (send, connection) = Box::pin(gather.flushing(handshake)).await.map_err(|e| {
        Deny::failure(502, "upstream.http2", format!("{} does not speak HTTP/2: {e}", edge.callee))
    })?;
    let closed = Rc::new(Cell::new(false));
    let ended = closed.clone();
    tokio::task::spawn_local(async move {
        // What went wrong is told to each stream.
        let _ = gather.flushing(connection).await;
        ended.set(true);
    });
    let shared = Rc::new(Shared {
        send,
        ends: connected.ends,
        streams: Cell::new(0),
        closed,
        stamp: edge.stamp,
        retire_at: connected.retire_at,
        used: Cell::new(0),
    });
    worker.pool.with(edge, |slot| {
        slot.shared.retain(|s| !s.closed.get());
        slot.shared.push(shared.clone());
    });
    Ok(Hold::new(&shared, worker.now_ms()))
}

impl Upstream {
    /// Whether the callee has neither closed the connection nor sent what nobody asked for. No system call, unless the
    /// runtime knows that there is something to read.
    fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.io.poll_read_more(&mut cx, &mut self.read), Poll::Pending)
    }
}

impl Shared {
    fn capacity(&self) -> usize {
        self.send.current_max_send_streams().min(MAX_STREAMS)
    }

    /// Never use it for a new stream.
    pub(crate) fn retire(&self) {
        self.closed.set(true);
    }
}

impl Hold {
    fn new(shared: &Rc<Shared>, now_ms: u64) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        shared.used.set(now_ms);
        Self(shared.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}
