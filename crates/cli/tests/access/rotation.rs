//! A provider changes its keys while two hundred requests a second come in: none with a good token is refused.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{Alpn, EgressRoots, TlsConnector, egress_client_config};
use serde_json::json;
use tokio::net::TcpStream;

use crate::provider::Provider;
use crate::running::{Clinic, Who, eventually};
use crate::{ask, served, start};

const PER_SECOND: u64 = 200;
const CONNECTIONS: u64 = 8;
/// The shortest time between two questions for keys, and a little more: whoever changes keys more often than that without publishing
/// them beforehand is not followed.
const AGAIN: Duration = Duration::from_secs(32);
/// A request that waits for a new key is answered within this.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Load {
    /// Whoever sends a request holds on to the list that its token is of.
    tokens: RwLock<Arc<Vec<String>>>,
    stop: AtomicBool,
    good: AtomicU64,
    slowest: AtomicU64,
    bad: Mutex<Vec<String>>,
}

#[test]
fn no_good_token_is_refused_while_a_provider_changes_its_keys_under_load() {
    let provider = Provider::start();
    let clinic = start(Who::Root, &provider);
    served(&clinic, "/api", &provider.token("reader", "read"));
    let load = Arc::new(Load::default());
    *load.tokens.write().unwrap() = Arc::new((0..5).map(|_| provider.token("reader", "read")).collect());
    let begun = Instant::now();
    let thread = std::thread::spawn({
        let (load, clinic) = (load.clone(), (gateway(&clinic), roots(&clinic)));
        move || drive(&load, clinic)
    });
    for round in 1..=2 {
        // What the key signed that goes with this change is shown no more, and whoever showed it has been answered.
        let before = {
            let mut tokens = load.tokens.write().unwrap();
            let kept = Arc::new(tokens[tokens.len() - 5..].to_vec());
            std::mem::replace(&mut *tokens, kept)
        };
        let unused = eventually(2 * PATIENCE, || (Arc::strong_count(&before) == 1).then_some(()));
        assert!(unused.is_some(), "a request is never answered");
        std::thread::sleep(AGAIN);
        // It signs with the new key at once: nobody was told of it beforehand.
        let keys = provider.order(&json!({ "do": "rotate", "keep": 1 }));
        assert_eq!(keys[0], format!("k{}", round + 1));
        let fresh: Vec<String> = (0..5).map(|_| provider.token("reader", "read")).collect();
        // Those of the key before are good as long as it is published, which it is until the next change.
        let mut tokens = load.tokens.write().unwrap();
        *tokens = Arc::new([&tokens[..], &fresh].concat());
        drop(tokens);
        // The provider is asked for the new key when the first of these is shown: the time until it may be asked again runs from then.
        assert_eq!(ask(&clinic, "/api", &fresh[0]).0, 200);
    }
    std::thread::sleep(Duration::from_secs(5));
    load.stop.store(true, Ordering::Relaxed);
    let lasted = begun.elapsed();
    thread.join().unwrap();
    let (good, slowest) = (load.good.load(Ordering::Relaxed), load.slowest.load(Ordering::Relaxed));
    println!("{good} requests in {} s, slowest {slowest} ms", lasted.as_secs());
    let bad = load.bad.lock().unwrap();
    assert!(bad.is_empty(), "{} of {good}: {:?}\n{}", bad.len(), &bad[..bad.len().min(3)], clinic.said());
    // How much of what was meant to come a busy machine gets done is another matter.
    assert!(good > 1_000, "{good} in {lasted:?}");
    assert_eq!(clinic.stop(), [""; 0]);
}

fn gateway(clinic: &Clinic) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], clinic.port))
}

fn roots(clinic: &Clinic) -> EgressRoots {
    EgressRoots::from_pem(&std::fs::read(clinic.folder.join(".ringfence/ca.pem")).unwrap()).unwrap()
}

fn drive(load: &Arc<Load>, (gateway, roots): (SocketAddr, EgressRoots)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for n in 0..CONNECTIONS {
            let (load, roots) = (load.clone(), roots.clone());
            tasks.push(tokio::spawn(async move {
                while !load.stop.load(Ordering::Relaxed) {
                    if let Err(error) = connection(&load, n, gateway, &roots).await {
                        load.bad.lock().unwrap().push(error);
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Requests over one connection, each at its time, with all tokens in turn.
async fn connection(load: &Load, first: u64, gateway: SocketAddr, roots: &EgressRoots) -> Result<(), String> {
    let stream = TcpStream::connect(gateway).await.map_err(|e| e.to_string())?;
    let config = egress_client_config(roots, &[Alpn::Http1]);
    let stream = TlsConnector::from(config).connect(ServerName::from(gateway.ip()), stream);
    let stream = TokioIo::new(stream.await.map_err(|e| e.to_string())?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let mut turn = tokio::time::interval(Duration::from_secs(CONNECTIONS) / PER_SECOND as u32);
    for n in first.. {
        turn.tick().await;
        if load.stop.load(Ordering::Relaxed) || sender.ready().await.is_err() {
            break;
        }
        let tokens = load.tokens.read().unwrap().clone();
        let token = &tokens[n as usize % tokens.len()];
        let request = Request::get("/api")
            .header("host", gateway.to_string())
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let begun = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        load.slowest.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        load.good.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
