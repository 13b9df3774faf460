//! Providers that are down, slow, out of order or lie: nothing is accepted that should not be, and the operator is told why.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::provider::Provider;
use crate::running::{Clinic, Who, eventually};
use crate::{ECHO, SOON, ask};

/// A provider that was never reached is asked again at growing distances of at most a minute; and a busy machine takes its time.
const RECOVERED: Duration = Duration::from_secs(240);
/// The shortest time between two questions for keys, and a little more.
const AGAIN: Duration = Duration::from_secs(32);

/// How each behaves, and what the operator is told of it.
const MOODS: [(&str, &str); 5] = [
    ("stranger", "id.elsewhere.example"),
    ("huge", "more than"),
    ("slow", "its metadata cannot be fetched"),
    ("down", "its metadata cannot be fetched"),
    ("failing", "answers with status 500"),
];

/// A route for each provider, below its name.
fn start(providers: &[(&str, &Provider)]) -> Clinic {
    let (mut declared, mut routes) = (String::new(), String::new());
    for (name, provider) in providers {
        let issuer = &provider.issuer;
        declared += &format!(
            "  {name}: {{ issuer: {issuer}, audiences: [clinic], ca: id/{name}.pem, allow_private: true }}\n"
        );
        routes += &format!("      - {{ path: /{name}, accept: [{{ token: {name} }}] }}\n");
    }
    let fence = format!(
        "fence: clinic\ntrust_domain: clinic.example\ngateway: {{ listen: 127.0.0.1:8443 }}\nproviders:\n{declared}services:
  portal:\n    run: [python3, app/echo.py]\n    listen: 9000\n    ready: tcp\n    routes:\n      - {{ path: / }}\n{routes}"
    );
    Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        for name in ["app", "id"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
        for (name, provider) in providers {
            std::fs::copy(&provider.ca, folder.join(format!("id/{name}.pem"))).unwrap();
        }
    })
}

/// What the operator was last told of a provider.
fn told(clinic: &Clinic, provider: &str, words: &str) -> Option<Value> {
    clinic.event(Duration::from_secs(30), |event| {
        event["entity"]["name"] == provider && event.to_string().contains(words)
    })
}

#[test]
fn a_provider_that_lies_or_fails_lets_nobody_in_and_the_operator_is_told_why() {
    let providers: Vec<(&str, Provider)> = MOODS.iter().map(|(mood, _)| (*mood, Provider::start())).collect();
    let tokens: Vec<String> =
        providers.iter().map(|(_, provider)| provider.token("reader", "read")).collect();
    for (mood, provider) in &providers {
        provider.mood(mood);
    }
    let all: Vec<(&str, &Provider)> = providers.iter().map(|(name, provider)| (*name, provider)).collect();
    let clinic = start(&all);
    for ((name, why), token) in MOODS.iter().zip(&tokens) {
        assert_eq!(ask(&clinic, &format!("/{name}"), token).0, 503, "{name}: no key of it is known");
        let event = told(&clinic, name, why);
        let event = event.unwrap_or_else(|| panic!("{name}: nobody says {why}\n{}", clinic.said()));
        assert!(event.to_string().contains("none of its tokens is believed"), "{name}: {event}");
    }
    assert_eq!(clinic.get("/").0, 200, "an open route stays open");

    // Each is believed again once it behaves, without anybody's doing.
    for (_, provider) in &providers {
        provider.mood("good");
    }
    let begun = Instant::now();
    for ((name, _), token) in MOODS.iter().zip(&tokens) {
        let left = RECOVERED.saturating_sub(begun.elapsed());
        let served = eventually(left, || (ask(&clinic, &format!("/{name}"), token).0 == 200).then_some(()));
        assert!(
            served.is_some(),
            "{name} is not believed again: {:?}",
            ask(&clinic, &format!("/{name}"), token)
        );
        assert!(told(&clinic, name, "answers again").is_some(), "{name}");
        clinic.settle_at(&["-H", &format!("authorization: Bearer {token}")], &format!("/{name}"), 200);
    }
    // One cannot speak for another.
    for ((name, _), token) in MOODS.iter().zip(tokens.iter().cycle().skip(1)) {
        assert_eq!(ask(&clinic, &format!("/{name}"), token).0, 401, "{name}: a token of another issuer");
    }
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn keys_that_are_known_outlive_a_provider_that_is_lost_to_somebody_else() {
    let names = ["swapped", "huge", "down"];
    let providers: Vec<(&str, Provider)> = names.iter().map(|name| (*name, Provider::start())).collect();
    let tokens: Vec<String> =
        providers.iter().map(|(_, provider)| provider.token("reader", "read")).collect();
    let all: Vec<(&str, &Provider)> = providers.iter().map(|(name, provider)| (*name, provider)).collect();
    let clinic = start(&all);
    for (name, token) in names.iter().zip(&tokens) {
        let served = eventually(SOON, || (ask(&clinic, &format!("/{name}"), token).0 == 200).then_some(()));
        assert!(served.is_some(), "{name}: {}", clinic.said());
        clinic.settle_at(&["-H", &format!("authorization: Bearer {token}")], &format!("/{name}"), 200);
    }
    // The last of them was asked before this.
    let begun = Instant::now();
    for (mood, provider) in &providers {
        provider.mood(mood);
    }
    std::thread::sleep(AGAIN.saturating_sub(begun.elapsed()));
    for ((name, provider), token) in providers.iter().zip(&tokens) {
        let path = format!("/{name}");
        // Whoever names a key that nobody knows has the provider asked again.
        for kid in ["k1", "unheard-of"] {
            let forged = provider.order(&json!({ "do": "forge", "kid": kid, "sub": "reader" }));
            assert_eq!(ask(&clinic, &path, forged.as_str().unwrap()).0, 401, "{name}: forged as {kid}");
        }
        let why = match *name {
            "swapped" => "another key under the id `k1`",
            "huge" => "more than",
            _ => "cannot be fetched",
        };
        let event = told(&clinic, name, why);
        let event = event.unwrap_or_else(|| panic!("{name}: nobody says {why}\n{}", clinic.said()));
        assert!(event.to_string().contains("the keys that it had are believed for at most"), "{event}");
        assert_eq!(
            ask(&clinic, &path, token).0,
            200,
            "{name}: those of before are believed within their bound"
        );
        let forged = provider.order(&json!({ "do": "forge", "kid": "k1", "sub": "reader" }));
        assert_eq!(ask(&clinic, &path, forged.as_str().unwrap()).0, 401, "{name}: still forged");
    }
    assert_eq!(clinic.stop(), [""; 0]);
}
