//! The admin API: HTTP/JSON on a Unix socket that only its owner may open.
//!
//! There is no login here: whoever can open the socket (mode 0600 in a 0700 directory) owns the data directory anyway. Each
//! connection's peer is checked to be that user all the same, because a socket can be passed on.

use std::io;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ringfence_keeper::protocol::Step;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::core::asks::AskSessions;
use crate::hosts::{AskHosts, HostToken};
use crate::keys::{AskKeys, CreateKey, RotateKey};
use crate::metrics::Format;
use crate::revocations::{AskRevocations, Revoke};

/// Longest that an answer may take; a root rotation waits for enforcement points.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be asked of control.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Status,
    Stats,
    /// The page of counters, as a text.
    Metrics(Format),
    Fence,
    Ca,
    Store,
    Rotate(Rotate),
    Mint(Mint),
    Keys(AskKeys),
    Hosts(AskHosts),
    Revocations(AskRevocations),
    Sessions(AskSessions),
    Restart(String),
    Down,
}

/// Body of `POST /v1/ca/rotate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// What to rotate.
    pub what: RotateWhat,
    /// Which step, unless it is the issuing CA; without it, the next one.
    #[serde(default)]
    pub step: Option<Step>,
}

/// What can be rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotateWhat {
    /// The issuing CA: a new intermediate under the same root, at once.
    Issuing,
    /// The root, step by step.
    Root,
    /// The key that signs JWT-SVIDs, step by step.
    Jwt,
    /// The key that signs transaction and session tokens, step by step.
    Txn,
}

/// Body of `POST /v1/svid`: an X.509-SVID for a service that speaks SPIFFE itself, for a limited time; for a fenced one, for
/// the seconds that a drill needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mint {
    /// The service, which must be declared.
    pub service: String,
    /// Life in seconds.
    pub ttl: u64,
}

/// Answer to an [`Ask`], or a problem: status, title, detail.
pub(crate) type Answer = Result<Value, (StatusCode, String)>;

/// A question with its way back.
pub(crate) type Question = (Ask, oneshot::Sender<Answer>);

/// Serves until the process ends.
pub(crate) async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(|s: State<Api>| ask(s, Ask::Status)))
        .route("/v1/stats", get(|s: State<Api>| ask(s, Ask::Stats)))
        .route("/v1/fence", get(|s: State<Api>| ask(s, Ask::Fence)))
        .route("/v1/store", get(|s: State<Api>| ask(s, Ask::Store)))
        .route("/v1/ca", get(|s: State<Api>| ask(s, Ask::Ca)))
        .route("/v1/ca/rotate", post(|s: State<Api>, Json(body): Json<Rotate>| ask(s, Ask::Rotate(body))))
        .route("/v1/svid", post(|s: State<Api>, Json(body): Json<Mint>| ask(s, Ask::Mint(body))))
        .route(
            "/v1/keys",
            get(|s: State<Api>, Query(Page { after }): Query<Page>| {
                ask(s, Ask::Keys(AskKeys::List { after }))
            })
            .post(|s: State<Api>, Json(body): Json<CreateKey>| ask(s, Ask::Keys(AskKeys::Create(body)))),
        )
        .route("/v1/keys/{id}", get(|s: State<Api>, Path(id)| ask(s, Ask::Keys(AskKeys::Show(id)))))
        .route(
            "/v1/keys/{id}/rotate",
            post(|s: State<Api>, Path(id), Json(body): Json<RotateKey>| {
                ask(s, Ask::Keys(AskKeys::Rotate(id, body)))
            }),
        )
        .route("/v1/keys/{id}/revoke", post(|s: State<Api>, Path(id)| ask(s, Ask::Keys(AskKeys::Revoke(id)))))
        .route("/v1/hosts", get(|s: State<Api>| ask(s, Ask::Hosts(AskHosts::List))))
        .route(
            "/v1/hosts/{name}/token",
            post(|s: State<Api>, Path(name), Json(body): Json<HostToken>| {
                ask(s, Ask::Hosts(AskHosts::Token(name, body)))
            }),
        )
        .route(
            "/v1/hosts/{name}/remove",
            post(|s: State<Api>, Path(name)| ask(s, Ask::Hosts(AskHosts::Remove(name)))),
        )
        .route(
            "/v1/sessions",
            get(|s: State<Api>, Query(Page { after }): Query<Page>| {
                ask(s, Ask::Sessions(AskSessions::List { after }))
            }),
        )
        .route(
            "/v1/sessions/{id}/end",
            post(|s: State<Api>, Path(id)| ask(s, Ask::Sessions(AskSessions::End(id)))),
        )
        .route(
            "/v1/revocations",
            get(|s: State<Api>, Query(Page { after }): Query<Page>| {
                ask(s, Ask::Revocations(AskRevocations::List { after }))
            })
            .post(|s: State<Api>, Json(body): Json<Revoke>| {
                ask(s, Ask::Revocations(AskRevocations::Revoke(body)))
            }),
        )
        .route(
            "/v1/revocations/{id}/remove",
            post(|s: State<Api>, Path(id)| ask(s, Ask::Revocations(AskRevocations::Remove(id)))),
        )
        .route(
            "/v1/restart",
            post(|s: State<Api>, Json(body): Json<Restart>| ask(s, Ask::Restart(body.service))),
        )
        .route("/v1/down", post(|s: State<Api>| ask(s, Ask::Down)))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such resource") })
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(Api { questions });
    axum::serve(Owned(listener), router).await
}

#[derive(Clone)]
struct Api {
    questions: mpsc::Sender<Question>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    service: String,
}

/// From which name on a list goes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: String,
}

async fn ask(State(api): State<Api>, ask: Ask) -> Response {
    let (answer, wait) = oneshot::channel();
    if api.questions.send((ask, answer)).await.is_err() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "control is stopping");
    }
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Ok(Ok(value))) => Json(value).into_response(),
        Ok(Ok(Err((status, detail)))) => problem(status, &detail),
        Ok(Err(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, "control is stopping"),
        Err(_) => problem(StatusCode::GATEWAY_TIMEOUT, "control did not answer in time"),
    }
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// A listener that hands out only connections of our own user (or root).
struct Owned(UnixListener);

impl axum::serve::Listener for Owned {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    let us = rustix::process::geteuid().as_raw();
                    if stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0) {
                        return (stream, address);
                    }
                }
                // Out of descriptors or the like: not worth a spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
