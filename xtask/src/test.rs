//! `test`: what README's second command does. Counts what ran, so that the last line tells how much was tested.

use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use clap::Args;

use crate::process::{Error, cannot_start, cargo, line};
use crate::{demo, environment, tools};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this package; may be repeated
    #[arg(short, long)]
    package: Vec<String>,
    /// Passed on to `cargo test`, such as a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What `cargo test` said at the end of each test program.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    programs: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let start = Instant::now();
    tools::install(tools::TEST)?;
    let python = tools::python()?;
    tools::node()?;
    tools::clinic()?;
    // Tests of the whole run the same binaries as the demo.
    demo::build()?;

    let mut command = cargo(["test", "--no-fail-fast"]);
    if options.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &options.package {
        command.args(["--package", package]);
    }
    command.arg("--").args(&options.arguments);
    // Tests say `python3` and get the one that has their clients.
    command.env("PATH", environment::search_path(&python));
    eprintln!("\u{2192} {}", line(&command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| cannot_start(&command, &e))?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for text in BufReader::new(output).split(b'\n') {
            let text = text?;
            let text = String::from_utf8_lossy(&text);
            count.add(&text);
            // Whoever closed our output still gets the exit code.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
    let status = child.wait()?;
    println!(
        "\n{} test programs, {} s; the python was {}",
        count.programs,
        start.elapsed().as_secs(),
        python.display()
    );
    if count.ignored > 0 {
        println!("error: {} tests are marked as ignored; a test runs or it goes", count.ignored);
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    let good = status.success() && count.failed == 0 && count.ignored == 0 && count.passed > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Count {
    fn add(&mut self, text: &str) {
        let Some(summary) = text.strip_prefix("test result: ") else { return };
        self.programs += 1;
        for part in summary.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(word)) = (words.next().and_then(|n| n.parse::<u32>().ok()), words.next())
            else {
                continue;
            };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Each package with its features, as a selection of packages builds it.
    fn built(selection: &[&str]) -> BTreeSet<String> {
        let form = ["tree", "--prefix", "none", "--no-dedupe", "--format", "{p} with {f}"];
        let output = cargo(form.into_iter().chain(selection.iter().copied())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|l| l.replace(" (proc-macro)", "").trim_end_matches(" (*)").to_owned()).collect()
    }

    #[test]
    fn demo_and_test_share_one_build() {
        let demo = built(&["--package", "ringfence", "--package", "clinic", "--edges", "normal,build"]);
        let test = built(&["--workspace", "--edges", "normal,build,dev"]);
        let twice: Vec<&String> = demo.difference(&test).collect();
        assert!(
            twice.is_empty(),
            "tests build these again with more features; name those in crates/cli/Cargo.toml: {twice:#?}"
        );
    }

    #[test]
    fn the_closing_lines_of_test_programs_are_added_up() {
        let mut count = Count::default();
        count.add("test a::b ... ok");
        count.add(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.31s",
        );
        count.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 4.00s");
        assert_eq!(count, Count { programs: 2, passed: 15, failed: 2, ignored: 1 });
    }
}
