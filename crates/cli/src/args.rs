//! The command line.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ringfence_sandbox::spec::Isolation;
use ringfence_store::Place;

use crate::data::DataDir;
use crate::env::Env;
use crate::up::{self, MasterChoice};
use crate::{
    backup, ca, content, doctor, down, drill, fence, host, key, openapi, revoke, run, session, store, view,
    waf,
};

/// One declaration fences your services in: who may call whom, what each may reach.
///
/// Exit codes: 0 done; 1 the answer is no (a check, gate or drill failed); 2 wrong use or wrong input; 3 could not do it.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the fence and its services, and keep them in line with ringfence.yaml
    Up(Up),
    /// Run this host's part of a fence that has its control on another host
    Node(Node),
    /// The hosts of the fence: list, let one join, remove one
    Host(At<host::HostArgs>),
    /// Start one service behind the fence that `up` enforces (for systemd units and terminals)
    Run(run::RunArgs),
    /// What runs, how it is isolated, and what to know about it
    Status(At<view::status::StatusArgs>),
    /// What is wrong, and what to do next: the fence, this machine, and what runs
    Doctor(At<doctor::DoctorArgs>),
    /// Requests, latency, errors and denials per edge, live
    Top(At<view::top::TopArgs>),
    /// What happened: allowed, denied, dialled, started, signed
    Events(At<view::events::EventsArgs>),
    /// Why A may (not) call B; or, with one event or trace id, why that was denied
    Why(fence::why::WhyArgs),
    /// Every decision on the way of one trace, in the order of cause
    Trace(At<view::trace::TraceArgs>),
    /// Check ringfence.yaml
    Check(fence::check::CheckArgs),
    /// What policies decide: test, explain, compare
    #[command(subcommand)]
    Authz(fence::authz::AuthzCommand),
    /// Show who may call whom
    Graph(fence::graph::GraphArgs),
    /// Write a ringfence.yaml, from a Compose file or Kubernetes manifests if there are some
    Init(fence::init::InitArgs),
    /// Print the JSON Schema of ringfence.yaml for editors
    Schema(fence::schema::SchemaArgs),
    /// Rehearse attacks against the running fence: each must be stopped, and each must be reported
    Drill(At<drill::DrillArgs>),
    /// The certificate authority: show, rotate
    Ca(At<ca::CaArgs>),
    /// API keys of clients outside: create, list, rotate, revoke
    Key(At<key::KeyArgs>),
    /// People who signed in at the gateway: list, end
    Session(At<session::SessionArgs>),
    /// Put the state of the fence, keys included, into one sealed file; it may run meanwhile
    Backup(At<backup::BackupArgs>),
    /// Make a data directory from a backup, or check one (--verify)
    Restore(At<backup::RestoreArgs>),
    /// Where state is kept: status; move it into PostgreSQL
    Store(At<store::StoreArgs>),
    /// Revoke a session, user, client, token, key, provider or SVID: everywhere within a second, open streams too
    Revoke(At<revoke::RevokeArgs>),
    /// What is revoked, by whom, why and until when; take one back
    Revocations(At<revoke::RevocationsArgs>),
    /// Get an X.509-SVID for a declared external service that speaks SPIFFE itself
    Svid(At<ca::SvidArgs>),
    /// The web application firewall: why it matched, what could be excluded, what rules cost
    Waf(At<waf::WafArgs>),
    /// Descriptions of APIs: check one, draft one from traffic
    Openapi(At<openapi::OpenapiArgs>),
    /// Rules that others publish, checked by digest: fetch
    Content(At<content::ContentArgs>),
    /// Stop what `up` runs, and wait until it is gone
    Down(At<down::DownArgs>),
    /// Restart a service
    Restart(At<Restart>),
    /// Print shell completions
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one per command into a folder
    Man {
        /// The folder
        folder: Option<PathBuf>,
    },
}

/// A command's own arguments, and which running fence is meant.
#[derive(Debug, ClapArgs)]
struct At<T: ClapArgs> {
    #[command(flatten)]
    args: T,
    /// The fence: a file or a folder
    #[arg(global = true, long, short, default_value = ".", value_name = "PATH")]
    fence: PathBuf,
    /// The data directory [default: .ringfence beside the fence]
    #[arg(global = true, long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
struct Restart {
    /// The service
    service: String,
}

#[derive(Debug, ClapArgs)]
struct Up {
    /// The fence: a file, or a folder with ringfence.yaml or fragments
    #[arg(default_value = ".")]
    fence: PathBuf,
    /// Where state is kept [default: .ringfence beside the fence]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Run services without namespaces; `status` keeps saying so
    #[arg(long, value_enum, default_value = "on")]
    isolation: OnOff,
    /// Threads of the data plane [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    /// Where this host's mesh listener is; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    mesh: SocketAddr,
    /// Keep state in PostgreSQL: postgresql://USER@HOST/DATABASE?ca=FILE&password_file=FILE, or RINGFENCE_STORE
    #[arg(long, value_name = "URL")]
    store: Option<Place>,
    /// How long to wait for that database at the start
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    store_wait: std::time::Duration,
    #[command(flatten)]
    master: MasterArgs,
    /// How long SVIDs live; each is renewed at half of it
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    svid_life: std::time::Duration,
    /// Do not show what the services print
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, ClapArgs)]
struct Node {
    /// This host's copy of the fence: it says what to run here; who may call whom, control says
    #[arg(default_value = ".")]
    fence: PathBuf,
    /// Join with the token in this file, `-` for standard input; needed once
    #[arg(long, value_name = "FILE")]
    join: Option<PathBuf>,
    /// Where state is kept [default: .ringfence beside the fence]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Run services without namespaces; `status` keeps saying so
    #[arg(long, value_enum, default_value = "on")]
    isolation: OnOff,
    /// Threads of the data plane [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=32))]
    threads: Option<u16>,
    #[command(flatten)]
    master: MasterArgs,
    /// Do not show what the services print
    #[arg(long, short)]
    quiet: bool,
}

impl Node {
    fn options(self) -> Result<up::Options, String> {
        let token = self.join.as_deref().map(host::token).transpose()?;
        let up = Up {
            fence: self.fence,
            data: self.data,
            isolation: self.isolation,
            threads: self.threads,
            mesh: SocketAddr::from(([127, 0, 0, 1], 0)),
            store: None,
            store_wait: std::time::Duration::ZERO,
            master: self.master,
            svid_life: std::time::Duration::from_secs(3600),
            quiet: self.quiet,
        };
        Ok(up::Options { member: Some(up::Joining { token }), ..up.options() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

/// Where the keeper gets what opens its keys.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct MasterArgs {
    /// Where the master key comes from
    #[arg(long, value_enum, default_value = "file")]
    master: Master,
    /// The master key file [default: master.key in the data directory]
    #[arg(long, value_name = "FILE")]
    master_file: Option<PathBuf>,
}

impl MasterArgs {
    pub(crate) fn choice(&self) -> MasterChoice {
        match self.master {
            Master::File => MasterChoice::File(self.master_file.clone()),
            Master::Passphrase => MasterChoice::Passphrase,
            Master::Credential => MasterChoice::Credential,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Master {
    /// A key file of mode 0600, made at the first start
    File,
    /// A passphrase, asked for at the terminal or taken from RINGFENCE_PASSPHRASE
    Passphrase,
    /// The systemd credential `ringfence-master`
    Credential,
}

impl Args {
    pub(crate) fn run(self, env: Env) -> ExitCode {
        match self.command {
            Command::Up(args) => up::run(args.options(), env),
            Command::Node(args) => match args.options() {
                Ok(options) => up::run(options, env),
                Err(e) => {
                    eprintln!("error: {e}");
                    ExitCode::from(2)
                }
            },
            Command::Host(at) => at.with(|args, data| host::run(args, data, env.colour)),
            Command::Run(args) => run::run(args, &env),
            Command::Status(at) => at.with(|args, data| view::status::run(args, data, env.colour)),
            Command::Doctor(at) => at.with(|args, data| doctor::run(args, &at.fence, data, &env)),
            Command::Top(at) => at.with(|args, data| view::top::run(args, data, env.colour)),
            Command::Events(at) => at.with(|args, data| view::events::run(args, data, env.colour)),
            Command::Why(args) => fence::why::run(args, &env),
            Command::Trace(at) => at.with(|args, data| view::trace::run(args, data, env.colour)),
            Command::Check(args) => fence::check::run(args, &env),
            Command::Authz(command) => fence::authz::run(command, &env),
            Command::Graph(args) => fence::graph::run(args, &env),
            Command::Init(args) => fence::init::run(args, &env),
            Command::Schema(args) => fence::schema::run(args),
            Command::Drill(at) => at.with(|args, data| drill::run(args, &at.fence, data, env.colour)),
            Command::Ca(at) => at.with(|args, data| ca::run(args, &at.fence, data, &env)),
            Command::Key(at) => at.with(|args, data| key::run(args, data, env.colour)),
            Command::Session(at) => at.with(|args, data| session::run(args, data, env.colour)),
            Command::Backup(at) => at.with(|args, data| backup::run(args, data, &env)),
            Command::Restore(at) => at.with(|args, data| backup::restore(args, data, &env)),
            Command::Store(at) => at.with(|args, data| store::run(args, data, &env)),
            Command::Revoke(at) => at.with(revoke::run),
            Command::Revocations(at) => at.with(|args, data| revoke::list(args, data, env.colour)),
            Command::Svid(at) => at.with(ca::svid),
            Command::Waf(at) => at.with(|args, data| waf::run(args, &at.fence, data, env.colour)),
            Command::Openapi(at) => at.with(openapi::run),
            Command::Content(at) => content::run(&at.args, &at.fence),
            Command::Down(at) => at.with(down::run),
            Command::Restart(at) => at.with(|args, data| {
                ca::post(data, "/v1/restart", &serde_json::json!({ "service": args.service }))
            }),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "ringfence", &mut script);
                written("the completions", print(&script))
            }
            Command::Man { folder } => man(folder),
        }
    }
}

impl<T: ClapArgs> At<T> {
    /// Runs a command on the data directory that is meant.
    fn with(&self, run: impl FnOnce(&T, &Path) -> ExitCode) -> ExitCode {
        match DataDir::locate(&self.fence, self.data.as_deref()) {
            Ok(data) => run(&self.args, data.root()),
            Err(e) => {
                eprintln!("error: cannot find the data directory: {e}");
                ExitCode::from(3)
            }
        }
    }
}

impl Up {
    fn options(self) -> up::Options {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        up::Options {
            fence: self.fence,
            data: self.data,
            isolation: if self.isolation == OnOff::On { Isolation::On } else { Isolation::Off },
            threads: self.threads.map_or_else(|| cores.min(32), usize::from),
            mesh: self.mesh,
            host: None,
            member: None,
            store: self.store,
            store_wait: self.store_wait,
            master: self.master.choice(),
            svid_life: self.svid_life,
            quiet: self.quiet,
        }
    }
}

fn man(folder: Option<PathBuf>) -> ExitCode {
    let done = match folder {
        Some(folder) => {
            std::fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(Args::command(), &folder))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut page).and_then(|()| print(&page))
        }
    };
    written("the man page", done)
}

/// Prints it; a reader that has seen enough is no failure.
fn print(text: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(text) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn written(what: &str, done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringfence: cannot write {what}: {e}");
            ExitCode::from(3)
        }
    }
}
