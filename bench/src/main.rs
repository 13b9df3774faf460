//! Ringfence's proxy beside nginx, haproxy and Envoy: the same upstream, the same load, one run.
//!
//! Times on a shared machine say little; ratios within a run say a lot. So all contenders of a case run at once, take turns
//! in short rounds whose order is reversed every other time, and each figure is given beside nginx's. The proxy has a core of its
//! own, load and upstream have others. What is compared is CPU time per request, which no queue distorts.

#![forbid(unsafe_code)]

mod access;
mod callgrind;
mod case;
mod certs;
mod contenders;
mod install;
mod keeper;
mod load;
mod machine;
mod report;
mod run;
mod stats;
mod tokens;
mod typed;
mod upstream;
mod waf;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::case::Case;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Ringfence's proxy beside its peers.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: Compare,
}

#[derive(Subcommand)]
enum Command {
    /// Counts instructions per request with valgrind instead: slow, but the same on every machine.
    Callgrind(Callgrind),
    /// Measures what access costs by itself: tokens, API keys, decisions, transaction tokens.
    Access(Access),
    /// Measures what inspecting requests by the Core Rule Set costs, beside nginx with ModSecurity.
    Waf(Waf),
    /// Ringfence's node without its confinement, for valgrind, which does not know the system calls of that.
    #[command(hide = true)]
    Node,
    /// A keeper, beside a contender that needs one.
    #[command(hide = true)]
    Keeper,
}

/// What to compare, and for how long.
#[derive(Args)]
struct Compare {
    /// Only these cases.
    #[arg(long, value_delimiter = ',', value_enum)]
    cases: Vec<Case>,
    /// Only these contenders (nginx is always in: the ratios are to it).
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Rounds per case.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds that each contender is measured in a round, at saturation and again at a fixed rate.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Replace the comparison in bench/RESULTS.md by this run's.
    #[arg(long)]
    write: bool,
}

#[derive(Args)]
struct Callgrind {
    /// Only these contenders.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Replace the instruction counts in bench/RESULTS.md by this run's.
    #[arg(long)]
    write: bool,
}

#[derive(Args)]
struct Access {
    /// Replace these figures in bench/RESULTS.md by this run's.
    #[arg(long)]
    write: bool,
}

#[derive(Args)]
struct Waf {
    /// Rounds per kind of request.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds that each proxy is measured in a round.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Replace these figures in bench/RESULTS.md by this run's.
    #[arg(long)]
    write: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=120.0).contains(&seconds) => Ok(seconds),
        _ => Err("between 0.2 and 120 seconds".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Callgrind(args)) => count(&args),
        Some(Command::Access(args)) => access(&args),
        Some(Command::Waf(args)) => inspect(&args),
        Some(Command::Node) => node(),
        Some(Command::Keeper) => keeper::serve().map(|()| true),
        None => compare(&cli.compare),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(3)
        }
    }
}

fn compare(args: &Compare) -> io::Result<bool> {
    let cases = if args.cases.is_empty() { Case::ALL.to_vec() } else { args.cases.clone() };
    let plan = run::Plan {
        cases,
        contenders: contenders::chosen(&args.contenders)?,
        rounds: args.rounds,
        window: Duration::from_secs_f64(args.seconds),
        folder: folder()?,
    };
    let outcome = run::compare(&plan)?;
    let facts = machine::Facts::read(&plan.contenders)?;
    if args.json {
        println!("{:#}", report::json(&outcome, &facts));
    } else {
        print!("{}", report::text(&outcome));
    }
    if args.write {
        let content = report::markdown(&outcome, &facts, args.rounds, args.seconds);
        // Measured alone, it leaves the figures of the others.
        let alone = args.cases == [Case::Token];
        report::write(if alone { "token" } else { "comparison" }, &content)?;
    }
    let errors: u64 = outcome.iter().flat_map(|case| &case.rows).map(|row| row.errors).sum();
    if errors > 0 {
        eprintln!("bench: {errors} requests failed: these figures compare nothing");
    }
    Ok(errors == 0)
}

fn count(args: &Callgrind) -> io::Result<bool> {
    let contenders = contenders::chosen(&args.contenders)?;
    let counts = callgrind::count(&contenders, &folder()?)?;
    if args.json {
        println!("{:#}", serde_json::json!({ "instructions_per_request": counts }));
    } else {
        print!("{}", callgrind::table(&counts));
    }
    if args.write {
        let facts = machine::Facts::read(&contenders)?;
        report::write("instructions", &callgrind::markdown(&counts, &facts))?;
    }
    Ok(true)
}

fn access(args: &Access) -> io::Result<bool> {
    let text = access::measure()?;
    print!("{text}");
    if args.write {
        let facts = machine::Facts::read(&[])?;
        report::write("access", &access::markdown(&text, &facts.sentence()))?;
    }
    Ok(true)
}

fn inspect(args: &Waf) -> io::Result<bool> {
    let (rows, wholes) = waf::measure(&folder()?, args.rounds, Duration::from_secs_f64(args.seconds))?;
    if args.json {
        println!("{:#}", serde_json::json!({ "waf": rows, "chain": wholes }));
    } else {
        print!("{}", waf::table(&rows, &wholes));
    }
    if args.write {
        let facts = machine::Facts::read(&contenders::firewalls())?;
        report::write("waf", &waf::markdown(&rows, &wholes, &facts.sentence()))?;
    }
    Ok(true)
}

fn node() -> io::Result<bool> {
    let channel = ringfence_channel::stdin_channel()?;
    ringfence_proxy::run(channel, |_| Ok(())).map_err(io::Error::other)?;
    Ok(true)
}

/// Where configurations, certificates and the Envoy of this run live: beside the build.
fn folder() -> io::Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder)?;
    folder.canonicalize()
}
