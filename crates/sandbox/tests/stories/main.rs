//! Stories of services in their sandboxes, told by the real kernel, as root and as an unprivileged user.
//!
//! Not the standard harness: this binary is also the shim, PID 1 and the trial processes (hidden roles), and it runs itself
//! again as another user. Arguments filter stories by name.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on stops")]

mod confinement;
mod fence;
mod files;
mod life;
mod network;
mod sense;
mod walls;

use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::process::{Command, ExitCode};

/// A story and whether it can be told by anybody but root.
pub(crate) struct Story(&'static str, fn());

const AS_USER: &str = "--as-user";
/// `nobody`: every system has it.
const USER: u32 = 65_534;

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    if let Some(code) = ringfence_sandbox::dispatch(first.as_deref()) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) =
        confinement::role(&arguments).or_else(|| life::role(&arguments)).or_else(|| sense::role(&arguments))
    {
        return code;
    }
    let root = rustix::process::getuid().is_root();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut failed = tell(root, &filters);
    if root {
        let status = Command::new(std::env::current_exe().expect("this binary has a path"))
            .args([AS_USER].into_iter().chain(filters.iter().map(|f| f.as_str())))
            .uid(USER)
            .gid(USER)
            .current_dir("/")
            .status()
            .expect("this binary starts again as another user");
        failed += usize::from(!status.success());
    } else if !arguments.iter().any(|a| a == AS_USER) {
        println!("not root: the stories were told as uid {} only", rustix::process::getuid().as_raw());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(root: bool, filters: &[&String]) -> usize {
    let teller = if root { "root" } else { "user" };
    let mut failed = 0;
    for Story(name, story) in [
        life::STORIES,
        network::STORIES,
        walls::STORIES,
        files::STORIES,
        sense::STORIES,
        confinement::STORIES,
    ]
    .concat()
    {
        if !filters.is_empty() && !filters.iter().any(|f| name.contains(f.as_str())) {
            continue;
        }
        let start = std::time::Instant::now();
        let result = catch_unwind(story);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("story {teller}::{name} ... {verdict} ({} ms)", start.elapsed().as_millis());
        failed += usize::from(result.is_err());
    }
    println!("{teller}: {failed} failed");
    failed
}

impl Clone for Story {
    fn clone(&self) -> Self {
        Self(self.0, self.1)
    }
}
