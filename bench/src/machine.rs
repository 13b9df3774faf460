//! The machine: which core runs what, what a process has cost, and what it is that was measured.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::contenders::Contender;

/// Who runs where: the proxy alone; load and upstream apart when there are cores for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
    pub(crate) upstream: usize,
}

impl Cores {
    pub(crate) fn of_this_machine() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut free = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let (Some(proxy), Some(load)) = (free.next(), free.next()) else {
            return Err(io::Error::other("the proxy and its load need a core each: this machine offers one"));
        };
        Ok(Self { proxy, load, upstream: free.next().unwrap_or(load) })
    }
}

/// Keeps this thread on a core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Starts a process that stays on a core, with all its threads: it inherits the place of the thread that starts it.
pub(crate) fn start_on(core: usize, command: &mut Command) -> io::Result<Child> {
    let before = sched_getaffinity(None)?;
    pin(core)?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    child.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start {}: {error}", command.get_program().display()))
    })
}

/// Allows as many open files as there may be, for a thousand connections on each side.
pub(crate) fn open_files() -> io::Result<()> {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let wanted = most.map_or(65_536, |most| most.min(65_536));
    Ok(rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: most })?)
}

/// Asks a process to end, and ends it if it does not.
pub(crate) fn stop(child: &mut Child) -> io::Result<()> {
    // Asked each second: nginx looks for signals after it waited for events, and may have been about to wait again.
    for _ in 0..15 {
        let _gone = rustix::process::kill_process(Pid::from_child(child), Signal::TERM);
        for _ in 0..100 {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    child.kill()?;
    child.wait().map(drop)
}

/// The unit of `/proc/ID/stat`: USER_HZ, which is 100 on every architecture that proxies run on.
const TICK: Duration = Duration::from_millis(10);

/// A process and its descendants.
#[derive(Clone, Debug)]
pub(crate) struct Family(Vec<u32>);

impl Family {
    pub(crate) fn of(parent: u32) -> io::Result<Self> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Ok(fields) = stat(id) {
                let parent = fields.get(1).and_then(|field| field.parse().ok()).unwrap_or(0);
                children.entry(parent).or_default().push(id);
            }
        }
        let (mut members, mut next) = (vec![parent], 0);
        while let Some(member) = members.get(next) {
            members.extend(children.remove(member).unwrap_or_default());
            next += 1;
        }
        Ok(Self(members))
    }

    /// CPU time so far, user and system. The kernel keeps it exactly and shows it in hundredths of a second, which is why a
    /// window is seconds long.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut total = Duration::ZERO;
        for id in &self.0 {
            let fields = stat(*id)?;
            for field in &fields[11..13] {
                total += TICK * field.parse::<u32>().map_err(io::Error::other)?;
            }
        }
        Ok(total)
    }

    /// Resident memory in MiB: of the member that has most, as parent and worker share most of theirs.
    pub(crate) fn resident(&self) -> io::Result<f64> {
        let mut most = 0.0_f64;
        for id in &self.0 {
            let status = fs::read_to_string(format!("/proc/{id}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
            let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().map_err(io::Error::other)?;
            most = most.max(kib / 1024.0);
        }
        Ok(most)
    }
}

/// The fields of `/proc/ID/stat` after the name: state, parent and so on.
fn stat(id: u32) -> io::Result<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let rest = line.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<String> = rest.split(' ').map(str::to_owned).collect();
    if fields.len() < 20 { Err(io::Error::other("the kernel's stat line is too short")) } else { Ok(fields) }
}

/// What was measured, and on what.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    cpu: String,
    cores: usize,
    kernel: String,
    load_at_end: String,
    versions: Vec<(String, String)>,
}

impl Facts {
    pub(crate) fn read(contenders: &[Box<dyn Contender>]) -> io::Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let load = fs::read_to_string("/proc/loadavg")?;
        let programs = contenders.iter().filter(|c| !matches!(c.name(), "ringfence-mesh" | "envoy-same"));
        let versions = programs.map(|c| Ok((c.name().to_owned(), c.version()?)));
        Ok(Self {
            cpu: model.trim_start_matches(['\t', ' ', ':']).to_owned(),
            // Not what this thread may use: it is pinned.
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_at_end: load.split(' ').next().unwrap_or("?").to_owned(),
            versions: versions.collect::<io::Result<_>>()?,
        })
    }

    pub(crate) fn sentence(&self) -> String {
        let versions: Vec<String> = self.versions.iter().map(|(name, v)| format!("{name} {v}")).collect();
        let versions =
            if versions.is_empty() { String::new() } else { format!(" Versions: {}.", versions.join(", ")) };
        format!(
            "{} cores of {}, Linux {}, load average {} at the end of the run.{}",
            self.cores, self.cpu, self.kernel, self.load_at_end, versions
        )
    }
}
