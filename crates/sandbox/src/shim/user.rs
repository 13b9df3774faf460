//! Who a shim is: the user namespace that everything else hangs on.

use std::fs;
use std::process::Stdio;

use ringfence_channel::{BlockingChannel, stdin_channel, sys};
use rustix::process::{getgid, getuid};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::spec::{Spec, UidRange};
use crate::{SandboxError, error::Context as _, role};

/// Whose uids are used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Identity {
    /// As root: a range of uids of the service's own.
    Range(UidRange),
    /// Otherwise: the one uid and gid that we have.
    Same { uid: u32, gid: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Map {
    pid: u32,
    range: UidRange,
}

impl Identity {
    pub(crate) fn of(spec: &Spec) -> Result<Self, SandboxError> {
        match (getuid().is_root(), spec.uids) {
            (true, Some(range)) => Ok(Self::Range(range)),
            (true, None) => Err(SandboxError::Spec(
                "as root each service needs a uid range of its own; without one it would run as root".into(),
            )),
            (false, None) => Ok(Self::Same { uid: getuid().as_raw(), gid: getgid().as_raw() }),
            (false, Some(_)) => {
                Err(SandboxError::Spec("only root can give a service a uid range of its own".into()))
            }
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        matches!(self, Self::Range(_))
    }

    /// Uid of shim and init as the host sees it.
    pub(crate) fn init_on_host(&self) -> u32 {
        match self {
            Self::Range(range) => range.base,
            Self::Same { uid, .. } => *uid,
        }
    }

    /// Uid of the service inside.
    pub(crate) fn service_inside(&self) -> u32 {
        match self {
            Self::Range(_) => crate::spec::SERVICE_ID,
            Self::Same { uid, .. } => *uid,
        }
    }

    /// Enters a new user namespace, with all capabilities over what is made in it and none over the host.
    pub(crate) fn enter(&self) -> Result<(), SandboxError> {
        match *self {
            Self::Same { uid, gid } => {
                unshare()?;
                for (file, text) in [
                    ("setgroups", "deny".to_owned()),
                    ("uid_map", format!("{uid} {uid} 1")),
                    ("gid_map", format!("{gid} {gid} 1")),
                ] {
                    fs::write(format!("/proc/self/{file}"), text)
                        .step(|| format!("write the {file} of a user namespace"))?;
                }
                Ok(())
            }
            Self::Range(range) => {
                // Only somebody outside can map a range, so a helper stays outside.
                let (mut command, ours) = role::command(role::MAP)?;
                let mut helper = command.stdout(Stdio::null()).spawn().step(|| "start a helper".into())?;
                let channel: BlockingChannel<Map, Result<(), String>> = BlockingChannel::new(ours);
                unshare()?;
                channel.send(&Map { pid: std::process::id(), range }, &[])?;
                let (answer, _) = channel.recv()?;
                helper.wait().step(|| "wait for a helper".into())?;
                answer.map_err(SandboxError::Refused)?;
                let (uid, gid) = (rustix::fs::Uid::from_raw(0), rustix::fs::Gid::from_raw(0));
                set_thread_groups(&[]).step(|| "leave all groups".into())?;
                set_thread_res_gid(gid, gid, gid).step(|| "take the range's first gid".into())?;
                set_thread_res_uid(uid, uid, uid).step(|| "take the range's first uid".into())
            }
        }
    }
}

/// The helper that maps a range of uids into its parent's user namespace.
pub(crate) fn mapper() -> Result<(), SandboxError> {
    let channel: BlockingChannel<Result<(), String>, Map> =
        BlockingChannel::new(stdin_channel().step(|| "find the channel".into())?);
    let (map, _) = channel.recv()?;
    let line = format!("0 {} {}", map.range.base, map.range.count);
    let result = ["uid_map", "gid_map"].iter().try_for_each(|file| {
        fs::write(format!("/proc/{}/{file}", map.pid), &line)
            .step(|| format!("map uids from {} on (write {file})", map.range.base))
    });
    Ok(channel.send(&result.map_err(|e| e.to_string()), &[])?)
}

fn unshare() -> Result<(), SandboxError> {
    sys::unshare_namespaces(UnshareFlags::NEWUSER)
        .step(|| "make a user namespace (`ringfence up` says what forbids it)".into())
}
