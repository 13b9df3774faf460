//! What is open is cut when it may not be any more: within a second, whatever it is, and nothing else on the same connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence_model::Position;
use ringfence_snapshot::node::{ApiKeys, Revocations};
use ringfence_snapshot::{Policies, Text};
use ringfence_token::{ApiKey, KeyRecord, Revocation, SVID, What};
use serde_json::json;

use crate::delegate;
use crate::mesh;
use crate::net::echo;
use crate::patience::Stopwatch;
use crate::rig::{Rig, TRUST_DOMAIN, eventually, field, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

/// What is cut is cut within this.
const SOON: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(20);

/// Answers `/once` once and everything else for as long as somebody listens: bytes after an upgrade, chunks otherwise.
pub fn streams(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        if head.contains("/once") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            continue;
        }
        let upgrade = head.contains("upgrade: websocket");
        stream.write_all(match upgrade {
            true => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
            false => b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        })?;
        loop {
            stream.write_all(if upgrade { b"beat" } else { b"8\r\ndata: 1\n\r\n" })?;
            std::thread::sleep(BEAT);
        }
    }
}

/// When something was to be cut.
pub struct Began(Instant, Stopwatch);

impl Began {
    pub fn now() -> Self {
        Self(Instant::now(), Stopwatch::start())
    }
}

/// Something open: when it last gave a sign of life, and when it ended.
#[derive(Clone)]
pub struct Open {
    name: String,
    state: Arc<Mutex<(Instant, Option<Instant>)>>,
}

impl Open {
    fn new(name: String) -> Self {
        Self { name, state: Arc::new(Mutex::new((Instant::now(), None))) }
    }

    fn beat(&self) {
        self.state.lock().unwrap().0 = Instant::now();
    }

    fn end(&self) {
        self.state.lock().unwrap().1 = Some(Instant::now());
    }

    /// How long after `since` it was cut.
    pub fn cut(&self, since: &Began) -> Duration {
        let ended = eventually(&format!("{} to be cut", self.name), || self.state.lock().unwrap().1);
        // What of that the machine had time for; it may have been seen a little later.
        let (took, machine) = (ended.saturating_duration_since(since.0), since.1.elapsed());
        assert!(took.min(machine) < SOON, "{} was cut after {took:?}, {machine:?}", self.name);
        took
    }

    /// Whether it was alive before that time of the clock.
    pub fn lives_until(&self, end: u64) -> bool {
        let since = Instant::now();
        eventually(&format!("{} to be alive, or its end", self.name), || {
            let (last, ended) = *self.state.lock().unwrap();
            (last > since || ended.is_some()).then_some(())
        });
        self.state.lock().unwrap().1.is_none() && unix() < end
    }

    pub fn lives(&self) {
        let since = Instant::now();
        eventually(&format!("{} to be alive", self.name), || {
            let (last, ended) = *self.state.lock().unwrap();
            assert!(ended.is_none(), "{} was cut, and should not have been", self.name);
            (last > since).then_some(())
        });
    }
}

/// How long after `since` each was cut.
fn cut_all(open: &[Open], since: &Began) -> Vec<Duration> {
    open.iter().map(|open| open.cut(since)).collect()
}

/// Opens a stream over HTTP/1.1, by an upgrade or not, and waits for its first bytes.
pub fn h1(stream: TcpStream, name: &str, path: &str, fields: &str) -> Open {
    try_h1(stream, name, path, fields).unwrap_or_else(|said| panic!("{name}: {said}"))
}

/// The same, or how another answer begins.
pub fn try_h1(mut stream: TcpStream, name: &str, path: &str, fields: &str) -> Result<Open, String> {
    let open = Open::new(format!("{name} {path}"));
    let host = if fields.contains("Host: ") { "" } else { "Host: x\r\n" };
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{host}{fields}\r\n").as_bytes()).unwrap();
    let mut read = vec![0; 4096];
    stream.read_exact(&mut read[..12]).unwrap();
    let said = String::from_utf8_lossy(&read[..12]).into_owned();
    if !matches!(&*said, "HTTP/1.1 101" | "HTTP/1.1 200") {
        return Err(said);
    }
    let watched = open.clone();
    std::thread::spawn(move || {
        while matches!(stream.read(&mut read), Ok(n) if n > 0) {
            watched.beat();
        }
        watched.end();
    });
    Ok(open)
}

pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// One HTTP/2 connection, and streams on it.
struct H2 {
    runtime: tokio::runtime::Runtime,
    send: h2::client::SendRequest<bytes::Bytes>,
}

impl H2 {
    fn connect(rig: &Rig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let gateway = rig.gateway;
        let send = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(gateway).await.unwrap();
            // A client that comes late to its beats goes on: `h2` would end a connection of which it holds many small frames.
            let mut builder = h2::client::Builder::new();
            let (send, connection) = builder.data_frame_budget(1 << 30).handshake(stream).await.unwrap();
            tokio::spawn(connection);
            send.ready().await.unwrap()
        });
        Self { runtime, send }
    }

    /// Opens a stream, and waits for its head.
    fn open(&self, name: &str, path: &str, field: (&str, &str)) -> Open {
        let open = Open::new(format!("{name} {path}, a stream"));
        let request =
            http::Request::get(format!("http://x{path}")).header(field.0, field.1).body(()).unwrap();
        let (mut send, watched) = (self.send.clone(), open.clone());
        let status = self.runtime.block_on(async move {
            let (response, _) = send.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            let status = response.status();
            tokio::spawn(async move {
                let mut body = response.into_body();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    watched.beat();
                }
                watched.end();
            });
            status
        });
        assert_eq!(status, 200, "{name}");
        open
    }

    fn ask(&self, path: &str, field: (&str, &str)) -> u16 {
        let request =
            http::Request::get(format!("http://x{path}")).header(field.0, field.1).body(()).unwrap();
        let mut send = self.send.clone();
        let asked =
            async move { send.send_request(request, true).unwrap().0.await.unwrap().status().as_u16() };
        self.runtime.block_on(asked)
    }
}

fn fence(port: u16, portal: &str) -> String {
    format!(
        "fence: clinic
trust_domain: {TRUST_DOMAIN}
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], claims: {{ user: sub, groups: groups }} }}
external:
  portal: {{ address: 127.0.0.1:{port}, tls: off, routes: {portal} }}
"
    )
}

const ROUTES: &str = "[{ path: /, accept: [{ token: staff }, api_key] }, { path: /other, accept: [{ token: staff }, api_key] }]";

struct World {
    rig: Rig,
    port: u16,
    provider: Provider,
    keys: Vec<(ApiKey, KeyRecord)>,
}

impl World {
    fn new() -> Self {
        let (listener, port) = crate::rig::local();
        streams(listener);
        let provider = Provider::new("k1");
        let rig = Rig::start(&fence(port, ROUTES));
        tell(&rig, provider.keys(unix() + 600));
        let keys: Vec<(ApiKey, KeyRecord)> = (0..2)
            .map(|number| {
                let key = ApiKey::generate();
                let record = KeyRecord {
                    prefix: key.prefix(),
                    secret: key.digest(),
                    previous: None,
                    client: format!("lab-{number}"),
                    scopes: vec!["read".into()],
                    not_before: None,
                    expires_at: None,
                    disabled: false,
                    last_used: None,
                };
                (key, record)
            })
            .collect();
        rig.tell_keys(ApiKeys::Part {
            first: true,
            last: true,
            records: keys.iter().map(|(_, record)| record.clone()).collect(),
        });
        Self { rig, port, provider, keys }
    }

    fn gateway(&self) -> TcpStream {
        TcpStream::connect(self.rig.gateway).unwrap()
    }

    fn token(&self, name: &str) -> String {
        self.provider.token(&json!({
            "sub": name, "jti": format!("t-{name}"), "sid": format!("s-{name}"), "client_id": format!("c-{name}"),
            "groups": [name],
        }))
    }

    fn key(&self, number: usize) -> String {
        self.keys[number].0.to_text().expose().clone()
    }

    /// Everything that somebody can have open: a download, a WebSocket, a stream beside those of others.
    fn all(&self, h2: &H2, name: &str, field: (&str, &str), path: &str) -> Vec<Open> {
        let line = format!("{}: {}\r\n", field.0, field.1);
        vec![
            h1(self.gateway(), name, path, &line),
            h1(self.gateway(), name, path, &format!("{line}{UPGRADE}")),
            h2.open(name, path, field),
        ]
    }

    fn revoke(&self, what: What) -> Began {
        let until =
            if matches!(what, What::Subject(_) | What::Client(_) | What::Issuer) { unix() } else { u64::MAX };
        let one = Revocation { issuer: ISSUER.into(), what, issued_until: until, forget_at: unix() + 600 };
        let began = Began::now();
        self.rig.revoke(Revocations::Added(vec![one]));
        began
    }

    /// The events of what was cut under this rule.
    fn told(&self, rule: &str, count: usize) {
        eventually(&format!("{count} events of {rule}"), || {
            let events = self.rig.events();
            let cut = events
                .iter()
                .filter(|r| field(r, "/firewall_rule/uid") == rule && r.json["unmapped"]["cut"] == true);
            (cut.count() >= count).then_some(())
        });
    }
}

#[test]
fn whatever_is_revoked_about_a_token_cuts_what_is_open_under_it_and_nothing_else() {
    for (number, kind) in ["token", "session", "user", "client", "key", "provider"].into_iter().enumerate() {
        let world = World::new();
        let h2 = H2::connect(&world.rig);
        let (ann, bob) = (world.token("ann"), world.token("bob"));
        let (ann, bob) = (format!("Bearer {ann}"), format!("Bearer {bob}"));
        let mine = world.all(&h2, "ann", ("authorization", &ann), "/a");
        // Those whom a revocation of everything would hit too are spared by one that is narrower.
        let others = match number {
            0..4 => world.all(&h2, "bob", ("authorization", &bob), "/a"),
            _ => Vec::new(),
        };
        let keys = world.all(&h2, "lab", ("x-api-key", &world.key(0)), "/a");
        let began = world.revoke(match number {
            0 => What::Token("t-ann".into()),
            1 => What::Session("s-ann".into()),
            2 => What::Subject("ann".into()),
            3 => What::Client("c-ann".into()),
            4 => What::Key("k1".into()),
            _ => What::Issuer,
        });
        let took = cut_all(&mine, &began);
        println!("revoked {kind}: cut after {took:?}");
        others.iter().chain(&keys).for_each(Open::lives);
        assert_eq!(h2.ask("/once", ("authorization", &ann)), 401, "{kind}");
        assert_eq!(h2.ask("/once", ("x-api-key", &world.key(0))), 200, "the connection lives on");
        world.told("token.revoked", 3);
        let event = world.rig.event("the cut", |r| {
            r.json["unmapped"]["cut"] == true && field(r, "/http_request/url/path") == "/a"
        });
        assert_eq!(field(&event, "/src_endpoint/owner/name"), "ann");
    }
}

#[test]
fn a_key_that_is_revoked_or_rotated_without_overlap_cuts_what_is_open_under_it() {
    let world = World::new();
    let h2 = H2::connect(&world.rig);
    let (first, second) = (world.key(0), world.key(1));
    let mine = world.all(&h2, "first", ("x-api-key", &first), "/a");
    let others = world.all(&h2, "second", ("x-api-key", &second), "/a");
    let began = Began::now();
    let record = KeyRecord { disabled: true, ..world.keys[0].1.clone() };
    world.rig.tell_keys(ApiKeys::Changed(record));
    let took = cut_all(&mine, &began);
    println!("revoked API key: cut after {took:?}");
    others.iter().for_each(Open::lives);
    world.told("api_key.revoked", 3);

    // Rotated with overlap it stays; when the secret before ends at once, it does not.
    let (_, record) = &world.keys[1];
    let next = ApiKey::generate_for(record.prefix);
    let mut rotated = record.clone();
    rotated.rotate(&next, unix() + 600);
    world.rig.tell_keys(ApiKeys::Changed(rotated.clone()));
    std::thread::sleep(Duration::from_millis(300));
    others.iter().for_each(Open::lives);
    let began = Began::now();
    world.rig.tell_keys(ApiKeys::Changed(KeyRecord { previous: None, ..rotated }));
    others.iter().for_each(|open| {
        open.cut(&began);
    });
    world.told("api_key.secret", 3);
}

#[test]
fn another_fence_cuts_what_it_does_not_permit_any_more_and_leaves_the_rest() {
    let world = World::new();
    let h2 = H2::connect(&world.rig);
    let token = format!("Bearer {}", world.token("ann"));
    let key = world.key(0);
    let by_token = world.all(&h2, "ann", ("authorization", &token), "/a");
    let by_key = world.all(&h2, "lab", ("x-api-key", &key), "/a");
    let other = world.all(&h2, "lab", ("x-api-key", &key), "/other");
    // The same again: nothing is cut.
    world.rig.apply_policy(&fence(world.port, ROUTES));
    std::thread::sleep(Duration::from_millis(300));
    by_token.iter().chain(&by_key).chain(&other).for_each(Open::lives);

    // Tokens only, and nobody there who is no nurse.
    let began = Began::now();
    world.rig.apply_policy(&fence(
        world.port,
        "[{ path: /, accept: [{ token: staff }] }, { path: /other, accept: [{ token: staff }, api_key] }]",
    ));
    by_key.iter().for_each(|open| {
        open.cut(&began);
    });
    by_token.iter().chain(&other).for_each(Open::lives);
    world.told("accept.changed", 3);
    let began = Began::now();
    world.rig.apply_policy(&fence(
        world.port,
        "[{ path: /, accept: [{ token: staff }], require: { groups: [nurse] } }, { path: /other, accept: [{ token: staff }, api_key] }]",
    ));
    by_token.iter().for_each(|open| {
        open.cut(&began);
    });
    other.iter().for_each(Open::lives);
    world.told("require.group", 3);
}

#[test]
fn other_policies_or_data_about_entities_cut_what_they_do_not_permit_any_more() {
    let world = World::new();
    let policies = |entities: &str| {
        let permit = r#"@id("known") permit(principal, action, resource) when { !(principal is User) || principal in Group::"staff/ward" };"#;
        let file = |name: &str, text: &str| Text { name: name.into(), text: text.into() };
        Policies {
            files: vec![file("policies/clinic.cedar", permit)],
            entities: Some(file("entities.json", entities)),
            position: Position::new("ringfence.yaml".into(), 9, 1),
        }
    };
    let member = |name: &str| json!({"uid": {"type": "Group", "id": format!("staff/{name}")}, "attrs": {}, "parents": [{"type": "Group", "id": "staff/ward"}]});
    let apply = |members: &[&str]| {
        let entities: Vec<_> = members.iter().map(|name| member(name)).collect();
        *world.rig.control.policies.lock().unwrap() = Some(policies(&json!(entities).to_string()));
        let began = Began::now();
        world.rig.apply_policy(&fence(world.port, ROUTES));
        began
    };
    apply(&["ann", "bob"]);
    let h2 = H2::connect(&world.rig);
    let (ann, bob) = (format!("Bearer {}", world.token("ann")), format!("Bearer {}", world.token("bob")));
    let mine = world.all(&h2, "ann", ("authorization", &ann), "/a");
    let others = world.all(&h2, "bob", ("authorization", &bob), "/a");
    let began = apply(&["bob"]);
    let took = cut_all(&mine, &began);
    println!("other entity data: cut after {took:?}");
    others.iter().for_each(Open::lives);
    world.told("policy.default", 3);
}

#[test]
fn what_services_have_open_on_behalf_of_somebody_is_cut_with_them() {
    let (listener, external) = crate::rig::local();
    streams(listener);
    let provider = Provider::new("k1");
    let mut rig = Rig::start(&delegate::fence(external));
    tell(&rig, provider.keys(unix() + 600));
    let (portal, appointments) = (rig.shim("portal", &[80]), rig.shim("appointments", &[80]));
    echo(portal.service(9000));
    streams(appointments.service(9001));
    // The service passes on what it was given.
    let call = |name: &str| {
        let token = provider.token(&json!({ "sub": name, "jti": name }));
        let request =
            format!("GET /api/x HTTP/1.1\r\nHost: x\r\n{}Connection: close\r\n\r\n", bearer(&token));
        let answer = raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes());
        let given = answer.lines().find(|line| line.to_lowercase().starts_with("txn-token:"));
        let given = format!("{}\r\n", given.unwrap_or_else(|| panic!("{answer}")));
        let to = || portal.connect(&rig.address("appointments"), 80);
        vec![h1(to(), name, "/x", &given), h1(to(), name, "/x", &format!("{given}{UPGRADE}"))]
    };
    let (mine, others) = (call("ann"), call("bob"));
    let itself = h1(portal.connect(&rig.address("appointments"), 80), "portal", "/x", "");
    let what = What::Subject("ann".into());
    let one = Revocation { issuer: ISSUER.into(), what, issued_until: unix(), forget_at: unix() + 600 };
    let began = Began::now();
    rig.revoke(Revocations::Added(vec![one]));
    let took = cut_all(&mine, &began);
    println!("revoked user, between services: cut after {took:?}");
    others.iter().chain([&itself]).for_each(Open::lives);
    let event =
        rig.event("the cut", |r| r.json["unmapped"]["cut"] == true && r.json["unmapped"]["txn"].is_string());
    assert_eq!(field(&event, "/firewall_rule/uid"), "token.revoked");
    assert_eq!(field(&event, "/src_endpoint/owner/name"), "ann");
}

#[test]
fn a_revoked_svid_is_cut_at_both_ends_refused_and_renewed_at_once() {
    let mut rig = Rig::start(mesh::FENCE);
    let portal = rig.shim("portal", &[80, 9004]);
    let records = rig.shim("records", &[80]);
    let patients = rig.shim("patients", &[80]);
    let vault = rig.shim("vault", &[]);
    streams(records.service(9002));
    streams(patients.service(9001));
    streams(portal.service(9000));
    streams(vault.service(9004));
    let call = |service: &str, path: &str, fields: &str| {
        h1(portal.connect(&rig.address(service), 80), service, path, fields)
    };
    let open = || vec![call("records", "/x", ""), call("records", "/x", UPGRADE)];
    let id = |service: &str| format!("spiffe://{TRUST_DOMAIN}/service/{service}");
    let revoke = |what: What, until: u64| {
        let one = Revocation { issuer: SVID.into(), what, issued_until: until, forget_at: unix() + 600 };
        let began = Began::now();
        rig.revoke(Revocations::Added(vec![one]));
        began
    };
    let works = |service: &'static str| {
        eventually(&format!("calls to {service}"), || {
            let request = b"GET /patients/once HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            raw(portal.connect(&rig.address(service), 80), request).starts_with("HTTP/1.1 200").then_some(())
        });
    };

    // By number, of the callee: others live on, and it gets another at once.
    let (mine, others) =
        (open(), vec![call("patients", "/patients/1", ""), call("patients", "/patients/2", UPGRADE)]);
    let began = revoke(What::Token(rig.control.serial(&id("records"))), u64::MAX);
    let took = cut_all(&mine, &began);
    println!("revoked the callee's SVID: cut after {took:?}");
    others.iter().for_each(Open::lives);
    works("records");
    println!("calls pass again {:?} after the revocation", began.0.elapsed());

    // All of the caller's so far: everything that it has open, TCP too; those that come after are believed.
    let mine =
        [open(), others, vec![h1(portal.connect(&rig.address("vault"), 9004), "vault", "/v", "")]].concat();
    let inside = h1(TcpStream::connect(rig.gateway).unwrap(), "gateway", "/g", "");
    let began = revoke(What::Subject(id("portal")), unix() - 60);
    let took = cut_all(&mine, &began);
    println!("revoked the caller's SVIDs: cut after {took:?}");
    // It was called with the same.
    inside.cut(&began);
    works("records");
    works("patients");
    println!("calls pass again {:?} after the revocation", began.0.elapsed());
    rig.event("the cut", |r| {
        field(r, "/firewall_rule/uid") == "svid.revoked" && r.json["unmapped"]["cut"] == true
    });
}

#[test]
fn a_restarted_node_keeps_what_was_revoked_and_one_that_cannot_read_it_lets_nobody_in() {
    let world = World::new();
    let (ann, bob) = (world.token("ann"), world.token("bob"));
    let ask = |rig: &Rig, token: &str| {
        let request = format!("GET /once HTTP/1.1\r\nHost: x\r\n{}Connection: close\r\n\r\n", bearer(token));
        raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes())
    };
    assert!(ask(&world.rig, &ann).starts_with("HTTP/1.1 200"));
    world.revoke(What::Subject("ann".into()));
    eventually("a refusal", || ask(&world.rig, &ann).starts_with("HTTP/1.1 401").then_some(()));
    let control = world.rig.control.clone();
    let kept = world.rig.dir.path().join("proxy/revocations.json");
    eventually("the list on disk", || std::fs::read_to_string(&kept).ok()?.contains("ann").then_some(()));

    // Nobody tells the next one anything.
    let dir = world.rig.stop();
    let rig = Rig::with_control(dir, control.clone());
    let refused = ask(&rig, &ann);
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "token.revoked");
    assert!(ask(&rig, &bob).starts_with("HTTP/1.1 200"), "others are let in");

    // A file that is damaged, or gone, is no empty list.
    let dir = rig.stop();
    std::fs::write(dir.path().join("proxy/revocations.json"), "[{\"issuer\":").unwrap();
    let rig = Rig::with_control(dir, control.clone());
    assert!(ask(&rig, &bob).starts_with("HTTP/1.1 503"));
    rig.event("the damage", |r| field(r, "/message").contains("what was revoked is not known"));
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "revocations.unready");
    let dir = rig.stop();
    std::fs::remove_file(dir.path().join("proxy/revocations.json")).unwrap();
    let rig = Rig::with_control(dir, control);
    assert!(ask(&rig, &bob).starts_with("HTTP/1.1 503"));
    // As soon as control tells, it goes on.
    rig.connect_control();
    eventually("bob to be let in", || ask(&rig, &bob).starts_with("HTTP/1.1 200").then_some(()));
}
