//! Everything that the supervisor waits for, in one stream, so that it does one thing at a time.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ringfence_channel::{Channel, ChannelError, Sender};
use ringfence_control::supervisor::FromControl;
use ringfence_proxy::protocol::FromNode;
use ringfence_sandbox::protocol::Hello;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::child::Life;
use super::shim::{ShimLink, ShimNews};

/// How long one of our processes may outlive its channel to us.
const GRACE: Duration = Duration::from_secs(3);

/// Something happened.
#[derive(Debug)]
pub(crate) enum News {
    Control(FromControl),
    /// Control wants to know who opened a connection to a service's Workload API.
    Attest {
        id: u64,
        service: String,
        socket: OwnedFd,
    },
    Node(FromNode),
    Keeper(ringfence_keeper::protocol::ToSupervisor),
    /// The channel to one of our processes ended, and the process did not end with it.
    Deaf {
        life: Life,
        reason: String,
    },
    /// The channel between control and node ended a moment ago.
    Parted {
        introduction: u64,
    },
    Shim(ShimNews),
    /// A shim was started or found, and answers.
    ShimUp {
        service: String,
        link: ShimLink,
        hello: Hello,
        adopted: bool,
    },
    /// A shim could not be started.
    ShimFailed {
        service: String,
        reason: String,
    },
    /// What a shim made for the proxy.
    Attached {
        service: String,
        sockets: Sockets,
    },
    /// The Workload API's listening socket, made in a service's mounts.
    Workload {
        service: String,
        listener: OwnedFd,
    },
}

/// Descriptors made inside a service's namespaces.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// By port, one listening socket per proxy thread.
    pub(crate) listeners: Vec<(u16, Vec<OwnedFd>)>,
    /// The proxy's end of its channel to the shim.
    pub(crate) proxy: OwnedFd,
}

/// Opens a channel whose messages arrive as news; returns the sending half.
pub(crate) fn listen<Out, In>(
    socket: std::os::unix::net::UnixStream,
    (life, news): (Life, mpsc::Sender<News>),
    wrap: fn(In, Vec<OwnedFd>) -> News,
) -> Result<Sender<Out>, ChannelError>
where
    Out: Serialize + Send + 'static,
    In: DeserializeOwned + Send + 'static,
{
    let (sender, mut receiver) = Channel::<Out, In>::new(socket)?.split();
    tokio::spawn(async move {
        let end = loop {
            let (message, fds) = match receiver.recv().await {
                Ok(received) => received,
                Err(end) => break end,
            };
            if news.send(wrap(message, fds)).await.is_err() {
                return;
            }
        };
        if matches!(end, ChannelError::Closed | ChannelError::Io(_)) {
            // Its exit should follow.
            tokio::time::sleep(GRACE).await;
        }
        let _ = news.send(News::Deaf { life, reason: end.to_string() }).await;
    });
    Ok(sender)
}

/// What control says.
pub(crate) fn of_control(message: FromControl, fds: Vec<OwnedFd>) -> News {
    match (message, fds.into_iter().next()) {
        (FromControl::Attest { id, service }, Some(socket)) => News::Attest { id, service, socket },
        (message, _) => News::Control(message),
    }
}
