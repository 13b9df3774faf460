//! Tokens that are no JWT: their provider is asked, seldom, and believed for a while.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Revocations, Told};
use ringfence_token::{Revocation, What};
use serde_json::{Value, json};

use crate::net::echo;
use crate::rig::{Rig, eventually, field, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

fn fence(port: u16, user: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff:
    issuer: {ISSUER}
    audiences: [clinic]
    client: {{ id: clinic-gateway }}
    opaque: introspect
    claims: {{ user: {user}, groups: groups }}
  strict: {{ issuer: https://strict.example, client: {{ id: c }}, opaque: introspect, bound: dpop }}
  plain: {{ issuer: https://plain.example }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes:
      - {{ path: /, accept: [{{ token: staff }}, api_key] }}
      - {{ path: /read, accept: [{{ token: staff }}], require: {{ scopes: [read] }} }}
      - {{ path: /strict, accept: [{{ token: strict }}] }}
      - {{ path: /plain, accept: [{{ token: plain }}] }}
"
    )
}

/// What the provider says of its tokens.
struct World {
    rig: Rig,
    port: u16,
    asked: Arc<AtomicU64>,
    tokens: Arc<Mutex<HashMap<&'static str, Value>>>,
}

fn world() -> World {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port, "sub"));
    let (asked, tokens) =
        (Arc::<AtomicU64>::default(), Arc::<Mutex<HashMap<&'static str, Value>>>::default());
    let (count, known) = (asked.clone(), tokens.clone());
    rig.answer(move |ask| {
        let Ask::Introspect { token, .. } = ask else {
            return Err(NoAnswer::new(NoAnswerCode::Malformed, "another question"));
        };
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        let claims = known.lock().unwrap().get(token.expose().as_str()).cloned();
        match claims {
            None if token.expose().starts_with("trouble") => {
                Err(NoAnswer::new(NoAnswerCode::Unavailable, "the provider does not answer"))
            }
            None => {
                Ok(Told::Introspected { active: false, claims: serde_json::Map::new(), until: unix() + 600 })
            }
            Some(claims) => {
                let until = claims["exp"].as_u64().unwrap_or_else(|| unix() + 600);
                Ok(Told::Introspected { active: true, claims: claims.as_object().unwrap().clone(), until })
            }
        }
    });
    World { rig, port, asked, tokens }
}

impl World {
    fn knows(&self, token: &'static str, claims: Value) {
        self.tokens.lock().unwrap().insert(token, claims);
    }

    fn ask(&self, path: &str, token: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}Connection: close\r\n\r\n", bearer(token));
        let answer = raw(TcpStream::connect(self.rig.gateway).unwrap(), request.as_bytes());
        (answer[9..12].parse().unwrap(), answer)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn rule(&self, path: &str, rule: &str) {
        self.rig.event(&format!("{path} refused by {rule}"), |r| {
            field(r, "/http_request/url/path") == path && field(r, "/firewall_rule/uid") == rule
        });
    }
}

fn ada() -> Value {
    json!({ "active": true, "sub": "ada", "client_id": "app", "aud": "clinic", "scope": "read", "groups": ["nurse"], "jti": "t1", "sid": "p1" })
}

#[test]
fn a_token_that_its_provider_vouches_for_lets_in_and_is_asked_for_once() {
    let world = Arc::new(world());
    world.knows("2YotnFZFEjr1zCsicMWpAA", ada());
    let storm: Vec<_> = (0..40)
        .map(|_| {
            let world = world.clone();
            std::thread::spawn(move || world.ask("/read/x", "2YotnFZFEjr1zCsicMWpAA"))
        })
        .collect();
    for request in storm {
        let (code, answer) = request.join().unwrap();
        assert_eq!(code, 200, "{answer}");
        assert!(answer.contains("ringfence-user: ada\r\n") && !answer.contains("2YotnFZ"), "{answer}");
    }
    assert!(world.asked() <= 2, "once per thread, not {} times", world.asked());
    // The fence names the user by another claim: what was known before does not count for that.
    world.rig.apply(&fence(world.port, "client_id"));
    assert!(world.ask("/a", "2YotnFZFEjr1zCsicMWpAA").1.contains("ringfence-user: app\r\n"));
}

#[test]
fn what_does_not_hold_is_refused_and_not_asked_for_again_at_once() {
    let world = world();
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(world.ask("/unknown", "unknown").0, 401);
    }
    world.rule("/unknown", "token.inactive");
    // Each thread remembers it for ten seconds.
    assert!(world.asked() <= 2 * (1 + begun.elapsed().as_secs() / 9), "{}", world.asked());
    for _ in 0..5 {
        assert_eq!(world.ask("/trouble", "trouble").0, 503, "nobody knows, so nobody is let in");
    }
    world.rule("/trouble", "introspection.unavailable");
    let before = world.asked();
    for nonsense in ["a b", "a\"b", &"a".repeat(20_000)] {
        assert!(matches!(world.ask("/nonsense", nonsense).0, 401 | 431), "{nonsense}");
    }
    assert_eq!(world.asked(), before, "no provider is asked for nonsense");
    // Where no provider is to be asked, a token is a JWT or nothing.
    assert!(matches!(world.ask("/plain", "unknown").0, 401 | 503));
    assert_eq!(world.asked(), before);
}

#[test]
fn whoever_showed_too_many_wrong_ones_has_nobody_asked_and_keeps_nobody_out() {
    let world = world();
    world.rig.apply(
        &fence(world.port, "sub").replace("tls: off }\nproviders", "tls: off, failures: 5/1h }\nproviders"),
    );
    world.knows("good-one", ada());
    world.knows("another", ada());
    assert_eq!(world.ask("/", "good-one").0, 200);
    for n in 0..5 {
        assert_eq!(world.ask("/", &format!("wrong-{n}")).0, 401);
    }
    let asked = world.asked();
    for n in 5..15 {
        assert_eq!(world.ask("/", &format!("wrong-{n}")).0, 429);
    }
    // Not known yet: only its provider could tell it from those. Whichever thread a connection comes to knows the one that is.
    assert_eq!(world.ask("/", "another").0, 429);
    assert_eq!((0..10).map(|_| world.ask("/", "good-one").0).collect::<Vec<_>>(), [200; 10]);
    assert_eq!(world.asked(), asked, "and its provider was left alone");
    world.rule("/", "limit.failures");
}

#[test]
fn a_jwt_is_verified_here_and_shown_to_nobody() {
    let world = world();
    let provider = Provider::new("k1");
    tell(&world.rig, provider.keys(unix() + 600));
    assert_eq!(world.ask("/jwt", &provider.token(&json!({}))).0, 200);
    assert_eq!(world.ask("/forged", &Provider::new("k1").token(&json!({}))).0, 401);
    assert_eq!(world.asked(), 0);
}

#[test]
fn what_is_bound_to_a_key_or_names_nobody_is_nobody_s() {
    let world = world();
    let with = |name: &str, value: Value| {
        let mut claims = ada();
        claims[name] = value;
        claims
    };
    world.knows("bound", with("cnf", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" })));
    world.knows("dpop", with("token_type", json!("DPoP")));
    world.knows("nameless", with("sub", json!("")));
    world.knows("unbound", ada());
    for (path, token, rule) in [
        ("/bound", "bound", "token.bound"),
        ("/dpop", "dpop", "token.bound"),
        ("/nameless", "nameless", "token.user"),
        ("/strict", "unbound", "token.bound"),
    ] {
        assert_eq!(world.ask(path, token).0, 401, "{path}");
        world.rule(path, rule);
    }
}

#[test]
fn what_was_said_ends_with_the_token_and_with_a_revocation() {
    let world = world();
    // One that lasts longer where the machine is too slow for it.
    let is_let_in = |(name, life): (&'static str, u64)| {
        let mut short = ada();
        short["exp"] = json!(unix() + life);
        world.knows(name, short);
        (world.ask("/short", name).0 == 200).then_some(name)
    };
    let short = [("short", 4), ("longer", 20), ("long-lived", 50)].into_iter().find_map(is_let_in);
    let short = short.expect("it lets in before its end");
    world.tokens.lock().unwrap().remove(short);
    eventually("its end", || (world.ask("/short", short).0 == 401).then_some(()));
    for what in [
        What::Subject("ada".into()),
        What::Token("t1".into()),
        What::Session("p1".into()),
        What::Client("app".into()),
        What::Issuer,
    ] {
        let world = self::world();
        world.knows("long", ada());
        assert_eq!(world.ask("/long", "long").0, 200);
        let one = Revocation { issuer: ISSUER.into(), what, issued_until: u64::MAX, forget_at: unix() + 600 };
        world.rig.revoke(Revocations::Added(vec![one]));
        eventually("the revocation", || (world.ask("/long", "long").0 == 401).then_some(()));
        world.rule("/long", "token.revoked");
    }
}
