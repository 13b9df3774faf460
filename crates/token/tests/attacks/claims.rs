//! Attacks by the claims of a well signed token: whose it is, for whom, and when.

use serde_json::{Value, json};

use crate::forge::{HONEST, ISSUER, NOW, changed, claims, door, header, profile};
use crate::{Attack, attack};

fn with(change: Value) -> String {
    HONEST.token("ed", &header("ed").to_string(), &changed(&claims(), change).to_string())
}

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (name, change) in [
        ("iss of another tenant", json!({ "iss": "https://id.clinic.example/tenant-b" })),
        ("iss missing", json!({ "iss": null })),
        ("iss with a slash more", json!({ "iss": format!("{ISSUER}/") })),
        ("iss in another case", json!({ "iss": ISSUER.to_uppercase() })),
        ("iss with the port written out", json!({ "iss": "https://id.clinic.example:443/tenant-a" })),
        ("iss that begins like ours", json!({ "iss": format!("{ISSUER}.evil.example") })),
        ("iss a list with ours in it", json!({ "iss": [ISSUER] })),
        ("iss with a null byte", json!({ "iss": format!("{ISSUER}\u{0}") })),
        ("aud of another", json!({ "aud": "billing" })),
        ("aud missing", json!({ "aud": null })),
        ("aud empty", json!({ "aud": "" })),
        ("aud an empty list", json!({ "aud": [] })),
        ("aud in another case", json!({ "aud": "Clinic" })),
        ("aud that begins like ours", json!({ "aud": "clinic.evil.example" })),
        ("aud that ends like ours", json!({ "aud": "evil-clinic" })),
        ("aud with ours among spaces", json!({ "aud": "billing clinic" })),
        ("aud an object", json!({ "aud": { "clinic": true } })),
        ("aud a list with a number", json!({ "aud": ["clinic", 1] })),
        ("aud a list in a list", json!({ "aud": [["clinic"]] })),
        ("aud a list without end", json!({ "aud": vec!["clinic"; 17] })),
        ("sub missing", json!({ "sub": null })),
        ("sub empty", json!({ "sub": "" })),
        ("sub a number", json!({ "sub": 1 })),
        ("sub with a line break", json!({ "sub": "ann\nRingfence-User: root" })),
        ("exp missing", json!({ "exp": null })),
        ("exp over", json!({ "exp": NOW - 31, "iat": NOW - 100, "nbf": NOW - 100 })),
        ("exp just over, leeway included", json!({ "exp": NOW - 30, "iat": NOW - 100, "nbf": NOW - 100 })),
        ("exp a text", json!({ "exp": (NOW + 300).to_string() })),
        ("exp with a fraction", json!({ "exp": NOW as f64 + 300.5 })),
        ("exp negative", json!({ "exp": -1 })),
        ("exp true", json!({ "exp": true })),
        ("exp in milliseconds", json!({ "exp": (NOW + 300) * 1000 })),
        ("exp at the end of 64 bits", json!({ "exp": u64::MAX })),
        ("exp before iat", json!({ "exp": NOW + 5, "iat": NOW + 10, "nbf": null })),
        ("nbf in the future", json!({ "nbf": NOW + 31 })),
        ("nbf a text", json!({ "nbf": "now" })),
        ("nbf with a fraction", json!({ "nbf": 1.5 })),
        ("nbf negative", json!({ "nbf": -1 })),
        ("iat in the future", json!({ "iat": NOW + 31 })),
        ("iat a text", json!({ "iat": "now" })),
        ("auth_time a text", json!({ "auth_time": "now" })),
        ("jti a number", json!({ "jti": 1 })),
        ("sid a list", json!({ "sid": ["s"] })),
        ("client_id an object", json!({ "client_id": {} })),
        ("scope an object", json!({ "scope": { "admin": true } })),
        ("scope a list with a number", json!({ "scope": ["read", 1] })),
        ("cnf empty", json!({ "cnf": {} })),
        ("cnf a text", json!({ "cnf": "key" })),
        ("cnf in a way that is not known", json!({ "cnf": { "kid": "k" } })),
        ("cnf with a digest that is too short", json!({ "cnf": { "jkt": "AAAA" } })),
    ] {
        attacks.push(attack(name, door(&with(change))));
    }
    let text = claims().to_string();
    for (name, payload) in [
        ("exp 1e400", text.replace(&format!("\"exp\":{}", NOW + 300), "\"exp\":1e400")),
        ("exp 1e10", text.replace(&format!("\"exp\":{}", NOW + 300), "\"exp\":1e10")),
        ("exp twice", text.replace('{', &format!("{{\"exp\":{},", NOW - 99))),
        ("sub twice", text.replace('{', "{\"sub\":\"root\",")),
        ("sub twice, once escaped", text.replace('{', "{\"\\u0073ub\":\"root\",")),
        ("aud twice", text.replace('{', "{\"aud\":\"billing\",")),
        ("a claim twice in an object inside", text.replace('{', "{\"act\":{\"sub\":\"a\",\"sub\":\"b\"},")),
        ("129 claims", {
            let more: String = (0..125).map(|i| format!("\"c{i}\":0,")).collect();
            text.replace('{', &format!("{{{more}"))
        }),
    ] {
        assert_ne!(payload, text, "{name}");
        attacks.push(attack(name, door(&HONEST.token("ed", &header("ed").to_string(), &payload))));
    }
    let old = with(json!({ "iat": NOW - 1000, "nbf": null }));
    attacks.push(attack(
        "made long ago with a long life",
        profile().with_max_age(600).verify(&old, &HONEST.set, NOW),
    ));
    let undated = with(json!({ "iat": null, "nbf": null }));
    attacks.push(attack(
        "undated where an age is demanded",
        profile().with_max_age(600).verify(&undated, &HONEST.set, NOW),
    ));
    attacks
}

#[test]
fn claims_within_the_rules_are_no_attack() {
    for change in [
        json!({}),
        json!({ "aud": ["billing", "clinic"] }),
        json!({ "exp": NOW - 29, "iat": NOW - 100, "nbf": NOW - 100 }),
        json!({ "nbf": NOW + 30, "iat": NOW + 30 }),
        json!({ "nbf": null, "iat": null }),
        json!({ "scope": ["read"] }),
        json!({ "x": { "y": [1, 2.5, null] } }),
    ] {
        door(&with(change.clone())).unwrap_or_else(|e| panic!("{change}: {e}"));
    }
    let old = with(json!({ "iat": NOW - 1000, "nbf": null }));
    profile().with_max_age(971).verify(&old, &HONEST.set, NOW).unwrap();
    assert_eq!(
        profile().with_leeway(1 << 40).verify(&old, &HONEST.set, NOW + 300 + 119).unwrap().subject(),
        Some("ann")
    );
    assert!(profile().with_leeway(1 << 40).verify(&old, &HONEST.set, NOW + 300 + 120).is_err());
}
