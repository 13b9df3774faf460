//! A fence for one drill: an issuer whose key the drill holds, a service, and `ringfence up` between them.
//!
//! Attacks on tokens need good ones to begin with, and no real provider would sign those. All of it is on loopback, in a folder of its
//! own, and gone when the drill is over.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringfence_keys::{Algorithm, SigningKey};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Unable;
use super::issuer::{self, AUDIENCE};
use super::server::{Answer, Server};
use super::wire::{self, Speak};
use crate::client::Client;

/// How long a fence may take to come up, and to go.
const UP: Duration = Duration::from_secs(120);
const DOWN: Duration = Duration::from_secs(30);

/// What services of a stage run, in its folder.
pub(crate) const BINARY: &str = "./attack";
/// How much of what `up` said last is told.
const SAID: usize = 400;

/// What a described service has.
const DESCRIPTION: &str = r##"openapi: 3.1.0
info: { title: Drill, version: "1" }
paths:
  /notes:
    get:
      parameters: [{ name: limit, in: query, schema: { type: integer, maximum: 100 } }]
      responses: {}
    post:
      requestBody:
        required: true
        content:
          application/json:
            schema:
              type: object
              required: [title]
              additionalProperties: false
              properties: { title: { type: string, maxLength: 20 } }
      responses: {}
"##;

/// A running fence with an issuer.
pub(crate) struct Stage {
    /// The issuer, as its tokens name it.
    pub(crate) issuer: String,
    pub(crate) key: Arc<SigningKey>,
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
        let key = Arc::new(key);
        let signs = key.clone();
        let server = listen(move |address, request| issuer::answer(&signs, address, request))?;
        let issuer = format!("http://{}", server.address);
        Ok(Self { issuer, key, gateway, folder: PathBuf::new(), up: None, servers: vec![server] })
    }

    /// A fence with one route, whose provider this is said of too, to a service that answers everything, and `/stream` without end.
    pub(crate) fn raise(provider: &str, accept: &str) -> Result<Self, Unable> {
        Self::before_service(provider, &format!(", accept: [{accept}]"))
    }

    /// The same with a route that is open to all and of which this is said.
    pub(crate) fn raise_with(route: &str) -> Result<Self, Unable> {
        Self::before_service("", route)
    }

    fn before_service(provider: &str, route: &str) -> Result<Self, Unable> {
        let service = listen(|_, request| {
            if request.starts_with("GET /stream ") {
                Answer::Stream
            } else {
                Answer::body("text/plain", "ok")
            }
        })?;
        let services = format!(
            "external:\n  target:\n    address: {}\n    tls: off\n    routes: [{{ path: /{route} }}]\n",
            service.address
        );
        let mut stage = Self::with(provider, &services)?;
        stage.servers.push(service);
        Ok(stage)
    }

    /// A fence with a service that everybody may reach and this is said of too, beside its description; and how many requests it saw.
    pub(crate) fn described(openapi: &str) -> Result<(Self, Arc<AtomicUsize>), Unable> {
        let seen = Arc::new(AtomicUsize::new(0));
        let counts = seen.clone();
        let service = listen(move |_, _| {
            counts.fetch_add(1, Ordering::SeqCst);
            Answer::body("text/plain", "ok")
        })?;
        let services = format!(
            "external:\n  target:\n    address: {}\n    tls: off\n    routes: [{{ path: / }}]\n    {openapi}\n",
            service.address
        );
        let mut stage = Self::with("", &services)?;
        stage.servers.push(service);
        Ok((stage, seen))
    }

    /// A fence with these services. Attacks are looked for only where they say so: what a drill is about must be what stops it.
    pub(crate) fn with(provider: &str, services: &str) -> Result<Self, Unable> {
        let io = |what: &'static str| move |e: std::io::Error| Unable::new(format!("cannot {what}: {e}"));
        let mut stage = Self::without_fence(free_address().map_err(io("find a free port"))?)?;
        let name = ringfence_keys::to_hex(&ringfence_keys::random::<8>());
        stage.folder = std::env::temp_dir().join(format!("ringfence-drill-{name}"));
        let folder = &stage.folder;
        // As root each service has a uid of its own, and must get in; what is secret lies in the data directory, which is closed.
        std::fs::DirBuilder::new().mode(0o755).create(folder).map_err(io("make a folder"))?;
        let fence = format!(
            "fence: drill\ntrust_domain: drill.example\ngateway: {{ listen: {}, tls: off }}\nwaf: off\nproviders:\n  drill: {{ issuer: {}, audiences: [{AUDIENCE}], allow_private: true{provider} }}\n{services}",
            stage.gateway, stage.issuer,
        );
        // Not beside the fence itself, where it would be taken for a part of it.
        std::fs::DirBuilder::new().mode(0o755).create(folder.join("openapi")).map_err(io("make a folder"))?;
        std::fs::write(folder.join("openapi/notes.yaml"), DESCRIPTION).map_err(io("write a description"))?;
        std::fs::write(folder.join("ringfence.yaml"), fence).map_err(io("write a fence"))?;
        if services.contains(BINARY) {
            let binary = std::env::current_exe().map_err(io("find this binary"))?;
            // As it may lie where services with a uid of their own cannot reach it.
            std::fs::copy(binary, folder.join(BINARY)).map_err(io("copy this binary"))?;
        }
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

    /// A good access token for its gateway, with these claims changed.
    pub(crate) fn access_token(&self, changes: &Value) -> Result<String, Unable> {
        issuer::access_token(&self.key, &self.issuer, changes)
    }

    /// Waits until a good token opens `path`.
    pub(crate) fn wait_for(&mut self, path: &str) -> Result<(), Unable> {
        let gateway = self.gateway;
        // Each thread of the gateway learns of the keys in its own moment: all of them must have. No user asks twice, who may be limited.
        let request = |n: usize| {
            let token = self.access_token(&json!({ "sub": format!("ready-{n}") }))?;
            Ok(format!(
                "GET {path} HTTP/1.1\r\nHost: {gateway}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            ))
        };
        let requests = (0..8).map(request).collect::<Result<Vec<_>, Unable>>()?;
        self.wait(|| {
            requests.iter().all(|request| {
                let answer = wire::exchange(gateway, &Speak::Plain, request.as_bytes());
                answer.is_ok_and(|answer| wire::status(&answer.bytes) == Some(200))
            })
        })
    }

    /// A way to its control socket.
    pub(crate) fn client(&self) -> Result<Client, Unable> {
        Client::new(&self.folder.join(".ringfence")).map_err(|e| Unable::new(e.to_string()))
    }

    /// Waits until `ready` says that the fence is.
    fn wait(&mut self, ready: impl Fn() -> bool) -> Result<(), Unable> {
        let begun = Instant::now();
        while !ready() {
            let ended = self.up.as_mut().is_some_and(|up| !matches!(up.try_wait(), Ok(None)));
            if ended || begun.elapsed() > UP {
                let said = std::fs::read_to_string(self.folder.join("up.log")).unwrap_or_default();
                let said = said.trim();
                let last = said.char_indices().rev().nth(SAID).map_or(0, |(at, _)| at);
                let reason = format!("the fence for this drill did not come up: {}", &said[last..]);
                return Err(Unable::new(reason));
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

/// An address that nobody listens at now, below those that the kernel gives to connections: one of them cannot take it meanwhile.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    let mut tried = 0;
    loop {
        let port = 10_000 + u16::from_le_bytes(ringfence_keys::random()) % 20_000;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr()) {
            Err(_) if tried < 100 => tried += 1,
            found => return found,
        }
    }
}

fn listen(answer: impl Fn(SocketAddr, &str) -> Answer + Send + 'static) -> Result<Server, Unable> {
    let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), answer);
    server.map_err(|e| Unable::new(format!("cannot listen on loopback: {e}")))
}
