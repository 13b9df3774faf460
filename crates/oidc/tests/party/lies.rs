//! Providers that are down, slow or lying: nothing is accepted that should not be, what was good stays good within its bound,
//! and the operator is told why.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::digest::sha256;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_oidc::protocol::{FromFederation, Outcome, ProviderConfig, Refusal, RefusalCode, ToFederation};
use serde_json::{Map, Value, json};

use crate::federation::{Begun, Federation, config, secret, signed_in};
use crate::liar::{Answer, Liar, jwks, unix_now};

const CALLBACK: &str = "https://portal.clinic.example/callback";
/// How soon keys may be asked for again.
const INTERVAL: Duration = Duration::from_secs(31);

/// Changes the claims of an ID token.
type Spoil = dyn Fn(&mut Map<String, Value>);
/// What the token says, the age and the authentications that were asked for, and whether that fits.
type Asked<'a> = (&'a Spoil, Option<u64>, &'a [&'a str], bool);

fn sign(key: &SigningKey, kid: &str, claims: &Map<String, Value>) -> String {
    ringfence_token::sign(key, kid, claims).unwrap()
}

#[test]
fn an_id_token_that_lies_is_never_believed() {
    let liar = Liar::start();
    let other = SigningKey::generate(Algorithm::P256).unwrap();
    let mut federation = Federation::start();
    federation.tell(&ToFederation::Providers(vec![config("staff", &liar.issuer)]));
    federation.keys("staff");
    let now = unix_now();
    let mut sign_in = |spoil: &Spoil, key: &SigningKey, max_age: Option<u64>, acr: &[&str]| {
        let begun = federation.begin("staff", CALLBACK);
        let mut claims = liar.claims(&begun.nonce);
        spoil(&mut claims);
        liar.give(&sign(key, "k1", &claims));
        let outcome = federation.ask(|request| complete(request, &begun, max_age, acr));
        signed_in(outcome)
    };
    let set = |name: &'static str, value: Value| {
        move |claims: &mut Map<String, Value>| {
            claims.insert(name.to_owned(), value.clone());
        }
    };
    let without = |name: &'static str| {
        move |claims: &mut Map<String, Value>| {
            claims.remove(name);
        }
    };

    sign_in(&|_| (), &liar.key, None, &[]).unwrap();
    let half = |text: &str| URL_SAFE_NO_PAD.encode(&sha256(text.as_bytes())[..16]);
    sign_in(&set("at_hash", json!(half("a"))), &liar.key, None, &[]).unwrap();
    sign_in(&set("c_hash", json!(half("c"))), &liar.key, None, &[]).unwrap();
    let lies: Vec<(&str, Box<Spoil>)> = vec![
        ("another issuer", Box::new(set("iss", json!("https://evil.example")))),
        ("no issuer", Box::new(without("iss"))),
        ("another client", Box::new(set("aud", json!("other-client")))),
        ("no audience", Box::new(without("aud"))),
        ("several audiences and no party", Box::new(set("aud", json!(["clinic-gateway", "other-client"])))),
        ("another party", Box::new(set("azp", json!("other-client")))),
        ("another nonce", Box::new(set("nonce", json!("n")))),
        ("no nonce", Box::new(without("nonce"))),
        ("nonce of another type", Box::new(set("nonce", json!(["n"])))),
        ("expired", Box::new(set("exp", json!(now - 120)))),
        ("no end", Box::new(without("exp"))),
        ("no time", Box::new(without("iat"))),
        ("no subject", Box::new(without("sub"))),
        ("an empty subject", Box::new(set("sub", json!("")))),
        ("a number as subject", Box::new(set("sub", json!(7)))),
        ("another access token", Box::new(set("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")))),
        ("another code", Box::new(set("c_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")))),
        (
            "a logout token",
            Box::new(set("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} }))),
        ),
    ];
    for (what, spoil) in &lies {
        let refusal = sign_in(spoil, &liar.key, None, &[]).expect_err(what);
        assert_eq!(refusal.code, RefusalCode::NotBelieved, "{what}: {refusal}");
    }
    let forged = sign_in(&|_| (), &other, None, &[]).unwrap_err();
    assert!(forged.reason.contains("signature"), "{forged}");

    // What was asked for is insisted on.
    let asked: [Asked<'_>; 6] = [
        (&set("auth_time", json!(now)), Some(60), &[], true),
        (&set("auth_time", json!(now - 600)), Some(60), &[], false),
        (&|_| (), Some(60), &[], false),
        (&set("acr", json!("phr")), None, &["phrh", "phr"], true),
        (&set("acr", json!("pwd")), None, &["phr"], false),
        (&|_| (), None, &["phr"], false),
    ];
    for (spoil, max_age, acr, good) in asked {
        let result = sign_in(spoil, &liar.key, max_age, acr);
        assert_eq!(result.is_ok(), good, "{max_age:?} {acr:?} {result:?}");
    }
}

fn complete(request: u64, begun: &Begun, max_age: Option<u64>, acr: &[&str]) -> ToFederation {
    ToFederation::Complete {
        request,
        provider: "staff".into(),
        code: secret("c"),
        iss: None,
        verifier: secret(&begun.verifier),
        nonce: begun.nonce.clone(),
        redirect_uri: begun.redirect_uri.clone(),
        max_age,
        acr_values: acr.iter().map(|a| (*a).to_owned()).collect(),
    }
}

#[test]
fn a_provider_that_is_not_what_it_says_is_never_begun_with() {
    let mut federation = Federation::start();
    let metadata = "/.well-known/openid-configuration";
    let raw = |text: &str| Answer::Raw(text.replace('\n', "\r\n").into_bytes());
    let lies: Vec<(&str, &str, Answer, &str)> = vec![
        ("issuer", metadata, Answer::Json(json!({ "issuer": "https://id.evil.example" })), "its issuer is"),
        ("keyless", "/jwks", Answer::Json(json!({ "keys": [] })), "keys"),
        (
            "secret",
            "/jwks",
            Answer::Json(json!({ "keys": [{ "kty": "oct", "kid": "a", "k": "AA" }] })),
            "symmetric",
        ),
        ("endless", "/jwks", Answer::Endless, "more than"),
        (
            "redirect",
            metadata,
            raw("HTTP/1.1 302 Found\nlocation: http://169.254.169.254/x?y\ncontent-length: 0\n\n"),
            "redirects to http://169.254.169.254/x,",
        ),
        (
            "packed",
            metadata,
            raw("HTTP/1.1 200 OK\ncontent-encoding: gzip\ncontent-length: 2\n\nxx"),
            "compressed",
        ),
        ("broken", metadata, raw("SSH-2.0-x\n\n"), "HTTP"),
        (
            "headers",
            metadata,
            Answer::Raw([b"HTTP/1.1 200 OK\r\n".as_slice(), &b"a: b\r\n".repeat(100)].concat()),
            "HTTP",
        ),
        ("failing", metadata, raw("HTTP/1.1 500 Oh\ncontent-length: 0\n\n"), "status 500"),
        ("elsewhere", metadata, Answer::Json(json!({})), "malformed"),
    ];
    let liars: Vec<_> = lies
        .into_iter()
        .map(|(name, path, answer, what)| {
            let liar = Liar::start();
            liar.put(path, answer);
            (name, liar, what)
        })
        .collect();
    let mut configs: Vec<_> = liars.iter().map(|(name, liar, _)| config(name, &liar.issuer)).collect();
    // Down, and inside without leave.
    configs.push(config("down", "http://127.0.0.1:1"));
    let inside = Liar::start();
    let https = inside.issuer.replace("http:", "https:");
    configs.push(ProviderConfig { allow_private: false, ..config("inside", &https) });
    configs.push(ProviderConfig { allow_private: false, ..config("clear", &inside.issuer) });
    federation.tell(&ToFederation::Providers(configs));
    let expected = liars.iter().map(|(name, _, what)| (*name, *what)).chain([
        ("down", "cannot be reached"),
        ("inside", "allow_private"),
        ("clear", "https"),
    ]);
    for (name, what) in expected {
        let reason = federation.trouble(name).unwrap();
        assert!(reason.contains(what) && reason.contains("none of its tokens"), "{name}: {reason}");
        let refusal = begin(&mut federation, name).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Unavailable, "{name}: {refusal}");
        assert!(refusal.reason.contains(what), "{name}: {refusal}");
    }
    assert_eq!(inside.asked(metadata), 0, "nobody inside was called");

    // It is said once, although it goes on; and that it is over is said too.
    let again = federation.wait_for(Duration::from_secs(3), |m| match m {
        FromFederation::Trouble { provider, reason } if provider == "failing" => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(again, None);
    let (_, failing, _) = liars.iter().find(|(name, ..)| *name == "failing").unwrap();
    failing.put(metadata, Answer::Json(failing.metadata()));
    assert_eq!(federation.trouble("failing"), None);
    begin(&mut federation, "failing").unwrap();
}

fn begin(federation: &mut Federation, provider: &str) -> Result<Outcome, Refusal> {
    federation.ask(|request| ToFederation::Begin {
        request,
        provider: provider.into(),
        redirect_uri: CALLBACK.into(),
        prompt: None,
        acr_values: vec![],
        max_age: None,
    })
}

#[test]
fn what_was_good_stays_good_when_the_provider_turns() {
    let mut federation = Federation::start();
    let names = ["down", "huge", "swapped", "emptied", "other-issuer", "rotated", "withdrawn"];
    let liars: Vec<_> = names.iter().map(|name| (*name, Liar::start())).collect();
    let configs = liars.iter().map(|(name, liar)| config(name, &liar.issuer)).collect();
    federation.tell(&ToFederation::Providers(configs));
    for name in names {
        federation.keys(name);
    }
    let other = SigningKey::generate(Algorithm::P256).unwrap();
    for (name, liar) in &liars {
        match *name {
            "down" => {
                liar.put("/jwks", Answer::Raw(b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n".to_vec()))
            }
            "huge" => liar.put("/jwks", Answer::Endless),
            "swapped" => liar.put("/jwks", Answer::Json(jwks(&[("k1", &other)]))),
            "emptied" => liar.put("/jwks", Answer::Json(json!({ "keys": [] }))),
            "other-issuer" => liar.put(
                "/jwks",
                Answer::Raw(
                    b"HTTP/1.1 302 Moved\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n"
                        .to_vec(),
                ),
            ),
            "rotated" => liar.put("/jwks", Answer::Json(jwks(&[("k2", &other), ("k1", &liar.key)]))),
            _ => liar.put("/jwks", Answer::Json(jwks(&[("k2", &other)]))),
        }
    }
    // A storm of unknown keys is one fetch, and that not too soon.
    let start = Instant::now();
    while start.elapsed() < INTERVAL {
        for name in names {
            federation.tell(&ToFederation::UnknownKey { provider: name.into(), kid: "k9".into() });
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    for (name, what) in [
        ("down", "status 503"),
        ("huge", "more than"),
        ("swapped", "another key under the id `k1`"),
        ("emptied", "keys are not taken"),
        ("other-issuer", "redirects to https://evil.example/"),
    ] {
        let reason = federation.trouble(name).unwrap();
        assert!(reason.contains(what) && reason.contains("at most 24 h"), "{name}: {reason}");
        let refetched = federation.wait_for(Duration::ZERO, |m| match m {
            FromFederation::Keys { provider, .. } if provider == name => Some(()),
            _ => None,
        });
        assert_eq!(refetched, None, "{name} spread what it should not");
    }
    let notice = federation.wait(|m| match m {
        FromFederation::Notice { provider, text } if provider == "withdrawn" => Some(text.clone()),
        _ => None,
    });
    assert!(notice.contains("replaced at once"), "{notice}");

    let mut sign_in = |name: &str, liar: &Liar, key: &SigningKey, kid: &str| {
        let outcome = begin(&mut federation, name);
        let Ok(Outcome::Begun { nonce, verifier, .. }) = outcome else { panic!("{name}: {outcome:?}") };
        liar.give(&sign(key, kid, &liar.claims(&nonce)));
        let outcome = federation.ask(|request| ToFederation::Complete {
            request,
            provider: name.into(),
            code: secret("c"),
            iss: None,
            verifier,
            nonce,
            redirect_uri: CALLBACK.into(),
            max_age: None,
            acr_values: vec![],
        });
        signed_in(outcome)
    };
    for (name, liar) in &liars {
        let old = sign_in(name, liar, &liar.key, "k1");
        // Only a provider that withdrew its key is taken at its word.
        assert_eq!(old.is_ok(), *name != "withdrawn", "{name}: {old:?}");
        assert!(liar.asked("/jwks") <= 4, "{name} was asked {} times", liar.asked("/jwks"));
    }
    for name in ["rotated", "withdrawn"] {
        let (_, liar) = liars.iter().find(|(n, _)| *n == name).unwrap();
        sign_in(name, liar, &other, "k2").unwrap();
    }
    let (_, swapped) = liars.iter().find(|(n, _)| *n == "swapped").unwrap();
    assert!(sign_in("swapped", swapped, &other, "k1").is_err());
}

#[test]
fn a_slow_provider_holds_up_nobody_else() {
    let (slow, quick) = (Liar::start(), Liar::start());
    slow.put("/token", Answer::Slow(Duration::from_secs(15), json!({})));
    let mut federation = Federation::start();
    let configs = vec![config("slow", &slow.issuer), config("staff", &quick.issuer)];
    federation.tell(&ToFederation::Providers(configs));
    let begun = federation.begin("slow", CALLBACK);
    let waiting =
        federation.ask_later(|request| crate::federation::complete(request, "slow", &begun, "c", None));
    let begun = federation.begin("staff", CALLBACK);
    quick.give(&sign(&quick.key, "k1", &quick.claims(&begun.nonce)));
    federation.complete("staff", &begun, "c", None).unwrap();
    let answered = federation.wait_for(Duration::ZERO, |m| match m {
        FromFederation::Answer { request, .. } if *request == waiting => Some(()),
        _ => None,
    });
    assert_eq!(answered, None, "whoever asked the other one still waits");
    let refusal = federation.answer(waiting).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Unavailable);
    assert!(refusal.reason.contains("did not answer within 10s"), "{refusal}");
}

#[test]
fn an_opaque_token_is_asked_for_once_and_only_ours_is_believed() {
    let liar = Liar::start();
    let mut federation = Federation::start();
    let mut unasked = config("unasked", &liar.issuer);
    unasked.opaque = false;
    federation.tell(&ToFederation::Providers(vec![config("staff", &liar.issuer), unasked]));
    let mut ask = |provider: &str, token: &str| {
        federation.ask(|request| ToFederation::Introspect {
            request,
            provider: provider.into(),
            token: secret(token),
        })
    };
    liar.put(
        "/introspect",
        Answer::Json(json!({ "active": true, "aud": "clinic", "sub": "job", "scope": "read" })),
    );
    for _ in 0..5 {
        let Ok(Outcome::Introspected(answer)) = ask("staff", "t1") else { panic!() };
        assert!(answer.active && answer.until <= unix_now() + 15);
        assert_eq!(answer.claims["sub"], "job");
    }
    assert_eq!(liar.asked("/introspect"), 1);
    liar.put("/introspect", Answer::Json(json!({ "active": true, "aud": "billing", "sub": "job" })));
    let refusal = ask("staff", "t2").unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotBelieved, "{refusal}");
    liar.put("/introspect", Answer::Json(json!({ "active": false })));
    let Ok(Outcome::Introspected(answer)) = ask("staff", "t3") else { panic!() };
    assert!(!answer.active);
    // Down: what is kept holds, the rest is not available.
    liar.put("/introspect", Answer::Raw(b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n".to_vec()));
    assert!(ask("staff", "t1").is_ok());
    assert_eq!(ask("staff", "t4").unwrap_err().code, RefusalCode::Unavailable);
    assert_eq!(ask("unasked", "t1").unwrap_err().code, RefusalCode::NotSupported);
    assert_eq!(ask("nobody", "t1").unwrap_err().code, RefusalCode::Malformed);
}
