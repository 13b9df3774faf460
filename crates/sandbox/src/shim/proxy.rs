//! A proxy's way into the service's network: sockets made there, nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence_channel::{BlockingChannel, ChannelError, cloexec_pair};

use super::networks::{Networks, unconnected};
use super::spawn;
use crate::protocol::{MAX_SOCKETS, ProxyReply, ProxyRequest};
use crate::{SandboxError, capability, error::Context as _};

/// Proxies at a time: the one that serves, one that drains, and some that hang.
const MAX_CHANNELS: usize = 8;

/// Counts the open channels.
#[derive(Debug, Default)]
pub(crate) struct Channels(Arc<AtomicUsize>);

impl Channels {
    /// A new channel; the proxy's end of it.
    pub(crate) fn open(&self, networks: Option<Arc<Networks>>) -> Result<OwnedFd, SandboxError> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= MAX_CHANNELS {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(SandboxError::Refused(format!("{MAX_CHANNELS} proxies are connected already")));
        }
        let open = Open(self.0.clone());
        let (ours, theirs) = cloexec_pair().step(|| "make a channel".into())?;
        spawn("proxy", move || {
            let _open = open;
            // The proxy's end or a malformed request ends the channel; the next proxy gets a new one.
            let _ = serve(ours, networks.as_deref());
        })?;
        Ok(theirs.into())
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(socket: UnixStream, networks: Option<&Networks>) -> Result<(), SandboxError> {
    if let Some(networks) = networks {
        networks.enter_service()?;
        capability::drop_all()?;
    }
    let channel: BlockingChannel<ProxyReply, ProxyRequest> = BlockingChannel::new(socket);
    loop {
        let ProxyRequest::Sockets { count } = match channel.recv() {
            Ok((request, _)) => request,
            Err(ChannelError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let sockets = if (1..=MAX_SOCKETS).contains(&count) {
            (0..count).map(|_| unconnected()).collect::<Result<Vec<_>, _>>()
        } else {
            Err(SandboxError::Refused(format!("{count} sockets asked for; 1 to {MAX_SOCKETS} are possible")))
        };
        match sockets {
            Ok(sockets) => {
                let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                channel.send(&ProxyReply::Sockets { count: fds.len() as u16 }, &fds)?;
            }
            Err(e) => channel.send(&ProxyReply::Refused { reason: e.to_string() }, &[])?,
        }
    }
}
