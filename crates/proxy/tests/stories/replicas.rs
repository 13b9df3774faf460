//! A service at several addresses: what is slow, has enough or fails gets less, and nobody notices.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::handling::{Client, OK, Service};
use crate::rig::{Rig, eventually, local};

const REQUESTS: usize = 150;
/// What each of three would get if nobody looked.
const SHARE: usize = REQUESTS / 3;

fn rig(ports: [u16; 3], words: &str) -> Rig {
    let [a, b, c] = ports;
    Rig::start(&format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal:
    address: [127.0.0.1:{a}, 127.0.0.1:{b}, 127.0.0.1:{c}]
    tls: off
    routes: [{{ path: /, {words} }}]
"
    ))
}

/// A service that takes its time.
fn slow() -> (Arc<AtomicUsize>, u16) {
    let (listener, port) = local();
    let seen = Arc::<AtomicUsize>::default();
    let count = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = count.clone();
            std::thread::spawn(move || drop(serve(stream, &count)));
        }
    });
    (seen, port)
}

fn serve(stream: TcpStream, count: &AtomicUsize) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(500));
        out.write_all(OK.as_bytes())?;
    }
}

#[test]
fn one_that_is_slow_gets_hardly_any() {
    let ((a, first), (b, second), (seen, third)) = (Service::start(&[OK]), Service::start(&[OK]), slow());
    let rig = rig([first, second, third], "waf: off");
    let mut client = Client::of(&rig);
    for _ in 0..REQUESTS {
        assert_eq!(client.ask("GET", "/a", "", "").0, 200);
    }
    let slow = seen.load(Ordering::SeqCst);
    assert_eq!(a.count() + b.count() + slow, REQUESTS);
    assert!(slow < SHARE / 3, "{slow} of {REQUESTS}");
    assert!(a.count() > 0 && b.count() > 0, "{} and {}", a.count(), b.count());
    eventually("statistics of the service as one", || {
        let stats = rig.control.stats.lock().unwrap();
        let edges = stats.iter().flat_map(|stats| &stats.edges).filter(|edge| edge.caller == "outside");
        let requests: Vec<_> = edges.map(|edge| (edge.callee.clone(), edge.requests)).collect();
        (requests == [("portal".to_owned(), REQUESTS as u64)]).then_some(())
    });
}

#[test]
fn one_that_has_enough_or_fails_is_passed_by() {
    let pushes_back = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
    let ((_a, first), (_b, second), (bad, third)) =
        (Service::start(&[OK]), Service::start(&[OK]), Service::start(&[pushes_back]));
    let rig = rig([first, second, third], "retries: { budget: 100 }");
    let mut client = Client::of(&rig);
    let refused = (0..REQUESTS).filter(|_| client.ask("GET", "/a", "", "").0 == 429).count();
    assert_eq!(refused, bad.count());
    assert!(refused < SHARE / 3, "{refused} of {REQUESTS}");
    // One that hangs up: what it did not answer is asked for at another address.
    *bad.answers.lock().unwrap() = vec![""];
    let before = bad.count();
    for _ in 0..REQUESTS {
        assert_eq!(client.ask("GET", "/a", "", "").0, 200);
    }
    assert!(bad.count() - before < SHARE / 3, "{}", bad.count() - before);
}
