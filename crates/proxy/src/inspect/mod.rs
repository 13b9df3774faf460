//! Inspect: what requests say, and where asked what is answered, is looked through for attacks by the rules of the firewall.
//!
//! Rules are compiled once per rule set, on the control thread ([`Engine`]), and shared; each thread uses the buffers of its
//! transactions again ([`Scratches`]). The rules see the head as it came, but for the path, which is the one that is judged everywhere
//! and sent on; what was sent instead of it they see as the raw form.

mod engine;
mod told;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_model::{Beyond, Mode, Protocol, Route};
use ringfence_waf::{Interest, Scratch, Transaction, Verdict};

pub(crate) use self::engine::Engine;
use crate::deny::Deny;
use crate::h1::{Kind, Version};
use crate::held::{Body, Hold, Reject};
use crate::note::Notes;
use crate::protect::{Judging, Request, Stage};
use crate::view::{HeadView, ResponseView};
use crate::worker::unix_now;

/// Buffers that a thread keeps for the next transactions.
const KEPT: usize = 16;

/// The stage of a route.
#[derive(Debug)]
pub(crate) struct Inspect {
    engine: Arc<Engine>,
    enforces: bool,
    /// Whether bodies are messages of their own that must not wait for each other.
    streams: bool,
}

/// Buffers of a thread that are used again. Long bodies are judged beside it, hence the lock; nobody else waits for it.
#[derive(Debug, Default)]
pub(crate) struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    fn all(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request and its response under the rules.
struct Inspection {
    stage: Arc<Inspect>,
    /// There until the end.
    transaction: Option<Transaction>,
    scratches: Arc<Scratches>,
    /// Matches that were noted.
    noted: usize,
    /// The last phase has run.
    ended: bool,
}

impl Inspect {
    /// For a route, if attacks are looked for there.
    pub(crate) fn of(
        engine: Option<&Arc<Engine>>,
        protocol: Protocol,
        route: &Route,
    ) -> Option<Arc<dyn Stage>> {
        let engine = engine?;
        let mode = route.waf.unwrap_or_else(|| engine.waf().mode);
        (mode != Mode::Off).then(|| -> Arc<dyn Stage> {
            let enforces = mode == Mode::Enforce;
            Arc::new(Self { engine: engine.clone(), enforces, streams: protocol == Protocol::Grpc })
        })
    }
}

impl Stage for Inspect {
    fn begin(
        self: Arc<Self>,
        request: &Request<'_>,
        notes: &Notes,
    ) -> Result<Option<Box<dyn Judging>>, Deny> {
        let (worker, view) = (request.ctx.worker, request.view);
        let scratches = worker.scratches.clone();
        let scratch = scratches.all().pop().unwrap_or_default();
        let mut transaction = Transaction::new(self.engine.rules(), scratch);
        let mode = if self.enforces { ringfence_waf::Mode::Enforce } else { ringfence_waf::Mode::Observe };
        transaction.set_mode(mode);
        self.engine.exclude(&mut transaction, view.path(), unix_now);
        let source = request.ctx.peer.source;
        let gateway = request.authorized.edge.table().snapshot.gateway.as_ref();
        let local = gateway.and_then(|gateway| gateway.listen.first()).unwrap_or(&source);
        transaction.connection((source.ip(), source.port()), (local.ip(), local.port()));
        head(&mut transaction, view);
        let mut inspection =
            Inspection { stage: self, transaction: Some(transaction), scratches, noted: 0, ended: false };
        inspection.judge(notes, Transaction::phase1)?;
        Ok(Some(Box::new(inspection)))
    }
}

/// Tells the rules the head of a request.
fn head(transaction: &mut Transaction, view: HeadView<'_>) {
    let protocol: &[u8] = match view.version() {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
        Version::Http2 => b"HTTP/2.0",
    };
    let (method, raw, path) = (view.method().as_bytes(), view.raw_target(), view.path());
    if raw.split('?').next() == Some(path) {
        transaction.request_line(method, raw.as_bytes(), protocol);
    } else {
        let sent = match view.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        transaction.request_line(method, sent.as_bytes(), protocol);
        transaction.set_variable("REQUEST_URI_RAW", raw.as_bytes());
        transaction.set_variable("REQUEST_LINE", &[method, b" ", raw.as_bytes(), b" ", protocol].concat());
    }
    // HTTP/2 has it apart from the fields.
    if view.known(Kind::Host).is_none() {
        transaction.request_header(b"Host", view.authority().as_bytes());
    }
    for (name, value) in view.fields() {
        transaction.request_header(name, value);
    }
}

impl Inspection {
    /// Runs a phase, and notes what matched.
    fn judge(&mut self, notes: &Notes, phase: impl FnOnce(&mut Transaction) -> Verdict) -> Result<(), Deny> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        let verdict = phase(transaction);
        let matches = &transaction.matches()[self.noted..];
        if !matches.is_empty() {
            told::note(matches, !self.stage.enforces, notes);
            self.noted += matches.len();
        }
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Stop(stop) => Err(self.stage.engine.deny(transaction, &stop)),
        }
    }

    /// Runs the last phase, and notes what it sums up.
    fn end(&mut self, notes: &Notes) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.phase5();
        self.ended = true;
        let matches = &transaction.matches()[self.noted..];
        told::note(matches, !self.stage.enforces, notes);
        self.noted += matches.len();
    }

    fn limit(&self) -> usize {
        usize::try_from(self.stage.engine.waf().inspect).unwrap_or(usize::MAX - 1)
    }
}

impl Judging for Inspection {
    fn wants(&self) -> Option<Hold<'_>> {
        let transaction = self.transaction.as_ref()?;
        let only_text = match transaction.interest() {
            _ if self.stage.streams => return None,
            Interest::None => return None,
            Interest::IfText => true,
            Interest::All => false,
        };
        let (waf, limit) = (self.stage.engine.waf(), self.limit());
        let position = Some(self.stage.engine.position());
        let refuse = |rule| Reject { beyond: limit, stage: "inspect", rule, position };
        let enforces = self.stage.enforces;
        Some(Hold {
            // One byte more tells the rules that there is more.
            most: limit + 1,
            reject: (enforces && waf.beyond == Beyond::Reject).then(|| refuse("waf.body")),
            coded: enforces.then(|| refuse("waf.coding")),
            only_text,
        })
    }

    fn request(&mut self, body: Body<'_>, notes: &Notes) -> Result<(), Deny> {
        if let Some(transaction) = &mut self.transaction {
            transaction.request_body(body.bytes);
            if let Some(packed) = body.packed {
                transaction.request_body_packed(packed);
            }
        }
        self.judge(notes, Transaction::phase2)?;
        if let (false, Some(transaction)) = (self.stage.enforces, &self.transaction) {
            told::observe(transaction, notes);
        }
        Ok(())
    }

    fn watches(&self) -> bool {
        self.stage.engine.waf().responses
    }

    fn response_head(
        &mut self,
        response: ResponseView<'_>,
        last: bool,
        notes: &Notes,
    ) -> Result<Option<usize>, Deny> {
        let Some(transaction) = &mut self.transaction else { return Ok(None) };
        transaction.response_head(response.status(), b"HTTP/1.1");
        for (name, value) in response.fields() {
            transaction.response_header(name, value);
        }
        self.judge(notes, Transaction::phase3)?;
        let wants = !last && self.transaction.as_ref().is_some_and(Transaction::wants_response_body);
        if wants {
            return Ok(Some(self.limit() + 1));
        }
        self.judge(notes, Transaction::phase4)?;
        self.end(notes);
        Ok(None)
    }

    fn response_body(&mut self, _: ResponseView<'_>, body: Body<'_>, notes: &Notes) -> Result<(), Deny> {
        if let Some(transaction) = &mut self.transaction {
            transaction.response_body(body.bytes);
        }
        self.judge(notes, Transaction::phase4)?;
        self.end(notes);
        Ok(())
    }
}

impl Drop for Inspection {
    fn drop(&mut self) {
        let Some(mut transaction) = self.transaction.take() else { return };
        if !self.ended {
            transaction.phase5();
        }
        let scratch = transaction.into_scratch();
        let mut kept = self.scratches.all();
        if kept.len() < KEPT {
            kept.push(scratch);
        }
    }
}
