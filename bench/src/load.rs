//! The load: closed loops at saturation, or a fixed rate that does not slow down when the proxy does.
//!
//! Everything runs on one thread of one core. In a closed loop each connection (or stream) asks as soon as it was answered.
//! At a fixed rate each has its own timetable, and a request that had to wait for the one before counts from when it was
//! due; one whose turn came while its connection was free counts from when it was sent, so that the timer's grain of a
//! millisecond is not taken for the proxy's delay.

mod h1;
mod h2;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::task::LocalSet;

use crate::case::Case;
use crate::certs::Certs;
use crate::machine::Family;
use crate::tokens::Tokens;

const WARM_UP: Duration = Duration::from_millis(400);

/// Whom to ask, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) case: Case,
    pub(crate) address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// In HTTP/1.1, in turn.
    requests: Rc<[Vec<u8>]>,
    /// What must not be let in, and how it is to be answered.
    refused: Rc<[(Vec<u8>, u16)]>,
    /// How each of the requests is answered.
    pub(crate) status: u16,
}

impl Target {
    /// `name` is what the proxy's certificate must be for.
    pub(crate) fn new(
        case: Case,
        address: SocketAddr,
        name: &'static str,
        certs: &Certs,
        tokens: &Tokens,
    ) -> io::Result<Self> {
        let alpn: &[u8] = if case.h2() { b"h2" } else { b"http/1.1" };
        let tls = if case.tls() {
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            Some((certs.client(case.mutual_before(), alpn)?, name))
        } else {
            None
        };
        let (requests, refused) = if case.tokens() {
            let (no, strange, weak) = (h1::request(None), &tokens.strange, &tokens.weak);
            (
                tokens.good.iter().map(|token| h1::request(Some(token))).collect(),
                vec![(no, 401), (h1::request(Some(strange)), 401), (h1::request(Some(weak)), 403)],
            )
        } else {
            (Rc::from([h1::request(None)]), Vec::new())
        };
        Ok(Self { case, address, tls, requests, refused: refused.into(), status: 200 })
    }

    /// The same proxy, asked something else: these in turn.
    pub(crate) fn asked(&self, requests: &[Vec<u8>], status: u16) -> Self {
        Self { requests: requests.into(), refused: Rc::from([]), status, ..self.clone() }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    Saturate,
    /// Requests per second over all connections.
    Rate(f64),
}

/// What one window showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
    /// Of the proxy, within the window.
    pub(crate) cpu: Duration,
    /// Nanoseconds.
    pub(crate) latencies: Vec<u32>,
}

/// What the asking tasks share.
#[derive(Default)]
struct Tally {
    requests: Cell<u64>,
    errors: Cell<u64>,
    /// Whose turn it is among the requests.
    turn: Cell<usize>,
    counting: Cell<bool>,
    stopped: Cell<bool>,
    latencies: RefCell<Vec<u32>>,
}

impl Tally {
    fn answered(&self, since: Instant) {
        if self.counting.get() {
            self.requests.set(self.requests.get() + 1);
            let spent = u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX);
            self.latencies.borrow_mut().push(spent);
        }
    }

    fn request<'a>(&self, target: &'a Target) -> &'a [u8] {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % target.requests.len());
        &target.requests[turn]
    }

    fn failed(&self, error: &io::Error) {
        if !self.stopped.get() {
            if self.errors.get() == 0 {
                eprintln!("bench: a request failed: {error}");
            }
            self.errors.set(self.errors.get() + 1);
        }
    }
}

/// When one connection or stream sends its next request.
struct Timetable {
    due: Option<Instant>,
    every: Duration,
}

impl Timetable {
    fn new(pace: Pace, askers: usize, number: usize) -> Self {
        let Pace::Rate(rate) = pace else { return Self { due: None, every: Duration::ZERO } };
        let every = Duration::from_secs_f64(askers as f64 / rate);
        Self { due: Some(Instant::now() + every.mul_f64(number as f64 / askers as f64)), every }
    }

    /// Waits for the next turn and says from when it counts.
    async fn turn(&mut self) -> Instant {
        let Some(due) = self.due else { return Instant::now() };
        self.due = Some(due + self.every);
        if Instant::now() >= due {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

/// One window of load, with the proxy's CPU time within it.
pub(crate) fn run(target: &Target, pace: Pace, window: Duration, proxy: &Family) -> io::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Rc::new(Tally::default());
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let (connections, streams) = (target.case.connections(), target.case.streams());
        for number in 0..connections {
            let (target, tally) = (target.clone(), tally.clone());
            let timetables: Vec<Timetable> = (0..streams)
                .map(|s| Timetable::new(pace, connections * streams, number + s * connections))
                .collect();
            tokio::task::spawn_local(ask(target, timetables, tally));
        }
        tokio::time::sleep(WARM_UP).await;
        let (start, before) = (Instant::now(), proxy.cpu()?);
        tally.counting.set(true);
        tokio::time::sleep(window).await;
        tally.counting.set(false);
        let (elapsed, after) = (start.elapsed(), proxy.cpu()?);
        tally.stopped.set(true);
        Ok(Sample {
            requests: tally.requests.get(),
            errors: tally.errors.get(),
            elapsed,
            cpu: after.saturating_sub(before),
            latencies: tally.latencies.take(),
        })
    })
}

/// One connection's worth of asking. After a failure it starts afresh: each failure is counted, and any spoils the run.
async fn ask(target: Target, mut timetables: Vec<Timetable>, tally: Rc<Tally>) {
    while !tally.stopped.get() {
        let done = match target.case {
            Case::H2 | Case::Grpc => h2::many(&target, &mut timetables, &tally).await,
            Case::Handshake => h1::each_on_its_own(&target, &mut timetables[0], &tally).await,
            Case::Plain
            | Case::Tls
            | Case::Mtls
            | Case::Sidecar
            | Case::Token
            | Case::Waf
            | Case::WafStrict
            | Case::Chain => h1::one_after_another(&target, &mut timetables[0], &tally).await,
        };
        if let Err(error) = done {
            tally.failed(&error);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Exactly so many requests, one at a time over one connection, for counting instructions.
pub(crate) fn exactly(target: &Target, requests: u32) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(h1::exactly(target, requests))
}

/// Asks what must be refused, and looks whether it is.
pub(crate) fn refuses(target: &Target) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    target
        .refused
        .iter()
        .try_for_each(|(request, status)| runtime.block_on(h1::refuses(target, request, *status)))
}

/// Memory of the proxy while so many connections, each of which was used once, do nothing.
pub(crate) fn idle(target: &Target, connections: usize, proxy: &Family) -> io::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut held = Vec::with_capacity(connections);
        for _ in 0..connections {
            held.push(h1::used_once(target).await?);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let resident = proxy.resident()?;
        drop(held);
        Ok(resident)
    })
}
