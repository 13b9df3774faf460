//! Talks to a running fence: HTTP/1.1 with JSON over `control.sock`, one connection per question.
//!
//! Blocking for the caller: every user of it is a command that has nothing else to do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Largest answer that is read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// A little longer than control itself waits for anything.
const PATIENCE: Duration = Duration::from_secs(35);

/// A way to the control socket of one data directory.
#[derive(Debug)]
pub(crate) struct Client {
    data: PathBuf,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("nothing was ever started in {}: run `ringfence up` there, or name the data directory of a running fence with --data DIR", .0.display())]
    NoData(PathBuf),
    #[error("no fence runs in {}: start it with `ringfence up`, or name the data directory of another with --data DIR", .0.display())]
    NotRunning(PathBuf),
    #[error("no permission to enter {}: it belongs to user {owner}; run as that user", data.display())]
    Denied { data: PathBuf, owner: String },
    #[error("the fence in {} does not answer: {source}", data.display())]
    Broken { data: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the fence in {} gave no answer within {} s; `ringfence events` may tell why", .0.display(), PATIENCE.as_secs())]
    Slow(PathBuf),
    #[error("{detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the fence answers what this `ringfence` does not understand ({0}): are both of one version?")]
    Shape(#[from] serde_json::Error),
}

impl Client {
    /// For the fence whose data lies in `data`. Connects only when asked something.
    ///
    /// # Errors
    /// The system gives no event loop.
    pub(crate) fn new(data: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| ClientError::Broken { data: data.to_owned(), source: e.into() })?;
        Ok(Self { data: data.to_owned(), runtime })
    }

    /// Asks for a resource.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Asks for all of a list, page by page: `/v1/keys` has `keys` and `next`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn all<T: DeserializeOwned>(&self, list: &str) -> Result<Vec<T>, ClientError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let mut page: Value = self.get(&format!("/v1/{list}?after={after}"))?;
            all.extend(serde_json::from_value::<Vec<T>>(page[list].take())?);
            match page["next"].take() {
                Value::String(next) => after = next,
                _ => return Ok(all),
            }
        }
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let exchange = self.exchange(method, path, body);
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
        let (status, body) = answer.map_err(|_| ClientError::Slow(self.data.clone()))??;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = problem["detail"]
            .as_str()
            .or_else(|| problem["title"].as_str())
            .unwrap_or(status.as_str())
            .to_owned();
        Err(ClientError::Refused { status, detail })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |source| ClientError::Broken { data: self.data.clone(), source };
        let socket = self.data.join("control.sock");
        let stream = UnixStream::connect(&socket).await.map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(e.into()))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "ringfence")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| broken(e.into()))?;
        let response = sender.send_request(request).await.map_err(|e| broken(e.into()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(broken)?.to_bytes();
        driver.abort();
        Ok((status, body))
    }

    /// What a failed connect means for the operator.
    fn unreachable(&self, error: io::Error) -> ClientError {
        let data = self.data.clone();
        match error.kind() {
            io::ErrorKind::NotFound if !data.exists() => ClientError::NoData(data),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(data),
            io::ErrorKind::PermissionDenied => {
                let owner =
                    std::fs::metadata(&data).map_or_else(|_| "another".to_owned(), |m| m.uid().to_string());
                ClientError::Denied { data, owner }
            }
            _ => ClientError::Broken { data, source: error.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringfence-client-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    /// Answers one request with `answer`, and gives back what was asked.
    fn serve(data: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        std::fs::create_dir_all(data).unwrap();
        let listener = UnixListener::bind(data.join("control.sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let n = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..n]).into_owned()
        })
    }

    #[test]
    fn an_answer_is_json_and_a_problem_is_its_detail() {
        let data = folder("answer");
        let server = serve(&data, "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"revision\":7}");
        let value: Value = Client::new(&data).unwrap().get("/v1/status").unwrap();
        assert_eq!(value["revision"], 7);
        assert!(server.join().unwrap().starts_with("GET /v1/status HTTP/1.1\r\n"));
        std::fs::remove_dir_all(&data).unwrap();

        let server =
            serve(&data, "HTTP/1.1 409 Conflict\r\ncontent-length: 24\r\n\r\n{\"detail\":\"not so fast\"}");
        let error = Client::new(&data).unwrap().post::<Value>("/v1/down", &()).unwrap_err();
        assert_eq!(error.to_string(), "not so fast");
        server.join().unwrap();
        std::fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn what_is_not_there_says_what_to_do() {
        let data = folder("absent");
        let ask = || Client::new(&data).unwrap().get::<Value>("/v1/status").unwrap_err();
        assert!(matches!(ask(), ClientError::NoData(_)));
        std::fs::create_dir_all(&data).unwrap();
        assert!(matches!(ask(), ClientError::NotRunning(_)));
        // A socket that a dead process left.
        drop(UnixListener::bind(data.join("control.sock")).unwrap());
        let error = ask();
        assert!(matches!(error, ClientError::NotRunning(_)), "{error}");
        assert!(
            error.to_string().contains("ringfence up") && error.to_string().contains("--data"),
            "{error}"
        );
        std::fs::remove_dir_all(&data).unwrap();
    }
}
