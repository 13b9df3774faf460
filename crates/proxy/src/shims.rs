//! Sockets made inside the services' networks. The shims make them; connections take them.
//!
//! A few are kept in stock per service, so that a connection to a service does not wait for a round trip to its shim.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_channel::{Channel, ChannelError};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::protocol::shim::{FromShim, ToShim};

/// Sockets asked for at once.
const BATCH: u32 = 16;
/// Stock below which more are asked for.
const LOW: usize = 6;

/// One service's source of sockets.
#[derive(Debug, Default)]
pub(crate) struct Shim {
    present: AtomicBool,
    ready: AtomicBool,
    stock: Mutex<Vec<OwnedFd>>,
    arrived: Notify,
    wanted: Notify,
}

/// All of them, by service. Entries stay, so that tables can hold them across a shim's restart.
#[derive(Debug, Default)]
pub(crate) struct Shims(Mutex<HashMap<String, Arc<Shim>>>);

impl Shims {
    pub(crate) fn of(&self, service: &str) -> Arc<Shim> {
        let mut shims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shims.entry(service.to_owned()).or_default().clone()
    }
}

impl PartialEq for Shim {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Shim {
    /// Whether the service can be reached and says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Nothing leads to the service any more.
    pub(crate) fn gone(&self) {
        self.present.store(false, Ordering::Relaxed);
        self.set_ready(false);
        self.stock().clear();
        self.arrived.notify_waiters();
    }

    /// Connects to the service's own loopback.
    pub(crate) async fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let Some(socket) = self.take().await else {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "the service has no shim"));
        };
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket).connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }

    async fn take(&self) -> Option<OwnedFd> {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let (socket, left) = {
                let mut stock = self.stock();
                (stock.pop(), stock.len())
            };
            if left < LOW {
                self.wanted.notify_one();
            }
            if socket.is_some() || !self.present.load(Ordering::Relaxed) {
                return socket;
            }
            arrived.await;
        }
    }

    fn stock(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the stock filled over the channel to the shim, until that ends.
    pub(crate) async fn supply(&self, channel: Channel<ToShim, FromShim>) -> Result<(), ChannelError> {
        let (sender, mut receiver) = channel.split();
        // Sockets of the network before this one lead nowhere.
        self.stock().clear();
        self.present.store(true, Ordering::Relaxed);
        loop {
            sender.send(&ToShim::Sockets { count: BATCH }, &[]).await?;
            let (FromShim::Sockets { count }, sockets) = receiver.recv().await?;
            if count as usize != sockets.len() || sockets.len() > BATCH as usize {
                return Err(ChannelError::Descriptors);
            }
            self.stock().extend(sockets);
            self.arrived.notify_waiters();
            while self.stock().len() >= LOW {
                self.wanted.notified().await;
            }
        }
    }
}
