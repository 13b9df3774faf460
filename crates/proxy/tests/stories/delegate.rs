//! On whose behalf: the token that the gateway gets, services pass on, and only their own sidecars let count.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringfence_model::Position;
use ringfence_snapshot::node::{NoAnswer, NoAnswerCode};
use ringfence_snapshot::{Identity, IdentityKind, Policies, Text};
use serde_json::json;

use crate::net::{Net, echo};
use crate::patience::{Stopwatch, within};
use crate::rig::{Rig, THREADS, eventually, field, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

/// A way of three services; who calls patients must do so on somebody's behalf.
pub fn fence(external: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], claims: {{ user: sub, groups: groups }} }}
services:
  portal:
    run: [portal]
    listen: 9000
    routes: [{{ path: / }}, {{ path: /api, accept: [{{ token: staff }}, api_key] }}]
    calls:
      - appointments
      - archive
      - {{ service: patients, on_behalf: required }}
  appointments:
    run: [appointments]
    listen: 9001
    calls:
      - portal
      - {{ service: patients, on_behalf: required }}
  patients: {{ run: [patients], listen: 9002 }}
external:
  archive:
    address: 127.0.0.1:{external}
    tls: off
    routes: [{{ path: /archive, accept: [{{ token: staff }}] }}]
"
    )
}

pub struct Clinic {
    pub rig: Rig,
    pub portal: Arc<Net>,
    pub appointments: Arc<Net>,
    provider: Provider,
}

pub fn clinic() -> Clinic {
    let (listener, external) = local();
    echo(listener);
    let provider = Provider::new("k1");
    let mut rig = Rig::start(&fence(external));
    tell(&rig, provider.keys(unix() + 600));
    let (portal, appointments) = (rig.shim("portal", &[80]), rig.shim("appointments", &[80]));
    let patients = rig.shim("patients", &[80]);
    echo(portal.service(9000));
    echo(appointments.service(9001));
    echo(patients.service(9002));
    Clinic { rig, portal, appointments, provider }
}

/// The value of a field in what an echo answered.
pub fn told<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

pub fn txn(token: &str) -> String {
    format!("Txn-Token: {token}\r\n")
}

pub fn trace(number: u8) -> String {
    format!("traceparent: 00-{number:032x}-00000000000000aa-01\r\n")
}

fn request(stream: TcpStream, path: &str, fields: &str) -> String {
    raw(stream, format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n").as_bytes())
}

impl Clinic {
    /// Through the gateway.
    pub fn ask(&self, path: &str, fields: &str) -> String {
        request(TcpStream::connect(self.rig.gateway).unwrap(), path, fields)
    }

    pub fn ada(&self) -> String {
        bearer(&self.provider.token(&json!({})))
    }

    /// The token that portal got for ada.
    pub fn given(&self, fields: &str) -> String {
        let answer = self.ask("/api", &(self.ada() + fields));
        told(&answer, "txn-token").unwrap_or_else(|| panic!("{answer} {:?}", self.rig.troubles())).to_owned()
    }

    /// From one service to another.
    pub fn call(&self, from: &Net, to: &str, path: &str, fields: &str) -> String {
        request(from.connect(&self.rig.address(to), 80), path, fields)
    }

    pub fn minted(&self) -> u64 {
        self.rig.control.keeper.asked.load(Ordering::Relaxed)
    }

    pub fn refusal(&self, path: &str) -> (String, String) {
        let event = self.rig.event(path, |r| r.denied() && field(r, "/http_request/url/path") == path);
        (field(&event, "/firewall_rule/uid").to_owned(), event.line())
    }

    fn at(&self, point: &str, path: &str) -> ringfence_event::Record {
        self.rig.event(path, |r| {
            field(r, "/http_request/url/path") == path && field(r, "/unmapped/point") == point
        })
    }
}

#[test]
fn each_service_on_the_way_learns_who_it_is_for_and_the_log_which_way_it_took() {
    let clinic = clinic();
    let answer =
        clinic.ask("/api/a", &(clinic.ada() + &trace(1) + "Txn-Token: forged\r\nRingfence-Chain: vault\r\n"));
    let token = told(&answer, "txn-token")
        .unwrap_or_else(|| panic!("{answer} {:?}", clinic.rig.troubles()))
        .to_owned();
    let carried = txn(&token) + &trace(1) + "Ringfence-User: root\r\n";
    let second = clinic.call(&clinic.portal, "appointments", "/b", &carried);
    let third = clinic.call(&clinic.appointments, "patients", "/c", &carried);
    for answer in [&answer, &second, &third] {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {:?}", clinic.rig.troubles());
        assert_eq!(told(answer, "txn-token"), Some(&*token), "unmodified");
        assert_eq!(told(answer, "ringfence-user"), Some("ada"));
        assert_eq!(told(answer, "ringfence-provider"), Some("staff"));
        assert_eq!(told(answer, "ringfence-scopes"), Some("read write"));
        for hidden in ["chain", "ringfence-principal", "root", "forged", "uthorization"] {
            assert!(!answer.contains(hidden), "{hidden} is not for services: {answer}");
        }
    }
    for (point, path, chain) in [
        ("gateway", "/api/a", json!(null)),
        ("sidecar-in", "/api/a", json!(null)),
        ("sidecar-out", "/b", json!(["portal"])),
        ("sidecar-in", "/b", json!(["portal"])),
        ("sidecar-in", "/c", json!(["portal", "appointments"])),
    ] {
        let event = clinic.at(point, path);
        assert_eq!(field(&event, "/src_endpoint/owner/name"), "ada", "{path}");
        assert_eq!(field(&event, "/unmapped/client"), "app");
        assert_eq!(field(&event, "/unmapped/txn"), "0192-1", "{path}");
        assert_eq!(event.json["unmapped"].get("chain").cloned().unwrap_or_default(), chain, "{path}");
        assert!(!event.json.to_string().contains(&token[..40]), "no token in a log");
    }
    // A service that sends nothing on acts for itself.
    let plain = clinic.call(&clinic.portal, "appointments", "/d", "Ringfence-User: root\r\n");
    assert!(plain.starts_with("HTTP/1.1 200") && told(&plain, "ringfence-user").is_none(), "{plain}");
    assert_eq!(clinic.at("sidecar-in", "/d").json.pointer("/src_endpoint/owner"), None);
    // Whoever proved nothing is nobody's behalf, and needs no keeper.
    let open = clinic.ask("/open", "Txn-Token: forged\r\n");
    assert!(open.starts_with("HTTP/1.1 200") && !open.to_lowercase().contains("txn-token"), "{open}");
    assert_eq!(clinic.minted(), 1);
}

#[test]
fn an_edge_may_demand_that_calls_are_on_somebody_s_behalf() {
    let clinic = clinic();
    let token = clinic.given(&trace(1));
    let good = clinic.call(&clinic.portal, "patients", "/good", &(txn(&token) + &trace(1)));
    assert!(good.starts_with("HTTP/1.1 200"), "{good} {:?}", clinic.rig.troubles());
    let none = clinic.call(&clinic.portal, "patients", "/none", "");
    assert!(none.starts_with("HTTP/1.1 403"), "{none}");
    let event = clinic.at("sidecar-out", "/none");
    assert_eq!(field(&event, "/firewall_rule/uid"), "delegate.required");
    assert_eq!(field(&event, "/unmapped/stage"), "delegate");
    assert!(field(&event, "/unmapped/position").starts_with("ringfence.yaml:14:"), "{}", event.line());
    assert!(event.line().contains("has to pass `Txn-Token` on"), "{}", event.line());
}

#[test]
fn a_burst_of_requests_with_one_new_credential_asks_once_per_thread() {
    let clinic = Arc::new(clinic());
    *clinic.rig.control.keeper.delay.lock().unwrap() = Duration::from_millis(300);
    let fields = clinic.ada();
    let burst: Vec<_> = (0..50)
        .map(|_| {
            let (clinic, fields) = (clinic.clone(), fields.clone());
            std::thread::spawn(move || {
                let head = format!("GET /api HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
                let last = head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                let many = head.repeat(19) + &last;
                raw(TcpStream::connect(clinic.rig.gateway).unwrap(), many.as_bytes())
                    .matches("ringfence-user: ada")
                    .count()
            })
        })
        .collect();
    assert_eq!(burst.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1000);
    let threads = THREADS.load(Ordering::Relaxed) as u64;
    assert!((1..=threads).contains(&clinic.minted()), "{} questions of {threads} threads", clinic.minted());
    // Whoever hangs up at once asks for nothing again.
    let other = bearer(&clinic.provider.token(&json!({ "jti": "other" })));
    let before = clinic.minted();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(clinic.rig.gateway).unwrap();
        std::io::Write::write_all(
            &mut stream,
            format!("GET /api HTTP/1.1\r\nHost: x\r\n{other}\r\n").as_bytes(),
        )
        .unwrap();
    }
    assert!(clinic.ask("/api", &other).contains("ringfence-user: ada"));
    assert!(clinic.minted() - before <= threads, "{} more", clinic.minted() - before);
}

#[test]
fn a_token_is_used_again_for_its_credential_and_client_alone_and_never_beyond_its_end() {
    let clinic = clinic();
    clinic.rig.control.keeper.life.store(2, Ordering::Relaxed);
    let begun = unix();
    let first = clinic.given("");
    let mut seen = vec![first.clone()];
    eventually("another token", || {
        let token = clinic.given("");
        let new = !seen.contains(&token);
        seen.push(token);
        (new && unix() >= begun + 2).then_some(())
    });
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    // A thread asks again when the one before is over, each second at most.
    let most = (2 + unix() - begun) * THREADS.load(Ordering::Relaxed) as u64;
    let minted = clinic.minted();
    assert!(distinct.len() as u64 <= minted && minted <= most, "{minted} of {most}");
    let other = clinic.ask("/api", &bearer(&clinic.provider.token(&json!({ "sub": "bob" }))));
    assert_eq!(told(&other, "ringfence-user"), Some("bob"));
    assert!(!seen.contains(&told(&other, "txn-token").unwrap().to_owned()));
}

#[test]
fn without_a_keeper_nobody_who_is_somebody_gets_in() {
    let clinic = clinic();
    let keeper = &clinic.rig.control.keeper;
    let refuse = |refusal: Option<NoAnswer>| *keeper.refuses.lock().unwrap() = Some(refusal);
    let answer = |code, reason: &str| Some(NoAnswer::new(code, reason));
    for (path, code, status, rule) in [
        ("/api/gone", NoAnswerCode::Unavailable, "503", "delegate.unavailable"),
        ("/api/busy", NoAnswerCode::Busy, "503", "delegate.unavailable"),
        ("/api/denied", NoAnswerCode::Denied, "401", "delegate.denied"),
        ("/api/large", NoAnswerCode::Malformed, "403", "delegate.denied"),
    ] {
        refuse(answer(code, "the keeper counts sheep"));
        let fields = bearer(&clinic.provider.token(&json!({ "jti": path })));
        let got = clinic.ask(path, &fields);
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {got}");
        assert!(!got.contains("sheep") && !got.contains("keeper"), "for the operator alone: {got}");
        let (uid, line) = clinic.refusal(path);
        assert_eq!(uid, rule);
        assert!(line.contains("the keeper counts sheep") && line.contains("ringfence.yaml:10:"), "{line}");
        assert_eq!(got.contains("www-authenticate: Bearer"), status == "401", "{got}");
    }
    // It is not asked by every request, and what it says later counts.
    let fields = bearer(&clinic.provider.token(&json!({ "jti": "again" })));
    refuse(answer(NoAnswerCode::Unavailable, "not now"));
    let (before, begun) = (clinic.minted(), Instant::now());
    for _ in 0..30 {
        assert!(clinic.ask("/api", &fields).starts_with("HTTP/1.1 503"));
    }
    // Each thread pauses for a second between two.
    let most = (2 + begun.elapsed().as_secs()) * THREADS.load(Ordering::Relaxed) as u64;
    let minted = clinic.minted() - before;
    assert!(minted <= most, "{minted} of {most}");
    assert!(clinic.ask("/open", "").starts_with("HTTP/1.1 200"), "whoever proves nothing needs none");
    *keeper.refuses.lock().unwrap() = None;
    eventually("a token", || clinic.ask("/api", &fields).starts_with("HTTP/1.1 200").then_some(()));
    // Nor does anybody wait for ever.
    refuse(None);
    let begun = Stopwatch::start();
    let silent = clinic.ask("/api/silent", &bearer(&clinic.provider.token(&json!({ "jti": "silent" }))));
    assert!(silent.starts_with("HTTP/1.1 503") && begun.elapsed() < Duration::from_secs(7), "{silent}");
    clinic.rig.disconnect_control();
    eventually("control to be missed", || {
        let fields = bearer(&clinic.provider.token(&json!({ "jti": "lost" })));
        let lost = clinic.ask("/api/lost", &fields);
        // The first of them may still have been asked for.
        let missed = |r: &ringfence_event::Record| {
            r.denied() && field(r, "/http_request/url/path") == "/api/lost" && r.line().contains("control")
        };
        (lost.starts_with("HTTP/1.1 503") && clinic.rig.events().iter().any(missed)).then_some(())
    });
}

#[test]
fn control_cannot_have_one_user_taken_for_another() {
    let clinic = clinic();
    let root =
        Identity { id: "root".into(), kind: IdentityKind::User, ..Identity::client("staff", "root", vec![]) };
    *clinic.rig.control.keeper.swaps.lock().unwrap() = Some(root);
    let answer = clinic.ask("/api/swapped", &clinic.ada());
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let (rule, line) = clinic.refusal("/api/swapped");
    assert!(rule == "delegate.unavailable" && line.contains("somebody else"), "{line}");
}

#[test]
fn a_service_without_a_sidecar_is_told_the_name_and_never_gets_a_token() {
    let clinic = clinic();
    let answer = clinic.ask("/archive", &clinic.ada());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {:?}", clinic.rig.troubles());
    assert_eq!(
        (told(&answer, "ringfence-user"), told(&answer, "ringfence-scopes")),
        (Some("ada"), Some("read write"))
    );
    assert!(told(&answer, "txn-token").is_none() && clinic.minted() == 0, "{answer}");
    let token = clinic.given(&trace(1));
    let answer = clinic.call(&clinic.portal, "archive", "/x", &(txn(&token) + &trace(1)));
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(&token[..40]), "{answer}");
    assert_eq!(field(&clinic.at("sidecar-out", "/x"), "/src_endpoint/owner/name"), "ada");
}

#[test]
fn the_same_token_over_two_ways_is_told_apart_by_its_trace() {
    let clinic = clinic();
    // Straight to portal, and to portal once more by way of appointments.
    let token = clinic.given(&trace(1));
    let carried = |number| txn(&token) + &trace(number);
    assert!(clinic.call(&clinic.portal, "appointments", "/there", &carried(2)).starts_with("HTTP/1.1 200"));
    assert!(clinic.call(&clinic.appointments, "portal", "/back", &carried(2)).starts_with("HTTP/1.1 200"));
    for (number, path, chain) in [
        (1, "/one", json!(["portal"])),
        (2, "/two", json!(["portal", "appointments", "portal"])),
        (9, "/newest", json!(["portal", "appointments", "portal"])),
    ] {
        let answer = clinic.call(&clinic.portal, "patients", path, &carried(number));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {:?}", clinic.rig.troubles());
        assert_eq!(clinic.at("sidecar-in", path).json["unmapped"]["chain"], chain, "{path}");
    }
    // Services that call each other in circles are stopped.
    let (mut from, mut to) = (&clinic.appointments, "portal");
    let mut last = String::new();
    for _ in 0..16 {
        last = clinic.call(from, to, "/circle", &carried(2));
        (from, to) =
            if to == "portal" { (&clinic.portal, "appointments") } else { (&clinic.appointments, "portal") };
    }
    assert!(last.starts_with("HTTP/1.1 403"), "{last}");
    let (rule, line) = clinic.refusal("/circle");
    assert!(rule == "delegate.chain" && line.contains("circles"), "{line}");
}

/// Portal got one token with trace 1 straight and by way of appointments, and with trace 2 straight alone.
fn by_two_ways(policies: &str) -> (Clinic, String) {
    let clinic = clinic();
    let files = vec![Text { name: "policies/a.cedar".into(), text: policies.into() }];
    let position = Position::new("ringfence.yaml".into(), 4, 1);
    *clinic.rig.control.policies.lock().unwrap() = Some(Policies { files, entities: None, position });
    let (listener, external) = local();
    echo(listener);
    clinic.rig.apply(&fence(external));
    // The gateway has one token per thread, and which thread takes a connection is the kernel's choice.
    let token = (0..64).find_map(|_| {
        let token = clinic.given(&trace(1));
        (clinic.given(&trace(2)) == token).then_some(token)
    });
    let token = token.expect("the same credential gets the same token");
    let carried = |number| txn(&token) + &trace(number);
    for (from, to) in [(&clinic.portal, "appointments"), (&clinic.appointments, "portal")] {
        assert!(clinic.call(from, to, "/round", &carried(1)).starts_with("HTTP/1.1 200"));
    }
    (clinic, token)
}

#[test]
fn where_policies_decide_by_the_way_a_token_must_not_come_by_an_unknown_one() {
    let (clinic, token) = by_two_ways(
        r#"permit(principal, action, resource);
        forbid(principal, action, resource in Service::"patients")
        when { context.chain.contains(Service::"appointments") };"#,
    );
    let call = |path: &str, fields: &str| {
        clinic.call(&clinic.portal, "patients", path, &(txn(&token) + fields)).get(9..12).map(str::to_owned)
    };
    let (ok, no) = (Some("200".to_owned()), Some("403".to_owned()));
    assert_eq!(call("/told", &trace(2)), ok, "{:?}", clinic.rig.troubles());
    for (path, fields) in [("/either", trace(1)), ("/unknown", trace(9)), ("/none", String::new())] {
        assert_eq!(call(path, &fields), no, "{path}");
        let (rule, line) = clinic.refusal(path);
        assert!(rule == "delegate.chain" && line.contains("`traceparent`"), "{path}: {line}");
    }
}

#[test]
fn where_no_policy_that_counts_reads_the_way_the_newest_will_do() {
    let (clinic, token) = by_two_ways(
        r#"permit(principal, action, resource);
        @mode("observe") forbid(principal, action, resource)
        when { context.chain.contains(Service::"appointments") };"#,
    );
    for (path, fields) in [("/either", trace(1)), ("/none", String::new())] {
        let answer = clinic.call(&clinic.portal, "patients", path, &(txn(&token) + &fields));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

#[test]
fn a_token_that_a_service_keeps_serves_it_until_its_end() {
    let clinic = clinic();
    // One that lasts longer where the machine is too slow for it.
    let (token, later, path) = [3, 10, 40]
        .into_iter()
        .enumerate()
        .find_map(|(n, life)| {
            clinic.rig.control.keeper.life.store(life, Ordering::Relaxed);
            let (first_end, path) = (unix() + life, format!("/later/{life}"));
            let fields = bearer(&clinic.provider.token(&json!({ "jti": path })));
            let answer = clinic.ask("/api", &(fields + &trace(n as u8 + 1)));
            let token = told(&answer, "txn-token").unwrap_or_else(|| panic!("{answer}")).to_owned();
            let last_end = unix() + life;
            let later = clinic.call(&clinic.portal, "patients", &path, &(txn(&token) + &trace(7)));
            let in_time = unix() < first_end;
            within(Duration::from_secs(120), "its end", || (unix() > last_end).then_some(()));
            in_time.then_some((token, later, path))
        })
        .expect("time for one call");
    assert!(later.starts_with("HTTP/1.1 200"), "{later} {:?}", clinic.rig.troubles());
    assert_eq!(clinic.at("sidecar-in", &path).json["unmapped"]["chain"], json!(["portal"]));
    let replayed = clinic.call(&clinic.portal, "patients", "/replayed", &txn(&token));
    assert!(replayed.starts_with("HTTP/1.1 403"), "{replayed}");
    assert_eq!(clinic.refusal("/replayed").0, "delegate.required");
    let itself = clinic.call(&clinic.portal, "appointments", "/itself", &txn(&token));
    assert!(itself.starts_with("HTTP/1.1 200") && told(&itself, "ringfence-user").is_none(), "{itself}");
    assert_eq!(field(&clinic.at("sidecar-out", "/itself"), "/firewall_rule/uid"), "delegate.unknown");
}

#[test]
fn policies_judge_whom_the_token_names_and_which_way_it_came() {
    let clinic = clinic();
    let text = r#"
permit(principal, action, resource in Service::"portal");
permit(principal == User::"staff/ada", action == Action::"GET", resource in Service::"appointments")
when { principal in Group::"staff/nurse" && context.scopes.contains("read") && context has source && context.source.isLoopback() };
@id("only-by-way-of-appointments")
permit(principal is User, action, resource in Service::"patients")
when { context.chain.contains(Service::"appointments") && context.chain.contains(Service::"portal") };
permit(principal == Service::"portal", action, resource in Service::"archive");
"#;
    let files = vec![Text { name: "policies/a.cedar".into(), text: text.into() }];
    let position = Position::new("ringfence.yaml".into(), 4, 1);
    *clinic.rig.control.policies.lock().unwrap() = Some(Policies { files, entities: None, position });
    let (listener, external) = local();
    echo(listener);
    clinic.rig.apply(&fence(external));
    let token = clinic.given(&trace(1));
    let carried = txn(&token) + &trace(1);
    let status = |from: &Net, to, path, fields: &str| {
        clinic.call(from, to, path, fields).get(9..12).map(str::to_owned)
    };
    let (ok, no) = (Some("200".to_owned()), Some("403".to_owned()));
    assert_eq!(status(&clinic.portal, "appointments", "/a", &carried), ok, "{:?}", clinic.rig.troubles());
    assert_eq!(status(&clinic.portal, "appointments", "/itself", ""), no, "portal is not ada");
    assert_eq!(status(&clinic.appointments, "patients", "/b", &carried), ok, "{:?}", clinic.rig.troubles());
    assert_eq!(status(&clinic.portal, "patients", "/straight", &carried), no, "not by way of appointments");
    let (rule, line) = clinic.refusal("/straight");
    assert!(rule == "policy.default" && line.contains("user ada of staff"), "{line}");
    // Where the callee has no side of its own, the caller's judges the same.
    assert_eq!(status(&clinic.portal, "archive", "/own", ""), ok);
    assert_eq!(status(&clinic.portal, "archive", "/ada", &carried), no);
}
