//! `fuzz`: every target of `fuzz/Cargo.toml`, each for a bounded time, with what it reached.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;

use crate::environment::{find, root};
use crate::process::{Error, cannot_start, cargo, line, run as run_command, succeeds};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these
    targets: Vec<String>,
    /// How long each
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Only list them
    #[arg(long)]
    list: bool,
}

/// Targets in whose libraries something is never freed: `jsonschema` keeps a schema that names itself beside `unevaluatedProperties`.
/// A few kilobytes for each load of such a description, which the operator writes.
const LEAKY: &[&str] = &["openapi_description"];

/// What libFuzzer says of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reached {
    executions: u64,
    /// Edges of the control flow graph.
    coverage: u64,
    /// Inputs that each reached something new.
    corpus: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    if find("cargo-fuzz").is_none() {
        run_command(&mut cargo(["install", "--locked", "cargo-fuzz"]))?;
    }
    if !succeeds(Command::new("cargo").args(["+nightly", "--version"])) {
        return Err(Error::new(
            "fuzzing needs a nightly toolchain: install one with `rustup toolchain install nightly`",
        ));
    }
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|t| !all.contains(t)) {
        return Err(Error::new(format!(
            "there is no fuzz target `{unknown}`; there are: {}",
            all.join(", ")
        )));
    }
    let chosen = if options.targets.is_empty() { &all } else { &options.targets };
    if options.list {
        chosen.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut results = Vec::new();
    for target in chosen {
        results.push((target, fuzz(target, options.seconds)?));
    }
    println!("\n{:<28} {:>12} {:>9} {:>7}  finding", "target", "executions", "coverage", "corpus");
    let mut found = 0;
    for (target, (reached, clean)) in &results {
        found += u32::from(!clean);
        let Reached { executions, coverage, corpus } = reached;
        let finding = if *clean { "none".to_owned() } else { format!("see fuzz/artifacts/{target}") };
        println!("{target:<28} {executions:>12} {coverage:>9} {corpus:>7}  {finding}");
    }
    println!(
        "fuzz: {} of {} targets without a finding, {} s each",
        results.len() as u32 - found,
        results.len(),
        options.seconds
    );
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn targets() -> Result<Vec<String>, Error> {
    let output = cargo(["fuzz", "list"]).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if names.is_empty() { Err(Error::new("`cargo fuzz list` names no targets")) } else { Ok(names) }
}

fn fuzz(target: &str, seconds: u32) -> Result<(Reached, bool), Error> {
    let mut command = cargo(["+nightly", "fuzz", "run", target]);
    // What is found goes to `corpus`, which is not kept; what is kept lies in `seeds`.
    let corpus = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    command.arg(&corpus);
    let seeds = root().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    command.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"]);
    let dictionary = root().join("fuzz/dictionaries").join(target);
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    if LEAKY.contains(&target) {
        command.arg("-detect_leaks=0");
    }
    eprintln!("\u{2192} {}", line(&command));
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| cannot_start(&command, &e))?;
    let mut reached = Reached::default();
    if let Some(output) = child.stderr.take() {
        for text in BufReader::new(output).split(b'\n') {
            let text = text?;
            let text = String::from_utf8_lossy(&text);
            reached.read(&text);
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
    Ok((reached, child.wait()?.success()))
}

impl Reached {
    fn read(&mut self, text: &str) {
        if let Some(number) = text.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().unwrap_or(self.executions);
        }
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|n| n.split('/').next()).and_then(|n| n.parse().ok());
            match word {
                "cov:" => self.coverage = number().unwrap_or(self.coverage),
                "corp:" => self.corpus = number().unwrap_or(self.corpus),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_prints_is_understood() {
        let mut reached = Reached::default();
        reached.read("#1048576\tpulse  cov: 512 ft: 900 corp: 77/12Kb lim: 4096 exec/s: 349525 rss: 60Mb");
        reached.read("#2097152\tDONE   cov: 640 ft: 1101 corp: 80/13Kb lim: 4096 exec/s: 349525 rss: 61Mb");
        reached.read("stat::number_of_executed_units: 2097152");
        assert_eq!(reached, Reached { executions: 2_097_152, coverage: 640, corpus: 80 });
    }
}
