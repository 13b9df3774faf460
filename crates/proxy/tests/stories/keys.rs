//! API keys at the gateway: who is let in, what the service learns, and what nobody does.

use std::net::TcpStream;

use ringfence_snapshot::node::ApiKeys;
use ringfence_token::{ApiKey, KeyRecord};

use crate::net::echo;
use crate::rig::{Rig, eventually, field, local, raw, unix};

fn fence(port: u16, access: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: https://id.clinic.example }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes:
      - {{ path: /, {access} }}
      - {{ path: /open }}
"
    )
}

fn rig(access: &str) -> Rig {
    let (listener, port) = local();
    echo(listener);
    Rig::start(&fence(port, access))
}

fn record(key: &ApiKey) -> KeyRecord {
    KeyRecord {
        prefix: key.prefix(),
        secret: key.digest(),
        previous: None,
        client: "lab".into(),
        scopes: vec!["read".into(), "results".into()],
        not_before: None,
        expires_at: None,
        disabled: false,
        last_used: None,
    }
}

/// Tells the whole set and waits until it counts.
fn tell(rig: &Rig, records: Vec<KeyRecord>) {
    rig.tell_keys(ApiKeys::Part { first: true, last: true, records });
}

fn ask(rig: &Rig, path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
    raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes())
}

fn header(key: &ApiKey) -> String {
    format!("X-API-Key: {}\r\n", key.to_text().expose())
}

/// Everything that the node wrote.
fn written(rig: &Rig) -> String {
    let mut all = String::new();
    let mut folders = vec![rig.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => all += &String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()),
            }
        }
    }
    all
}

#[test]
fn a_client_is_let_in_by_its_key_which_the_service_never_gets() {
    let rig = rig("accept: [api_key], require: { scopes: [read] }");
    let key = ApiKey::generate();
    let secret = key.to_text();
    let early = ask(&rig, "/early", &header(&key));
    assert!(early.starts_with("HTTP/1.1 503"), "control has told nothing yet: {early}");
    tell(&rig, vec![record(&key)]);
    let ways = [
        header(&key),
        format!("x-api-KEY: {}\r\n", secret.expose()),
        format!("Authorization: Bearer {}\r\n", secret.expose()),
        format!("Authorization: ApiKey {}\r\n", secret.expose()),
    ];
    for fields in &ways {
        let answer = ask(&rig, "/results", &format!("{fields}Ringfence-User: root\r\nX_API_Key: a\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("ringfence-user: lab\r\n"), "{answer}");
        assert!(answer.contains("ringfence-scopes: read results\r\n"), "{answer}");
        let lower = answer.to_ascii_lowercase();
        for gone in ["rf_", "api-key", "x_api_key", "authorization", "root"] {
            assert!(!lower.contains(gone), "{gone} reached the service: {answer}");
        }
    }
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/results");
    assert_eq!(field(&event, "/src_endpoint/owner/name"), "lab");
    assert_eq!(field(&event, "/src_endpoint/owner/domain"), "api_key");
    assert_eq!(field(&event, "/src_endpoint/owner/credential_uid"), key.prefix().to_string());

    // Elsewhere it is nobody's business.
    let open = ask(&rig, "/open", "X-API-Key: of-the-service\r\n");
    assert!(open.contains("of-the-service") && !open.contains("ringfence-user"), "{open}");

    let body = secret.expose().rsplit_once('_').unwrap().1.to_owned();
    eventually("all events", || {
        (rig.events().iter().filter(|r| field(r, "/http_request/url/path") == "/results").count() == 4)
            .then_some(())
    });
    let written = written(&rig);
    assert!(written.contains(&key.prefix().to_string()) && !written.contains(&body[..16]));
}

#[test]
fn what_is_wrong_with_a_key_is_for_the_operator_alone() {
    let rig = rig("accept: [api_key], require: { scopes: [read] }");
    let new = ApiKey::generate;
    let (good, revoked, old, early, poor) = (new(), new(), new(), new(), new());
    tell(
        &rig,
        vec![
            record(&good),
            KeyRecord { disabled: true, ..record(&revoked) },
            KeyRecord { expires_at: Some(unix() - 1), ..record(&old) },
            KeyRecord { not_before: Some(unix() + 600), ..record(&early) },
            KeyRecord { scopes: vec!["reader".into()], ..record(&poor) },
        ],
    );
    let guessed = ApiKey::generate_for(good.prefix());
    let text = good.to_text();
    let (rest, last) = text.expose().split_at(text.expose().len() - 1);
    let typo = format!("X-API-Key: {rest}{}\r\n", if last == "a" { "b" } else { "a" });
    let cases = [
        ("/none", String::new(), 401, "credential.none"),
        ("/noise", "X-API-Key: rf_\u{e9}\r\n".into(), 401, "api_key.malformed"),
        ("/typo", typo, 401, "api_key.malformed"),
        ("/jwt", "Authorization: Bearer a.b.c\r\n".into(), 401, "credential.malformed"),
        ("/basic", "Authorization: Basic YTpi\r\n".into(), 401, "credential.malformed"),
        ("/unknown", header(&new()), 401, "api_key.unknown"),
        ("/guessed", header(&guessed), 401, "api_key.secret"),
        ("/revoked", header(&revoked), 401, "api_key.revoked"),
        ("/old", header(&old), 401, "api_key.expired"),
        ("/soon", header(&early), 401, "api_key.early"),
        ("/poor", header(&poor), 403, "require.scope"),
        ("/twice", header(&good) + &header(&good), 400, "credential.several"),
        ("/both", header(&good) + "Authorization: Bearer a.b.c\r\n", 400, "credential.several"),
    ];
    for (path, fields, status, expected) in cases {
        let answer = ask(&rig, path, &fields);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("www-authenticate: ApiKey realm=\"clinic\"\r\n"), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
        for told in ["revoked", "expired", "secret", "prefix", "ringfence.yaml", "lab"] {
            assert!(!answer.contains(told), "{path} tells the caller too much: {answer}");
        }
        let event = rig.event("the refusal", |r| field(r, "/http_request/url/path") == path);
        assert_eq!(field(&event, "/firewall_rule/uid"), expected, "{path}: {}", event.line());
    }
    let event = rig.event("the refusal", |r| field(r, "/http_request/url/path") == "/guessed");
    let reason = event.line();
    assert!(reason.contains(&good.prefix().to_string()) && reason.contains("ringfence.yaml:"), "{reason}");
    assert!(!reason.contains(&guessed.to_text().expose()[16..32]));
    assert!(ask(&rig, "/good", &header(&good)).starts_with("HTTP/1.1 200"), "its honest twin passes");
}

#[test]
fn keys_change_while_requests_come() {
    let rig = rig("accept: [api_key]");
    let key = ApiKey::generate();
    let mut stored = record(&key);
    tell(&rig, vec![stored.clone()]);
    assert!(ask(&rig, "/a", &header(&key)).starts_with("HTTP/1.1 200"));
    let next = ApiKey::generate_for(key.prefix());
    stored.rotate(&next, unix() + 600);
    rig.tell_keys(ApiKeys::Changed(stored.clone()));
    let answers =
        |key: &ApiKey, code: &str| ask(&rig, "/a", &header(key)).starts_with(&format!("HTTP/1.1 {code}"));
    eventually("the new secret to be good", || answers(&next, "200").then_some(()));
    assert!(answers(&key, "200"), "the one before is good for a while");
    stored.disabled = true;
    rig.tell_keys(ApiKeys::Changed(stored.clone()));
    eventually("the revocation", || answers(&next, "401").then_some(()));
    assert!(answers(&key, "401"));
    // What the node knew goes on while control is away.
    stored.disabled = false;
    rig.tell_keys(ApiKeys::Changed(stored.clone()));
    eventually("the key to be good again", || answers(&next, "200").then_some(()));
    rig.disconnect_control();
    assert!(answers(&next, "200"));
}

#[test]
fn a_route_may_accept_tokens_and_keys() {
    let rig = rig("accept: [{ token: staff }, api_key], require: { groups: [nurse] }");
    let key = ApiKey::generate();
    tell(&rig, vec![record(&key)]);
    let none = ask(&rig, "/none", "");
    assert!(
        none.contains("www-authenticate: Bearer realm=\"clinic\", ApiKey realm=\"clinic\"\r\n"),
        "{none}"
    );
    let group = ask(&rig, "/group", &header(&key));
    assert!(group.starts_with("HTTP/1.1 403"), "a key is in no group: {group}");
    let bearer = format!("Authorization: Bearer {}\r\n", key.to_text().expose());
    assert!(ask(&rig, "/bearer", &bearer).starts_with("HTTP/1.1 403"), "it is taken for a key");
    let jwt = ask(&rig, "/jwt", "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\n");
    assert!(
        jwt.starts_with("HTTP/1.1 401") || jwt.starts_with("HTTP/1.1 503"),
        "it is taken for a token: {jwt}"
    );
}
