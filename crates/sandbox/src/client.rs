//! A supervisor's way to a running shim, without a runtime.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_channel::BlockingChannel;

use crate::SandboxError;
use crate::protocol::{Hello, Reply, Request, Status};

/// Longest that a shim may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the shim of a service listens.
pub fn socket_path(data: &Path, service: &str) -> PathBuf {
    data.join("run/shim").join(format!("{service}.sock"))
}

/// A connection to a shim.
#[derive(Debug)]
pub struct Shim {
    channel: BlockingChannel<Request, Reply>,
}

impl Shim {
    /// Connects to a running shim.
    ///
    /// # Errors
    /// No shim runs there.
    pub fn connect(data: &Path, service: &str) -> Result<Self, SandboxError> {
        use crate::error::Context as _;
        let path = socket_path(data, service);
        let socket = UnixStream::connect(&path).step(|| format!("reach a shim at {}", path.display()))?;
        let channel = BlockingChannel::new(socket);
        channel.set_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { channel })
    }

    /// Sends a request and waits for its reply; updates on the way are skipped.
    ///
    /// # Errors
    /// The shim refused, or is gone.
    pub fn ask(&self, request: &Request) -> Result<(Reply, Vec<OwnedFd>), SandboxError> {
        self.channel.send(request, &[])?;
        loop {
            match self.channel.recv()? {
                (Reply::Update(_), _) => {}
                (Reply::Refused { reason }, _) => return Err(SandboxError::Refused(reason)),
                answer => return Ok(answer),
            }
        }
    }

    /// Who it is and how its service does.
    pub fn hello(&self) -> Result<Hello, SandboxError> {
        match self.ask(&Request::Hello)? {
            (Reply::Hello(hello), _) => Ok(hello),
            _ => Err(SandboxError::Refused("the shim did not say who it is".into())),
        }
    }

    /// After [`Request::Watch`]: the next state.
    pub fn next_update(&self) -> Result<Status, SandboxError> {
        loop {
            if let (Reply::Update(status), _) = self.channel.recv()? {
                return Ok(status);
            }
        }
    }
}
