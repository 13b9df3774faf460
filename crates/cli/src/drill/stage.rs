//! A fence for one drill: an issuer whose key the drill holds, a service, and `ringfence up` between them.
//!
//! Attacks on tokens need good ones to begin with, and no real provider would sign those. All of it is on loopback, in a folder of its
//! own, and gone when the drill is over.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringfence_keys::{Algorithm, SigningKey};
use ringfence_token::KeySet;
use rustix::process::{Pid, Signal, kill_process};

use super::Unable;

/// How long a fence may take to come up, and to go.
const UP: Duration = Duration::from_secs(40);
const DOWN: Duration = Duration::from_secs(15);
/// The audience of its tokens.
pub(crate) const AUDIENCE: &str = "drill";
/// The id of the issuer's key.
pub(crate) const KEY_ID: &str = "drill-1";

/// A running fence with an issuer.
pub(crate) struct Stage {
    /// The issuer, as its tokens name it.
    pub(crate) issuer: String,
    pub(crate) key: SigningKey,
    pub(crate) gateway: SocketAddr,
    folder: PathBuf,
    up: Option<Child>,
    servers: Vec<Server>,
}

impl Stage {
    /// An issuer alone: where another gateway is attacked that looks at nothing.
    pub(crate) fn without_fence(gateway: SocketAddr) -> Result<Self, Unable> {
        let key = SigningKey::generate(Algorithm::P256)
            .map_err(|e| Unable::new(format!("cannot make a key: {e}")))?;
        let set = KeySet::from_keys([(KEY_ID.to_owned(), key.verifying_key().clone())]).to_json("sig");
        let server = Server::start(move |address, head| {
            let jwks = head.starts_with("GET /jwks ");
            let issuer = format!("http://{address}");
            let body = if jwks {
                set.clone()
            } else {
                format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{issuer}/jwks\"}}")
            };
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        })?;
        let issuer = format!("http://{}", server.address);
        Ok(Self { issuer, key, gateway, folder: PathBuf::new(), up: None, servers: vec![server] })
    }

    /// A fence with one route for each way to bind tokens.
    pub(crate) fn raise() -> Result<Self, Unable> {
        let io = |what: &'static str| move |e: std::io::Error| Unable::new(format!("cannot {what}: {e}"));
        let mut stage = Self::without_fence(free_address().map_err(io("find a free port"))?)?;
        let service = Server::start(|_, _| {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_owned()
        })?;
        let name = ringfence_keys::to_hex(&ringfence_keys::random::<8>());
        stage.folder = std::env::temp_dir().join(format!("ringfence-drill-{name}"));
        let folder = &stage.folder;
        std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(io("make a folder"))?;
        let fence = format!(
            "fence: drill\ntrust_domain: drill.example\ngateway: {{ listen: {}, tls: off }}\nproviders:\n  drill: {{ issuer: {}, audiences: [{AUDIENCE}], allow_private: true }}\nexternal:\n  target:\n    address: {}\n    tls: off\n    routes: [{{ path: /, accept: [{{ token: drill }}] }}]\n",
            stage.gateway, stage.issuer, service.address,
        );
        stage.servers.push(service);
        std::fs::write(folder.join("ringfence.yaml"), fence).map_err(io("write a fence"))?;
        let log = std::fs::File::create(folder.join("up.log")).map_err(io("make a log"))?;
        let binary = std::env::current_exe().map_err(io("find this binary"))?;
        let up = Command::new(binary)
            .args(["up", ".", "--isolation", "off", "--quiet", "--threads", "2"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        stage.up = Some(up.map_err(io("start `ringfence up`"))?);
        Ok(stage)
    }

    /// Waits until `ready` says that the fence is.
    pub(crate) fn wait(&mut self, ready: impl Fn() -> bool) -> Result<(), Unable> {
        let begun = Instant::now();
        while !ready() {
            let ended = self.up.as_mut().is_some_and(|up| !matches!(up.try_wait(), Ok(None)));
            if ended || begun.elapsed() > UP {
                let said = std::fs::read_to_string(self.folder.join("up.log")).unwrap_or_default();
                let said: String = said.chars().take(400).collect();
                return Err(Unable::new(format!(
                    "the fence for this drill did not come up: {}",
                    said.trim()
                )));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Whether a fence runs here, and not another gateway in its place.
    pub(crate) fn has_fence(&self) -> bool {
        self.up.is_some()
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.folder.join(".ringfence/events")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            if let Some(pid) = i32::try_from(up.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::INT);
            }
            let begun = Instant::now();
            while matches!(up.try_wait(), Ok(None)) && begun.elapsed() < DOWN {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = up.kill();
            let _ = up.wait();
        }
        if self.folder != Path::new("") {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Answers every request in one way, until it is dropped.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: impl Fn(SocketAddr, &str) -> String + Send + 'static) -> Result<Self, Unable> {
        let io = |e: std::io::Error| Unable::new(format!("cannot listen on loopback: {e}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        let over = Arc::<AtomicBool>::default();
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                serve(stream, |head| answer(address, head));
            }
        });
        Ok(Self { address, over, thread: Some(thread) })
    }
}

/// One request per connection; whoever is slow is not waited for.
fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> String) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let (mut head, mut chunk) = (Vec::new(), [0; 4096]);
    while head.len() < 64 * 1024 && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => head.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
    let _ = stream.write_all(answer(&String::from_utf8_lossy(&head)).as_bytes());
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
