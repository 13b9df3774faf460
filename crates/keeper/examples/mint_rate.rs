//! Measures, with a real keeper process over its real channel: transaction tokens per second, in batches and one by one, for an access token
//! that the keeper has verified before and for one that it sees for the first time.
//!
//! `cargo run --release -p ringfence-keeper --example mint_rate [-- SECONDS]`. Prints one JSON object. `cpu_us` is the processor time
//! of the keeper and of this process together, per token: a core makes 1,000,000 / `cpu_us` of them in a second.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_keeper::protocol::{MintRequest, Start, ToldRevocations};
use ringfence_keeper::{Client, Supervised, main_loop};
use ringfence_keys::{Algorithm, MasterSource, Secret, SigningKey};
use ringfence_model::Fence;
use ringfence_snapshot::node::{Mint, ProviderKeys, Shown};
use ringfence_snapshot::{Addresses, Header, compile};
use ringfence_token::{KeySet, SigningInput};
use serde_json::json;

/// Callers at the same time.
const CALLERS: usize = 8;
/// Tokens in a batch.
const BATCH: usize = 64;

const FENCE: &str = "
fence: bench
trust_domain: bench.example
gateway: { listen: 127.0.0.1:8443, hosts: [bench.example] }
providers: { staff: { issuer: https://id.bench.example, audiences: [bench], claims: { groups: groups } } }
services: { portal: { run: [x], listen: 9000, routes: [{ path: /, accept: [{ token: staff }] }] } }
";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("keeper") {
        return Ok(main_loop(ringfence_channel::stdin_channel()?, |_| Ok(()))?);
    }
    let seconds = argument.and_then(|text| text.parse().ok()).unwrap_or(5);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(Duration::from_secs(seconds)))
}

async fn measure(time: Duration) -> Result<(), Failure> {
    let data = tempfile::tempdir()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut keeper = Command::new(std::env::current_exe()?)
        .arg("keeper")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let supervised = Supervised::start(ours, start(data.path()))?;
    let client = Client::new(supervised.introduce_control()?)?;
    sign_snapshot(&client).await?;
    let key = SigningKey::generate(Algorithm::Ed25519)?;
    let set = KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())]);
    let keys = ProviderKeys {
        provider: "staff".into(),
        issuer: "https://id.bench.example".into(),
        jwks: set.to_json("sig"),
        until: now() + 3600,
    };
    client.provider_keys(keys).await?;
    client.revocations(ToldRevocations::Part { first: true, last: true, entries: Vec::new() }).await?;

    let same = access_token(&key, 0)?;
    let one = |_| Ok(request(&same));
    let batched = run(&client, keeper.id(), time, BATCH, one).await?;
    let single = run(&client, keeper.id(), time, 1, one).await?;
    let fresh = run(&client, keeper.id(), time, BATCH, |n| Ok(request(&access_token(&key, n)?))).await?;
    println!(
        "{}",
        json!({ "batch": BATCH, "callers": CALLERS, "batched": batched, "one_by_one": single, "never_seen_before": fresh })
    );
    drop(supervised);
    keeper.wait()?;
    Ok(())
}

/// Callers that each ask for one batch after the other.
async fn run(
    client: &Client,
    keeper: u32,
    time: Duration,
    batch: usize,
    make: impl Fn(u64) -> Result<MintRequest, Failure>,
) -> Result<serde_json::Value, Failure> {
    let (mut made, mut waited, mut latencies) = (0_u64, Duration::ZERO, Vec::new());
    let (start, before) = (Instant::now(), cpu(keeper)?);
    let mut outside = Duration::ZERO;
    let mut spent = 0.0;
    while start.elapsed() < time {
        // Making what is asked is not what is measured.
        let (preparing, at) = (Instant::now(), cpu(keeper)?);
        let mut asked = Vec::with_capacity(CALLERS);
        for caller in 0..CALLERS {
            let requests = (0..batch).map(|i| make(made + (caller * batch + i) as u64));
            asked.push(requests.collect::<Result<Vec<_>, _>>()?);
        }
        outside += preparing.elapsed();
        spent += cpu(keeper)? - at;
        let mut callers = tokio::task::JoinSet::new();
        let round = Instant::now();
        for requests in asked {
            let client = client.clone();
            callers.spawn(async move {
                let begun = Instant::now();
                let results = client.mint(requests).await?;
                let failed = results.iter().find_map(|result| result.as_ref().err().cloned());
                match failed {
                    None => Ok::<_, Failure>((results.len() as u64, begun.elapsed())),
                    Some(refusal) => Err(refusal.into()),
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            let (tokens, latency) = caller??;
            made += tokens;
            latencies.push(latency);
        }
        waited += round.elapsed();
    }
    let cpu = cpu(keeper)? - before - spent;
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok(json!({
        "tokens_per_second": (made as f64 / waited.as_secs_f64()).round(),
        "cpu_us": (cpu * 1e6 / made as f64 * 10.0).round() / 10.0,
        "tokens_per_second_and_core": (made as f64 / cpu).round(),
        "request_us": { "p50": at(0.5).round(), "p99": at(0.99).round() },
    }))
}

/// Processor seconds of this process and the keeper, threads included, from the scheduler's account in nanoseconds.
fn cpu(keeper: u32) -> Result<f64, Failure> {
    let mut nanoseconds = 0_u64;
    for process in [std::process::id(), keeper] {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

fn request(token: &str) -> MintRequest {
    let shown = Shown::Token { provider: "staff".into(), token: Secret::new(token.to_owned()) };
    let request = serde_json::Map::from_iter([("ip".to_owned(), json!("192.0.2.7"))]);
    let workload = "spiffe://bench.example/gateway/bench".to_owned();
    MintRequest { ask: Mint { shown, workload, scope: String::new(), request }, evidence: None }
}

fn access_token(key: &SigningKey, number: u64) -> Result<String, Failure> {
    let claims = json!({
        "iss": "https://id.bench.example", "sub": "248289761001", "aud": "bench", "iat": now(), "exp": now() + 900,
        "jti": number.to_string(), "client_id": "app", "scope": "read write", "acr": "phr", "auth_time": now() - 9,
        "groups": ["nurse", "ward/3", "staff"],
    });
    let claims = claims.as_object().ok_or("claims are an object")?;
    let input = SigningInput::new("at+jwt", key.algorithm().into(), "k", claims)?;
    let signature = key.sign(input.as_bytes())?;
    Ok(input.seal(&signature)?)
}

async fn sign_snapshot(client: &Client) -> Result<(), Failure> {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).map_err(|e| format!("{e:?}"))?;
    let bundle = client.bundle().await?;
    let header =
        Header { epoch: 1, revision: 1, issued_at: now(), expires_at: now() + 3600, lease: 3600, bundle };
    let snapshot = compile(&fence, &mut Addresses::default(), header)?;
    client.sign_snapshot(serde_json::to_string(&snapshot)?).await?;
    Ok(())
}

fn start(data: &Path) -> Start {
    Start {
        data: data.to_owned(),
        master: MasterSource::KeyFile { path: data.join("master.key") },
        fence: "bench".into(),
        trust_domain: "bench.example".into(),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
