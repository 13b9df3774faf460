//! The comparison: all contenders of a case are up at once and take turns.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::case::Case;
use crate::certs::{Certs, NAME};
use crate::contenders::{Contender, Held, Setup};
use crate::load::{self, Pace, Sample, Target};
use crate::machine::{self, Cores, Family};
use crate::stats::{median, percentile};
use crate::tokens::Tokens;
use crate::upstream::Upstream;

/// Connections held open for the memory figure.
const IDLE: usize = 1000;

pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    pub(crate) contenders: Vec<Box<dyn Contender>>,
    pub(crate) rounds: u32,
    pub(crate) window: Duration,
    pub(crate) folder: PathBuf,
}

/// What all contenders share.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) certs: &'a Arc<Certs>,
    pub(crate) tokens: &'a Tokens,
    pub(crate) upstream: &'a Upstream,
    pub(crate) cores: Cores,
    /// The folder with the Core Rule Set, where requests are to be inspected.
    pub(crate) rules: Option<&'a Path>,
}

/// One case's figures.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) rows: Vec<Row>,
}

/// One contender's figures in a case; latencies in milliseconds, memory in MiB.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// CPU microseconds per request at saturation, median over the rounds.
    pub(crate) cpu_us: f64,
    /// To the first contender of the case: the median over the rounds of the ratio within each round.
    pub(crate) cpu_ratio: f64,
    pub(crate) cpu_us_at_rate: f64,
    /// Share of its core that the proxy used at saturation: far below 1, the load was the bottleneck.
    pub(crate) busy: f64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p50_at_rate: f64,
    pub(crate) p99_at_rate: f64,
    /// What of that the way to the upstream without any proxy does not take, where that was measured.
    pub(crate) p99_added: Option<f64>,
    pub(crate) resident: f64,
    /// With a thousand idle connections, of the cases in HTTP/1.1 that keep them.
    pub(crate) resident_idle: Option<f64>,
    pub(crate) errors: u64,
}

/// A contender that runs.
pub(crate) struct Running {
    child: Child,
    _held: Held,
    pub(crate) family: Family,
    pub(crate) target: Target,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = machine::stop(&mut self.child) {
            eprintln!("bench: a proxy did not stop: {error}");
        }
    }
}

/// Starts a contender for a case, on the proxy's core, and waits until it listens.
pub(crate) fn start(
    contender: &dyn Contender,
    case: Case,
    place: Place<'_>,
    counted: bool,
) -> io::Result<Running> {
    let Place { certs, tokens, cores, .. } = place;
    let folder = place.folder.join(format!("{}-{}", contender.name(), case.name()));
    std::fs::create_dir_all(&folder)?;
    let listen = free()?;
    let upstream = place.upstream.address(case);
    let counted_in = counted.then(|| folder.join("callgrind.out"));
    let rules = place.rules.map(Path::to_owned);
    let setup = Setup { case, folder: folder.clone(), listen, upstream, certs, tokens, rules, counted_in };
    let mut launch = contender.launch(&setup)?;
    let mut child = machine::start_on(cores.proxy, &mut launch.command)?;
    // Its copy of what the child was given must not keep a channel open.
    drop(launch.command);
    let held = match (launch.then)() {
        Ok(held) => held,
        Err(error) => {
            machine::stop(&mut child)?;
            return Err(io::Error::other(format!("{} did not follow: {error}", contender.name())));
        }
    };
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(listen).is_err() {
        if let Some(status) = child.try_wait()? {
            let name = contender.name();
            return Err(io::Error::other(format!("{name} ended with {status}; see {}", folder.display())));
        }
        if Instant::now() > until {
            machine::stop(&mut child)?;
            return Err(io::Error::other(format!("{} does not listen", contender.name())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Workers may come after the socket.
    std::thread::sleep(Duration::from_millis(200));
    let family = Family::of(child.id())?;
    let target = Target::new(case, listen, contender.server_name(case), certs, tokens)?;
    let running = Running { child, _held: held, family, target };
    // Whoever lets everybody in is fast.
    load::refuses(&running.target).map_err(|e| io::Error::other(format!("{}: {e}", contender.name())))?;
    Ok(running)
}

/// An address that nobody listens on; whoever takes it in between makes the start fail, which is said.
fn free() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

pub(crate) fn compare(plan: &Plan) -> io::Result<Vec<Outcome>> {
    let cores = Cores::of_this_machine()?;
    machine::open_files()?;
    let certs = Arc::new(Certs::make(&plan.folder.join("certs"))?);
    let upstream = Upstream::start(&certs, cores.upstream)?;
    machine::pin(cores.load)?;
    let tokens = Tokens::make()?;
    let place = Place {
        folder: &plan.folder,
        certs: &certs,
        tokens: &tokens,
        upstream: &upstream,
        cores,
        rules: None,
    };
    plan.cases.iter().filter_map(|&case| one(plan, case, place).transpose()).collect()
}

/// Nothing where none of those who take part can do the case.
fn one(plan: &Plan, case: Case, place: Place<'_>) -> io::Result<Option<Outcome>> {
    let takers: Vec<_> = plan.contenders.iter().filter(|c| c.takes(case)).collect();
    if takers.is_empty() {
        return Ok(None);
    }
    eprintln!("bench: {}", case.title());
    let running = takers.iter().map(|c| start(c.as_ref(), case, place, false));
    let running: Vec<Running> = running.collect::<io::Result<_>>()?;
    let mut samples: Vec<Vec<(Sample, Sample)>> = running.iter().map(|_| Vec::new()).collect();
    let direct = Target::new(Case::Plain, place.upstream.address(case), NAME, place.certs, place.tokens)?;
    let mut without: Vec<Sample> = Vec::new();
    for round in 0..plan.rounds {
        if case.tokens() {
            without.push(load::run(&direct, Pace::Rate(case.rate()), plan.window, &running[0].family)?);
        }
        let mut order: Vec<usize> = (0..running.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for who in order {
            let Running { family, target, .. } = &running[who];
            let saturated = load::run(target, Pace::Saturate, plan.window, family)?;
            let paced = load::run(target, Pace::Rate(case.rate()), plan.window, family)?;
            samples[who].push((saturated, paced));
        }
    }
    let base: Vec<f64> = samples[0].iter().map(|(saturated, _)| per_request(saturated)).collect();
    let without = case.tokens().then(|| percentile(&sorted(without), 0.99));
    let rows = takers.iter().zip(&running).zip(samples);
    let rows = rows.map(|((contender, running), samples)| row(contender.name(), running, samples, &base));
    let mut rows = rows.collect::<io::Result<Vec<_>>>()?;
    for row in &mut rows {
        row.p99_added = without.map(|without| row.p99_at_rate - without);
    }
    Ok(Some(Outcome { case, rows }))
}

fn row(name: &str, running: &Running, samples: Vec<(Sample, Sample)>, base: &[f64]) -> io::Result<Row> {
    let resident = running.family.resident()?;
    let resident_idle = if running.target.case.keeps_http1() {
        Some(load::idle(&running.target, IDLE, &running.family)?)
    } else {
        None
    };
    let cpu: Vec<f64> = samples.iter().map(|(saturated, _)| per_request(saturated)).collect();
    let ratios = cpu.iter().zip(base).map(|(mine, base)| mine / base).collect();
    let errors = samples.iter().map(|(saturated, paced)| saturated.errors + paced.errors).sum();
    let rates = samples.iter().map(|(s, _)| s.requests as f64 / s.elapsed.as_secs_f64()).collect();
    let busy = samples.iter().map(|(s, _)| s.cpu.as_secs_f64() / s.elapsed.as_secs_f64()).collect();
    let at_rate = samples.iter().map(|(_, paced)| per_request(paced)).collect();
    let (saturated, paced): (Vec<Sample>, Vec<Sample>) = samples.into_iter().unzip();
    let (saturated, paced) = (sorted(saturated), sorted(paced));
    Ok(Row {
        name: name.to_owned(),
        cpu_us: median(cpu),
        cpu_ratio: median(ratios),
        cpu_us_at_rate: median(at_rate),
        busy: median(busy),
        per_second: median(rates),
        p50: percentile(&saturated, 0.50),
        p99: percentile(&saturated, 0.99),
        p50_at_rate: percentile(&paced, 0.50),
        p99_at_rate: percentile(&paced, 0.99),
        p99_added: None,
        resident,
        resident_idle,
        errors,
    })
}

pub(crate) fn per_request(sample: &Sample) -> f64 {
    sample.cpu.as_secs_f64() * 1e6 / sample.requests as f64
}

fn sorted(samples: Vec<Sample>) -> Vec<u32> {
    let mut all: Vec<u32> = samples.into_iter().flat_map(|sample| sample.latencies).collect();
    all.sort_unstable();
    all
}
