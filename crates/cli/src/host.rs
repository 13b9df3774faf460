//! The hosts of a fence: listed, let in, removed, over the control socket.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use ringfence_control::HostToken;
use ringfence_keys::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Client;
use crate::view::table::Table;
use crate::view::{Done, finish, print, print_json};

/// Longest file that holds a token.
const MAX_TOKEN: u64 = 4096;

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// All hosts: which joined, which are connected, what runs there
    List,
    /// Make a token with which a host joins, once: ringfence node --join FILE
    Token {
        /// The host, as the fence names it
        host: String,
        /// How long the token is good
        #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Give a host nothing any more, and revoke the SVIDs of what runs there
    Remove {
        /// The host
        host: String,
    },
}

/// A host as control describes it.
#[derive(Debug, Serialize, Deserialize)]
struct Host {
    name: String,
    state: String,
    #[serde(default)]
    mesh: Option<String>,
    connected: bool,
    #[serde(default)]
    gateway: bool,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    joined_at: Option<u64>,
    #[serde(default)]
    removed_at: Option<u64>,
    #[serde(default)]
    node: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Made {
    host: String,
    token: Secret<String>,
    ends_at: u64,
}

pub(crate) fn run(args: &HostArgs, data: &Path, colour: bool) -> ExitCode {
    finish(ask(args, data, colour))
}

fn ask(args: &HostArgs, data: &Path, colour: bool) -> Done {
    let client = Client::new(data)?;
    // What a user types becomes part of a path.
    let path = |host: &str, rest: &str| {
        let plain = host.len() <= 63 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        format!("/v1/hosts/{}{rest}", if plain { host } else { "-" })
    };
    match &args.command {
        HostCommand::List => {
            let hosts: Vec<Host> = client.get("/v1/hosts")?;
            list(&hosts, args.json, colour)
        }
        HostCommand::Token { host, ttl } => {
            let made: Made = client.post(&path(host, "/token"), &HostToken { ttl: ttl.as_secs() })?;
            if args.json {
                print_json(&made)?;
            } else {
                // The token alone on standard output, so that it can go into a file.
                print(&format!("{}\n", made.token.expose()))?;
                eprintln!(
                    "good once, for host {}, for {}: ringfence node --join FILE",
                    made.host,
                    humantime::format_duration(*ttl)
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        HostCommand::Remove { host } => {
            let done: Value = client.post(&path(host, "/remove"), &())?;
            if args.json {
                print_json(&done)?;
            } else {
                let revoked = done["revoked"].as_array().map_or(0, Vec::len);
                print(&format!(
                    "{host} was removed: it gets nothing any more, and {revoked} identities were revoked up to now\n"
                ))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(hosts: &[Host], json: bool, colour: bool) -> Done {
    if json {
        print_json(&hosts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["host", "state", "mesh", "connected", ">revision", "runs"]);
    for host in hosts {
        let revision = host.node.as_ref().and_then(|node| node["revision"].as_u64());
        let mut runs: Vec<&str> = host.services.iter().map(String::as_str).collect();
        if host.gateway {
            runs.insert(0, "(gateway)");
        }
        table.row([
            host.name.as_str().into(),
            host.state.as_str().into(),
            host.mesh.as_deref().unwrap_or("-").into(),
            if host.connected { "yes" } else { "no" }.into(),
            revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()).into(),
            runs.join(", ").into(),
        ]);
    }
    print(&table.lines(colour).into_iter().map(|line| line + "\n").collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// The token in a file, or on standard input.
///
/// # Errors
/// It cannot be read.
pub(crate) fn token(path: &Path) -> Result<Secret<String>, String> {
    let read = |source: &mut dyn std::io::Read| {
        let mut text = String::new();
        source.take(MAX_TOKEN).read_to_string(&mut text).map(|_| Secret::new(text))
    };
    let read = if path == Path::new("-") {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(|mut file| read(&mut file))
    };
    read.map_err(|e| format!("cannot read the join token from {}: {e}", path.display()))
}
