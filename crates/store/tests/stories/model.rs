//! Random clients of several servers at once, whose whole history is then checked. `cargo xtask soak store` is the long form: it kills the
//! database again and again, and cuts connections, while they go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence_store::{Batch, Document, Durability, Limits, Store, StoreError};

use crate::checker::{History, Read, Seen, Span, Told, Write};
use crate::engine::{Database, Engine, File};
use crate::server::{FAST, Server};

const NAMES: u64 = 5;

/// What all clients share.
#[derive(Default)]
struct Run {
    clock: AtomicU64,
    history: Mutex<History>,
    stop: AtomicBool,
}

impl Run {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// Numbers that look random and are the same in each run of a seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// One client: reads, writes what depends on what it has read, writes blindly, looks at the newest revision.
async fn client(run: Arc<Run>, store: Store, server: usize, seed: u64, steps: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // What was read last, by which expectations are made.
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for step in 0..steps {
        if run.stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("n{}", dice.throw(NAMES));
        match dice.throw(10) {
            0..=2 => {
                let start = run.tick();
                let found = store.get("thing", &name).await;
                let end = run.tick();
                // No answer says nothing.
                let Ok(found) = found else { continue };
                let found = found.map(|document| (document.revision, document.decode::<u64>().unwrap()));
                known.insert(name.clone(), found.map(|(revision, _)| revision));
                run.history.lock().unwrap().reads.push(Read { name, span: Span { start, end }, found });
            }
            3 => {
                let revision = store.revision();
                let at = run.tick();
                run.history.lock().unwrap().seen.push(Seen { server, at, revision });
            }
            kind => {
                let key = format!("{seed}-{step}");
                let mut sets = vec![(name, (dice.throw(4) > 0).then_some(seed * 1_000_000 + step))];
                if dice.throw(3) == 0 {
                    let other = format!("n{}", dice.throw(NAMES));
                    if other != sets[0].0 {
                        sets.push((other, Some(step)));
                    }
                }
                let expects = if kind < 8 { known.clone().into_iter().take(2).collect() } else { Vec::new() };
                write(
                    &run,
                    &store,
                    Write { key, expects, sets, span: Span { start: 0, end: 0 }, told: Told::Unknown },
                )
                .await;
            }
        }
    }
}

async fn write(run: &Run, store: &Store, mut write: Write) {
    let mut batch = Batch::new("model", "write").detail(write.key.clone().into()).key(&write.key);
    for (name, value) in &write.sets {
        batch = match value {
            Some(value) => batch.put("thing", name, value).unwrap(),
            None => batch.delete("thing", name),
        };
    }
    for (name, expected) in &write.expects {
        batch = batch.expect("thing", name, *expected);
    }
    write.span.start = run.tick();
    let told = store.apply(batch).await;
    write.span.end = run.tick();
    write.told = match told {
        Ok(revision) => Told::Written(revision),
        Err(StoreError::Conflict { .. }) => Told::Conflict,
        Err(StoreError::Unavailable(_)) => Told::Nothing,
        Err(StoreError::Unknown { .. }) => {
            write.span.end = u64::MAX;
            Told::Unknown
        }
        Err(error) => panic!("{error}"),
    };
    run.history.lock().unwrap().writes.push(write);
}

/// Reads what is there in the end.
async fn end(run: &Run, store: &Store) -> History {
    let mut history = run.history.lock().unwrap().clone();
    let mut revision = 0;
    loop {
        let page = store.audit(revision).await.unwrap();
        let Some(last) = page.last() else { break };
        revision = last.revision;
        history.trail.extend(page.into_iter().map(|record| record.detail.as_str().unwrap().to_owned()));
    }
    let documents = store.list("thing", "").await.unwrap().into_iter();
    let document = |d: Document| (d.name.clone(), (d.revision, d.decode::<u64>().unwrap()));
    history.documents = documents.map(document).collect();
    assert_eq!(store.verify_audit().await.unwrap().records, revision);
    history
}

/// Three servers with two clients each.
async fn histories_are_serializable<E: Engine>() {
    let engine = E::new().await;
    let run = Arc::new(Run::default());
    let mut clients = Vec::new();
    for server in 0..3 {
        let store = engine.open().await;
        for n in 0..2 {
            let seed = server as u64 * 10 + n + 1;
            clients.push(tokio::spawn(client(run.clone(), store.clone(), server, seed, 80)));
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let history = end(&run, &engine.open().await).await;
    history.check().unwrap();
    let told = |what: fn(&Told) -> bool| history.writes.iter().filter(|write| what(&write.told)).count();
    assert!(told(|told| matches!(told, Told::Written(_))) > 100);
    assert!(told(|told| *told == Told::Conflict) > 0, "nobody was ever in another's way");
    assert_eq!(told(|told| matches!(told, Told::Nothing | Told::Unknown)), 0);
}

#[tokio::test]
async fn histories_on_a_file_are_serializable() {
    histories_are_serializable::<File>().await;
}

#[tokio::test]
async fn histories_on_a_database_are_serializable() {
    histories_are_serializable::<Database>().await;
}

/// How long the long form takes, if that is meant.
#[expect(clippy::disallowed_methods, reason = "the long form is asked for by xtask")]
fn long() -> Option<Duration> {
    let seconds = std::env::var("RINGFENCE_SOAK_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().unwrap()))
}

/// The database is killed while clients write: every acknowledged write is there, once, and no revision goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_however_often_the_database_is_killed() {
    let server = Arc::new(Server::new(FAST));
    let until = Instant::now() + long().unwrap_or(Duration::ZERO);
    let (mut kills, mut rounds, mut written, mut unknown) = (0, 0, 0, 0);
    // A history is checked as a whole, so a long run is many of them.
    while rounds == 0 || Instant::now() < until {
        rounds += 1;
        let database = Database::on(server.clone()).await;
        let run = Arc::new(Run::default());
        let mut clients = Vec::new();
        for number in 0..3_u64 {
            let limits =
                Limits { write: Duration::from_secs(3), read: Duration::from_secs(3), ..Limits::default() };
            let postgres = database.postgres().limits(limits);
            let connect = async || Store::connect(postgres.clone(), Durability::Process).await;
            let store = crate::engine::answered(connect).await.unwrap();
            for n in 0..2 {
                let seed = rounds * 100 + number * 10 + n + 1;
                clients.push(tokio::spawn(client(
                    run.clone(),
                    store.clone(),
                    number as usize,
                    seed,
                    100_000,
                )));
            }
        }
        let mut dice = Dice(rounds * 77 + 1);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(50 + dice.throw(250))).await;
            let victim = server.clone();
            tokio::task::spawn_blocking(move || {
                victim.kill();
                victim.start();
            })
            .await
            .unwrap();
            kills += 1;
        }
        // Every server gets through again.
        let before = run.history.lock().unwrap().writes.len();
        crate::engine::eventually("clients write after the last kill", async || {
            let history = run.history.lock().unwrap();
            history.writes[before..].iter().filter(|write| matches!(write.told, Told::Written(_))).count()
                > 20
        })
        .await;
        run.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        let history = end(&run, &database.open().await).await;
        history.check().unwrap();
        written += history.writes.iter().filter(|write| matches!(write.told, Told::Written(_))).count();
        unknown += history.writes.iter().filter(|write| write.told == Told::Unknown).count();
    }
    println!(
        "{kills} kills in {rounds} histories: {written} acknowledged writes, all there once; {unknown} outcomes left open"
    );
}
