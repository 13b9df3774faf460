//! The socket at which supervisors come and go.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence_channel::BlockingChannel;
use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::service::Service;
use super::{proxy, spawn};
use crate::protocol::{Hello, MAX_LISTENERS, Reply, Request};
use crate::spec::Isolation;
use crate::{SandboxError, error::Context as _};

const BACKLOG: i32 = 1024;
/// A supervisor that reads nothing for so long is gone for us.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that the end waits for its answers to be sent.
const FAREWELL: Duration = Duration::from_secs(1);

type Connection = BlockingChannel<Reply, Request>;
type Listeners = HashMap<(u16, Option<Ipv4Addr>), Vec<Socket>>;

/// Serves supervisors.
pub(crate) struct Server {
    service: Service,
    listener: UnixListener,
    listeners: Mutex<Listeners>,
    proxies: proxy::Channels,
    busy: AtomicBool,
    goodbye: Mutex<Goodbye>,
    changed: Condvar,
}

/// How the end is told to whoever asked for it.
#[derive(Default)]
struct Goodbye {
    /// Requests to stop that wait for their answer.
    waiting: u32,
    /// Nothing is left behind.
    clean: bool,
}

impl Server {
    pub(crate) fn new(service: Service, listener: UnixListener) -> Arc<Self> {
        let (listeners, proxies) = (Mutex::default(), proxy::Channels::default());
        Arc::new(Self {
            service,
            listener,
            listeners,
            proxies,
            busy: AtomicBool::new(false),
            goodbye: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Answers whoever asked for the end, now that nothing is left behind.
    pub(crate) fn farewell(&self) {
        let mut goodbye = locked(&self.goodbye);
        goodbye.clean = true;
        self.changed.notify_all();
        let deadline = Instant::now() + FAREWELL;
        while goodbye.waiting > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            goodbye = self.changed.wait_timeout(goodbye, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            service: self.service.spec().service.clone(),
            digest: self.service.spec().digest(),
            pid: std::process::id(),
            netns: self.service.networks().map_or(0, |n| n.inode()),
            status: self.service.status(),
        }
    }

    pub(crate) fn start(self: Arc<Self>) -> Result<(), SandboxError> {
        spawn("server", move || {
            for socket in self.listener.incoming().flatten() {
                let server = self.clone();
                // A connection whose thread cannot start is closed, and its owner sees that.
                let _ = spawn("supervisor", move || server.admit(socket));
            }
        })
    }

    /// One supervisor at a time: two would fight over one service.
    fn admit(&self, socket: UnixStream) {
        if !is_owner(&socket) || socket.set_write_timeout(Some(WRITE_TIMEOUT)).is_err() {
            return;
        }
        let connection = Connection::new(socket);
        if self.busy.swap(true, Ordering::AcqRel) {
            // Asked first, or the answer could be lost with what was asked.
            let asked = connection.set_timeout(Some(FAREWELL)).and_then(|()| connection.recv());
            if let Ok((request @ Request::Inside { .. }, _)) = asked {
                let _ = self.answer(&connection, &Arc::default(), request);
                return;
            }
            let reason = "another supervisor is connected".into();
            let _ = connection.send(&Reply::Refused { reason }, &[]);
            return;
        }
        let sending = Arc::new(Mutex::new(()));
        while let Ok((request, _)) = connection.recv() {
            if matches!(request, Request::Stop) {
                self.stop(&connection, &sending);
                break;
            }
            if self.answer(&connection, &sending, request).is_err() {
                break;
            }
        }
        // Ends the updates' thread too.
        let _ = connection.socket().shutdown(std::net::Shutdown::Both);
        self.busy.store(false, Ordering::Release);
    }

    fn stop(&self, connection: &Connection, sending: &Mutex<()>) {
        let mut goodbye = locked(&self.goodbye);
        goodbye.waiting += 1;
        self.service.stop();
        while !goodbye.clean {
            goodbye = self.changed.wait(goodbye).unwrap_or_else(PoisonError::into_inner);
        }
        {
            let _turn = locked(sending);
            let _ = connection.send(&Reply::Done, &[]);
        }
        goodbye.waiting -= 1;
        self.changed.notify_all();
    }

    fn answer(
        &self,
        connection: &Connection,
        sending: &Arc<Mutex<()>>,
        request: Request,
    ) -> Result<(), SandboxError> {
        let send = |reply: &Reply, fds: &[BorrowedFd<'_>]| {
            let _turn = locked(sending);
            connection.send(reply, fds).map_err(SandboxError::from)
        };
        let done = |result: Result<(), SandboxError>| match result {
            Ok(()) => send(&Reply::Done, &[]),
            Err(e) => send(&Reply::Refused { reason: e.to_string() }, &[]),
        };
        match request {
            Request::Hello => send(&Reply::Hello(self.hello()), &[]),
            Request::Listeners { port, count, address } => {
                let mut all = locked(&self.listeners);
                match self.listeners(&mut all, port, count, address) {
                    Ok(sockets) => {
                        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                        send(&Reply::Listeners { port }, &fds)
                    }
                    Err(e) => done(Err(e)),
                }
            }
            Request::ProxyChannel => match self.proxies.open(self.service.networks().cloned()) {
                Ok(theirs) => send(&Reply::ProxyChannel, &[theirs.as_fd()]),
                Err(e) => done(Err(e)),
            },
            Request::WorkloadListener => match self.service.workload() {
                Ok(listener) => send(&Reply::WorkloadListener, &[listener.as_fd()]),
                Err(e) => done(Err(e)),
            },
            Request::Watch => {
                done(Ok(()))?;
                self.watch(connection.try_clone()?, sending.clone())
            }
            Request::SetHosts(hosts) => done(self.service.set_hosts(hosts)),
            Request::SetPorts(ports) => {
                locked(&self.listeners).retain(|(port, _), _| ports.contains(port));
                done(self.service.set_ports(ports))
            }
            Request::Inside { args } => match self.service.inside(args) {
                Ok(out) => send(&Reply::Inside, &[out.as_fd()]),
                Err(e) => done(Err(e)),
            },
            Request::Restart => {
                self.service.restart();
                done(Ok(()))
            }
            Request::Stop => Err(SandboxError::Refused("stopping is answered elsewhere".into())),
        }
    }

    fn watch(&self, connection: Connection, sending: Arc<Mutex<()>>) -> Result<(), SandboxError> {
        let service = self.service.clone();
        let first = service.status();
        spawn("updates", move || {
            let mut update = Some((0, first));
            while let Some((version, status)) = update {
                let sent = {
                    let _turn = locked(&sending);
                    connection.send(&Reply::Update(status), &[])
                };
                if sent.is_err() {
                    return;
                }
                update = service.status_after(version);
            }
        })
    }

    /// The same sockets each time, so that a new proxy takes over what waits in their queues.
    fn listeners<'a>(
        &self,
        all: &'a mut Listeners,
        port: u16,
        count: u16,
        address: Option<Ipv4Addr>,
    ) -> Result<&'a [Socket], SandboxError> {
        let refuse = |why: String| Err(SandboxError::Refused(why));
        if !self.service.declares(port) {
            return refuse(format!(
                "port {port} is not declared for service {}",
                self.service.spec().service
            ));
        }
        if !(1..=MAX_LISTENERS).contains(&count) {
            return refuse(format!("{count} listeners asked for; 1 to {MAX_LISTENERS} are possible"));
        }
        let bind = match (self.service.spec().isolation, address) {
            (Isolation::On, None) => Ipv4Addr::UNSPECIFIED,
            (Isolation::Off, Some(address)) if address.is_loopback() => address,
            (Isolation::On, Some(_)) => {
                return refuse("an isolated service's listeners have no address".into());
            }
            (Isolation::Off, _) => {
                return refuse("without isolation a listener needs an address in 127.0.0.0/8".into());
            }
        };
        let sockets = all.entry((port, address)).or_default();
        // A listener too many would be given connections that nobody accepts.
        sockets.truncate(usize::from(count));
        while sockets.len() < usize::from(count) {
            sockets.push(listen(SocketAddr::from((bind, port))).step(|| format!("listen at port {port}"))?);
        }
        Ok(sockets)
    }
}

fn listen(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The socket's mode and its folder's let only the owner in; this says so once more. As root we have another uid than our
/// supervisor, whose uid reads as the overflow one inside our user namespace.
fn is_owner(socket: &UnixStream) -> bool {
    const OVERFLOW: u32 = 65_534;
    let ours = rustix::process::getuid().as_raw();
    socket_peercred(socket).is_ok_and(|peer| {
        let uid = peer.uid.as_raw();
        uid == ours || (ours == 0 && uid == OVERFLOW)
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
