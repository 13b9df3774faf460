//! How much may come in: counted by whom the fence says, exactly, whichever protocol and thread it comes by.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use ringfence_event::Record;
use serde_json::json;

use crate::net::echo;
use crate::rig::{Rig, eventually, field, get, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

/// A gateway before an external service, with these words of the gateway, the service and its routes.
fn fence(port: u16, gateway: &str, service: &str, routes: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off{gateway} }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], client: {{ id: clinic }}, login: {{}} }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
{service}
    routes: {routes}
"
    )
}

fn rig(gateway: &str, routes: &str) -> Rig {
    let (listener, port) = local();
    echo(listener);
    Rig::start(&fence(port, gateway, "", routes))
}

fn ask(rig: &Rig, path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
    raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes())
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

fn statuses(count: usize, mut ask: impl FnMut() -> String) -> Vec<u16> {
    (0..count).map(|_| status(&ask())).collect()
}

/// Asks until one is refused for being one too many, faster than one comes back each second; what all were answered.
fn until_refused(mut ask: impl FnMut() -> String) -> Vec<u16> {
    let mut all = Vec::new();
    eventually("one too many", || {
        all.push(status(&ask()));
        (all.last() == Some(&429)).then_some(())
    });
    all
}

/// How many of them were served.
fn served(statuses: &[u16]) -> usize {
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn value<'a>(answer: &'a str, name: &str) -> &'a str {
    let found = answer.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    });
    found.unwrap_or_else(|| panic!("no {name}: {answer}"))
}

fn refusal(rig: &Rig, path: &str) -> Record {
    rig.event("the refusal", |r| r.denied() && field(r, "/http_request/url/path") == path)
}

#[test]
fn one_too_many_is_told_when_to_come_again() {
    let rig = rig("", "[{ path: /, limit: [{ by: address, rate: 10/1h, burst: 5 }] }, { path: /free }]");
    let mut left = Vec::new();
    for _ in 0..5 {
        let answer = ask(&rig, "/a", "");
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(value(&answer, "RateLimit-Policy"), "\"route-address\";q=10;w=3600");
        left.push(value(&answer, "RateLimit").to_owned());
    }
    // All are back after so many seconds; between the answers hardly one passes.
    assert!(left[0].starts_with("\"route-address\";r=4;t=3"), "{left:?}");
    assert!(left[4].starts_with("\"route-address\";r=0;t=1"), "{left:?}");
    let answer = ask(&rig, "/one-too-many", "");
    assert_eq!(status(&answer), 429, "{answer}");
    let retry: u64 = value(&answer, "Retry-After").parse().unwrap();
    assert!((200..=360).contains(&retry), "one comes back every six minutes: {answer}");
    assert_eq!(value(&answer, "RateLimit-Policy"), "\"route-address\";q=10;w=3600");
    assert!(value(&answer, "RateLimit").starts_with("\"route-address\";r=0;t=1"), "{answer}");
    assert!(answer.contains("application/problem+json") && !answer.contains("ringfence.yaml"), "{answer}");
    let event = refusal(&rig, "/one-too-many");
    assert_eq!(field(&event, "/firewall_rule/uid"), "limit.address");
    assert_eq!(field(&event, "/unmapped/stage"), "limit");
    assert!(field(&event, "/unmapped/position").starts_with("ringfence.yaml:11:"), "{}", event.line());
    assert!(
        field(&event, "/status_detail").contains("10/1h by address (route */ of portal)"),
        "{}",
        event.line()
    );
    assert_eq!(event.json["http_response"]["code"], 429);
    // Another route has nothing to do with it, and says nothing of limits.
    let answer = ask(&rig, "/free", "");
    assert!(status(&answer) == 200 && !answer.to_lowercase().contains("ratelimit"), "{answer}");
}

#[test]
fn threads_and_connections_together_get_exactly_what_there_is() {
    let rig = rig("", "[{ path: /, limit: [{ by: route, rate: 1/1d, burst: 60 }] }]");
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // New connections, which the kernel deals to both threads, and one that is kept.
                let new = statuses(10, || ask(&rig, "/a", ""));
                let stream = TcpStream::connect(rig.gateway).unwrap();
                let one = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9);
                let kept = raw(
                    stream,
                    format!("{one}GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
                );
                let kept = kept.matches("HTTP/1.1 200 OK").count();
                passed.fetch_add(served(&new) + kept, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(passed.load(Ordering::SeqCst), 60);
}

#[test]
fn streams_of_one_http2_connection_are_counted_each() {
    let rig = rig("", "[{ path: /, limit: [{ by: address, quota: 30/1d }] }]");
    let stream = TcpStream::connect(rig.gateway).unwrap();
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answers: Vec<http::Response<()>> = runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send: h2::client::SendRequest<bytes::Bytes> = send;
        let mut answers = Vec::new();
        for _ in 0..80 {
            send = send.ready().await.unwrap();
            let request = http::Request::get("http://x.example/a").body(()).unwrap();
            answers.push(send.send_request(request, true).unwrap().0);
        }
        let mut heads = Vec::new();
        for answer in answers {
            heads.push(answer.await.unwrap().map(drop));
        }
        heads
    });
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status() == 200);
    assert_eq!((good.len(), bad.len()), (30, 50));
    assert_eq!(good[0].headers()["ratelimit-policy"], "\"route-address-quota\";q=30;w=86400");
    assert!(good.iter().all(|answer| answer.headers().contains_key("ratelimit")));
    for answer in bad {
        assert_eq!(answer.status(), 429);
        let retry: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((86_000..=86_401).contains(&retry), "the window is a day from the first on: {retry}");
    }
}

#[test]
fn a_limit_that_only_watches_tells_and_lets_pass() {
    let rig = rig(
        "",
        "[{ path: /, limit: [{ by: address, rate: 1/1h, mode: observe }, { by: route, rate: 5/1s, mode: off }] }]",
    );
    let answers: Vec<String> = (0..4).map(|n| ask(&rig, &format!("/{n}"), "")).collect();
    assert!(answers.iter().all(|answer| status(answer) == 200), "{answers:?}");
    assert!(!answers.concat().to_lowercase().contains("ratelimit"), "it is not said to clients: {answers:?}");
    let event = rig.event("the last", |r| field(r, "/http_request/url/path") == "/3");
    assert!(!event.denied());
    assert_eq!(event.json["unmapped"]["observed"], json!(["limit.address"]), "{}", event.line());
    assert_eq!(event.json["unmapped"]["observed_verdict"], "deny");
    let first = rig.event("the first", |r| field(r, "/http_request/url/path") == "/0");
    assert!(first.json["unmapped"].get("observed").is_none(), "{}", first.line());
}

#[test]
fn what_was_counted_outlives_a_new_snapshot_unless_the_rule_is_another() {
    let (listener, port) = local();
    echo(listener);
    let of = |rest: &str, rate: &str, mode: &str| {
        let routes =
            format!("[{rest}{{ path: /a, limit: [{{ by: address, rate: {rate}, burst: 3{mode} }}] }}]");
        fence(port, "", "", &routes)
    };
    let rig = Rig::start(&of("", "1/1h", ""));
    assert_eq!(served(&statuses(5, || ask(&rig, "/a", ""))), 3);
    // Other routes, at another place of the file, watched for a while: it is the same rule.
    rig.apply(&of("{ path: /new }, ", "1/1h", ""));
    assert_eq!(served(&statuses(2, || ask(&rig, "/a", ""))), 0);
    rig.apply(&of("", "1/1h", ", mode: observe"));
    assert_eq!(served(&statuses(2, || ask(&rig, "/a", ""))), 2);
    rig.apply(&of("", "1/1h", ""));
    assert_eq!(served(&statuses(2, || ask(&rig, "/a", ""))), 0);
    // Another rate is another rule.
    rig.apply(&of("", "2/1h", ""));
    assert_eq!(served(&statuses(5, || ask(&rig, "/a", ""))), 3);
}

#[test]
fn users_clients_and_tenants_are_counted_each() {
    let provider = Provider::new("k1");
    let rig = rig(
        "",
        "[{ path: /user, accept: [{ token: staff }], limit: [{ by: user, rate: 1/1h, burst: 2 }] }, \
          { path: /client, accept: [{ token: staff }], limit: [{ by: client, rate: 1/1h, burst: 2 }] }, \
          { path: /tenant, accept: [{ token: staff }], limit: [{ by: { claim: /org/tenant }, rate: 1/1h, burst: 2 }] }]",
    );
    tell(&rig, provider.keys(unix() + 600));
    let ask = |path: &str, claims: serde_json::Value| ask(&rig, path, &bearer(&provider.token(&claims)));
    let three = |path: &str, claims: serde_json::Value| served(&statuses(3, || ask(path, claims.clone())));
    assert_eq!(three("/user", json!({ "sub": "ada" })), 2);
    assert_eq!(three("/user", json!({ "sub": "ada", "jti": "another token" })), 0);
    assert_eq!(three("/user", json!({ "sub": "bob" })), 2);
    // Bob was refused there too, and threads tell in any order.
    let event = rig.event("ada's refusal", |r| {
        r.denied()
            && field(r, "/http_request/url/path") == "/user"
            && field(r, "/src_endpoint/owner/name") == "ada"
    });
    assert_eq!(field(&event, "/firewall_rule/uid"), "limit.user");
    // What clients are told names nobody.
    assert!(!ask("/user", json!({ "sub": "ada" })).contains("ada"));

    assert_eq!(three("/client", json!({ "sub": "ada", "client_id": "app" })), 2);
    assert_eq!(three("/client", json!({ "sub": "bob", "client_id": "app" })), 0);
    assert_eq!(three("/client", json!({ "sub": "bob", "client_id": "other" })), 2);

    let org = |tenant: &str| json!({ "tenant": tenant });
    assert_eq!(three("/tenant", json!({ "sub": "ada", "org": org("north") })), 2);
    assert_eq!(three("/tenant", json!({ "sub": "bob", "org": org("north") })), 0);
    assert_eq!(three("/tenant", json!({ "sub": "bob", "org": org("south") })), 2);
    // Whoever has none is one of those who have none.
    assert_eq!(three("/tenant", json!({ "sub": "eve" })), 2);
    assert_eq!(three("/tenant", json!({ "sub": "mallory", "org": { "tenant": ["north"] } })), 0);
}

#[test]
fn what_one_limit_refuses_no_other_counts() {
    let provider = Provider::new("k1");
    let (listener, port) = local();
    echo(listener);
    let routes =
        "[{ path: /, accept: [{ token: staff }], cost: 3, limit: [{ by: user, rate: 1/1h, burst: 6 }] }]";
    let service = "    limit: [{ by: route, rate: 1/1h, burst: 9 }]";
    let rig = Rig::start(&fence(port, ", limit: [{ by: client, rate: 1/1h, burst: 100 }]", service, routes));
    tell(&rig, provider.keys(unix() + 600));
    let ask = |user: &str| ask(&rig, "/", &bearer(&provider.token(&json!({ "sub": user }))));
    let answer = ask("ada");
    assert_eq!(
        value(&answer, "RateLimit-Policy"),
        "\"gateway-client\";q=1;w=3600, \"service-route\";q=1;w=3600, \"route-user\";q=1;w=3600"
    );
    assert!(value(&answer, "RateLimit").contains("\"service-route\";r=6;"), "each counts three: {answer}");
    assert_eq!(served(&statuses(5, || ask("ada"))), 1, "six are two");
    let answer = ask("bob");
    let standing = value(&answer, "RateLimit");
    assert!(
        standing.contains("\"service-route\";r=0;") && standing.contains("\"gateway-client\";r=91;"),
        "{answer}"
    );
    assert_eq!(status(&ask("bob")), 429);
}

/// A service whose answers wait until they are released.
struct Slow {
    arrived: Receiver<()>,
    release: Arc<Mutex<Vec<SyncSender<()>>>>,
}

fn slow(listener: TcpListener) -> Slow {
    let (arriving, arrived) = sync_channel(64);
    let slow = Slow { arrived, release: Arc::default() };
    let shared = slow.release.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (release, released) = sync_channel(64);
            shared.lock().unwrap().push(release);
            let arriving = arriving.clone();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                let _ = arriving.send(());
                let _ = released.recv();
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            });
        }
    });
    slow
}

#[test]
fn what_runs_at_the_same_time_is_counted_until_it_ends() {
    let (listener, port) = local();
    let service = slow(listener);
    let rig = Rig::start(&fence(port, "", "", "[{ path: /, limit: [{ by: address, concurrent: 3 }] }]"));
    let begin = || {
        let mut stream = TcpStream::connect(rig.gateway).unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    // One after another, so that the service has them in this order.
    let soon = std::time::Duration::from_secs(30);
    let arriving = || {
        let stream = begin();
        service.arrived.recv_timeout(soon).unwrap();
        stream
    };
    let mut running: Vec<TcpStream> = (0..3).map(|_| arriving()).collect();
    let answer = ask(&rig, "/slow", "");
    assert_eq!(status(&answer), 429, "{answer}");
    assert_eq!(
        value(&answer, "RateLimit-Policy"),
        "\"route-address-concurrent\";q=3;qu=\"concurrent-requests\""
    );
    assert_eq!(
        (value(&answer, "RateLimit"), value(&answer, "Retry-After")),
        ("\"route-address-concurrent\";r=0", "1")
    );
    assert_eq!(field(&refusal(&rig, "/slow"), "/firewall_rule/uid"), "limit.address");
    // One ends, one of them is given up: two may begin.
    service.release.lock().unwrap().remove(0).send(()).unwrap();
    drop(running.pop());
    let mut text = String::new();
    running[0].set_read_timeout(Some(soon)).unwrap();
    assert!(running[0].read_to_string(&mut text).is_ok_and(|n| n > 0), "one was answered");
    drop(running);
    drop(service.release.lock().unwrap().drain(..));
    eventually("room for another", || {
        let stream = begin();
        let arrived = service.arrived.recv_timeout(std::time::Duration::from_millis(200)).is_ok();
        drop(service.release.lock().unwrap().drain(..));
        drop(stream);
        arrived.then_some(())
    });
}

const CALLS: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, tls: off }
services:
  portal:
    run: [portal]
    listen: 9000
    calls:
      - { service: patients, limit: [{ by: caller, rate: 1/1h, burst: 4 }] }
      - { service: archive, limit: [{ by: route, rate: 1/1h, burst: 2 }] }
  lab: { run: [lab], listen: 9003, calls: [patients] }
  patients:
    run: [patients]
    listen: 9001
    limit: [{ by: caller, rate: 1/1h, burst: 6 }]
external:
  archive: { address: 127.0.0.1:PORT, tls: off }
";

#[test]
fn calls_are_counted_where_the_callee_is() {
    let (listener, port) = local();
    echo(listener);
    let mut rig = Rig::start(&CALLS.replace("PORT", &port.to_string()));
    let (portal, lab) = (rig.shim("portal", &[80]), rig.shim("lab", &[80]));
    let patients = rig.shim("patients", &[80]);
    echo(patients.service(9001));
    let call = |from: &crate::net::Net, callee: &str| {
        get(from.connect(&rig.address(callee), 80), callee, &format!("/{callee}"))
    };
    assert_eq!(served(&statuses(6, || call(&portal, "patients"))), 4, "{:?}", rig.troubles());
    let event = rig.event("the refusal", |r| r.denied() && field(r, "/unmapped/point") == "sidecar-in");
    assert_eq!(field(&event, "/firewall_rule/uid"), "limit.caller");
    assert_eq!(field(&event, "/src_endpoint/svc_name"), "portal");
    assert!(field(&event, "/status_detail").contains("edge portal \u{2192} patients"), "{}", event.line());
    // Another caller has its own, by the service's rule alone; the way back carries how it stands.
    let answer = call(&lab, "patients");
    assert!(value(&answer, "RateLimit").starts_with("\"service-caller\";r=5;"), "{answer}");
    assert_eq!(served(&statuses(8, || call(&lab, "patients"))), 5);
    // One without a side of ours is counted where calls leave.
    assert_eq!(served(&statuses(4, || call(&portal, "archive"))), 2, "{:?}", rig.troubles());
    rig.event("the refusal", |r| {
        r.denied()
            && field(r, "/unmapped/point") == "sidecar-out"
            && field(r, "/dst_endpoint/svc_name") == "archive"
    });
}

#[test]
fn the_gateway_counts_addresses_wherever_they_want_to_go() {
    let rig = rig(", limit: [{ by: address, rate: 1/1h, burst: 5 }]", "[{ host: a.example, path: / }]");
    assert_eq!(statuses(3, || get(TcpStream::connect(rig.gateway).unwrap(), "b.example", "/")), [404; 3]);
    assert_eq!(served(&statuses(4, || get(TcpStream::connect(rig.gateway).unwrap(), "a.example", "/"))), 2);
    assert_eq!(statuses(1, || ask(&rig, "/nowhere", "")), [429]);
    // Nor does it matter that a place is our own.
    assert_eq!(
        statuses(1, || get(TcpStream::connect(rig.gateway).unwrap(), "a.example", "/.ringfence/none")),
        [429]
    );
}

#[test]
fn sign_ins_are_held_to_a_number_unless_the_fence_says_otherwise() {
    let routes = "[{ path: /, accept: [{ login: staff }] }]";
    let login = |rig: &Rig, count| statuses(count, || ask(rig, "/.ringfence/login/staff", ""));
    let held = rig("", routes);
    let all = until_refused(|| ask(&held, "/.ringfence/login/staff", ""));
    assert!(all.len() > 60, "{all:?}");
    let event = held.event("the refusal", |r| field(r, "/firewall_rule/uid") == "limit.sign_in");
    let said = field(&event, "/status_detail");
    assert!(event.denied() && said.contains("60/1m from one address"), "{}", event.line());
    // Ends of sign-ins count as well; one comes back each second.
    let refused = eventually("a refusal", || {
        let answer = ask(&held, "/.ringfence/callback/staff?code=1", "");
        (status(&answer) == 429).then_some(answer)
    });
    assert_eq!(value(&refused, "Retry-After"), "1");
    // Ends of sessions come from providers, many at once; and who signs out is not kept from it.
    assert_ne!(status(&ask(&held, "/.ringfence/logged-out", "")), 429);

    let few = rig(", sign_in: { address: 3/1h }", routes);
    assert_eq!(login(&few, 6).iter().filter(|status| **status == 429).count(), 3);
    let all = rig(", sign_in: { address: off, all: 4/1h }", routes);
    assert_eq!(login(&all, 6).iter().filter(|status| **status == 429).count(), 2);
    let off = rig(", sign_in: off", routes);
    assert!(login(&off, 70).iter().all(|status| *status != 429));
}

#[test]
fn whoever_shows_one_wrong_credential_after_the_other_is_slowed_down() {
    let provider = Provider::new("k1");
    let routes = "[{ path: /, accept: [{ token: staff }] }, { path: /open }]";
    let with = |gateway: &str| {
        let rig = rig(gateway, routes);
        tell(&rig, provider.keys(unix() + 600));
        rig
    };
    let good = bearer(&provider.token(&json!({})));
    let wrong = bearer(&Provider::new("k1").token(&json!({})));
    let held = with(", failures: 5/1d");
    // Nothing shown, and what was good once, is no attempt.
    assert_eq!(statuses(20, || ask(&held, "/", "")), [401; 20]);
    let old = bearer(&provider.token(&json!({ "exp": unix() - 300, "iat": unix() - 600 })));
    assert_eq!(statuses(20, || ask(&held, "/", &old)), [401; 20]);
    assert_eq!(statuses(3, || ask(&held, "/", &wrong)), [401; 3]);
    assert_eq!(statuses(3, || ask(&held, "/", &good)), [200; 3]);
    assert_eq!(statuses(4, || ask(&held, "/", &wrong)), [401, 401, 429, 429]);
    // Who shares the address and has a good one is not kept out, whether it was seen here before or not, nor told anything else
    // than before for showing none. What needs none passes.
    let colleague = bearer(&provider.token(&json!({ "sub": "colleague" })));
    assert_eq!(statuses(4, || ask(&held, "/", &good)), [200; 4]);
    assert_eq!(statuses(4, || ask(&held, "/", &colleague)), [200; 4]);
    assert_eq!((status(&ask(&held, "/", "")), status(&ask(&held, "/", &old))), (401, 401));
    let answer = ask(&held, "/guess", &wrong);
    let retry: u64 = value(&answer, "Retry-After").parse().unwrap();
    assert!(status(&answer) == 429 && (16_000..=17_280).contains(&retry), "{answer}");
    assert_eq!(field(&refusal(&held, "/guess"), "/firewall_rule/uid"), "limit.failures");
    assert_eq!(status(&ask(&held, "/open", "")), 200);

    let off = with(", failures: off");
    assert_eq!(statuses(80, || ask(&off, "/", &wrong)), [401; 80]);
    let default = with("");
    let all = until_refused(|| ask(&default, "/", &wrong));
    assert!(all.len() > 60 && all[..60].iter().all(|status| *status == 401), "{all:?}");
}

#[test]
fn under_overload_what_may_be_shed_gives_way_and_what_is_critical_never() {
    let (listener, port) = local();
    echo(listener);
    let routes = "[{ path: /reports, priority: sheddable }, { path: /alarms, priority: critical }]";
    let limits = "limits: { queue: 1ms }\n";
    let rig = Rig::start(&(fence(port, "", "", routes) + limits));
    // Calm: nothing gives way.
    assert_eq!(statuses(3, || ask(&rig, "/reports", "")), [200; 3]);
    let (shed, over) = (AtomicUsize::new(0), std::sync::atomic::AtomicBool::new(false));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
    std::thread::scope(|scope| {
        for n in 0..48 {
            let (shed, over, rig) = (&shed, &over, &rig);
            scope.spawn(move || {
                let path = if n % 3 == 0 { "/alarms" } else { "/reports" };
                let one = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
                let last = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                while !over.load(Ordering::Relaxed) && std::time::Instant::now() < end {
                    let stream = TcpStream::connect(rig.gateway).unwrap();
                    let answers = raw(stream, (one.repeat(100) + &last).as_bytes());
                    let refused = answers.matches("HTTP/1.1 503").count();
                    if n % 3 == 0 {
                        assert_eq!(refused, 0, "what is critical never gives way");
                    } else if refused > 0 {
                        assert!(answers.contains("etry-after: 2\r\n"), "{answers}");
                        shed.fetch_add(refused, Ordering::Relaxed);
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(shed.load(Ordering::Relaxed) > 0, "nothing gave way");
    let event = refusal(&rig, "/reports");
    assert_eq!(field(&event, "/firewall_rule/uid"), "limit.overload", "{}", event.line());
}
