//! A keeper in a process of its own is killed at arbitrary instants; what it had acknowledged holds.
//!
//! This test is its own keeper: started with the argument `keeper`, it serves on its standard input.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{now, sign, start_message, svid, verify};
use ringfence_keeper::protocol::Step;
use ringfence_keeper::{Client, Supervised, main_loop, verify_log};
use ringfence_keys::{Algorithm, VerifyingKey};

const ROUNDS: u64 = 25;
const PORTAL: &str = "spiffe://clinic.example/service/portal";

fn main() {
    if std::env::args().nth(1).as_deref() == Some("keeper") {
        main_loop(ringfence_channel::stdin_channel().unwrap(), |_| Ok(())).unwrap();
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(what_was_acknowledged_survives_any_kill());
    println!("test what_was_acknowledged_survives_any_kill ... ok\n\n1 passed, 0 failed");
}

#[derive(Default)]
struct Acknowledged {
    revision: u64,
    serials: BTreeSet<String>,
    chains: Vec<Vec<Vec<u8>>>,
    generation: u64,
    key: Option<Vec<u8>>,
}

async fn what_was_acknowledged_survives_any_kill() {
    let data = tempfile::tempdir().unwrap();
    let mut seen = Acknowledged::default();
    // A slow disk may need more of them until anything was acknowledged.
    let mut round = 0;
    while round < ROUNDS || (seen.serials.len() <= 10 && round < 20 * ROUNDS) {
        let (mut child, supervised, client) = start(data.path());
        check(data.path(), &supervised, &client, &seen).await;
        seen.key = Some(supervised.snapshot_key().0.clone());
        if round == 0 {
            seen.revision = 1;
            sign(&client, 1).await.unwrap();
        }
        let work = tokio::spawn(work(client, seen, round));
        // Anywhere within a few signatures, snapshots and rotations, each a write to disk.
        let nanos = u64::from(u32::from_le_bytes(ringfence_keys::random())) % 250_000_000;
        tokio::time::sleep(Duration::from_nanos(nanos)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        seen = work.await.unwrap();
        round += 1;
    }
    let (mut child, supervised, client) = start(data.path());
    check(data.path(), &supervised, &client, &seen).await;
    // And it goes on, above what was signed at the kill and never acknowledged.
    sign(&client, supervised.signed().1 + 1).await.unwrap();
    svid(&client, Algorithm::P256, PORTAL, 60).await.unwrap();
    assert!(seen.serials.len() > 10, "the keeper was never given time to do anything");
    drop(supervised);
    child.wait().unwrap();
}

fn start(data: &Path) -> (Child, Supervised, Client) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("keeper")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let supervised = Supervised::start(ours, start_message(data)).unwrap();
    let client = Client::new(supervised.introduce_control().unwrap()).unwrap();
    (child, supervised, client)
}

/// Asks until the keeper is gone, and notes what was answered.
async fn work(client: Client, mut seen: Acknowledged, first: u64) -> Acknowledged {
    for i in first.. {
        let outcome = match i % 5 {
            0 => sign(&client, seen.revision + 1).await.map(|signed| {
                let key = VerifyingKey::from_spki(seen.key.as_ref().unwrap()).unwrap();
                seen.revision = signed.verify(&key, now(), (0, 0)).unwrap().revision;
            }),
            3 => {
                // Whichever of the steps is due: the others are refused.
                let _ = client.rotate_root(Step::Prepare).await;
                let _ = sign(&client, seen.revision + 1).await;
                client.rotate_root(Step::Activate).await
            }
            .map(|status| seen.generation = status.generation),
            _ => match svid(&client, Algorithm::Ed25519, PORTAL, 3600).await {
                Ok((chain, serial)) => {
                    seen.serials.insert(serial);
                    seen.chains.push(chain);
                    Ok(())
                }
                Err(_) => client.status().await.map(drop),
            },
        };
        if outcome.is_err() && client.status().await.is_err() {
            break;
        }
        // A snapshot that was signed but not acknowledged counts as signed.
        if let Ok(status) = client.status().await {
            seen.revision = seen.revision.max(status.signed.1);
        }
    }
    seen
}

async fn check(data: &Path, supervised: &Supervised, client: &Client, seen: &Acknowledged) {
    assert!(supervised.signed().1 >= seen.revision, "a revision was forgotten");
    if seen.revision > 0 {
        assert!(sign(client, seen.revision).await.is_err(), "a revision was signed twice");
    }
    if let Some(key) = &seen.key {
        assert_eq!(&supervised.snapshot_key().0, key);
    }
    let bundle = client.bundle().await.unwrap();
    assert!(bundle.generation >= seen.generation, "a rotation was forgotten");
    for chain in &seen.chains {
        verify(chain, &bundle).unwrap();
    }
    // The log is one chain with everything acknowledged in it.
    let path = data.join("keeper/signing.log");
    let tail = verify_log(&path).unwrap().0.map_or(0, |tail| tail.entries);
    assert!(tail >= seen.serials.len() as u64);
    let text = std::fs::read_to_string(&path).unwrap();
    for serial in &seen.serials {
        assert!(text.contains(serial), "{serial} is not in the log");
    }
}
