//! Who stands behind a request: tokens at the gateway, and what services learn of them.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ringfence_keys::{Algorithm, SigningKey};
use ringfence_snapshot::node::ProviderKeys;
use ringfence_token::{KeySet, SigningInput};
use serde_json::{Value, json};

use crate::net::echo;
use crate::patience::Stopwatch;
use crate::rig::{Rig, eventually, field, local, raw, unix};

pub const ISSUER: &str = "https://id.clinic.example";

/// A provider whose key the test holds.
pub struct Provider {
    key: SigningKey,
    id: &'static str,
}

impl Provider {
    pub fn new(id: &'static str) -> Self {
        Self { key: SigningKey::generate(Algorithm::Ed25519).unwrap(), id }
    }

    pub fn keys(&self, until: u64) -> ProviderKeys {
        let set = KeySet::from_keys([(self.id.to_owned(), self.key.verifying_key().clone())]);
        ProviderKeys { provider: "staff".into(), issuer: ISSUER.into(), jwks: set.to_json("sig"), until }
    }

    /// An access token like those of a real provider, with these members changed; null takes one out.
    fn token_of(&self, typ: &str, changes: &Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "sub": "ada", "aud": "clinic", "client_id": "app", "jti": "1", "scope": "read write",
            "acr": "phr", "groups": ["nurse", "night"], "iat": unix(), "exp": unix() + 300,
        });
        let members = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            members.insert(name.clone(), value.clone());
            if value.is_null() {
                members.remove(name);
            }
        }
        let input = SigningInput::new(typ, self.key.algorithm().into(), self.id, members).unwrap();
        let signature = self.key.sign(input.as_bytes()).unwrap();
        input.seal(&signature).unwrap()
    }

    pub fn token(&self, changes: &Value) -> String {
        self.token_of("at+jwt", changes)
    }
}

fn fence(port: u16, issuer: &str, access: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {issuer}, audiences: [clinic], claims: {{ user: sub, groups: groups }} }}
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

const TOKEN: &str = "accept: [{ token: staff }]";

/// A gateway before a service that answers with what it was sent; the keys of `provider` are known.
fn rig(provider: &Provider, access: &str) -> Rig {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port, ISSUER, access));
    tell(&rig, provider.keys(unix() + 600));
    rig
}

/// Tells keys and waits until they are in use on every thread.
pub fn tell(rig: &Rig, keys: ProviderKeys) {
    let used = || rig.events().iter().filter(|r| field(r, "/message").contains("keys in use")).count();
    let before = used();
    rig.believe(keys);
    eventually("keys in use", || (used() > before).then_some(()));
}

fn ask(rig: &Rig, path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
    raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes())
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn rule(rig: &Rig, path: &str) -> (String, String) {
    let event = rig.event("the refusal", |r| r.denied() && field(r, "/http_request/url/path") == path);
    (field(&event, "/firewall_rule/uid").to_owned(), event.line())
}

#[test]
fn the_service_learns_who_calls_but_never_gets_the_token() {
    let provider = Provider::new("k1");
    let rig = rig(&provider, TOKEN);
    let fields = bearer(&provider.token(&json!({ "sub": "ada lovelace" })))
        + "Ringfence-User: root\r\nRingfence_Scopes: admin\r\nTxn-Token: forged\r\n";
    let answer = ask(&rig, "/a", &fields);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("ringfence-user: ada%20lovelace\r\n"), "{answer}");
    assert!(answer.contains("ringfence-provider: staff\r\n"), "{answer}");
    assert!(answer.contains("ringfence-scopes: read write\r\n"), "{answer}");
    for gone in ["Bearer", "root", "admin", "forged", "uthorization"] {
        assert!(!answer.contains(gone), "{gone} reached the service: {answer}");
    }
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/a");
    assert_eq!(field(&event, "/src_endpoint/owner/name"), "ada lovelace");
    assert_eq!(field(&event, "/src_endpoint/owner/domain"), "staff");

    // An open route is nobody's business: what is shown there goes on as it is, and proves nothing.
    let answer = ask(&rig, "/open", &bearer("opaque"));
    assert!(
        answer.contains("Authorization: Bearer opaque") && !answer.contains("ringfence-user"),
        "{answer}"
    );
}

#[test]
fn what_is_wrong_with_a_token_is_for_the_operator_alone() {
    let (provider, other) = (Provider::new("k1"), Provider::new("k1"));
    let rig = rig(&provider, TOKEN);
    let (now, good) = (unix(), provider.token(&json!({})));
    let cases = [
        ("/none", String::new(), "credential.none"),
        ("/basic", "Authorization: Basic YTpi\r\n".into(), "credential.malformed"),
        ("/empty", "Authorization: Bearer \r\n".into(), "credential.malformed"),
        (
            "/expired",
            bearer(&provider.token(&json!({ "iat": now - 900, "exp": now - 600 }))),
            "token.expired",
        ),
        ("/early", bearer(&provider.token(&json!({ "nbf": now + 200 }))), "token.expired"),
        ("/audience", bearer(&provider.token(&json!({ "aud": ["bank"] }))), "token.audience"),
        ("/issuer", bearer(&provider.token(&json!({ "iss": "https://id.clinic.example/" }))), "token.issuer"),
        ("/forged", bearer(&other.token(&json!({}))), "token.signature"),
        ("/unsigned", bearer(good.rsplit_once('.').unwrap().0), "token.invalid"),
        ("/id-token", bearer(&provider.token_of("JWT", &json!({ "nonce": "n" }))), "token.invalid"),
        ("/logout", bearer(&provider.token_of("logout+jwt", &json!({}))), "token.type"),
        ("/txn", bearer(&provider.token_of("txntoken+jwt", &json!({}))), "token.type"),
        (
            "/bound",
            bearer(
                &provider.token(&json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } })),
            ),
            "token.bound",
        ),
        ("/nameless", bearer(&provider.token(&json!({ "sub": "a".repeat(257) }))), "token.user"),
        ("/twice", bearer(&good) + &bearer(&good), "framing"),
    ];
    for (path, fields, expected) in cases {
        let answer = ask(&rig, path, &fields);
        if expected != "framing" {
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
            assert!(answer.contains("www-authenticate: Bearer realm=\"clinic\""), "{path}: {answer}");
            assert_eq!(rule(&rig, path).0, expected, "{path}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        }
        for told in ["audience", "expired", "signature", "issuer", "staff", "ringfence.yaml"] {
            assert!(!answer.contains(told), "{path} tells the caller too much: {answer}");
        }
    }
    assert!(rule(&rig, "/audience").1.contains("ringfence.yaml:"), "the refusal names the line of the fence");
    let both = ask(&rig, "/good", &bearer(&good));
    assert!(both.starts_with("HTTP/1.1 200"), "its honest twin passes: {both}");
}

#[test]
fn a_route_may_demand_scopes_an_authentication_context_and_a_group() {
    let provider = Provider::new("k1");
    let access =
        format!("{TOKEN}, require: {{ scopes: [read, write], acr: [phr, phrh], groups: [nurse, doctor] }}");
    let rig = rig(&provider, &access);
    assert!(ask(&rig, "/all", &bearer(&provider.token(&json!({})))).starts_with("HTTP/1.1 200"));
    let scope = ask(&rig, "/scope", &bearer(&provider.token(&json!({ "scope": "readwrite read" }))));
    assert!(scope.starts_with("HTTP/1.1 403"), "{scope}");
    assert!(scope.contains("error=\"insufficient_scope\", scope=\"read write\""), "{scope}");
    let acr = ask(&rig, "/acr", &bearer(&provider.token(&json!({ "acr": null }))));
    assert!(acr.starts_with("HTTP/1.1 401"), "{acr}");
    assert!(acr.contains("error=\"insufficient_user_authentication\", acr_values=\"phr phrh\""), "{acr}");
    let group = ask(&rig, "/group", &bearer(&provider.token(&json!({ "groups": ["nursery"] }))));
    assert!(group.starts_with("HTTP/1.1 403"), "{group}");
    for (path, expected) in
        [("/scope", "require.scope"), ("/acr", "require.acr"), ("/group", "require.group")]
    {
        let event = rig.event("the refusal", |r| field(r, "/http_request/url/path") == path);
        assert_eq!(field(&event, "/firewall_rule/uid"), expected);
        assert_eq!(field(&event, "/src_endpoint/owner/name"), "ada", "the operator sees whom it was refused");
    }
}

/// Whether keys that come while requests wait for them let all of those in. A request waits for two seconds: where the machine is too
/// slow for that, some are refused, as they should be, and nothing is shown.
fn is_fetched_while_requests_wait() -> bool {
    let (first, second) = (Provider::new("k1"), Provider::new("k2"));
    let rig = Arc::new(rig(&first, TOKEN));
    let token = second.token(&json!({}));
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let (rig, fields) = (rig.clone(), bearer(&token));
            std::thread::spawn(move || ask(&rig, "/rotated", &fields))
        })
        .collect();
    eventually("keys asked for", || (!rig.control.wanted.lock().unwrap().is_empty()).then_some(()));
    tell(&rig, second.keys(unix() + 600));
    let codes: Vec<_> = waiting.into_iter().map(|one| one.join().unwrap()[9..12].to_owned()).collect();
    assert!(codes.iter().all(|code| code == "200" || code == "401"), "{codes:?}");
    // What was signed by the key that left is refused, although it had been remembered.
    assert!(ask(&rig, "/left", &bearer(&first.token(&json!({})))).starts_with("HTTP/1.1 401"));
    // Unknown keys are waited for once in a while, not by every request.
    let unknown = bearer(&Provider::new("k3").token(&json!({})));
    let begun = Stopwatch::start();
    let _ = ask(&rig, "/unknown", &unknown);
    for _ in 0..20 {
        assert!(ask(&rig, "/unknown", &unknown).starts_with("HTTP/1.1 401"));
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    codes.iter().all(|code| code == "200")
}

#[test]
fn a_key_that_was_rotated_in_is_fetched_while_requests_wait() {
    assert!((0..5).any(|_| is_fetched_while_requests_wait()), "five times too late");
}

#[test]
fn a_request_that_waited_is_judged_by_the_fence_of_now() {
    let judged = || {
        let (first, second) = (Provider::new("k1"), Provider::new("k2"));
        let (listener, port) = local();
        echo(listener);
        let rig = Arc::new(Rig::start(&fence(port, ISSUER, TOKEN)));
        tell(&rig, first.keys(unix() + 600));
        let fields = bearer(&second.token(&json!({ "scope": "read" })));
        let waiting = {
            let (rig, fields) = (rig.clone(), fields.clone());
            std::thread::spawn(move || ask(&rig, "/waits", &fields))
        };
        eventually("keys asked for", || (!rig.control.wanted.lock().unwrap().is_empty()).then_some(()));
        rig.apply_policy(&fence(port, ISSUER, &format!("{TOKEN}, require: {{ scopes: [write] }}")));
        rig.believe(second.keys(unix() + 600));
        let answer = waiting.join().unwrap();
        // A request waits for two seconds: where the machine is too slow for that, it is refused before.
        assert!(
            answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 401"),
            "what it waited under is not in force any more: {answer}"
        );
        answer.starts_with("HTTP/1.1 403")
    };
    assert!((0..5).any(|_| judged()), "five times too late");
}

#[test]
fn keys_are_believed_for_their_issuer_and_their_time() {
    let provider = Provider::new("k1");
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port, ISSUER, TOKEN));
    let fields = bearer(&provider.token(&json!({})));
    let answer = ask(&rig, "/before", &fields);
    assert!(answer.starts_with("HTTP/1.1 503"), "no keys yet: {answer}");
    // For longer where the machine is too slow to ask in time.
    let is_known = |life: &u64| {
        tell(&rig, provider.keys(unix() + life));
        ask(&rig, "/known", &fields).starts_with("HTTP/1.1 200")
    };
    assert!([4, 15, 50].iter().any(is_known));
    let event = eventually("keys too old to be believed", || {
        ask(&rig, "/old", &fields).starts_with("HTTP/1.1 503").then(|| rule(&rig, "/old").1)
    });
    assert!(event.contains("staff"), "the operator sees whose keys are missing: {event}");
    tell(&rig, provider.keys(unix() + 600));
    assert!(ask(&rig, "/again", &fields).starts_with("HTTP/1.1 200"));
    // The provider is another one now: what was believed of the first is not believed of it.
    rig.apply(&fence(port, "https://other.example", TOKEN));
    let theirs = bearer(&provider.token(&json!({ "iss": "https://other.example" })));
    assert!(ask(&rig, "/swapped", &theirs).starts_with("HTTP/1.1 503"));
}
