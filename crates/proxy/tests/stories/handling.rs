//! How long requests take, and what of them is tried again: a service that has bad moments, counted from its own side.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use ringfence_event::Record;

use crate::grpc::{client, runtime};
use crate::rig::{Rig, eventually, field, local};

/// What a service got, and what it does next.
#[derive(Default)]
pub struct Service {
    /// Heads and bodies, in the order in which they came.
    got: Mutex<Vec<String>>,
    /// Answers to the next requests, the last of them to all after it.
    pub answers: Mutex<Vec<&'static str>>,
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
pub const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
/// No answer at all: the connection ends.
const HANGS_UP: &str = "";
/// No answer, and the connection stays.
const SILENT: &str = "silent";

impl Service {
    pub fn start(answers: &[&'static str]) -> (Arc<Self>, u16) {
        let (listener, port) = local();
        (Self::on(listener, answers), port)
    }

    pub fn on(listener: TcpListener, answers: &[&'static str]) -> Arc<Self> {
        let service = Arc::new(Self { answers: Mutex::new(answers.to_vec()), ..Self::default() });
        let serving = service.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let service = serving.clone();
                std::thread::spawn(move || drop(service.serve(stream)));
            }
        });
        service
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                if lines.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            for line in head.to_ascii_lowercase().lines() {
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            lines.read_exact(&mut body)?;
            self.got.lock().unwrap().push(head + &String::from_utf8_lossy(&body));
            let answer = {
                let mut answers = self.answers.lock().unwrap();
                if answers.len() > 1 { answers.remove(0) } else { answers[0] }
            };
            match answer {
                HANGS_UP => return Ok(()),
                // Until the other side gives up.
                SILENT => return lines.read_line(&mut String::new()).map(drop),
                answer => out.write_all(answer.as_bytes())?,
            }
        }
    }

    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    pub fn last(&self) -> String {
        self.got.lock().unwrap().last().unwrap().clone()
    }
}

/// A gateway before a service elsewhere, whose one route says this.
pub fn rig(port: u16, words: &str) -> Rig {
    Rig::start(&fence(port, words))
}

pub fn fence(port: u16, words: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ path: /, {words} }}]
"
    )
}

/// Sends requests one after the other over one connection; the status of each answer.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn of(rig: &Rig) -> Self {
        Self::over(TcpStream::connect(rig.gateway).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(crate::patience::HELP)).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn ask(&mut self, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}{length}\r\n{body}");
        self.send(&text)
    }

    /// Says that a body follows, and sends none.
    pub fn ask_without_body(&mut self, path: &str) -> (u16, String) {
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"))
    }

    fn send(&mut self, text: &str) -> (u16, String) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "closed: {head:?}");
        }
        for line in head.to_ascii_lowercase().lines() {
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (head[9..12].parse().unwrap(), head + &String::from_utf8_lossy(&body))
    }
}

fn call(rig: &Rig, path: &str) -> Record {
    rig.event("the call", |r| field(r, "/http_request/url/path") == path)
}

fn retries(rig: &Rig) -> u64 {
    let stats = rig.control.stats.lock().unwrap();
    stats.iter().flat_map(|stats| &stats.edges).map(|edge| edge.retries).sum()
}

#[test]
fn what_is_safe_is_tried_again_and_told_of_once() {
    let (service, port) = Service::start(&[UNAVAILABLE, OK]);
    let rig = rig(port, "retries: { }");
    let mut client = Client::of(&rig);
    let (status, answer) = client.ask("PUT", "/a", "", "kept until the answer");
    assert_eq!(status, 200, "{answer}");
    let got = service.got.lock().unwrap().clone();
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|got| got.ends_with("\r\n\r\nkept until the answer")), "{got:?}");
    let trace = |got: &String| {
        let at = got.find("traceparent: ").unwrap();
        got[at..at + 55].to_owned()
    };
    assert_eq!(trace(&got[0]), trace(&got[1]), "one trace");
    assert_eq!(got[0], got[1], "the form that was judged, twice");
    let event = call(&rig, "/a");
    let calls = rig.events().into_iter().filter(|r| field(r, "/http_request/url/path") == "/a").count();
    assert_eq!(calls, 1, "one event");
    let told = event.json.to_string();
    assert!(told.contains("answered with 503: tried again after"), "{told}");
    eventually("the count", || (retries(&rig) == 1).then_some(()));
}

#[test]
fn what_may_have_done_something_is_not_tried_again() {
    let (service, port) = Service::start(&[UNAVAILABLE]);
    let rig = rig(port, "retries: { budget: 100 }");
    let mut client = Client::of(&rig);
    for method in ["POST", "PATCH"] {
        let before = service.count();
        assert_eq!(client.ask(method, "/a", "", "once").0, 503);
        assert_eq!(service.count(), before + 1, "{method}");
    }
    // Safe by its method, but longer than what is kept.
    let before = service.count();
    assert_eq!(client.ask("PUT", "/a", "", &"x".repeat(100_000)).0, 503);
    assert_eq!(service.count(), before + 1);
    // Of an answer that says nothing of another time, and one that names a far one, the caller hears.
    for answer in [
        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    ] {
        *service.answers.lock().unwrap() = vec![answer];
        let before = service.count();
        assert_ne!(client.ask("GET", "/a", "", "").0, 200);
        assert_eq!(service.count(), before + 1, "{answer}");
    }
    // One that hung up may have done it before.
    *service.answers.lock().unwrap() = vec![HANGS_UP];
    let before = service.count();
    assert_eq!(client.ask("POST", "/a", "", "once").0, 502);
    assert_eq!(service.count(), before + 1);
    *service.answers.lock().unwrap() = vec![HANGS_UP, OK];
    let before = service.count();
    assert_eq!(client.ask("GET", "/a", "", "").0, 200);
    assert_eq!(service.count(), before + 2);
    rig.apply(&rig_fence_idempotent(port));
    *service.answers.lock().unwrap() = vec![UNAVAILABLE, OK];
    assert_eq!(Client::of(&rig).ask("POST", "/a", "", "twice").0, 200, "the fence says that it is safe");
}

fn rig_fence_idempotent(port: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal: {{ address: 127.0.0.1:{port}, tls: off, routes: [{{ path: /, retries: {{ idempotent: true, budget: 100 }} }}] }}
"
    )
}

#[test]
fn in_a_brown_out_a_service_gets_a_fifth_more_and_no_more() {
    let (service, port) = Service::start(&[UNAVAILABLE]);
    let rig = rig(port, "retries: { most: 5 }");
    let mut client = Client::of(&rig);
    let requests = 300;
    for _ in 0..requests {
        assert_eq!(client.ask("GET", "/a", "", "").0, 503);
    }
    let got = service.count();
    assert!(got > requests && got * 10 <= requests * 12, "{got} tries of {requests} requests");
    eventually("the count", || (retries(&rig) == (got - requests) as u64).then_some(()));
}

#[test]
fn a_request_that_takes_too_long_is_answered_and_its_connection_goes_on() {
    let (service, port) = Service::start(&[SILENT, OK]);
    let rig = rig(port, "timeout: 4s");
    let mut client = Client::of(&rig);
    let begun = Instant::now();
    let (status, answer) = client.ask("GET", "/late", "", "");
    assert!(status == 504 && answer.contains("application/problem+json"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_secs(4));
    let event = call(&rig, "/late");
    let why = "it took longer than the 4s of ringfence.yaml:";
    assert!(field(&event, "/status_detail").starts_with(why), "{}", event.line());
    let (status, answer) = client.ask("GET", "/next", "Ringfence-Timeout: 1\r\n", "");
    assert_eq!(status, 200, "what clients outside say in our words counts for nothing: {answer}");
    let told = told(&service);
    assert!((1..=4_000).contains(&told), "{told}");
}

/// How many milliseconds the service was told last that its caller waits.
fn told(service: &Service) -> u64 {
    let head = service.last();
    let at = head.find("ringfence-timeout: ").unwrap_or_else(|| panic!("{head}")) + 19;
    head[at..].split("\r\n").next().unwrap().parse().unwrap()
}

#[test]
fn a_call_of_a_service_is_tried_again_and_timed_by_its_own_side_and_the_callee_s() {
    let mut rig = Rig::start(
        "fence: clinic
trust_domain: clinic.example
services:
  portal: { run: [portal], listen: 9000, calls: [{ service: patients, timeout: 20s, retries: { } }, records] }
  patients: { run: [patients], listen: 9001 }
  records: { run: [records], listen: 9002 }
",
    );
    let portal = rig.shim("portal", &[80]);
    let (patients, records) = (rig.shim("patients", &[80]), rig.shim("records", &[80]));
    let patients = Service::on(patients.service(9001), &[UNAVAILABLE, OK]);
    let records = Service::on(records.service(9002), &[OK]);
    let client = |callee: &str| Client::over(portal.connect(&rig.address(callee), 80));
    let mut calls = client("patients");
    assert_eq!(calls.ask("GET", "/again", "", "").0, 200);
    assert_eq!(patients.count(), 2, "the caller's side tries again, the callee's does not");
    assert!((1..=20_000).contains(&told(&patients)));
    eventually("the count", || (retries(&rig) == 1).then_some(()));
    // What a service passes on shortens the time, and is no lie; it never lengthens it.
    assert_eq!(calls.ask("GET", "/short", "Ringfence-Timeout: 9000\r\n", "").0, 200);
    assert!((1..=9_000).contains(&told(&patients)));
    assert_eq!(calls.ask("GET", "/long", "Ringfence-Timeout: 90000\r\n", "").0, 200);
    assert!((1..=20_000).contains(&told(&patients)));
    let event = call(&rig, "/short");
    assert_ne!(field(&event, "/firewall_rule/uid"), "header.spoofed", "{}", event.line());
    // Along an edge that says nothing of time, the caller's word counts too, at both sides.
    let mut calls = client("records");
    assert_eq!(calls.ask("GET", "/a", "", "").0, 200);
    assert!(!records.last().contains("ringfence-timeout"), "{}", records.last());
    *records.answers.lock().unwrap() = vec![SILENT];
    let (status, answer) = calls.ask("GET", "/silent", "Ringfence-Timeout: 4000\r\n", "");
    assert_eq!(status, 504, "{answer}");
    assert_eq!(records.count(), 2, "nothing is tried again where nobody says so");
    assert!((1..=4_000).contains(&told(&records)));
}

/// A gRPC service that answers each call with the next of these statuses; how often it was called, and how long it was told to take.
fn grpc_service(
    listener: TcpListener,
    statuses: &'static [&'static str],
) -> Arc<(AtomicUsize, Mutex<Vec<String>>)> {
    let seen = Arc::<(AtomicUsize, Mutex<Vec<String>>)>::default();
    let told = seen.clone();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let told = told.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let told = told.clone();
                        tokio::spawn(async move {
                            let timeout = request.headers().get("grpc-timeout");
                            let timeout = timeout.map_or("", |value| value.to_str().unwrap()).to_owned();
                            told.1.lock().unwrap().push(timeout);
                            let mut body = request.into_body();
                            while let Some(data) = body.data().await {
                                let length = data.unwrap().len();
                                body.flow_control().release_capacity(length).unwrap();
                            }
                            let at = told.0.fetch_add(1, Ordering::SeqCst);
                            let status = statuses[at.min(statuses.len() - 1)];
                            if status == SILENT {
                                let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                                return;
                            }
                            let head = Response::builder()
                                .header("content-type", "application/grpc")
                                .header("grpc-status", status);
                            respond.send_response(head.body(()).unwrap(), true).unwrap();
                        });
                    }
                });
            }
        });
    });
    seen
}

fn grpc_rig(port: u16, words: &str) -> Rig {
    Rig::start(&format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  billing: {{ address: 127.0.0.1:{port}, tls: off, protocol: grpc, routes: [{{ path: /{words} }}] }}
"
    ))
}

/// The gRPC status of one call.
fn grpc_call(rig: &Rig, timeout: &str) -> String {
    runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        let mut request = Request::post("http://clinic.test/Pay").header("content-type", "application/grpc");
        if !timeout.is_empty() {
            request = request.header("grpc-timeout", timeout);
        }
        let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
        send.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).unwrap();
        let response = tokio::time::timeout(crate::patience::HELP, response).await.unwrap().unwrap();
        response.headers()["grpc-status"].to_str().unwrap().to_owned()
    })
}

#[test]
fn a_call_of_grpc_is_made_again_only_where_the_fence_says_so() {
    for status in ["14", "8"] {
        let (listener, port) = local();
        let statuses: &[&str] = if status == "14" { &["14"] } else { &["8"] };
        let seen = grpc_service(listener, statuses);
        let rig = grpc_rig(port, ", retries: { budget: 100 }");
        assert_eq!(grpc_call(&rig, ""), status);
        assert_eq!(seen.0.load(Ordering::SeqCst), 1, "a call that may have done something");
    }
    let (listener, port) = local();
    let seen = grpc_service(listener, &["14", "0"]);
    let rig = grpc_rig(port, ", retries: { grpc: [UNAVAILABLE] }");
    assert_eq!(grpc_call(&rig, ""), "0");
    assert_eq!(seen.0.load(Ordering::SeqCst), 2);
    let (listener, port) = local();
    let seen = grpc_service(listener, &["8", "0"]);
    let rig = grpc_rig(port, ", retries: { grpc: [UNAVAILABLE], idempotent: true }");
    assert_eq!(grpc_call(&rig, ""), "8", "another status than the one that is named");
    assert_eq!(seen.0.load(Ordering::SeqCst), 1);
}

#[test]
fn deadlines_of_grpc_go_on_shortened_and_end_where_the_caller_ends() {
    let (listener, port) = local();
    let seen = grpc_service(listener, &[SILENT]);
    let rig = grpc_rig(port, ", timeout: 60s");
    assert_eq!(grpc_call(&rig, "4S"), "4", "the caller's is the earlier");
    let told = seen.1.lock().unwrap().remove(0);
    let left: u64 = told.strip_suffix('m').unwrap().parse().unwrap();
    assert!((1..=4_000).contains(&left), "{told}");
    let event = call(&rig, "/Pay");
    assert_eq!(field(&event, "/status_detail"), "it took longer than its caller waits", "{}", event.line());
    let (listener, port) = local();
    let seen = grpc_service(listener, &[SILENT]);
    let rig = grpc_rig(port, ", timeout: 4s");
    assert_eq!(grpc_call(&rig, "60S"), "4", "the fence's is the earlier");
    let told = seen.1.lock().unwrap().remove(0);
    assert!(told.strip_suffix('m').unwrap().parse::<u64>().unwrap() <= 4_000, "{told}");
    let (listener, port) = local();
    let seen = grpc_service(listener, &["0"]);
    let rig = grpc_rig(port, ", timeout: 60s");
    assert_eq!(grpc_call(&rig, ""), "0");
    let told = seen.1.lock().unwrap().remove(0);
    assert!(told.strip_suffix('m').unwrap().parse::<u64>().unwrap() <= 60_000, "{told}");
}
