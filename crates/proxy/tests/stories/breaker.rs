//! A callee that fails is left alone and tried again, one that is busy gets no more than it may, and nobody who waits is forgotten.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use ringfence_event::Record;
use ringfence_snapshot::node::BreakerStats;

use crate::grpc::{client, runtime};
use crate::handling::{Client, OK, Service, UNAVAILABLE, fence, rig};
use crate::patience::HELP;
use crate::rig::{Rig, eventually, field, local};

fn breaker(rig: &Rig) -> Option<BreakerStats> {
    let stats = rig.control.stats.lock().unwrap();
    let edges = stats.iter().flat_map(|stats| &stats.edges);
    edges.filter(|edge| edge.caller == "outside").find_map(|edge| edge.breaker)
}

fn refusal(rig: &Rig, path: &str) -> Record {
    rig.event("the refusal", |r| field(r, "/http_request/url/path") == path)
}

#[test]
fn a_callee_that_fails_is_left_alone_until_one_request_shows_that_it_is_well() {
    let (service, port) = Service::start(&[UNAVAILABLE]);
    let rig = rig(port, "breaker: { failures: 3, open: 1h, longest: 1h }");
    let mut client = Client::of(&rig);
    for _ in 0..3 {
        assert_eq!(client.ask("GET", "/a", "", "").0, 503);
    }
    assert_eq!(service.count(), 3);
    let (status, answer) = client.ask("GET", "/refused", "", "");
    assert!(status == 503 && answer.to_ascii_lowercase().contains("\r\nretry-after: "), "{answer}");
    assert!(answer.contains("application/problem+json") && !answer.contains("failed"), "{answer}");
    assert_eq!(service.count(), 3, "it is not asked");
    let event = refusal(&rig, "/refused");
    assert_eq!(field(&event, "/firewall_rule/uid"), "breaker.open", "{}", event.line());
    assert!(event.line().contains("ringfence.yaml:8:"), "{}", event.line());
    eventually("how it stands", || (breaker(&rig)?.open == 1).then_some(()));
    rig.event("that it opened", |r| {
        r.line().contains("is sent along outside → portal") && r.line().contains("3 failures in a row")
    });
    rig.apply(&fence(port, "breaker: { failures: 3, open: 1s, longest: 1s }"));
    for _ in 0..3 {
        assert_eq!(client.ask("GET", "/a", "", "").0, 503, "with other words it begins anew");
    }
    assert_eq!(service.count(), 6);
    eventually("a probe that fails", || {
        client.ask("GET", "/a", "", "");
        (service.count() == 7).then_some(())
    });
    *service.answers.lock().unwrap() = vec![OK];
    eventually("a probe that is answered", || (client.ask("GET", "/a", "", "").0 == 200).then_some(()));
    for _ in 0..20 {
        assert_eq!(client.ask("GET", "/a", "", "").0, 200, "it is open to all again");
    }
    rig.event("that it closed", |r| r.line().contains("again: one was tried and answered"));
    eventually("how it stands", || (breaker(&rig)?.open == 0).then_some(()));
}

#[test]
fn who_is_pushed_back_and_what_clients_do_opens_nothing() {
    let (service, port) = Service::start(&["HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"]);
    let rig = rig(port, "waf: off, timeout: 8s, breaker: { failures: 1, open: 1m }");
    let mut client = Client::of(&rig);
    for _ in 0..5 {
        assert_eq!(client.ask("GET", "/a", "", "").0, 429);
    }
    let not_known = "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n";
    *service.answers.lock().unwrap() = vec![not_known, OK];
    assert_eq!(client.ask("GET", "/a", "", "").0, 501);
    // A client that never sends its body runs into the timeout by itself.
    let mut slow = Client::of(&rig);
    let (status, answer) = slow.ask_without_body("/slow");
    assert_eq!(status, 504, "{answer}");
    assert_eq!(client.ask("GET", "/a", "", "").0, 200);
    assert_eq!(breaker_opened(&rig), 0);
}

fn breaker_opened(rig: &Rig) -> u64 {
    eventually("statistics", || breaker(rig)).opened
}

/// A service that answers as soon as it is let.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    came: Mutex<Vec<String>>,
}

impl Gate {
    pub fn start() -> (Arc<Self>, u16) {
        let (listener, port) = local();
        let gate = Arc::new(Self::default());
        let serving = gate.clone();
        std::thread::spawn(move || serving.run(&listener));
        (gate, port)
    }

    fn run(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let gate = self.clone();
            std::thread::spawn(move || drop(gate.serve(stream)));
        }
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if lines.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            self.came.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            let mut open = self.open.lock().unwrap();
            while !*open {
                open = self.changed.wait(open).unwrap();
            }
            drop(open);
            out.write_all(OK.as_bytes())?;
        }
    }

    pub fn set(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.changed.notify_all();
    }

    pub fn count(&self) -> usize {
        self.came.lock().unwrap().len()
    }
}

pub fn in_background(rig: &Rig, path: &'static str) -> JoinHandle<u16> {
    let mut client = Client::of(rig);
    std::thread::spawn(move || client.ask("GET", path, "", "").0)
}

/// Waits until the breaker stands so.
async fn stands(rig: &Rig, so: impl Fn(BreakerStats) -> bool) {
    let waiting = async {
        while !breaker(rig).is_some_and(&so) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HELP, waiting).await.expect("it stands so");
}

#[test]
fn who_waits_goes_on_when_one_ends_and_who_leaves_gives_up_his_place() {
    let (gate, port) = Gate::start();
    let rig = rig(port, "breaker: { requests: 1, pending: 1, queue: 1h }");
    let first = in_background(&rig, "/first");
    eventually("the first", || (gate.count() == 1).then_some(()));
    // Somebody who waits and goes away leaves the place to the next one.
    runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        let request = Request::get("http://clinic.test/gone").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        stands(&rig, |breaker| breaker.waiting == 1).await;
        let full = in_background(&rig, "/full");
        stands(&rig, |_| full.is_finished()).await;
        assert_eq!(full.join().unwrap(), 503);
        drop(response);
        stands(&rig, |breaker| breaker.waiting == 0).await;
    });
    assert_eq!(field(&refusal(&rig, "/full"), "/firewall_rule/uid"), "breaker.full");
    let second = in_background(&rig, "/second");
    eventually("the second waits", || (breaker(&rig)?.waiting == 1).then_some(()));
    assert_eq!(gate.count(), 1, "one at a time");
    gate.set(true);
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 200));
    let came = gate.came.lock().unwrap().join(" ");
    assert!(!came.contains("/gone") && !came.contains("/full"), "{came}");
    eventually("nobody is left", || {
        (breaker(&rig)? == BreakerStats { ways: 1, ..Default::default() }).then_some(())
    });
}

#[test]
fn who_waits_too_long_is_refused_and_the_next_at_once_until_the_callee_is_well_again() {
    let (gate, port) = Gate::start();
    let rig = rig(port, "breaker: { requests: 1, pending: 100, queue: 50ms }");
    let first = in_background(&rig, "/first");
    eventually("the first", || (gate.count() == 1).then_some(()));
    let mut client = Client::of(&rig);
    for path in ["/late", "/next"] {
        let (status, answer) = client.ask("GET", path, "", "");
        assert_eq!(status, 503, "{answer}");
        assert_eq!(field(&refusal(&rig, path), "/firewall_rule/uid"), "breaker.late");
    }
    gate.set(true);
    assert_eq!(first.join().unwrap(), 200);
    eventually("it goes on", || (client.ask("GET", "/a", "", "").0 == 200).then_some(()));
    // Many that come together over one place: each is answered by the callee or refused, and at the end all go on.
    let many: Vec<_> = (0..16).map(|_| in_background(&rig, "/many")).collect();
    for one in many {
        let status = one.join().unwrap();
        assert!(matches!(status, 200 | 503), "{status}");
    }
    eventually("it goes on", || (client.ask("GET", "/a", "", "").0 == 200).then_some(()));
}

#[test]
fn a_call_of_a_service_has_a_breaker_of_its_own_which_outlives_another_fence() {
    let fence = |more: &str| {
        format!(
            "fence: clinic
trust_domain: clinic.example
services:
  portal: {{ run: [portal], listen: 9000, calls: [{{ service: patients, breaker: {{ failures: 2, open: 1h, longest: 1h }} }}] }}
  records: {{ run: [records], listen: 9002, calls: [patients] }}
  patients: {{ run: [patients], listen: 9001 }}
{more}"
        )
    };
    let mut rig = Rig::start(&fence(""));
    let (portal, records) = (rig.shim("portal", &[80]), rig.shim("records", &[80]));
    let patients = rig.shim("patients", &[80]);
    let patients = Service::on(patients.service(9001), &[UNAVAILABLE]);
    let mut calls = Client::over(portal.connect(&rig.address("patients"), 80));
    for _ in 0..4 {
        assert_eq!(calls.ask("GET", "/a", "", "").0, 503);
    }
    assert_eq!(patients.count(), 2);
    *patients.answers.lock().unwrap() = vec![OK];
    let mut others = Client::over(records.connect(&rig.address("patients"), 80));
    assert_eq!(others.ask("GET", "/a", "", "").0, 200, "another caller is not concerned");
    rig.apply(&fence("  mailer: { run: [mailer] }\n"));
    assert_eq!(calls.ask("GET", "/a", "", "").0, 503, "what the fence says of it is the same, and so it is");
    rig.apply(&fence("").replace("failures: 2", "failures: 3"));
    assert_eq!(calls.ask("GET", "/a", "", "").0, 200, "another one begins anew");
}
