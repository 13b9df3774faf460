//! Sessions of people who signed in at the gateway: listed and ended over the control socket.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::view::table::Table;
use crate::view::{Done, finish, print, print_json};

#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// Who is signed in
    List,
    /// End a session: everywhere within a second, open streams too
    End {
        /// Its id, as `list` shows it
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

/// A session as control describes it.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    id: String,
    provider: String,
    user: String,
    since: u64,
    refreshed: u64,
    expires_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    ended: String,
}

pub(crate) fn run(args: &SessionArgs, data: &Path, colour: bool) -> ExitCode {
    finish(ask(args, data, colour))
}

fn ask(args: &SessionArgs, data: &Path, colour: bool) -> Done {
    let client = Client::new(data)?;
    match &args.command {
        SessionCommand::List => list(&client, args.json, colour),
        SessionCommand::End { id } => {
            // What a user types becomes part of a path.
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            let id = if !id.is_empty() && id.len() <= 128 && id.bytes().all(plain) { id } else { "-" };
            let ended: Ended = client.post(&format!("/v1/sessions/{id}/end"), &())?;
            if args.json {
                print_json(&ended)?;
            } else {
                print(&format!("session {} has ended\n", ended.ended))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(client: &Client, json: bool, colour: bool) -> Done {
    let sessions: Vec<Session> = client.all("sessions")?;
    if json {
        print_json(&serde_json::json!({ "sessions": sessions }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if sessions.is_empty() {
        eprintln!("nobody is signed in");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["id", "user", "provider", "signed in", "asked last", "ends"]);
    for session in sessions {
        let times = [session.since, session.refreshed, session.expires_at].map(date);
        let [since, refreshed, ends] = times;
        let cells = [session.id, session.user, session.provider, since, refreshed, ends];
        table.row(cells.into_iter().map(Into::into));
    }
    print(&table.lines(colour).into_iter().map(|line| line + "\n").collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn date(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
