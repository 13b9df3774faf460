//! `ringfence revoke` and `ringfence revocations`: what counts no more, everywhere within a second.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use ringfence_control::{Revoke, RevokeWhat};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::view::table::Table;
use crate::view::{Done, clean, finish, print, print_json};

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(subcommand)]
    what: Thing,
    /// Why, for whoever reads the list
    #[arg(long, global = true, default_value = "", value_name = "TEXT")]
    why: String,
    /// How long it is remembered at least, such as 730d; longer than any such credential lives [default: a year for what providers issue]
    #[arg(long, global = true, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keep: Option<Duration>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Thing {
    /// A session of somebody who signed in at the gateway
    Session {
        /// As `ringfence session list` and events name it
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Whatever a user was issued so far: tokens, sessions, and what was made of them
    User {
        /// The provider's name in the fence
        provider: String,
        /// `sub` of the user's tokens
        #[arg(allow_hyphen_values = true)]
        name: String,
    },
    /// Whatever a client of a provider was issued so far
    Client {
        /// The provider's name in the fence, or `certificate` for a client certificate's
        provider: String,
        /// `client_id` of its tokens, or the name in its certificates
        #[arg(allow_hyphen_values = true)]
        name: String,
    },
    /// One token of a provider, or one client certificate
    Token {
        /// The provider's name in the fence, or `certificate`
        provider: String,
        /// `jti` of the token, or SHA-256 of the certificate
        #[arg(allow_hyphen_values = true)]
        jti: String,
    },
    /// A session at a provider, by its own name
    ProviderSession {
        /// The provider's name in the fence
        provider: String,
        /// `sid` of its tokens
        #[arg(allow_hyphen_values = true)]
        sid: String,
    },
    /// Whatever a key of a provider signed, and ever will
    Key {
        /// The provider's name in the fence
        provider: String,
        /// `kid` of the key
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Whatever a provider issued so far
    Provider {
        /// Its name in the fence
        provider: String,
    },
    /// An X.509-SVID, or all that a service was issued so far: it gets another at once
    Svid {
        /// The serial number, or the name of a service
        name: String,
        /// The service gets no other, until `ringfence revocations remove ID`
        #[arg(long)]
        for_good: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RevocationsArgs {
    #[command(subcommand)]
    command: Option<RevocationsCommand>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RevocationsCommand {
    /// Everything that is revoked (the default)
    List,
    /// Take a revocation back: what it was about counts again, as far as it has not ended
    Remove {
        /// As `ringfence revocations` shows it
        id: String,
    },
}

/// A revocation as control describes it.
#[derive(Debug, Serialize, Deserialize)]
struct Revocation {
    id: String,
    what: String,
    provider: Option<String>,
    issuer: String,
    name: String,
    at: u64,
    by: String,
    why: String,
    /// None for whatever is issued.
    issued_until: Option<u64>,
    /// None for never.
    forgotten_at: Option<u64>,
}

pub(crate) fn run(args: &RevokeArgs, data: &Path) -> ExitCode {
    finish(revoke(args, data))
}

pub(crate) fn list(args: &RevocationsArgs, data: &Path, colour: bool) -> ExitCode {
    finish(match &args.command {
        None | Some(RevocationsCommand::List) => show(args.json, data, colour),
        Some(RevocationsCommand::Remove { id }) => remove(id, args.json, data),
    })
}

fn revoke(args: &RevokeArgs, data: &Path) -> Done {
    let (what, provider, name, for_good) = match &args.what {
        Thing::Session { id } => (RevokeWhat::Session, None, id.as_str(), false),
        Thing::User { provider, name } => (RevokeWhat::User, Some(provider), name.as_str(), false),
        Thing::Client { provider, name } => (RevokeWhat::Client, Some(provider), name.as_str(), false),
        Thing::Token { provider, jti } => (RevokeWhat::Token, Some(provider), jti.as_str(), false),
        Thing::ProviderSession { provider, sid } => {
            (RevokeWhat::ProviderSession, Some(provider), sid.as_str(), false)
        }
        Thing::Key { provider, kid } => (RevokeWhat::Key, Some(provider), kid.as_str(), false),
        Thing::Provider { provider } => (RevokeWhat::Provider, Some(provider), "", false),
        Thing::Svid { name, for_good } => (RevokeWhat::Svid, None, name.as_str(), *for_good),
    };
    let body = Revoke {
        what,
        provider: provider.cloned(),
        name: name.to_owned(),
        why: args.why.clone(),
        keep: args.keep.map(|keep| keep.as_secs()),
        for_good,
    };
    let revoked: Revocation = Client::new(data)?.post("/v1/revocations", &body)?;
    if args.json {
        print_json(&revoked)?;
    } else {
        print(&format!("{}\n", revoked.id))?;
        eprintln!(
            "revoked {}, {}; what is open under it is cut within a second",
            subject(&revoked),
            scope(&revoked)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(id: &str, json: bool, data: &Path) -> Done {
    // What a user types becomes part of a path.
    let plain = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let path = format!("/v1/revocations/{}/remove", if plain { id } else { "-" });
    let removed: Revocation = Client::new(data)?.post(&path, &())?;
    if json {
        print_json(&removed)?;
    } else {
        eprintln!("{} is revoked no more", subject(&removed));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(json: bool, data: &Path, colour: bool) -> Done {
    let client = Client::new(data)?;
    let mut all: Vec<Revocation> = client.all("revocations")?;
    all.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    if json {
        print_json(&serde_json::json!({ "revocations": all }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        eprintln!("nothing is revoked; `ringfence key list` tells of API keys");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["id", "what", "of", "revoked", "when", "by", "why", "forgotten"]);
    for one in &all {
        let forgotten = one.forgotten_at.map_or_else(|| "never".to_owned(), date);
        let of = one.provider.clone().filter(|provider| *provider != one.name).unwrap_or_else(|| "-".into());
        let what = format!("{} {}", one.what, one.name);
        let cells =
            [one.id.clone(), what, of, scope(one), date(one.at), one.by.clone(), one.why.clone(), forgotten];
        table.row(cells.into_iter().map(Into::into));
    }
    print(&table.lines(colour).into_iter().map(|line| line + "\n").collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn subject(one: &Revocation) -> String {
    let of = one.provider.as_ref().filter(|provider| **provider != one.name);
    let of = of.map_or_else(String::new, |provider| format!(" of {provider}"));
    clean(&format!("{} {}{of}", one.what, one.name))
}

fn scope(one: &Revocation) -> String {
    match one.issued_until {
        Some(_) => "what was issued until then".to_owned(),
        None => "for good".to_owned(),
    }
}

fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: RevokeArgs,
    }

    #[test]
    fn what_providers_name_may_begin_with_a_hyphen() {
        for (what, name) in
            [("token", "-IE_OW-3SDVq4"), ("user", "-hW"), ("client", "--"), ("key", "-"), ("user", "-j-k")]
        {
            let separator: &[&str] = if name == "--" { &["--"] } else { &[] };
            let asked = [&["revoke", what, "staff"][..], separator, &[name]].concat();
            let Command { args } =
                Command::try_parse_from([&asked[..1], &["--why", "a test"], &asked[1..]].concat()).unwrap();
            let (Thing::Token { jti: told, .. }
            | Thing::User { name: told, .. }
            | Thing::Client { name: told, .. }
            | Thing::Key { kid: told, .. }) = args.what
            else {
                panic!("{what}")
            };
            assert_eq!((&*told, &*args.why), (name, "a test"));
        }
        let asked = ["revoke", "token", "staff", "-IE_OW", "--why", "a test", "--json"];
        let Command { args } = Command::try_parse_from(asked).unwrap();
        assert!(args.json && args.why == "a test");
        assert!(matches!(args.what, Thing::Token { jti, .. } if jti == "-IE_OW"));
    }
}
