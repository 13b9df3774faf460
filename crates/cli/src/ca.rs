//! The certificate authority: what changes it in a running fence, over its control socket.

mod offline;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ringfence_control::{Mint, Rotate, RotateWhat};
use ringfence_keeper::protocol::{AuthorityStatus, Stage, Status, Step};
use ringfence_snapshot::Der;
use serde::Deserialize;
use serde_json::{Value, json};

use self::offline::Place;
use crate::args::MasterArgs;
use crate::client::Client;
use crate::env::Env;
use crate::view::{Done, Failure, finish};

#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Roots, issuing CAs and token keys with their stages and ends
    Show,
    /// Rotate with overlap: nothing that is valid stops being valid
    Rotate {
        /// The issuing CA in one step; the root, or a key that signs tokens, in three: run it again for the next step
        #[arg(value_enum, default_value = "issuing")]
        what: What,
        /// Which of the three steps [default: the next one]
        #[arg(long, value_enum)]
        step: Option<RotateStep>,
        /// Drop the old one although what it signed may still be valid: it is not to be believed any more
        #[arg(long)]
        force: bool,
        /// The exported root, for an issuing CA while the root is offline; `up` must not run
        #[arg(long, value_name = "FILE")]
        package: Option<PathBuf>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// The root's private key: out of this machine, and back
    Root {
        #[command(subcommand)]
        command: RootCommand,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Issuing,
    Root,
    /// The key that signs JWT-SVIDs
    Jwt,
    /// The key that signs transaction and session tokens
    Txn,
}

#[derive(Debug, Subcommand)]
enum RootCommand {
    /// Take the root offline: its key goes into a file under a passphrase, and nowhere else; `up` must not run
    Export {
        /// The file, which must not exist, outside the data directory
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Bring an exported root back for good; `up` must not run
    Import {
        /// The file
        #[arg(long, value_name = "FILE")]
        package: PathBuf,
        #[command(flatten)]
        master: MasterArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RotateStep {
    /// Make the new one, and have everybody believe it too
    Prepare,
    /// Sign with the new one
    Activate,
    /// Drop the old one
    Retire,
}

#[derive(Debug, Args)]
pub(crate) struct SvidArgs {
    /// The external service
    service: String,
    /// How long it is valid, such as 1h or 30m
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: std::time::Duration,
    /// Folder for svid.pem, key.pem (mode 0600) and bundle.pem
    #[arg(long, short, default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Minted {
    id: String,
    chain: Vec<Der>,
    key: Der,
    roots: Vec<Der>,
    not_after: u64,
}

pub(crate) fn run(args: &CaArgs, fence: &Path, data: &Path, env: &Env) -> ExitCode {
    let place = |master| Place { fence, data, master, env };
    finish(match &args.command {
        CaCommand::Show => show(data, args.json),
        CaCommand::Rotate { what: What::Issuing, step: None, force: false, package: Some(package), master } => {
            offline::rotate(&place(master), package).and_then(|status| {
                print(&status, args.json)?;
                if !args.json {
                    println!("the new issuing CA signs from the next `ringfence up` on; the root is offline as before");
                }
                Ok(ExitCode::SUCCESS)
            })
        }
        CaCommand::Rotate { package: Some(_), .. } => Err(Failure::Wrong(
            "--package goes with `ca rotate issuing`; a root rotation makes a new root and does not need the old one".into(),
        )),
        CaCommand::Rotate { what, step, force, .. } => rotate(*what, *step, *force, data, args.json),
        CaCommand::Root { command: RootCommand::Export { out, master } } => {
            offline::export(&place(master), out).map(|exported| exported.say(args.json))
        }
        CaCommand::Root { command: RootCommand::Import { package, master } } => {
            offline::import(&place(master), package).map(|imported| imported.say(args.json))
        }
    })
}

pub(crate) fn svid(args: &SvidArgs, data: &Path) -> ExitCode {
    finish(mint(args, data))
}

/// Posts and prints what comes back.
pub(crate) fn post(data: &Path, path: &str, body: &Value) -> ExitCode {
    let asked = || -> Done {
        let answer: Value = Client::new(data)?.post(path, body)?;
        println!("{answer}");
        Ok(ExitCode::SUCCESS)
    };
    finish(asked())
}

fn show(data: &Path, json: bool) -> Done {
    print(&Client::new(data)?.get("/v1/ca")?, json)
}

fn rotate(what: What, step: Option<RotateStep>, force: bool, data: &Path, json: bool) -> Done {
    let step = match (what, step, force) {
        (What::Issuing, Some(_), _) => {
            return Err(Failure::Wrong("an issuing CA is rotated in one step".into()));
        }
        (_, Some(RotateStep::Retire), force) => Some(Step::Retire { force }),
        (_, _, true) => {
            return Err(Failure::Wrong("--force goes with `--step retire` only".into()));
        }
        (_, Some(RotateStep::Prepare), _) => Some(Step::Prepare),
        (_, Some(RotateStep::Activate), _) => Some(Step::Activate),
        (_, None, _) => None,
    };
    let what = match what {
        What::Issuing => RotateWhat::Issuing,
        What::Root => RotateWhat::Root,
        What::Jwt => RotateWhat::Jwt,
        What::Txn => RotateWhat::Txn,
    };
    let status: Status = Client::new(data)?.post("/v1/ca/rotate", &Rotate { what, step })?;
    print(&status, json)?;
    let (one, list, signed) = match what {
        RotateWhat::Issuing => return Ok(ExitCode::SUCCESS),
        RotateWhat::Root => ("root", &status.roots, "certificate"),
        RotateWhat::Jwt => ("key", &status.tokens, "token"),
        RotateWhat::Txn => ("key", &status.txn, "token"),
    };
    if !json && list.iter().any(|r| r.stage == Stage::Prepared) {
        println!("every enforcement point now believes the new {one} too; run it again to sign with it");
    } else if !json && list.iter().any(|r| r.stage == Stage::Retiring) {
        println!("the new {one} signs; run it again to drop the old one once its last {signed} has ended");
    } else if !json {
        println!("the old {one} is gone");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &Status, json: bool) -> Done {
    if json {
        println!("{}", serde_json::to_string(status)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("trust domain {}, bundle generation {}", status.trust_domain, status.generation);
    let groups: [(&str, &[AuthorityStatus]); 5] = [
        ("root", &status.roots),
        ("issuing", &status.issuing),
        ("serving", &status.serving),
        ("jwt", &status.tokens),
        ("txn", &status.txn),
    ];
    for (what, list) in groups {
        for authority in list {
            println!(
                "{what:8} {:9} {:7} until {} {}",
                format!("{:?}", authority.stage).to_lowercase(),
                if authority.online { "online" } else { "offline" },
                date(authority.not_after),
                authority.id,
            );
        }
    }
    if let Some(until) = offline_until(status) {
        println!(
            "the root is offline: before {until} stop `up` and run `ringfence ca rotate issuing --package FILE`"
        );
    }
    let counts = status.counts;
    println!(
        "signed since start: {} SVIDs, {} JWT-SVIDs, {} gateway certificates, {} snapshots, {} transaction and {} session tokens; {} refused",
        counts.x509,
        counts.jwt,
        counts.serving,
        counts.snapshots,
        counts.txn,
        counts.sessions,
        counts.refused
    );
    Ok(ExitCode::SUCCESS)
}

/// While the active root is offline: when the issuing CA ends, which only the root can replace.
fn offline_until(status: &Status) -> Option<String> {
    let active = |list: &[AuthorityStatus]| list.iter().find(|a| a.stage == Stage::Active).cloned();
    let offline = active(&status.roots).is_some_and(|root| !root.online);
    active(&status.issuing).filter(|_| offline).map(|issuing| date(issuing.not_after))
}

fn date(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn mint(args: &SvidArgs, data: &Path) -> Done {
    let body = Mint { service: args.service.clone(), ttl: args.ttl.as_secs() };
    let minted: Minted = Client::new(data)?.post("/v1/svid", &body)?;
    let write = |name: &str, label: &str, ders: &[Der]| {
        let path = args.out.join(name);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        ders.iter().try_for_each(|der| file.write_all(ringfence_control::pem(label, &der.0).as_bytes()))
    };
    std::fs::create_dir_all(&args.out)
        .and_then(|()| write("svid.pem", "CERTIFICATE", &minted.chain))
        .and_then(|()| write("key.pem", "PRIVATE KEY", &[minted.key]))
        .and_then(|()| write("bundle.pem", "CERTIFICATE", &minted.roots))
        .map_err(|e| Failure::Cannot(format!("cannot write to {}: {e}", args.out.display())))?;
    println!("{}", json!({ "id": minted.id, "not_after": minted.not_after, "folder": args.out }));
    Ok(ExitCode::SUCCESS)
}
