//! Attacks by the key set: keys that are weak, broken, secret, or for something else. The token is signed well each time.

use ringfence_token::{KeySet, TokenError, VerifiedToken};
use serde_json::{Value, json};

use crate::forge::{HONEST, NOW, alg, b64, changed, claims, header, jwk, profile, rsa_jwk};
use crate::{Attack, attack};

fn with_keys(kid: &str, keys: Value) -> Result<VerifiedToken, String> {
    let token = HONEST.token(kid, &header(kid).to_string(), &claims().to_string());
    let set = KeySet::from_json(json!({ "keys": keys }).to_string().as_bytes()).map_err(|e| e.to_string())?;
    profile().verify(&token, &set, NOW).map_err(|e| e.to_string())
}

fn public(kid: &str) -> Value {
    match kid {
        "ed" => jwk(&HONEST.ed, kid),
        "ec" => jwk(&HONEST.ec, kid),
        _ => rsa_jwk(&HONEST.rsa, kid, alg(kid)),
    }
}

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for kid in ["ed", "ec", "rsa"] {
        for (name, change) in [
            ("for encryption", json!({ "use": "enc" })),
            ("with an unknown use", json!({ "use": "tls" })),
            ("with a use that is no text", json!({ "use": ["sig"] })),
            ("whose key_ops leave verify out", json!({ "key_ops": ["encrypt", "wrapKey"] })),
            ("whose key_ops are empty", json!({ "key_ops": [] })),
            ("whose key_ops say one twice", json!({ "key_ops": ["verify", "verify"] })),
            ("whose use and key_ops disagree", json!({ "use": "enc", "key_ops": ["verify"] })),
            ("with another algorithm", json!({ "alg": if kid == "rsa" { "PS256" } else { "RS256" } })),
            ("with an algorithm that is not spoken", json!({ "alg": "HS256" })),
            ("with its private half", json!({ "d": "AA" })),
            ("of another kind", json!({ "kty": if kid == "rsa" { "EC" } else { "RSA" } })),
            ("on another curve", json!({ "crv": "P-384", "kty": "EC" })),
        ] {
            attacks.push(attack(
                format!("key {kid} {name}"),
                with_keys(kid, json!([changed(&public(kid), change)])),
            ));
        }
    }
    let (ec, rsa) = (public("ec"), public("rsa"));
    let modulus = rsa["n"].as_str().unwrap();
    for (name, kid, keys) in [
        ("two keys with one id", "ed", json!([public("ed"), changed(&ec, json!({ "kid": "ed" }))])),
        (
            "a shared secret beside a good key",
            "ed",
            json!([public("ed"), { "kty": "oct", "kid": "h", "k": "AAAA" }]),
        ),
        ("a point off its curve", "ec", json!([changed(&ec, json!({ "y": ec["x"] }))])),
        ("a point at infinity", "ec", json!([changed(&ec, json!({ "x": b64([0; 32]), "y": b64([0; 32]) }))])),
        ("a point with short coordinates", "ec", json!([changed(&ec, json!({ "x": b64([1; 31]) }))])),
        (
            "an Ed25519 key of small order",
            "ed",
            json!([changed(&public("ed"), json!({ "x": b64([0; 32]) }))]),
        ),
        ("RSA with exponent 1", "rsa", json!([changed(&rsa, json!({ "e": "AQ" }))])),
        ("RSA with exponent 3", "rsa", json!([changed(&rsa, json!({ "e": "Aw" }))])),
        ("RSA with an even exponent", "rsa", json!([changed(&rsa, json!({ "e": "AQAA" }))])),
        ("RSA with a huge exponent", "rsa", json!([changed(&rsa, json!({ "e": b64([0xff; 200]) }))])),
        ("RSA with 1024 bits", "rsa", json!([changed(&rsa, json!({ "n": &modulus[..168] }))])),
        ("RSA with 16384 bits", "rsa", json!([changed(&rsa, json!({ "n": b64([0xff; 2048]) }))])),
        (
            "RSA with padding in its modulus",
            "rsa",
            json!([changed(&rsa, json!({ "n": format!("{modulus}==") }))]),
        ),
        (
            "RSA with a zero before its modulus",
            "rsa",
            json!([changed(&rsa, json!({ "n": format!("AA{modulus}") }))]),
        ),
        ("a key that is no object", "ed", json!([public("ed"), "key"])),
        ("257 keys", "ed", json!(vec![public("ed"); 257])),
        (
            "a key that is only pointed at",
            "ed",
            json!([{ "kid": "ed", "kty": "OKP", "crv": "Ed25519", "x5u": "https://evil.example" }]),
        ),
    ] {
        attacks.push(attack(name, with_keys(kid, keys)));
    }
    attacks.push(attack("a set nested without end", {
        let deep = format!("{{\"keys\":[],\"x\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
        KeySet::from_json(deep.as_bytes())
    }));
    attacks.push(attack("a set of a megabyte", KeySet::from_json(&vec![b' '; 1 << 20])));
    attacks.push(attack("a set with keys twice", KeySet::from_json(br#"{"keys":[],"keys":[]}"#)));
    attacks
}

#[test]
fn the_honest_keys_are_accepted_one_by_one_and_an_unknown_one_is_told_apart() {
    for kid in ["ed", "ec", "rsa"] {
        with_keys(kid, json!([public(kid)])).unwrap();
        with_keys(kid, json!([changed(&public(kid), json!({ "use": null, "key_ops": ["verify"] }))]))
            .unwrap();
        with_keys(kid, json!([changed(&public(kid), json!({ "alg": null }))])).unwrap();
    }
    let token = HONEST.token("ed", &header("ed").to_string(), &claims().to_string());
    assert!(matches!(profile().verify(&token, &KeySet::default(), NOW), Err(TokenError::UnknownKey)));
}
