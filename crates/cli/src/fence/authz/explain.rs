//! `ringfence authz explain METHOD SERVICE/PATH`: the decision, and what came near.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use ringfence_authz::{Principal, PrincipalKind, Question};

use super::super::{NO, WRONG, fail, print, print_json};
use crate::env::Env;

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The method; `CONNECT` for a TCP service
    method: String,
    /// The service and the path, such as `patients/patients/7`
    #[arg(value_name = "SERVICE/PATH")]
    target: String,
    /// A user, as PROVIDER/NAME [default: whoever proved nothing]
    #[arg(long, value_name = "PROVIDER/NAME", conflicts_with_all = ["client", "service"])]
    user: Option<String>,
    /// A client, as PROVIDER/NAME
    #[arg(long, value_name = "PROVIDER/NAME", conflicts_with = "service")]
    client: Option<String>,
    /// A service that acts for itself
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The client that the user acts through
    #[arg(long, value_name = "NAME", requires = "user")]
    through: Option<String>,
    /// A group that the provider vouches for; may be given again
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// A scope of the credential; may be given again
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How strongly the user was authenticated
    #[arg(long)]
    acr: Option<String>,
    /// The service that calls [default: outside, or the service that acts for itself]
    #[arg(long, value_name = "SERVICE")]
    from: Option<String>,
    /// Where the gateway's client calls from
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// When [default: now]
    #[arg(long, value_parser = humantime::parse_rfc3339)]
    time: Option<SystemTime>,
    /// The fence: a file or a folder
    #[arg(long, short, default_value = ".", value_name = "PATH")]
    fence: PathBuf,
    #[command(flatten)]
    data: super::Data,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ExplainArgs, env: &Env) -> Result<ExitCode, ExitCode> {
    let engine = super::engine(&args.fence, &args.data, env)?;
    let (fence, json) = (args.fence.clone(), args.json);
    let question = question(args).map_err(|message| fail(WRONG, &message))?;
    // What the fence does not have would only be denied.
    let fence = super::load(&fence, env)?;
    if fence.service(&question.service).is_none() {
        return Err(fail(WRONG, &format!("the fence has no service `{}`", question.service)));
    }
    let explanation = engine.explain(&question, SystemTime::now());
    let allowed = explanation.decision.allowed;
    let shown = if json { print_json(&explanation) } else { print(&explanation.to_string()) };
    Ok(if shown == ExitCode::SUCCESS && !allowed { ExitCode::from(NO) } else { shown })
}

fn question(args: ExplainArgs) -> Result<Question, String> {
    let (kind, name) = match (&args.user, &args.client, &args.service) {
        (Some(user), ..) => (PrincipalKind::User, user),
        (_, Some(client), _) => (PrincipalKind::Client, client),
        (.., Some(service)) => (PrincipalKind::Service, service),
        _ => (PrincipalKind::Anonymous, &String::new()),
    };
    let (provider, id) = match kind {
        PrincipalKind::User | PrincipalKind::Client => {
            name.split_once('/').ok_or_else(|| format!("`{name}` is not written PROVIDER/NAME"))?
        }
        PrincipalKind::Service | PrincipalKind::Anonymous => ("", name.as_str()),
    };
    let principal = Principal {
        kind,
        provider: provider.to_owned(),
        id: id.to_owned(),
        client: args.through,
        groups: args.groups,
        scopes: args.scopes,
        acr: args.acr,
        auth_time: None,
    };
    let at = args.target.find('/').unwrap_or(args.target.len());
    let (service, path) = args.target.split_at(at);
    let path = if path.is_empty() { "/" } else { path };
    let method = if args.method == "CONNECT" { "" } else { &args.method };
    let mut question = Question::new(principal, method, service, path);
    if let Some(from) = args.from {
        question = question.through(&from);
    }
    (question.source, question.time) = (args.source, args.time);
    Ok(question)
}
