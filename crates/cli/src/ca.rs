//! Commands that change something in a running fence, over its control socket.

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

use crate::client::Client;
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
        /// The issuing CA in one step, or the root in three: run it again for the next step
        #[arg(value_enum, default_value = "issuing")]
        what: What,
        /// Which step of a root rotation [default: the next one]
        #[arg(long, value_enum)]
        step: Option<RootStep>,
        /// Drop the old root although what it signed may still be valid: it is not to be believed any more
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Issuing,
    Root,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RootStep {
    /// Make the new root, and have everybody believe it too
    Prepare,
    /// Sign with the new root
    Activate,
    /// Drop the old root
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

pub(crate) fn run(args: &CaArgs, data: &Path) -> ExitCode {
    finish(match args.command {
        CaCommand::Show => show(data, args.json),
        CaCommand::Rotate { what, step, force } => rotate(what, step, force, data, args.json),
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

fn rotate(what: What, step: Option<RootStep>, force: bool, data: &Path, json: bool) -> Done {
    let step = match (what, step, force) {
        (What::Root, Some(RootStep::Retire), force) => Some(Step::Retire { force }),
        (_, _, true) => {
            return Err(Failure::Wrong("--force goes with `ca rotate root --step retire` only".into()));
        }
        (What::Issuing, Some(_), _) => {
            return Err(Failure::Wrong("an issuing CA is rotated in one step".into()));
        }
        (What::Root, Some(RootStep::Prepare), _) => Some(Step::Prepare),
        (What::Root, Some(RootStep::Activate), _) => Some(Step::Activate),
        (_, None, _) => None,
    };
    let what = match what {
        What::Issuing => RotateWhat::Issuing,
        What::Root => RotateWhat::Root,
    };
    let status: Status = Client::new(data)?.post("/v1/ca/rotate", &Rotate { what, step })?;
    print(&status, json)?;
    if !json && what == RotateWhat::Root {
        let next = if status.roots.iter().any(|r| r.stage == Stage::Prepared) {
            "every enforcement point now believes the new root too; run it again to sign with it"
        } else if status.roots.iter().any(|r| r.stage == Stage::Retiring) {
            "the new root signs; run it again to drop the old one once its last certificate has ended"
        } else {
            "the old root is gone"
        };
        println!("{next}");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &Status, json: bool) -> Done {
    if json {
        println!("{}", serde_json::to_string(status)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("trust domain {}, bundle generation {}", status.trust_domain, status.generation);
    let groups: [(&str, &[AuthorityStatus]); 4] = [
        ("root", &status.roots),
        ("issuing", &status.issuing),
        ("serving", &status.serving),
        ("token", &status.tokens),
    ];
    for (what, list) in groups {
        for authority in list {
            let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(authority.not_after);
            println!(
                "{what:8} {:9} {:7} until {} {}",
                format!("{:?}", authority.stage).to_lowercase(),
                if authority.online { "online" } else { "offline" },
                humantime::format_rfc3339_seconds(end),
                authority.id,
            );
        }
    }
    let counts = status.counts;
    println!(
        "signed since start: {} SVIDs, {} JWT-SVIDs, {} gateway certificates, {} snapshots; {} refused",
        counts.x509, counts.jwt, counts.serving, counts.snapshots, counts.refused
    );
    Ok(ExitCode::SUCCESS)
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
