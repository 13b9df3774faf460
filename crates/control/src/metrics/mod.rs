//! Counters for Prometheus: what all processes counted, gathered where it is known already and written when somebody asks.
//!
//! A library of counters was rejected: the request path counts into arrays of its own, and here is only text to write.

mod families;
mod serve;
mod text;

use std::net::TcpListener;
use std::time::Duration;

use axum::http::StatusCode;
use ringfence_ca::Ca;
use ringfence_keeper::protocol::Status;
use ringfence_snapshot::node::Stats;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub(crate) use self::text::Format;
use crate::api::{Answer, Question};
use crate::core::Core;
use crate::supervisor::{Report, Usage};

/// How long the keeper may take to say what it has signed; the page is written without it then.
const KEEPER: Duration = Duration::from_secs(2);

/// Everything that there is to tell at one moment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) report: Report,
    pub(crate) usage: Vec<Usage>,
    pub(crate) snapshot: Option<SnapshotFacts>,
    pub(crate) nodes: Vec<NodeFacts>,
    pub(crate) keeper: Option<Status>,
    /// Events of control itself: written, dropped.
    pub(crate) events: (u64, u64),
}

/// Of the snapshot in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SnapshotFacts {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    pub(crate) issued_at: u64,
    pub(crate) expires_at: u64,
}

/// Of a node that is connected.
#[derive(Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) acknowledged: u64,
    pub(crate) stats: Stats,
}

/// Where counters are served, if they are.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    questions: Option<mpsc::Sender<Question>>,
    /// Ends with the endpoint, and when another listener comes.
    serving: JoinSet<()>,
}

impl Endpoint {
    pub(crate) fn new(questions: mpsc::Sender<Question>) -> Self {
        Self { questions: Some(questions), serving: JoinSet::new() }
    }

    /// Serves at this listener from now on, in place of any before; nowhere without one.
    pub(crate) fn serve(&mut self, listener: Option<TcpListener>) -> std::io::Result<()> {
        self.serving = JoinSet::new();
        let (Some(listener), Some(questions)) = (listener, self.questions.clone()) else { return Ok(()) };
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.serving.spawn(serve::serve(listener, questions));
        Ok(())
    }
}

impl Core {
    /// Writes the page; what the keeper says is waited for outside of control's loop.
    pub(crate) fn tell_metrics(&self, format: Format, answer: oneshot::Sender<Answer>) {
        let (mut known, ca) = (self.known(), self.ca().ok());
        tokio::spawn(async move {
            known.keeper = shown(ca).await;
            // A page of many edges takes a while to write.
            let page = tokio::task::spawn_blocking(move || families::page(&known, format)).await;
            let failed = |_| (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written".to_owned());
            let _ = answer.send(page.map(Value::String).map_err(failed));
        });
    }
}

async fn shown(ca: Option<Ca>) -> Option<Status> {
    tokio::time::timeout(KEEPER, ca?.show()).await.ok()?.ok()
}
