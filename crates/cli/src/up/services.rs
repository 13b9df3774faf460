//! The services as the supervisor sees them: which shims run, what they told, and what the fence wants of them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ringfence_control::supervisor::{Applied, ServiceReport};
use ringfence_model::{Fence, Kind};
use ringfence_sandbox::protocol::{Hello, Request, State, Status};
use ringfence_sandbox::spec::{Isolation, Spec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Options;
use super::news::{News, Sockets};
use super::shim::{ShimError, ShimLink, ShimNews};
use super::spec::{self, Ground, Listen};
use crate::data::{DataDir, fence_folder};
use crate::env::Env;

/// All services of the fence, and shims that run without being in it.
pub(crate) struct Services {
    data: DataDir,
    folder: PathBuf,
    binaries: PathBuf,
    path: Vec<PathBuf>,
    isolation: Isolation,
    /// What this host is called, where there are several.
    host: Option<String>,
    threads: u16,
    news: mpsc::Sender<News>,
    shim_news: mpsc::Sender<ShimNews>,
    map: BTreeMap<String, Service>,
    problems: Vec<String>,
}

#[derive(Debug, Default)]
struct Service {
    /// What the fence wants; `None` for a service that waits for `ringfence run`.
    spec: Option<Spec>,
    /// Where callees are found.
    listeners: Vec<Listen>,
    link: Option<ShimLink>,
    hello: Option<Hello>,
    status: Option<Status>,
    starting: bool,
    failure: Option<String>,
    /// It was stopped on purpose, to be started with another spec.
    replaced: bool,
    /// The init whose Workload API listener was asked for: each makes one of its own.
    offered: u32,
}

/// How often, and how many times, a shim whose service's mounts do not stand yet is asked again.
const STANDING: (Duration, u32) = (Duration::from_millis(50), 400);

/// How long a shim may take to stop: more than its service gets before it is killed.
const STOPPING: Duration = Duration::from_secs(15);

impl Services {
    pub(crate) fn new(
        options: &Options,
        data: &DataDir,
        env: &Env,
        news: mpsc::Sender<News>,
    ) -> io::Result<Self> {
        let (shim_news, mut inbox) = mpsc::channel(256);
        let forward = news.clone();
        tokio::spawn(async move {
            while let Some(item) = inbox.recv().await {
                if forward.send(News::Shim(item)).await.is_err() {
                    return;
                }
            }
        });
        let binary = std::env::current_exe()?;
        Ok(Self {
            data: data.clone(),
            folder: std::fs::canonicalize(fence_folder(&options.fence))?,
            binaries: binary.parent().map(ToOwned::to_owned).unwrap_or_default(),
            path: env.path.clone(),
            isolation: options.isolation,
            host: options.host.clone(),
            threads: u16::try_from(options.threads).unwrap_or(u16::MAX),
            news,
            shim_news,
            map: BTreeMap::new(),
            problems: Vec::new(),
        })
    }

    /// Takes over the shims that an earlier `up` left, before anything is started.
    pub(crate) async fn adopt(&mut self) {
        for (service, path) in self.sockets() {
            if !self.connect(&service, &path, true).await {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Finds shims that somebody else started (`ringfence run`).
    pub(crate) async fn discover(&mut self) {
        for (service, path) in self.sockets() {
            let Some(known) = self.map.get(&service) else { continue };
            if known.link.is_none() && !known.starting && known.spec.is_none() {
                self.connect(&service, &path, false).await;
            }
        }
    }

    fn sockets(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(self.data.shim_dir()).into_iter().flatten().flatten();
        entries
            .filter_map(|e| Some((e.file_name().to_str()?.strip_suffix(".sock")?.to_owned(), e.path())))
            .collect()
    }

    async fn connect(&mut self, service: &str, path: &std::path::Path, adopted: bool) -> bool {
        let Ok(socket) = std::os::unix::net::UnixStream::connect(path) else { return false };
        let Ok(link) = ShimLink::new(service, socket, self.shim_news.clone()) else { return false };
        let Ok(Ok(hello)) = tokio::time::timeout(Duration::from_secs(5), link.hello()).await else {
            return false;
        };
        self.map.entry(service.to_owned()).or_default().starting = true;
        let _ = self.news.send(News::ShimUp { service: service.to_owned(), link, hello, adopted }).await;
        true
    }

    /// Brings specs in line with a fence in force. Returns the services that are to be started, and those that are gone.
    pub(crate) async fn reconcile(&mut self, fence: &Fence, applied: Applied) -> (Vec<String>, Vec<String>) {
        let (folder, data) = (self.folder.clone(), self.data.root().to_owned());
        let (binaries, path) = (self.binaries.clone(), self.path.clone());
        let ground = Ground {
            folder: &folder,
            data: &data,
            binaries: &binaries,
            path: &path,
            isolation: self.isolation,
            root: rustix::process::geteuid().is_root(),
        };
        let host = self.host.clone();
        let here = |s: &ringfence_model::Service| !s.is_external() && runs_here(fence, s, host.as_deref());
        let removed: Vec<String> =
            self.map.keys().filter(|n| fence.service(n).is_none_or(|s| !here(s))).cloned().collect();
        for name in &removed {
            if let Some(Service { link: Some(link), .. }) = self.map.remove(name) {
                let _ = link.command(Request::Stop).await;
            }
        }
        let mut start = Vec::new();
        for service in fence.services.iter().filter(|s| here(s)) {
            let hosts = spec::hosts(self.isolation, &applied, service);
            let ports = spec::ports(self.isolation, fence, service);
            let wanted = spec::command(service)
                .map(|command| spec::spec(&ground, fence, &applied, service, command))
                .transpose();
            let entry = self.map.entry(service.name.clone()).or_default();
            entry.listeners = spec::listeners(self.isolation, fence, &applied, service);
            match wanted {
                Err(e) => {
                    self.problems.push(e.to_string());
                    entry.failure = Some(e.to_string());
                    continue;
                }
                Ok(wanted) => {
                    entry.failure = None;
                    let changed = match (&wanted, &entry.hello) {
                        (Some(wanted), Some(hello)) => wanted.digest() != hello.digest,
                        _ => false,
                    };
                    entry.spec = wanted;
                    if let (true, Some(link)) = (changed, &entry.link) {
                        entry.replaced = true;
                        let _ = link.command(Request::Stop).await;
                        continue;
                    }
                }
            }
            if let Some(link) = entry.link.clone() {
                let _ = link.command(Request::SetHosts(hosts)).await;
                let _ = link.command(Request::SetPorts(ports)).await;
            } else if entry.spec.is_some() && !entry.starting {
                start.push(service.name.clone());
            }
        }
        self.attach_all();
        (start, removed)
    }

    /// Starts the shim of a service.
    pub(crate) fn start(&mut self, name: &str) {
        let Some(entry) = self.map.get_mut(name) else { return };
        let Some(spec) = entry.spec.clone().filter(|_| entry.link.is_none() && !entry.starting) else {
            return;
        };
        entry.starting = true;
        entry.failure = None;
        let (news, shim_news, path, name) =
            (self.news.clone(), self.shim_news.clone(), self.data.shim_sock(name), name.to_owned());
        tokio::spawn(async move {
            let launched = tokio::task::spawn_blocking(move || ringfence_sandbox::launch(&spec)).await;
            let outcome = match launched {
                Ok(Ok(launched)) => {
                    // Its parent reaps it, however late it ends.
                    let mut child = launched.child;
                    std::thread::spawn(move || drop(child.wait()));
                    std::os::unix::net::UnixStream::connect(&path)
                        .map_err(|e| e.to_string())
                        .and_then(|socket| ShimLink::new(&name, socket, shim_news).map_err(|e| e.to_string()))
                        .map(|link| (link, launched.hello))
                }
                Ok(Err(e)) => Err(e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            let _ = news
                .send(match outcome {
                    Ok((link, hello)) => News::ShimUp { service: name, link, hello, adopted: false },
                    Err(reason) => News::ShimFailed { service: name, reason },
                })
                .await;
        });
    }

    /// A shim answers.
    pub(crate) async fn up(&mut self, name: &str, link: ShimLink, hello: Hello) {
        let entry = self.map.entry(name.to_owned()).or_default();
        entry.starting = false;
        entry.status = Some(hello.status.clone());
        entry.hello = Some(hello);
        entry.link = Some(link.clone());
        let _ = link.command(Request::Watch).await;
        self.attach(name);
        self.offer(name);
    }

    pub(crate) fn failed(&mut self, name: &str, reason: String) {
        if let Some(entry) = self.map.get_mut(name) {
            entry.starting = false;
            entry.failure = Some(reason);
        }
    }

    /// Takes a status; `true` if it is worth a line.
    pub(crate) fn update(&mut self, name: &str, status: Status) -> bool {
        let Some(entry) = self.map.get_mut(name) else { return false };
        let news = entry.status.as_ref().is_none_or(|old| old.state != status.state);
        let other = status.init_pid != 0 && status.init_pid != entry.offered;
        entry.status = Some(status);
        if other {
            self.offer(name);
        }
        news
    }

    /// A shim ended. If the service is to be started again, says why it ended.
    pub(crate) fn gone(&mut self, name: &str) -> Option<&'static str> {
        // Its shim could not: the folder of sockets is ours alone. One that answers is of a shim that came since.
        let path = self.data.shim_sock(name);
        if std::os::unix::net::UnixStream::connect(&path).is_err() {
            let _ = std::fs::remove_file(path);
        }
        let entry = self.map.get_mut(name)?;
        entry.link = None;
        entry.hello = None;
        entry.status = None;
        let why = if std::mem::take(&mut entry.replaced) {
            "its declaration changed; it is started again with the new one"
        } else {
            "its shim ended and the service with it; it is started again"
        };
        entry.spec.as_ref().map(|_| why)
    }

    pub(crate) async fn restart(&self, name: &str) {
        if let Some(link) = self.map.get(name).and_then(|s| s.link.clone()) {
            let _ = link.command(Request::Restart).await;
        }
    }

    /// Asks every shim for the sockets that the proxy needs, because the proxy is new or the fence is.
    pub(crate) fn attach_all(&self) {
        self.map.keys().for_each(|name| self.attach(name));
    }

    /// Asks every shim for the Workload API's listener, because control is new.
    pub(crate) fn offer_all(&mut self) {
        let names: Vec<String> = self.map.keys().cloned().collect();
        names.iter().for_each(|name| self.offer(name));
    }

    /// Asks for the listener that lies in the mounts of the service's init, as soon as they stand.
    fn offer(&mut self, name: &str) {
        let Some(entry) = self.map.get_mut(name) else { return };
        let (Some(link), Some(status)) = (entry.link.clone(), &entry.status) else { return };
        if status.init_pid == 0 || status.isolation == Isolation::Off {
            return;
        }
        entry.offered = status.init_pid;
        let (service, news) = (name.to_owned(), self.news.clone());
        tokio::spawn(async move {
            let (pause, times) = STANDING;
            for _ in 0..times {
                match link.descriptors(Request::WorkloadListener).await {
                    Ok(mut fds) => {
                        if let Some(listener) = fds.pop() {
                            let _ = news.send(News::Workload { service, listener }).await;
                        }
                        return;
                    }
                    Err(ShimError::Refused(_)) => tokio::time::sleep(pause).await,
                    Err(_) => return,
                }
            }
        });
    }

    fn attach(&self, name: &str) {
        let Some(Service { link: Some(link), listeners, .. }) = self.map.get(name) else { return };
        let (link, wanted, name) = (link.clone(), listeners.clone(), name.to_owned());
        let (news, threads) = (self.news.clone(), self.threads);
        tokio::spawn(async move {
            if let Ok(sockets) = sockets(&link, &wanted, threads).await {
                let _ = news.send(News::Attached { service: name, sockets }).await;
            }
        });
    }

    /// Ends all shims and with them all services.
    pub(crate) async fn stop(&mut self) {
        let links: Vec<ShimLink> = self.map.values_mut().filter_map(|s| s.link.take()).collect();
        let stopping: Vec<_> = links
            .into_iter()
            .map(|link| tokio::spawn(async move { link.command(Request::Stop).await }))
            .collect();
        // One deadline for all, so that several that hang take no longer than one.
        let deadline = Instant::now() + STOPPING;
        for task in stopping {
            let _ = tokio::time::timeout_at(deadline, task).await;
        }
        // A shim removes its socket as the last thing. As root it has a uid of its own and cannot: then it is for us.
        for _ in 0..100 {
            for (_, path) in self.sockets() {
                let dead = std::os::unix::net::UnixStream::connect(&path);
                if dead.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                    let _ = std::fs::remove_file(&path);
                }
            }
            if self.sockets().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    pub(crate) fn netns(&self, name: &str) -> Option<u64> {
        self.map.get(name)?.hello.as_ref().map(|h| h.netns)
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.state(name).is_some_and(|s| matches!(s, State::Ready))
    }

    /// It will not become ready by waiting.
    pub(crate) fn is_over(&self, name: &str) -> bool {
        self.state(name).is_some_and(|s| matches!(s, State::Exited(_)))
    }

    pub(crate) fn any_starting(&self) -> bool {
        self.map
            .iter()
            .any(|(name, s)| s.starting || self.state(name).is_some_and(|s| matches!(s, State::Starting)))
    }

    /// Every service that can be up is, or has failed.
    pub(crate) fn all_settled(&self) -> bool {
        self.map.iter().all(|(name, s)| {
            s.spec.is_none() || s.failure.is_some() || self.is_ready(name) || self.is_over(name)
        })
    }

    pub(crate) fn ready_count(&self) -> (usize, usize) {
        (self.map.keys().filter(|n| self.is_ready(n)).count(), self.map.len())
    }

    pub(crate) fn report(&self, fence: &Fence) -> Vec<ServiceReport> {
        let one = |service: &ringfence_model::Service| {
            let entry = self.map.get(&service.name);
            let status = entry.and_then(|e| e.status.as_ref());
            let (state, detail) = match (&service.kind, status, entry.and_then(|e| e.failure.clone())) {
                (Kind::External { address, more, .. }, _, _) => {
                    let all: Vec<String> =
                        [address].into_iter().chain(more).map(ToString::to_string).collect();
                    ("external", all.join(", "))
                }
                (_, Some(status), _) => state_words(&status.state),
                (_, None, Some(reason)) => ("failed", reason),
                (Kind::Waits { .. }, None, _) => {
                    ("waiting", format!("for `ringfence run {} -- CMD`", service.name))
                }
                (_, None, None) => ("starting", String::new()),
            };
            ServiceReport {
                name: service.name.clone(),
                state: state.into(),
                detail,
                shim: entry.and_then(|e| e.hello.as_ref()).map_or(0, |h| h.pid),
                init: status.map_or(0, |s| s.init_pid),
                restarts: status.map_or(0, |s| s.restarts),
                isolation: match (&service.kind, self.isolation) {
                    (Kind::External { .. }, _) => "external",
                    (_, Isolation::On) => "fenced",
                    (_, Isolation::Off) => "off",
                }
                .into(),
            }
        };
        let here = |s: &&ringfence_model::Service| runs_here(fence, s, self.host.as_deref());
        fence.services.iter().filter(here).map(one).collect()
    }

    fn state(&self, name: &str) -> Option<&State> {
        self.map.get(name)?.status.as_ref().map(|s| &s.state)
    }
}

/// Whether a service runs on this host.
fn runs_here(fence: &Fence, service: &ringfence_model::Service, host: Option<&str>) -> bool {
    host.is_none_or(|host| fence.runs_at(&service.at, host))
}

async fn sockets(link: &ShimLink, wanted: &[Listen], threads: u16) -> Result<Sockets, ShimError> {
    let mut listeners = Vec::with_capacity(wanted.len());
    for Listen { port, bound, addresses } in wanted {
        let mut sockets = Vec::new();
        if addresses.is_empty() {
            let request = Request::Listeners { port: *bound, count: threads, address: None };
            sockets = link.descriptors(request).await?;
        }
        for address in addresses {
            let request = Request::Listeners { port: *bound, count: threads, address: Some(*address) };
            sockets.extend(link.descriptors(request).await?);
        }
        if !sockets.is_empty() {
            listeners.push((*port, sockets));
        }
    }
    let mut proxy = link.descriptors(Request::ProxyChannel).await?;
    let proxy = proxy.pop().ok_or(ShimError::Confused)?;
    Ok(Sockets { listeners, proxy })
}

/// A line about a state.
pub(crate) fn describe(status: &Status) -> String {
    let (state, detail) = state_words(&status.state);
    if detail.is_empty() { state.to_owned() } else { format!("{state}: {detail}") }
}

fn state_words(state: &State) -> (&'static str, String) {
    match state {
        State::Starting => ("starting", String::new()),
        State::Ready => ("ready", String::new()),
        State::Backoff { exit, pause_ms } => {
            ("backoff", format!("it {exit}; next start in {:.1} s", *pause_ms as f64 / 1000.0))
        }
        State::Exited(exit) => ("exited", exit.to_string()),
    }
}
