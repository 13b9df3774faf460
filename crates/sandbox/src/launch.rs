//! Starting a shim.

use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use ringfence_channel::BlockingChannel;
use serde::{Deserialize, Serialize};

use crate::protocol::Hello;
use crate::spec::Spec;
use crate::{SandboxError, error::Context as _, role};

/// How long a shim may take to make its networks.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A shim that was just started.
#[derive(Debug)]
pub struct Launched {
    /// Its process; it outlives us unless told to stop. Wait for it to leave no zombie behind.
    pub child: Child,
    /// Who it is.
    pub hello: Hello,
}

/// What a new shim says once over its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Started {
    Up(Hello),
    Failed(String),
}

/// Starts a shim, detached from terminal and session, and waits until it serves `run/shim/NAME.sock`. The service itself is
/// starting by then.
///
/// # Errors
/// Says which step failed; nothing is left behind then.
pub fn launch(spec: &Spec) -> Result<Launched, SandboxError> {
    spec.validate()?;
    let (mut command, ours) = role::command(role::SHIM)?;
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().step(|| "start a shim process".into())?;
    let channel: BlockingChannel<Spec, Started> = BlockingChannel::new(ours);
    let answer = channel.set_timeout(Some(START_TIMEOUT)).and_then(|()| {
        channel.send(spec, &[])?;
        channel.recv()
    });
    match answer {
        Ok((Started::Up(hello), _)) => Ok(Launched { child, hello }),
        other => {
            let _ = child.kill();
            let _ = child.wait();
            Err(match other {
                Ok((Started::Failed(why), _)) => SandboxError::Refused(why),
                Err(e) => e.into(),
                Ok((Started::Up(_), _)) => SandboxError::Refused("the shim is confused".into()),
            })
        }
    }
}

/// Becomes the shim of `spec` in this process, in the foreground (`ringfence run`); what the service prints appears on our
/// standard output too. Returns when the service ended for good or on SIGTERM or SIGINT.
///
/// Must be called before this process has started any thread.
pub fn run_here(spec: &Spec) -> Result<ExitCode, SandboxError> {
    spec.validate()?;
    crate::shim::run(spec, crate::shim::Front::Terminal)
}
