//! API keys: made, listed, rotated and revoked over the control socket. A secret is printed once and kept nowhere.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use ringfence_control::{CreateKey, RotateKey};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::view::table::Table;
use crate::view::{Done, clean, finish, now, print, print_json};

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key; it is printed once
    Create {
        /// Whose it is: services get this as `Ringfence-User`
        #[arg(long)]
        client: String,
        /// What it is good for, with commas in between
        #[arg(long, value_delimiter = ',', value_name = "SCOPES")]
        scopes: Vec<String>,
        /// How long it is good, such as 90d; without it, until it is revoked
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        /// From when it is good, such as 2030-01-31T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339)]
        not_before: Option<SystemTime>,
    },
    /// All keys, without their secrets
    List,
    /// One key, without its secret
    Show {
        /// The twelve characters after `rf_`
        id: String,
    },
    /// A new secret for a key; the one before stays good for a while
    Rotate {
        /// The twelve characters after `rf_`
        id: String,
        /// How long the secret before stays good, such as 7d; 0s ends it at once
        #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Refuse a key from now on, for good
    Revoke {
        /// The twelve characters after `rf_`
        id: String,
    },
}

/// A key as control describes it; with its secret only in the moment in which it is made.
#[derive(Debug, Serialize, Deserialize)]
struct Key {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    client: String,
    scopes: Vec<String>,
    created: u64,
    not_before: Option<u64>,
    expires_at: Option<u64>,
    rotated: Option<u64>,
    previous_until: Option<u64>,
    revoked: Option<u64>,
    last_used: Option<u64>,
}

pub(crate) fn run(args: &KeyArgs, data: &Path, colour: bool) -> ExitCode {
    finish(ask(args, data, colour))
}

fn ask(args: &KeyArgs, data: &Path, colour: bool) -> Done {
    let client = Client::new(data)?;
    // What a user types becomes part of a path.
    let path = |id: &str, rest: &str| {
        let plain = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        format!("/v1/keys/{}{rest}", if plain { id } else { "-" })
    };
    match &args.command {
        KeyCommand::Create { client: name, scopes, expires, not_before } => {
            let since = |time: &SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let body = CreateKey {
                client: name.clone(),
                scopes: scopes.clone(),
                life: expires.map(|life| life.as_secs()),
                not_before: not_before.as_ref().map(since),
            };
            made(&client.post("/v1/keys", &body)?, args.json)
        }
        KeyCommand::List => list(&client, args.json, colour),
        KeyCommand::Show { id } => show(&client.get(&path(id, ""))?, args.json),
        KeyCommand::Rotate { id, overlap } => {
            let body = RotateKey { overlap: overlap.as_secs() };
            made(&client.post(&path(id, "/rotate"), &body)?, args.json)
        }
        KeyCommand::Revoke { id } => show(&client.post(&path(id, "/revoke"), &())?, args.json),
    }
}

/// The secret on standard output, so that it can go into a file or a secret store; what to know on standard error.
fn made(key: &Key, json: bool) -> Done {
    if json {
        print_json(key)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("{}\n", key.key.as_deref().unwrap_or_default()))?;
    let previous =
        key.previous_until.map_or_else(String::new, |until| format!("; the one before ends {}", date(until)));
    eprintln!("key {} of {}, {}{previous}", key.id, clean(&key.client), state(key));
    eprintln!("this is the only time that it is shown; send it as `X-API-Key` or `Authorization: Bearer`");
    Ok(ExitCode::SUCCESS)
}

fn show(key: &Key, json: bool) -> Done {
    if json {
        print_json(key)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![
        ("id", key.id.clone()),
        ("client", clean(&key.client)),
        ("scopes", clean(&key.scopes.join(" "))),
        ("state", state(key)),
        ("created", date(key.created)),
    ];
    let times = [
        ("good from", key.not_before),
        ("ends", key.expires_at),
        ("rotated", key.rotated),
        ("previous secret ends", key.previous_until),
        ("revoked", key.revoked),
        ("last used", key.last_used),
    ];
    lines.extend(times.into_iter().filter_map(|(what, at)| Some((what, date(at?)))));
    let text: String = lines.iter().map(|(what, value)| format!("{what:21} {value}\n")).collect();
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, json: bool, colour: bool) -> Done {
    let keys: Vec<Key> = client.all("keys")?;
    if json {
        print_json(&serde_json::json!({ "keys": keys }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if keys.is_empty() {
        eprintln!(
            "there are no API keys: make one with `ringfence key create --client NAME --scopes SCOPES`"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["id", "client", "scopes", "state", "last used"]);
    for key in &keys {
        let used = key.last_used.map_or_else(|| "-".to_owned(), date);
        let cells = [key.id.clone(), key.client.clone(), key.scopes.join(" "), state(key), used];
        table.row(cells.into_iter().map(Into::into));
    }
    print(&table.lines(colour).into_iter().map(|line| line + "\n").collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn state(key: &Key) -> String {
    let now = now();
    match (key.revoked, key.not_before, key.expires_at) {
        (Some(_), ..) => "revoked".to_owned(),
        (None, _, Some(end)) if end <= now => "expired".to_owned(),
        (None, Some(from), _) if from > now => format!("good from {}", date(from)),
        (None, _, Some(end)) => format!("good until {}", date(end)),
        (None, _, None) => "good until revoked".to_owned(),
    }
}

fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
