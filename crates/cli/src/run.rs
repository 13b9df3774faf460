//! `ringfence run NAME -- CMD`: one service behind the fence, in the foreground, for systemd units and terminals.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ringfence_control::supervisor::Applied;
use ringfence_model::{Fence, Kind};
use ringfence_sandbox::spec::Isolation;

use crate::data::{DataDir, fence_folder};
use crate::env::Env;
use crate::up::spec::{Ground, spec};

/// How long to wait for `up`, which may be starting at the same time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The service, declared in the fence without `run:`
    service: String,
    /// The fence: a file or a folder
    #[arg(long, short, default_value = ".", value_name = "PATH")]
    fence: PathBuf,
    /// The data directory [default: .ringfence beside the fence]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: RunArgs, env: &Env) -> ExitCode {
    match start(&args, env) {
        Ok(code) => code,
        Err((code, message)) => {
            eprintln!("ringfence: {message}");
            ExitCode::from(code)
        }
    }
}

fn start(args: &RunArgs, env: &Env) -> Result<ExitCode, (u8, String)> {
    let fence = Fence::load(&args.fence).map_err(|d| (2, d.to_string()))?;
    let service = fence.service(&args.service).ok_or_else(|| {
        (2, format!("the fence {} has no service `{}`; declare it first", fence.name, args.service))
    })?;
    if !matches!(service.kind, Kind::Waits { .. }) {
        let why = format!(
            "{}: service `{}` has `run:` or `external:`; remove it to start the service with `ringfence run`",
            service.position, service.name
        );
        return Err((2, why));
    }
    let data = DataDir::locate(&args.fence, args.data.as_deref()).map_err(|e| (3, e.to_string()))?;
    let applied = applied(&data)?;
    let folder = std::fs::canonicalize(fence_folder(&args.fence)).map_err(|e| (3, e.to_string()))?;
    let binary = std::env::current_exe().map_err(|e| (3, e.to_string()))?;
    let ground = Ground {
        folder: &folder,
        data: data.root(),
        binaries: binary.parent().unwrap_or(&folder),
        path: &env.path,
        isolation: Isolation::On,
        root: rustix::process::geteuid().is_root(),
    };
    let mut spec = spec(&ground, &fence, &applied, service, &args.command).map_err(|e| (2, e.to_string()))?;
    // Whoever started this one, systemd or a person, is told how it ended and decides what follows.
    spec.restart.enabled = false;
    // No thread was started so far: the client has a runtime of this one thread.
    ringfence_sandbox::run_here(&spec).map_err(|e| (3, e.to_string()))
}

/// Addresses as control gave them out.
fn applied(data: &DataDir) -> Result<Applied, (u8, String)> {
    let start = Instant::now();
    loop {
        match crate::client::Client::new(data.root()).and_then(|client| client.get("/v1/fence")) {
            Ok(applied) => return Ok(applied),
            Err(e) if start.elapsed() > PATIENCE => {
                return Err((3, format!("{e}; start `ringfence up` for this fence first")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}
