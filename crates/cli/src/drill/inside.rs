//! Running an attack inside a service, with nothing but what the service itself has.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use ringfence_sandbox::client::Shim;
use ringfence_sandbox::protocol::{Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::target::Target;
use super::{Unable, attack};

/// A little longer than the shim lets it run.
const PATIENCE: Duration = Duration::from_secs(22);
/// Most that an attack may print.
const MAX_OUTPUT: usize = 256 * 1024;

/// Runs one attack inside `service`; what it found.
pub(crate) fn run(target: &Target, service: &str, args: &[&str]) -> Result<Value, Unable> {
    let refused = |e: ringfence_sandbox::SandboxError| Unable::new(format!("{service}: {e}"));
    let shim = Shim::connect(target.data(), service).map_err(refused)?;
    let args = std::iter::once(attack::ROLE).chain(args.iter().copied()).map(ToOwned::to_owned).collect();
    let (Reply::Inside, fds) = shim.ask(&Request::Inside { args }).map_err(refused)? else {
        return Err(Unable::new(format!("the shim of {service} is of another version")));
    };
    let Some(pipe) = fds.into_iter().next() else {
        return Err(Unable::new(format!("the shim of {service} gave no way to hear from the attack")));
    };
    let said = output(pipe.into()).map_err(|e| Unable::new(format!("{service}: {e}")))?;
    let found = said.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    found.ok_or_else(|| match said.trim() {
        "" => Unable::new(format!("nothing could be started inside {service}: does it run?")),
        said => Unable::new(format!("inside {service}: {said}")),
    })
}

fn output(mut pipe: File) -> std::io::Result<String> {
    let begun = Instant::now();
    let mut said = Vec::new();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout))?;
        if ready == 0 || said.len() > MAX_OUTPUT {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk)? {
            0 => return Ok(String::from_utf8_lossy(&said).into_owned()),
            n => said.extend_from_slice(&chunk[..n]),
        }
    }
}
