//! Instructions per request: the difference between 1,300 and 300 requests, so that starting up does not count.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::case::Case;
use crate::certs::Certs;
use crate::contenders::Contender;
use crate::machine::{self, Cores, Facts};
use crate::run::{self, Place};
use crate::tokens::Tokens;
use crate::upstream::Upstream;
use crate::{install, load};

const FEW: u32 = 300;
const MANY: u32 = 1300;
const CASES: [Case; 2] = [Case::Plain, Case::Tls];

/// Case to contender to user-space instructions per request.
pub(crate) type Counts = BTreeMap<&'static str, BTreeMap<&'static str, f64>>;

pub(crate) fn count(contenders: &[Box<dyn Contender>], folder: &Path) -> io::Result<Counts> {
    install::debian("valgrind", "valgrind")?;
    let cores = Cores::of_this_machine()?;
    let certs = Arc::new(Certs::make(&folder.join("certs"))?);
    let upstream = Upstream::start(&certs, cores.upstream)?;
    machine::pin(cores.load)?;
    let tokens = Tokens::make()?;
    let place = Place { folder, certs: &certs, tokens: &tokens, upstream: &upstream, cores, rules: None };
    let mut counts = Counts::new();
    for case in CASES {
        for contender in contenders.iter().filter(|c| c.countable() && c.takes(case)) {
            eprintln!("bench: {} under valgrind, {}", contender.name(), case.title());
            let total = |requests| {
                let running = run::start(contender.as_ref(), case, place, true)?;
                load::exactly(&running.target, requests)?;
                drop(running);
                totals(&folder.join(format!("{}-{}/callgrind.out", contender.name(), case.name())))
            };
            let each = (total(MANY)? - total(FEW)?) / f64::from(MANY - FEW);
            counts.entry(case.name()).or_default().insert(contender.name(), each);
        }
    }
    Ok(counts)
}

fn totals(file: &Path) -> io::Result<f64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let count = line.and_then(|line| line.trim().parse().ok());
    count.ok_or_else(|| io::Error::other("valgrind left no totals: did the proxy end in order?"))
}

pub(crate) fn table(counts: &Counts) -> String {
    let mut text =
        String::from("| case | contender | instructions per request | x nginx |\n|---|---|---:|---:|\n");
    for (case, row) in counts {
        let base = row.get("nginx").copied().unwrap_or(f64::NAN);
        for (name, each) in row {
            writeln!(text, "| {case} | {name} | {each:.0} | {:.2} |", each / base)
                .expect("invariant: writing to a string does not fail");
        }
    }
    text
}

pub(crate) fn markdown(counts: &Counts, facts: &Facts) -> String {
    format!(
        "## Instructions per request\n\n    cargo xtask bench -- callgrind --write\n\nUser-space instructions by valgrind's callgrind, \
         one connection: ({MANY} requests - {FEW} requests) / {}. haproxy and Envoy are not counted; Ringfence runs without its confinement, whose system calls valgrind does not know.\n\n{}\n{}\n",
        MANY - FEW,
        table(counts),
        facts.sentence()
    )
}
