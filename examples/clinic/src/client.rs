//! Calls to another service of the clinic: JSON over plain HTTP/1.1, bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config;
use crate::passed::Passed;
use crate::problem::Problem;

const ANSWER_BYTES: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(20);

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{service} cannot be reached: {reason}")]
    Unreachable { service: &'static str, reason: String },
    #[error("{service} did not answer in time")]
    Late { service: &'static str },
    #[error("{service} answered {status}: {detail}")]
    Refused { service: &'static str, status: StatusCode, detail: String },
    #[error("{service} answered something that is not understood: {reason}")]
    Garbled { service: &'static str, reason: String },
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let status = match &error {
            // What whoever asks may not have, and what is not there, is for them to know.
            CallError::Refused {
                status: status @ (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN), ..
            } => *status,
            CallError::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

/// One callee.
#[derive(Clone)]
pub(crate) struct Callee {
    service: &'static str,
    base: String,
    timeout: Duration,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Callee {
    /// The service of that name, where the environment or the fence's port says.
    pub(crate) fn new(service: &'static str, port: u16, timeout: Duration) -> Self {
        Self::at(service, config::url(service, port), timeout)
    }

    pub(crate) fn at(service: &'static str, base: String, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(16)
            .build(connector);
        Self { service, base, timeout, http }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, passed: &Passed) -> Result<T, CallError> {
        self.call(Method::GET, path, Bytes::new(), passed).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        passed: &Passed,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|error| self.garbled(&error))?;
        self.call(Method::POST, path, body.into(), passed).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        passed: &Passed,
    ) -> Result<T, CallError> {
        let late = |_| CallError::Late { service: self.service };
        tokio::time::timeout(self.timeout, self.exchange(method, path, body, passed)).await.map_err(late)?
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        passed: &Passed,
    ) -> Result<T, CallError> {
        let uri = Uri::try_from(format!("{}{path}", self.base)).map_err(|error| self.garbled(&error))?;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        passed.put_into(request.headers_mut());
        if !body.is_empty() {
            let kind = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| CallError::Unreachable { service: self.service, reason: innermost(&error) })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| self.garbled(&error))?.to_bytes();
        if !status.is_success() {
            return Err(CallError::Refused { service: self.service, status, detail: detail(&body) });
        }
        serde_json::from_slice(&body).map_err(|error| self.garbled(&error))
    }

    fn garbled(&self, reason: &impl ToString) -> CallError {
        CallError::Garbled { service: self.service, reason: reason.to_string() }
    }
}

/// The sentence of a problem document, whoever on the way wrote it.
fn detail(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let field = |name| document.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let text = field("detail").or_else(|| field("title")).unwrap_or_else(|| "without a reason".to_owned());
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// "client error (Connect)" helps nobody; the cause at the end of the chain does.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
