//! `ringfence.internal`: a service asks its own sidecar, over both versions of HTTP.

use bytes::Bytes;
use ringfence_model::Position;
use ringfence_snapshot::{OWN_IP, Policies, Text};
use serde_json::{Value, json};

use crate::delegate;
use crate::net::echo;
use crate::rig::{Rig, field, raw};

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
services:
  portal: { run: [portal], listen: 9000, calls: [{ service: patients, allow: [{ paths: ['/patients/{id}'] }] }] }
  patients: { run: [patients], listen: 9001 }
";

const POLICIES: &str = r#"@id("own-record") @reason("everybody reads what is said of them")
permit(principal is User, action == Action::"GET", resource in Service::"patients")
when { context.path has id && context.path.id == principal.id };

@id("no-night-work")
forbid(principal is Client, action, resource in Service::"patients");

@id("portal") permit(principal, action, resource in Service::"portal");
"#;

fn rig(policies: Option<&str>) -> Rig {
    let mut rig = Rig::bare(tempfile::tempdir().unwrap());
    let file = |text: &str| Text { name: "a.cedar".into(), text: text.into() };
    let position = Position::new("ringfence.yaml".into(), 3, 1);
    *rig.control.policies.lock().unwrap() =
        policies.map(|text| Policies { files: vec![file(text)], entities: None, position });
    rig.connect_control();
    rig.apply(FENCE);
    for (service, port) in [("portal", 9000), ("patients", 9001)] {
        let net = rig.shim(service, &[80]);
        echo(net.service(port));
    }
    rig
}

/// A whole answer to a request from a service's network.
fn send(rig: &Rig, service: &str, request: &str) -> String {
    raw(rig.nets[service].connect(&OWN_IP.to_string(), 80), request.as_bytes())
}

fn post(rig: &Rig, service: &str, path: &str, fields: &str, body: &str) -> (u16, String, Value) {
    let length = body.len();
    let answer = send(
        rig,
        service,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: ringfence.internal\r\nContent-Length: {length}\r\n{fields}Connection: close\r\n\r\n{body}"
        ),
    );
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} {:?}", rig.troubles()));
    let body = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body)
}

const TYPE: &str = "Content-Type: application/json\r\n";

fn ask(rig: &Rig, service: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) = post(rig, service, "/access/v1/evaluation", TYPE, &body.to_string());
    (status, answer)
}

fn ask_all(rig: &Rig, body: &Value) -> (u16, Value) {
    let (status, _, answer) = post(rig, "patients", "/access/v1/evaluations", TYPE, &body.to_string());
    (status, answer)
}

/// Whether a user may read a record.
fn evaluation(user: &str, record: &str) -> Value {
    json!({
        "subject": { "type": "user", "id": format!("staff/{user}") },
        "action": { "name": "GET" },
        "resource": { "type": "path", "id": format!("patients/patients/{record}") },
    })
}

#[test]
fn a_service_asks_its_sidecar_who_may_and_the_operator_reads_that_it_did() {
    let rig = rig(Some(POLICIES));
    let (status, answer) = ask(&rig, "patients", &evaluation("7", "7"));
    assert_eq!((status, &answer["decision"]), (200, &json!(true)), "{answer}");
    assert_eq!(answer["context"]["policies"], json!(["own-record"]));
    assert_eq!(ask(&rig, "patients", &evaluation("7", "8")), (200, json!({ "decision": false })));
    let mut client = evaluation("nightly", "8");
    client["subject"]["type"] = "client".into();
    let (_, denied) = ask(&rig, "patients", &client);
    assert_eq!(
        (&denied["decision"], &denied["context"]["policies"]),
        (&json!(false), &json!(["no-night-work"]))
    );

    let event = |user: &str, denied: bool| {
        rig.event("the question", |r| {
            field(r, "/dst_endpoint/svc_name") == "ringfence.internal"
                && field(r, "/src_endpoint/owner/name") == user
                && r.denied() == denied
        })
    };
    assert_eq!(field(&event("7", false), "/src_endpoint/svc_name"), "patients");
    let default = event("7", true);
    assert_eq!(field(&default, "/firewall_rule/uid"), "policy.default");
    assert_eq!(field(&default, "/unmapped/stage"), "evaluate");
    let forbidden = event("nightly", true);
    assert_eq!(field(&forbidden, "/firewall_rule/uid"), "no-night-work");
    assert_eq!(field(&forbidden, "/unmapped/position"), "a.cedar:5:1");

    // Nothing is asked about the resources of others, and calls go on as they did.
    let (status, foreign) = ask(&rig, "portal", &evaluation("7", "7"));
    assert_eq!(status, 403, "{foreign}");
    assert!(foreign["detail"].as_str().unwrap().contains("its own resources"), "{foreign}");
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "evaluation.foreign");
}

#[test]
fn several_evaluations_are_answered_in_order_and_stop_as_asked() {
    let rig = rig(Some(POLICIES));
    let of = |user: &str, record: &str| {
        let one = evaluation(user, record);
        json!({ "subject": one["subject"], "resource": one["resource"] })
    };
    let decisions = |semantic: &str| -> Vec<bool> {
        let (status, answer) = ask_all(
            &rig,
            &json!({
                "action": { "name": "GET" }, "options": { "evaluations_semantic": semantic },
                "evaluations": [of("7", "7"), of("7", "8"), of("8", "8")],
            }),
        );
        assert_eq!(status, 200, "{answer}");
        answer["evaluations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["decision"].as_bool().unwrap())
            .collect()
    };
    assert_eq!(decisions("execute_all"), [true, false, true]);
    assert_eq!(decisions("deny_on_first_deny"), [true, false]);
    assert_eq!(decisions("permit_on_first_permit"), [true]);
    rig.event("of several", |r| {
        field(r, "/status_detail").starts_with("1 of 3 are denied, the first: user staff/7 GET")
    });

    let (status, mixed) = ask_all(
        &rig,
        &json!({
            "subject": { "type": "user", "id": "staff/7" }, "action": { "name": "GET" },
            "evaluations": [of("7", "7"), {}, { "resource": { "type": "path", "id": "portal/x" } }],
        }),
    );
    let one = |at: usize| {
        (
            mixed["evaluations"][at]["decision"].clone(),
            mixed["evaluations"][at]["context"]["error"]["status"].clone(),
        )
    };
    assert_eq!(
        (status, one(0).0, one(1), one(2)),
        (200, json!(true), (json!(false), json!(400)), (json!(false), json!(403))),
        "{mixed}"
    );

    // Without a list it is one evaluation.
    assert_eq!(ask_all(&rig, &evaluation("7", "8")), (200, json!({ "decision": false })));
    let mut empty = evaluation("7", "7");
    empty["evaluations"] = json!([]);
    assert_eq!(ask_all(&rig, &empty).1["decision"], json!(true));
}

#[test]
fn what_is_no_question_is_refused_with_the_reason_and_the_request_s_id() {
    let rig = rig(Some(POLICIES));
    let good = evaluation("7", "7").to_string();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(300 << 10));
    let deep = "[".repeat(5_000);
    let (one, all) = ("/access/v1/evaluation", "/access/v1/evaluations");
    let without = |name: &str| {
        let mut request = evaluation("7", "7");
        request.as_object_mut().unwrap().remove(name);
        request.to_string()
    };
    let cases = [
        (one, TYPE, String::new(), 400),
        (one, TYPE, "{".into(), 400),
        (one, TYPE, deep.clone(), 400),
        (all, TYPE, deep, 400),
        (one, TYPE, good.replace("\"staff/7\"", "7"), 400),
        (one, TYPE, good.replace("{\"name\":\"GET\"}", "\"GET\""), 400),
        (one, TYPE, without("subject"), 400),
        (one, TYPE, without("action"), 400),
        (one, TYPE, without("resource"), 400),
        (one, TYPE, format!("{},\"action\":{{\"name\":\"PUT\"}}}}", &good[..good.len() - 1]), 400),
        (all, TYPE, "{\"evaluations\":7}".into(), 400),
        (one, "Content-Type: text/plain\r\n", good.clone(), 400),
        (one, "", good.clone(), 400),
        (one, TYPE, large, 413),
        ("/access/v1/search/subject", TYPE, good.clone(), 404),
        ("/", TYPE, good.clone(), 404),
        ("/jwks.json", TYPE, good.clone(), 405),
    ];
    for (path, media_type, body, wanted) in cases {
        let fields = format!("{media_type}X-Request-ID: 7f3a-{wanted}\r\n");
        let (status, head, answer) = post(&rig, "patients", path, &fields, &body);
        let shown: String = body.chars().take(80).collect();
        assert_eq!(status, wanted, "{path} {shown}: {answer}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert!(head.contains(&format!("x-request-id: 7f3a-{wanted}")), "{head}");
        assert_eq!(answer["status"], wanted);
        assert!(!answer["detail"].as_str().unwrap().is_empty(), "{answer}");
        let instance = answer["instance"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap().to_owned();
        rig.event("the refusal", |r| r.denied() && field(r, "/metadata/uid") == instance);
    }
    let (_, head, _) =
        post(&rig, "patients", one, &format!("{TYPE}X-Request-ID: {}\r\n", "x".repeat(300)), &good);
    assert!(!head.contains("x-request-id"), "a long one is not sent back: {head}");
    let head =
        send(&rig, "patients", "GET /access/v1/evaluation HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 405") && head.to_ascii_lowercase().contains("\r\nallow: post\r\n"),
        "{head}"
    );
}

#[test]
fn where_to_ask_is_said_and_a_fence_without_policies_has_nothing_to_ask() {
    let get = |rig: &Rig, path: &str| {
        let answer = send(
            rig,
            "portal",
            &format!("GET {path} HTTP/1.1\r\nHost: ringfence.internal\r\nConnection: close\r\n\r\n"),
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), serde_json::from_str::<Value>(body).unwrap())
    };
    let with = rig(Some(POLICIES));
    let (status, said) = get(&with, "/.well-known/authzen-configuration");
    assert_eq!(status, "200");
    assert_eq!(said["policy_decision_point"], "http://ringfence.internal");
    assert_eq!(said["access_evaluations_endpoint"], "http://ringfence.internal/access/v1/evaluations");
    let (status, said) = get(&with, "/jwks.json");
    assert_eq!(status, "200");
    let keys: Vec<_> =
        said["keys"].as_array().unwrap().iter().map(|k| (&k["kid"], &k["alg"], &k["use"])).collect();
    let all = [("t1", "EdDSA"), (crate::keeper::KEY_ID, "EdDSA"), (crate::rig::SVID_KEY_ID, "ES256")];
    let all = all.map(|(kid, alg)| (json!(kid), json!(alg), json!("sig")));
    assert_eq!(keys, all.iter().map(|(kid, alg, r#use)| (kid, alg, r#use)).collect::<Vec<_>>());
    drop(with);
    let without = rig(None);
    let (status, said) = get(&without, "/.well-known/authzen-configuration");
    assert_eq!(status, "404");
    assert!(said["detail"].as_str().unwrap().contains("no `policies`"), "{said}");
    assert_eq!(ask(&without, "patients", &evaluation("7", "7")).0, 404);
}

#[test]
fn a_kept_connection_and_http2_are_answered_alike() {
    let rig = rig(Some(POLICIES));
    let body = evaluation("7", "7").to_string();
    let one = format!(
        "POST /access/v1/evaluation HTTP/1.1\r\nHost: ringfence.internal\r\n{TYPE}Content-Length: {}\r\n",
        body.len()
    );
    let answer = send(&rig, "patients", &format!("{one}\r\n{body}{one}Connection: close\r\n\r\n{body}"));
    assert_eq!(answer.matches("\"decision\":true").count(), 2, "{answer}");

    let stream = rig.nets["patients"].connect(&OWN_IP.to_string(), 80);
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let decisions = runtime.block_on(async move {
        let (send, connection) =
            h2::client::handshake(tokio::net::TcpStream::from_std(stream).unwrap()).await.unwrap();
        tokio::spawn(connection);
        let mut decisions = Vec::new();
        for record in ["7", "8"] {
            let request = http::Request::post("http://ringfence.internal/access/v1/evaluation")
                .header("content-type", "application/json")
                .header("x-request-id", record)
                .body(())
                .unwrap();
            let (answer, mut body) =
                send.clone().ready().await.unwrap().send_request(request, false).unwrap();
            body.send_data(Bytes::from(evaluation("7", record).to_string()), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.headers()["x-request-id"].as_bytes()),
                (200, record.as_bytes())
            );
            let mut body = answer.into_body();
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                bytes.extend_from_slice(&data.unwrap());
            }
            decisions.push(serde_json::from_slice::<Value>(&bytes).unwrap()["decision"].clone());
        }
        decisions
    });
    assert_eq!(decisions, [json!(true), json!(false)]);
}

#[test]
fn what_the_token_of_a_request_proves_counts_and_not_what_a_service_says_of_it() {
    let clinic = delegate::clinic();
    let text = r#"@id("in") permit(principal is User, action, resource in Service::"portal") when { context.target like "/api*" };
@id("nurses")
permit(principal in Group::"staff/nurse", action, resource in Service::"portal")
when { context.target == "/wards" && context.chain.isEmpty() && context.caller == Service::"outside" };
"#;
    let file = Text { name: "a.cedar".into(), text: text.into() };
    let position = Position::new("ringfence.yaml".into(), 3, 1);
    *clinic.rig.control.policies.lock().unwrap() =
        Some(Policies { files: vec![file], entities: None, position });
    clinic.rig.apply(&delegate::fence(1));
    let token = clinic.given("");
    let of = |user: &str, groups: Value| {
        json!({
            "subject": { "type": "user", "id": format!("staff/{user}"), "properties": { "groups": groups } },
            "action": { "name": "GET" }, "resource": { "type": "path", "id": "portal/wards" },
            "context": { "caller": "appointments", "source": "192.0.2.1" },
        })
    };
    let ask = |service: &str, token: &str, body: &Value| {
        let fields = format!("{TYPE}{}", if token.is_empty() { String::new() } else { delegate::txn(token) });
        let (status, _, answer) =
            post(&clinic.rig, service, "/access/v1/evaluation", &fields, &body.to_string());
        (status, answer["decision"].as_bool())
    };
    assert_eq!(
        ask("portal", &token, &of("ada", json!([]))),
        (200, Some(true)),
        "her token says her groups and her way"
    );
    assert_eq!(ask("portal", "", &of("ada", json!([]))), (200, Some(false)));
    assert_eq!(ask("portal", "", &of("ada", json!(["nurse"]))), (200, Some(false)), "by way of appointments");
    assert_eq!(ask("portal", &token, &of("bob", json!(["nurse"]))), (403, None), "it is not his token");
    assert_eq!(ask("appointments", &token, &of("ada", json!([]))), (403, None), "nor that service's");
    assert_eq!(ask("portal", "forged", &of("ada", json!([]))), (403, None));
    let event = clinic.rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "delegate.unknown");
    assert!(!event.line().contains(&token), "a token is never written down");
}
