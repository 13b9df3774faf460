//! Constant load on the clinic's gateway, from clients that trust its CA only and count every answer that is not the right one.
//!
//! A request that provably was not sent (the connection was closed in good order before) is sent again over a new connection,
//! as every HTTP client does, and counted apart.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{Alpn, EgressRoots, TlsConnector, egress_client_config};
use tokio::net::TcpStream;

/// Each passes the gateway, the portal and at least one more hop; invoices go on over gRPC, and over a third.
pub(crate) const PATHS: [&str; 4] =
    ["/api/appointments", "/api/invoices?patient=p-1003", "/patients/p-1001", "/api/patients/p-1002"];
/// Longest that an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) connections: AtomicU64,
    slowest_ms: AtomicU64,
    examples: Mutex<Vec<String>>,
}

/// Load that runs until it is stopped.
pub(crate) struct Traffic {
    pub(crate) seen: Arc<Seen>,
    started: Instant,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Traffic {
    /// Keep-alive connections of HTTP/1.1, one of HTTP/2 with several streams, and new connections all the time: some 35
    /// requests a second in all.
    pub(crate) fn start(gateway: SocketAddr, ca: &Path) -> Self {
        let roots = EgressRoots::from_pem(&std::fs::read(ca).unwrap()).unwrap();
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let client =
            Client { gateway, roots, seen: seen.clone(), stop: stop.clone(), started: Instant::now() };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut tasks = Vec::new();
                for n in 0..4 {
                    tasks.push(tokio::spawn(client.clone().keep_alive(n, Duration::from_millis(200))));
                }
                tasks.push(tokio::spawn(client.clone().streams(3, Duration::from_millis(250))));
                tasks.push(tokio::spawn(client.clone().fresh(Duration::from_millis(400))));
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
        Self { seen, started: Instant::now(), stop, thread }
    }

    /// Ends the load; what it saw in one line, and what went wrong.
    pub(crate) fn stop(self) -> (Arc<Seen>, String) {
        self.stop.store(true, Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        self.thread.join().unwrap();
        let seen = &self.seen;
        let line = format!(
            "{seconds:.0} s: {} requests over {} connections, {} failures, slowest {} ms",
            seen.requests.load(Ordering::Relaxed),
            seen.connections.load(Ordering::Relaxed),
            seen.failures.load(Ordering::Relaxed),
            seen.slowest_ms.load(Ordering::Relaxed),
        );
        let line = seen.examples.lock().unwrap().iter().fold(line, |all, one| all + "\n  " + one);
        (self.seen, line)
    }
}

#[derive(Clone)]
struct Client {
    gateway: SocketAddr,
    roots: EgressRoots,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    started: Instant,
}

type Tls = TokioIo<ringfence_tls::client::TlsStream<TcpStream>>;
type Body = Empty<Bytes>;

impl Client {
    fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn connect(&self, alpn: Alpn) -> std::io::Result<Tls> {
        let stream = TcpStream::connect(self.gateway).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.gateway.ip());
        let stream =
            TlsConnector::from(egress_client_config(&self.roots, &[alpn])).connect(name, stream).await?;
        self.seen.connections.fetch_add(1, Ordering::Relaxed);
        Ok(TokioIo::new(stream))
    }

    /// One connection of HTTP/1.1 after another, each used until the gateway says that it is over.
    async fn keep_alive(self, first: usize, pause: Duration) {
        let mut n = first;
        while self.going() {
            let sender = async {
                let stream = self.connect(Alpn::Http1).await.map_err(|e| e.to_string())?;
                let (sender, connection) = http1::handshake(stream).await.map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                Ok(sender)
            };
            let Some(mut sender) = self.opened(sender.await).await else { continue };
            while self.going() {
                tokio::time::sleep(pause).await;
                if sender.ready().await.is_err() {
                    break;
                }
                n += 1;
                let path = PATHS[n % PATHS.len()];
                let mut exchange = async || match sender.try_send_request(self.request(path, "/")).await {
                    Ok(response) => Outcome::of(response).await,
                    Err(e) if e.message().is_some() => Outcome::NotSent,
                    Err(e) => Outcome::Failed(e.into_error().to_string()),
                };
                if !self.count(path, exchange()).await {
                    break;
                }
            }
        }
    }

    /// One connection of HTTP/2 after another, with as many requests at once.
    async fn streams(self, at_once: usize, pause: Duration) {
        while self.going() {
            let sender = async {
                let stream = self.connect(Alpn::H2).await.map_err(|e| e.to_string())?;
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                Ok(sender)
            };
            let Some(sender) = self.opened(sender.await).await else { continue };
            let streams =
                (0..at_once).map(|first| tokio::spawn(self.clone().stream(sender.clone(), first, pause)));
            for stream in streams.collect::<Vec<_>>() {
                stream.await.unwrap();
            }
        }
    }

    async fn stream(self, mut sender: http2::SendRequest<Body>, first: usize, pause: Duration) {
        let origin = format!("https://{}", self.gateway);
        let mut n = first;
        while self.going() {
            tokio::time::sleep(pause).await;
            if sender.ready().await.is_err() {
                return;
            }
            n += 1;
            let path = PATHS[n % PATHS.len()];
            let mut exchange = async || match sender.try_send_request(self.request(path, &origin)).await {
                Ok(response) => Outcome::of(response).await,
                Err(e) if e.message().is_some() => Outcome::NotSent,
                Err(e) => Outcome::Failed(e.into_error().to_string()),
            };
            if !self.count(path, exchange()).await {
                return;
            }
        }
    }

    /// A new connection for each request.
    async fn fresh(self, pause: Duration) {
        let mut n = 0;
        while self.going() {
            tokio::time::sleep(pause).await;
            n += 1;
            let path = PATHS[n % PATHS.len()];
            let exchange = async {
                let opened = async {
                    let stream = self.connect(Alpn::Http1).await.map_err(|e| e.to_string())?;
                    http1::handshake(stream).await.map_err(|e| e.to_string())
                };
                let (mut sender, connection) = match opened.await {
                    Ok(opened) => opened,
                    Err(reason) => return Outcome::Failed(format!("cannot connect: {reason}")),
                };
                tokio::spawn(connection);
                match sender.send_request(self.request(path, "/")).await {
                    Ok(response) => Outcome::of(response).await,
                    Err(e) => Outcome::Failed(e.to_string()),
                }
            };
            self.count(path, exchange).await;
        }
    }

    fn request(&self, path: &str, origin: &str) -> Request<Body> {
        let uri = format!("{}{path}", origin.trim_end_matches('/'));
        let mut request = Request::get(uri);
        if origin == "/" {
            request = request.header("host", self.gateway.to_string());
        }
        request.body(Body::new()).unwrap()
    }

    async fn opened<T>(&self, opened: Result<T, String>) -> Option<T> {
        match opened {
            Ok(opened) => Some(opened),
            Err(reason) => {
                self.failed("connect", &reason);
                tokio::time::sleep(Duration::from_millis(100)).await;
                None
            }
        }
    }

    /// Waits for an outcome and counts it; whether the connection can go on.
    async fn count(&self, path: &str, exchange: impl Future<Output = Outcome>) -> bool {
        let start = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::Failed(format!("no answer within {PATIENCE:?}")));
        if matches!(outcome, Outcome::NotSent) {
            return false;
        }
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(start.elapsed().as_millis()).unwrap();
        self.seen.slowest_ms.fetch_max(took, Ordering::Relaxed);
        match outcome {
            Outcome::Failed(reason) => {
                self.failed(path, &reason);
                false
            }
            _ => true,
        }
    }

    fn failed(&self, what: &str, reason: &str) {
        self.seen.failures.fetch_add(1, Ordering::Relaxed);
        let mut examples = self.seen.examples.lock().unwrap();
        if examples.len() < 20 {
            examples.push(format!("at {:.1} s, {what}: {reason}", self.started.elapsed().as_secs_f64()));
        }
    }
}

enum Outcome {
    Right,
    NotSent,
    Failed(String),
}

impl Outcome {
    async fn of(response: http::Response<hyper::body::Incoming>) -> Self {
        let status = response.status();
        match response.into_body().collect().await {
            Err(e) => Self::Failed(format!("{status}, and its body ended with {e}")),
            Ok(body) => {
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                let right = status == StatusCode::OK && body.contains("p-1");
                if right { Self::Right } else { Self::Failed(format!("{status}: {}", body.trim())) }
            }
        }
    }
}
