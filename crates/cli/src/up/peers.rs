//! Keeper, control and node: who has been introduced to whom.
//!
//! Any of them may end at any time. Each (re)start of one makes new channels to the others; an old channel's far end sees
//! it closed and waits for the new one.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::ExitStatus;
use std::time::Duration;

use ringfence_channel::{Sender, cloexec_pair};
use ringfence_control::home::Chosen;
use ringfence_control::supervisor::{MemberStart, ProcessReport, ToControl};
use ringfence_keeper::protocol::{FromSupervisor, Start as KeeperStart};
use ringfence_keys::MasterSource;
use ringfence_model::{Entities, Fence, Gateway, GatewayTls};
use ringfence_proxy::protocol::{ListenerKind, SecretText, Start as NodeStart, ToNode};
use ringfence_snapshot::Der;
use ringfence_store::Place;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::child::{Life, Process, Role};
use super::news::{News, Sockets, listen, of_control};
use super::services::Services;
use super::watch::Texts;
use super::{Joining, Options, UpError};
use crate::data::{DataDir, fence_folder};

/// Name of this host's node where the fence names no hosts.
const NODE: &str = "local";

/// Our processes and their channels.
pub(crate) struct Peers {
    data: DataDir,
    folder: std::path::PathBuf,
    threads: usize,
    svid_life: u64,
    store: Option<(Place, u64)>,
    master: MasterSource,
    /// What this host is called, and how it joins if control is elsewhere.
    node: String,
    member: Option<Joining>,
    fence: String,
    trust_domain: String,
    news: mpsc::Sender<News>,
    processes: [Process; 5],
    keeper: Option<Sender<FromSupervisor>>,
    control: Option<Sender<ToControl>>,
    proxy: Option<Sender<ToNode>>,
    snapshot_key: Option<Der>,
    node_is_ready: bool,
    /// How often control and node were introduced to each other.
    introductions: u64,
    socket: UnixListener,
    mesh: (SocketAddr, Vec<OwnedFd>),
    gateway: HashMap<SocketAddr, Vec<OwnedFd>>,
    certificate: Option<(String, String)>,
    /// Where counters are served, once that could be bound.
    metrics: Option<(SocketAddr, TcpListener)>,
    /// Where other hosts come to control.
    hosts: Option<TcpListener>,
    /// Whether there is anybody outside to ask.
    federated: bool,
}

impl Peers {
    pub(crate) fn new(
        options: &Options,
        data: &DataDir,
        fence: &Fence,
        master: MasterSource,
        news: mpsc::Sender<News>,
    ) -> Result<Self, UpError> {
        let (address, sockets) =
            bind(mesh(options, fence), options.threads).map_err(|e| match (e, &options.host) {
                (UpError::Listen { address, source }, Some(host)) => UpError::Control(format!(
                    "cannot listen on {address}, where the fence says that host `{host}` is reached: {source}"
                )),
                (e, _) => e,
            })?;
        let hosts = control_listener(options, fence)?;
        let mut peers = Self {
            node: options.host.clone().unwrap_or_else(|| NODE.to_owned()),
            member: options.member.clone(),
            hosts,
            data: data.clone(),
            folder: fence_folder(&options.fence),
            threads: options.threads,
            svid_life: options.svid_life.as_secs(),
            store: options.store.clone().map(|place| (place, options.store_wait.as_secs())),
            master,
            fence: fence.name.clone(),
            trust_domain: fence.trust_domain.clone(),
            news,
            processes: Role::ALL.map(Process::new),
            keeper: None,
            control: None,
            proxy: None,
            snapshot_key: None,
            node_is_ready: false,
            introductions: 0,
            socket: data
                .bind_control()
                .map_err(|source| UpError::Io { what: "cannot make the control socket", source })?,
            mesh: (address, sockets),
            gateway: HashMap::new(),
            certificate: None,
            metrics: None,
            federated: asks_outside(fence),
        };
        // The port is taken before anything starts, so that a busy one is known at once.
        peers.bind_gateway(fence)?;
        Ok(peers)
    }

    /// Starts whatever should run and does not.
    pub(crate) async fn start_due(&mut self, texts: &Texts) -> Result<(), UpError> {
        // Nothing but the keeper touches the data directory before the master key has opened it.
        let opened = self.snapshot_key.is_some();
        let federate = opened && self.federated && self.control.is_some();
        let joins = self.member.is_some();
        let may_start = |role: Role| match role {
            Role::Member => joins,
            Role::Keeper | Role::Control | Role::Federation if joins => false,
            Role::Keeper => true,
            Role::Control | Role::Node => opened,
            Role::Federation => federate,
        };
        let due: Vec<Role> =
            Role::ALL.into_iter().filter(|r| may_start(*r) && self.process(*r).due()).collect();
        for role in due {
            let socket = self.process(role).start().map_err(|source| UpError::Io {
                what: "cannot start one of ringfence's processes",
                source,
            })?;
            let news = (self.process(role).life(), self.news.clone());
            match role {
                Role::Keeper => {
                    let sender = listen(socket, news, |said, _| News::Keeper(said))?;
                    let start = KeeperStart {
                        data: self.data.root().to_owned(),
                        master: self.master.clone(),
                        fence: self.fence.clone(),
                        trust_domain: self.trust_domain.clone(),
                    };
                    tell(&sender, &FromSupervisor::Start(start), &[]).await;
                    self.keeper = Some(sender);
                    self.pair_keeper_control().await?;
                }
                Role::Control => {
                    let again = news.0.restarts > 0;
                    let sender = listen(socket, news, of_control)?;
                    // What runs goes on without the database; nobody gives up then.
                    let store = self
                        .store
                        .clone()
                        .map(|(place, wait)| Chosen { place, patience: (!again).then_some(wait) });
                    let data = self.data.root().to_owned();
                    let start = ToControl::Start { data, svid_life: self.svid_life, store };
                    tell(&sender, &start, &[self.socket.as_fd()]).await;
                    self.control = Some(sender);
                    self.pair_keeper_control().await?;
                    self.pair_control_node().await?;
                    self.offer(texts).await;
                    self.hand_metrics().await;
                    self.hand_hosts().await;
                }
                Role::Member => {
                    let sender = listen(socket, news, of_control)?;
                    let start = MemberStart {
                        data: self.data.root().to_owned(),
                        master: self.master.clone(),
                        token: self.member.as_ref().and_then(|joining| joining.token.clone()),
                    };
                    tell(&sender, &ToControl::Member(start), &[self.socket.as_fd()]).await;
                    self.control = Some(sender);
                    self.pair_control_node().await?;
                    self.offer(texts).await;
                }
                Role::Node => {
                    self.proxy = Some(listen(socket, news, |said, _| News::Node(said))?);
                    self.node_is_ready = false;
                    self.start_node().await;
                }
                // It speaks with control alone, whose end is also its own.
                Role::Federation => {
                    if let Some(control) = &self.control {
                        tell(control, &ToControl::Federation, &[socket.as_fd()]).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// The keeper serves; its key for snapshots goes to the node from here, not through control.
    pub(crate) async fn keeper_ready(&mut self, key: Der) -> Result<(), UpError> {
        if self.snapshot_key.replace(key).is_none() {
            self.start_node().await;
            self.hand_hosts().await;
        }
        Ok(())
    }

    /// The node runs: it gets its listeners and control.
    pub(crate) async fn node_ready(&mut self, fence: &Fence) -> Result<(), UpError> {
        self.node_is_ready = true;
        if let Some(node) = &self.proxy {
            let fds: Vec<BorrowedFd<'_>> = self.mesh.1.iter().map(AsFd::as_fd).collect();
            tell(node, &ToNode::Listener { kind: ListenerKind::Mesh }, &fds).await;
        }
        self.pair_control_node().await?;
        self.serve_gateway(fence).await
    }

    /// Hands the gateway's sockets and certificate files to the node, after binding what the fence asks for.
    pub(crate) async fn serve_gateway(&mut self, fence: &Fence) -> Result<(), UpError> {
        self.bind_gateway(fence)?;
        let Some(node) = self.proxy.as_ref().filter(|_| self.node_is_ready) else { return Ok(()) };
        if let Some(GatewayTls::Files { cert, key }) = fence.gateway.as_ref().map(|g| &g.tls) {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(self.folder.join(path)).map_err(|source| UpError::Io {
                    what: "cannot read the gateway's certificate or key",
                    source,
                })
            };
            let files = (read(cert)?, read(key)?);
            let message =
                ToNode::GatewayFiles { cert: files.0.clone(), key: SecretText::new(files.1.clone()) };
            tell(node, &message, &[]).await;
            self.certificate = Some(files);
        }
        // One frame carries all threads' sockets of all addresses.
        let fds: Vec<BorrowedFd<'_>> = self.gateway.values().flatten().map(AsFd::as_fd).collect();
        let message = if fds.is_empty() {
            ToNode::CloseListener { kind: ListenerKind::Gateway }
        } else {
            ToNode::Listener { kind: ListenerKind::Gateway }
        };
        tell(node, &message, &fds).await;
        Ok(())
    }

    /// Has control serve counters where the fence says so, and nowhere else.
    pub(crate) async fn serve_metrics(&mut self, fence: &Fence) -> Result<(), UpError> {
        // Counters of all hosts are where control is.
        let wanted = fence.metrics.as_ref().filter(|_| self.member.is_none()).map(|metrics| metrics.listen);
        if wanted == self.metrics.as_ref().map(|(address, _)| *address) {
            return Ok(());
        }
        if self.metrics.take().is_some() {
            self.hand_metrics().await;
        }
        if let Some(address) = wanted {
            let listener =
                TcpListener::bind(address).map_err(|source| UpError::Metrics { address, source })?;
            self.metrics = Some((address, listener));
            self.hand_metrics().await;
        }
        Ok(())
    }

    async fn hand_metrics(&self) {
        if let Some(control) = &self.control {
            let fds: Vec<BorrowedFd<'_>> =
                self.metrics.iter().map(|(_, listener)| listener.as_fd()).collect();
            tell(control, &ToControl::Metrics, &fds).await;
        }
    }

    /// Has control serve other hosts, where the fence says so.
    async fn hand_hosts(&self) {
        if let (Some(control), Some(listener), Some(key)) = (&self.control, &self.hosts, &self.snapshot_key) {
            tell(control, &ToControl::Hosts { snapshot_key: key.clone() }, &[listener.as_fd()]).await;
        }
    }

    /// Follows a fence: whether there is anybody outside to ask.
    pub(crate) fn federate(&mut self, fence: &Fence) {
        self.federated = asks_outside(fence);
    }

    /// Reads the gateway's certificate files again if they changed.
    pub(crate) async fn reload_certificate(&mut self, fence: &Fence) -> Result<(), UpError> {
        let Some(GatewayTls::Files { cert, key }) = fence.gateway.as_ref().map(|g| &g.tls) else {
            return Ok(());
        };
        let read = |path: &std::path::Path| std::fs::read_to_string(self.folder.join(path)).ok();
        let now = read(cert).zip(read(key));
        if now.is_some() && now != self.certificate { self.serve_gateway(fence).await } else { Ok(()) }
    }

    /// Hands what a shim made to the proxy.
    pub(crate) async fn introduce(&mut self, service: &str, sockets: Sockets, services: &Services) {
        if let Some(node) = self.proxy.as_ref().filter(|_| self.node_is_ready) {
            tell(node, &ToNode::Shim { service: service.to_owned() }, &[sockets.proxy.as_fd()]).await;
            for (port, fds) in &sockets.listeners {
                let kind = ListenerKind::Outbound { service: service.to_owned(), port: *port };
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                tell(node, &ToNode::Listener { kind }, &fds).await;
            }
        }
        self.ready(service, services.is_ready(service)).await;
    }

    /// Hands the Workload API's listener to control, which serves whoever lives in this network namespace.
    pub(crate) async fn serve_workload(&self, service: String, netns: u64, listener: &OwnedFd) {
        if let Some(control) = &self.control {
            tell(control, &ToControl::Workload { service, netns }, &[listener.as_fd()]).await;
        }
    }

    /// Looks for control at whoever opened `socket`; the service's network namespace is the one that its shim told us.
    pub(crate) fn attest(&self, id: u64, netns: u64, socket: OwnedFd) {
        let Some(control) = self.control.clone() else { return };
        tokio::spawn(async move {
            // Reading `/proc` may block.
            let looking = tokio::task::spawn_blocking(move || ringfence_control::look(id, &socket, netns));
            if let Ok((answer, fds)) = looking.await {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                tell(&control, &answer, &fds).await;
            }
        });
    }

    /// Tells the proxy whether a service answers.
    pub(crate) async fn ready(&self, service: &str, ready: bool) {
        let service = service.to_owned();
        let message = if ready { ToNode::ShimReady { service } } else { ToNode::ShimNotReady { service } };
        self.tell_node(&message).await;
    }

    /// A shim is gone.
    pub(crate) async fn forget(&self, service: &str) {
        self.tell_node(&ToNode::ShimGone { service: service.to_owned() }).await;
        self.tell_control(&ToControl::WorkloadGone { service: service.to_owned() }).await;
    }

    /// Offers a fence to control, with all that it names.
    pub(crate) async fn offer(&self, texts: &Texts) {
        for message in texts.offer() {
            self.tell_control(&message).await;
        }
    }

    pub(crate) async fn tell_control(&self, message: &ToControl) {
        if let Some(control) = &self.control {
            tell(control, message, &[]).await;
        }
    }

    async fn tell_node(&self, message: &ToNode) {
        if let Some(node) = self.proxy.as_ref().filter(|_| self.node_is_ready) {
            tell(node, message, &[]).await;
        }
    }

    /// Whether this introduction of control and node is the last there was, and both run.
    pub(crate) fn is_last(&self, introduction: u64) -> bool {
        let both = self.control.is_some() && self.proxy.is_some() && self.node_is_ready;
        both && introduction == self.introductions
    }

    /// Introduces control and node anew: their channel ended, and neither of them did.
    pub(crate) async fn introduce_again(&mut self) -> Result<(), UpError> {
        self.pair_control_node().await
    }

    /// The node in its present life, if it runs.
    pub(crate) fn node(&self) -> Life {
        self.processes[Role::Node as usize].life()
    }

    /// Ends a process that is not to be believed any more, so that it is started again; not one that was since.
    pub(crate) fn end(&mut self, life: Life) -> bool {
        self.process(life.role).end(life)
    }

    /// Waits until one of them ends.
    pub(crate) async fn ended(&mut self) -> (Role, ExitStatus) {
        let [keeper, control, node, federation, member] = &mut self.processes;
        let (role, status) = tokio::select! {
            status = keeper.ended() => (Role::Keeper, status),
            status = control.ended() => (Role::Control, status),
            status = node.ended() => (Role::Node, status),
            status = federation.ended() => (Role::Federation, status),
            status = member.ended() => (Role::Member, status),
        };
        match role {
            Role::Keeper => self.keeper = None,
            Role::Control | Role::Member => self.control = None,
            Role::Node => (self.proxy, self.node_is_ready) = (None, false),
            Role::Federation => {}
        }
        (role, status)
    }

    /// Ends them in the order in which they need each other.
    pub(crate) async fn stop(&mut self) {
        self.tell_node(&ToNode::Shutdown).await;
        (self.proxy, self.control, self.keeper) = (None, None, None);
        for role in [Role::Node, Role::Member, Role::Control, Role::Federation, Role::Keeper] {
            self.process(role).stop(Duration::from_secs(3)).await;
        }
    }

    pub(crate) fn report(&self) -> Vec<ProcessReport> {
        let joins = self.member.is_some();
        let shown = |role: Role| match role {
            Role::Member => joins,
            Role::Federation => self.federated && !joins,
            Role::Keeper | Role::Control => !joins,
            Role::Node => true,
        };
        let all = Role::ALL.into_iter().zip(&self.processes);
        all.filter(|(role, _)| shown(*role)).map(|(_, process)| process.report()).collect()
    }

    /// Where the mesh listener is.
    pub(crate) fn mesh(&self) -> SocketAddr {
        self.mesh.0
    }

    /// Where other hosts come to control, if they do here.
    pub(crate) fn control_address(&self) -> Option<SocketAddr> {
        self.hosts.as_ref()?.local_addr().ok()
    }

    /// Whether requests can be answered.
    pub(crate) fn serving(&self) -> bool {
        let whole: &[Role] = &[Role::Keeper, Role::Control, Role::Node];
        let needed = if self.member.is_some() { &[Role::Member, Role::Node] } else { whole };
        self.node_is_ready && needed.iter().all(|role| self.processes[*role as usize].running())
    }

    async fn start_node(&mut self) {
        let (Some(node), Some(key)) = (&self.proxy, &self.snapshot_key) else { return };
        let start = NodeStart {
            snapshot_key: key.clone(),
            data_dir: self.data.root().to_owned(),
            threads: self.threads,
            node: self.node.clone(),
            mesh: self.mesh.0,
        };
        tell(node, &ToNode::Start(start), &[]).await;
    }

    async fn pair_keeper_control(&self) -> Result<(), UpError> {
        let (Some(keeper), Some(control)) = (&self.keeper, &self.control) else { return Ok(()) };
        let (a, b) = pair()?;
        tell(keeper, &FromSupervisor::Control, &[a.as_fd()]).await;
        tell(control, &ToControl::Keeper, &[b.as_fd()]).await;
        Ok(())
    }

    async fn pair_control_node(&mut self) -> Result<(), UpError> {
        let (Some(control), Some(node), true) = (&self.control, &self.proxy, self.node_is_ready) else {
            return Ok(());
        };
        let (a, b) = pair()?;
        self.introductions += 1;
        let proxy = ToControl::Proxy { node: self.node.clone(), introduction: self.introductions };
        tell(control, &proxy, &[a.as_fd()]).await;
        tell(node, &ToNode::Control, &[b.as_fd()]).await;
        Ok(())
    }

    fn bind_gateway(&mut self, fence: &Fence) -> Result<(), UpError> {
        let here = |gateway: &&Gateway| fence.runs_at(&gateway.at, &self.node);
        let wanted: Vec<SocketAddr> =
            fence.gateway.iter().filter(here).flat_map(|g| g.listen.iter().copied()).collect();
        for address in &wanted {
            if !self.gateway.contains_key(address) {
                let (_, sockets) = bind(*address, self.threads)?;
                self.gateway.insert(*address, sockets);
            }
        }
        self.gateway.retain(|address, _| wanted.contains(address));
        Ok(())
    }

    fn process(&mut self, role: Role) -> &mut Process {
        &mut self.processes[role as usize]
    }
}

/// Where this host's mesh listener is: where the fence says that others find it, or where nobody else looks.
fn mesh(options: &Options, fence: &Fence) -> SocketAddr {
    let host = options.host.as_ref().and_then(|name| fence.host(name));
    host.map_or(options.mesh, |host| host.mesh)
}

/// Where other hosts come to control, on the host that has it.
fn control_listener(options: &Options, fence: &Fence) -> Result<Option<TcpListener>, UpError> {
    if options.member.is_some() {
        return Ok(None);
    }
    let Some((host, address)) = fence.control_host().and_then(|host| Some((host, host.control?))) else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address);
    listener.map(Some).map_err(|source| UpError::Control(format!(
        "cannot listen on {address} for other hosts: {source}; is this host `{}`? On the others run `ringfence node`",
        host.name
    )))
}

/// A message to a process that ended meanwhile is no failure: its exit is handled elsewhere.
async fn tell<T: serde::Serialize>(sender: &Sender<T>, message: &T, fds: &[BorrowedFd<'_>]) {
    let _ = sender.send(message, fds).await;
}

/// Whether a fence needs the process that asks servers outside.
fn asks_outside(fence: &Fence) -> bool {
    !fence.providers.is_empty() || matches!(fence.entities, Some(Entities::Url(_)))
}

fn pair() -> Result<(std::os::unix::net::UnixStream, std::os::unix::net::UnixStream), UpError> {
    cloexec_pair().map_err(|source| UpError::Io { what: "cannot make a channel", source })
}

/// One listening socket per proxy thread, all of one address.
fn bind(address: SocketAddr, threads: usize) -> Result<(SocketAddr, Vec<OwnedFd>), UpError> {
    // A socket without SO_REUSEPORT finds out whether another program has the port; with it, one of the same user would share.
    let mut address = address;
    if address.port() != 0 {
        TcpListener::bind(address).map_err(|source| UpError::Listen { address, source })?;
    }
    let mut sockets = Vec::with_capacity(threads);
    for _ in 0..threads {
        let socket = listening(address).map_err(|source| UpError::Listen { address, source })?;
        if let Some(bound) = socket.local_addr().ok().and_then(|a| a.as_socket()) {
            address = bound;
        }
        sockets.push(OwnedFd::from(socket));
    }
    Ok((address, sockets))
}

fn listening(address: SocketAddr) -> std::io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket)
}
