//! Attacks by the header: algorithms, keys that it brings or points at, members that change the meaning.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::forge::{ATTACKER, HONEST, b64, claims, door, header, jwk, rsa_jwk};
use crate::{Attack, attack};

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    unsigned(&mut attacks);
    confused(&mut attacks);
    brought_along(&mut attacks);
    meanings(&mut attacks);
    attacks
}

fn with(kid: &str, change: Value) -> String {
    let header = crate::forge::changed(&header(kid), change);
    HONEST.token(kid, &header.to_string(), &claims().to_string())
}

fn unsigned(attacks: &mut Vec<Attack>) {
    let payload = b64(claims().to_string());
    let honest = HONEST.token("ed", &header("ed").to_string(), &claims().to_string());
    let signature = honest.rsplit_once('.').unwrap().1;
    for name in ["none", "None", "NONE", "nOnE", "", " none", "none\u{0}", "n\u{6f}ne\t"] {
        for (form, signature) in [("without a signature", ""), ("with a good signature", signature)] {
            let header = b64(json!({ "alg": name, "kid": "ed", "typ": "at+jwt" }).to_string());
            attacks.push(attack(
                format!("alg {name:?} {form}"),
                door(&format!("{header}.{payload}.{signature}")),
            ));
        }
    }
    for (name, header) in [
        ("alg missing", json!({ "kid": "ed", "typ": "at+jwt" })),
        ("alg null", json!({ "alg": null, "kid": "ed", "typ": "at+jwt" })),
        ("alg a number", json!({ "alg": 1, "kid": "ed", "typ": "at+jwt" })),
        ("alg a list", json!({ "alg": ["EdDSA"], "kid": "ed", "typ": "at+jwt" })),
        ("alg in lower case", json!({ "alg": "eddsa", "kid": "ed", "typ": "at+jwt" })),
        ("alg of a curve that is not spoken", json!({ "alg": "ES256K", "kid": "ed", "typ": "at+jwt" })),
    ] {
        attacks.push(attack(name, door(&HONEST.token("ed", &header.to_string(), &claims().to_string()))));
    }
}

/// The public key as a shared secret, and one algorithm's key for another.
fn confused(attacks: &mut Vec<Attack>) {
    let der = HONEST.rsa_der();
    let pem = {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
    };
    let rsa = rsa_jwk(&HONEST.rsa, "rsa", "RS256");
    for (name, secret) in [
        ("HMAC keyed with the RSA key as DER", der),
        ("HMAC keyed with the RSA key as PEM", pem),
        ("HMAC keyed with the RSA key as JWK", rsa.to_string().into_bytes()),
        ("HMAC keyed with the RSA modulus", rsa["n"].as_str().unwrap().as_bytes().to_vec()),
        ("HMAC keyed with the EC key", HONEST.ec.verifying_key().raw().to_vec()),
        ("HMAC keyed with the Ed25519 key", HONEST.ed.verifying_key().raw().to_vec()),
        ("HMAC with an empty key", vec![]),
        ("HMAC with a guessable key", b"secret".to_vec()),
    ] {
        for (alg, kid) in [("HS256", "rsa"), ("HS256", "ed")] {
            let header = json!({ "alg": alg, "kid": kid, "typ": "at+jwt" });
            let input = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), input.as_bytes());
            attacks.push(attack(format!("{name}, for {kid}"), door(&format!("{input}.{}", b64(tag)))));
        }
    }
    for (kid, alg) in [
        ("rsa", "PS256"),
        ("ps", "RS256"),
        ("ec", "EdDSA"),
        ("ed", "ES256"),
        ("rsa", "RS512"),
        ("rsa", "RS1"),
        ("ec", "ES384"),
        ("ed", "RS256"),
    ] {
        attacks.push(attack(format!("{alg} said of the key {kid}"), door(&with(kid, json!({ "alg": alg })))));
    }
}

/// Keys that come with the token or that it points at.
fn brought_along(attacks: &mut Vec<Attack>) {
    let own = jwk(&ATTACKER.ed, "ed");
    let forged = |change: Value| {
        let header = crate::forge::changed(&header("ed"), change);
        ATTACKER.token("ed", &header.to_string(), &claims().to_string())
    };
    for (name, change) in [
        ("the attacker's key embedded", json!({ "jwk": own })),
        ("the attacker's key embedded, without kid", json!({ "jwk": own, "kid": null })),
        ("the attacker's key embedded under another kid", json!({ "jwk": own, "kid": "mine" })),
        ("jku to the attacker", json!({ "jku": "https://evil.example/jwks" })),
        ("jku to loopback", json!({ "jku": "http://127.0.0.1:8080/" })),
        ("jku to the metadata address", json!({ "jku": "http://169.254.169.254/latest/meta-data" })),
        ("jku to a file", json!({ "jku": "file:///etc/passwd" })),
        ("jku that begins like the issuer", json!({ "jku": "https://id.clinic.example@evil.example/" })),
        ("x5u to the attacker", json!({ "x5u": "https://evil.example/cert.pem" })),
        ("x5c of the attacker", json!({ "x5c": ["MIIB"] })),
        ("the attacker's signature under a good kid", json!({})),
        ("the attacker's signature without kid", json!({ "kid": null })),
    ] {
        attacks.push(attack(name, door(&forged(change))));
    }
    // Even beside a good signature they are refused: somebody else along the way may follow them.
    for (name, change) in [
        ("jwk beside a good signature", json!({ "jwk": jwk(&HONEST.ed, "ed") })),
        ("jku beside a good signature", json!({ "jku": "https://id.clinic.example/jwks" })),
        ("x5u beside a good signature", json!({ "x5u": "https://id.clinic.example/x" })),
        ("x5c beside a good signature", json!({ "x5c": [] })),
    ] {
        attacks.push(attack(name, door(&with("ed", change))));
    }
    for (name, kid) in [
        ("kid that climbs folders", json!("../../../../dev/null")),
        ("kid with SQL", json!("ed' UNION SELECT 'key'--")),
        ("kid with a command", json!("ed; sleep 10")),
        ("kid with a null byte", json!("ed\u{0}")),
        ("kid of 4 KiB", json!("k".repeat(4096))),
        ("kid in another case", json!("ED")),
        ("kid with a space behind", json!("ed ")),
        ("kid empty", json!("")),
        ("kid a number", json!(0)),
        ("kid a list", json!(["ed"])),
        ("kid an object", json!({ "$ne": "" })),
        ("kid unknown", json!("new")),
        ("kid of another of the issuer's keys", json!("ec")),
    ] {
        attacks.push(attack(name, door(&with("ed", json!({ "kid": kid })))));
    }
}

fn meanings(attacks: &mut Vec<Attack>) {
    for (name, change) in [
        ("crit with an unknown extension", json!({ "crit": ["exp2"], "exp2": 1 })),
        ("crit empty", json!({ "crit": [] })),
        ("crit no list", json!({ "crit": "exp" })),
        ("crit with a registered member", json!({ "crit": ["alg"] })),
        ("crit that names what is not there", json!({ "crit": ["x"] })),
        ("b64 false, critical", json!({ "crit": ["b64"], "b64": false })),
        ("b64 false, not critical", json!({ "b64": false })),
        ("b64 true", json!({ "b64": true })),
        ("zip", json!({ "zip": "DEF" })),
        ("enc", json!({ "enc": "A128GCM" })),
        ("typ a number", json!({ "typ": 1 })),
        ("typ a list", json!({ "typ": ["at+jwt"] })),
        ("typ empty", json!({ "typ": "" })),
        ("typ JWT where at+jwt is demanded", json!({ "typ": "JWT" })),
        ("typ missing", json!({ "typ": null })),
        ("typ twice application", json!({ "typ": "application/application/at+jwt" })),
    ] {
        attacks.push(attack(name, door(&with("ed", change))));
    }
    let twice = [
        ("alg twice", r#"{"alg":"none","alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#),
        ("alg twice, once escaped", r#"{"alg":"EdDSA","\u0061lg":"none","kid":"ed","typ":"at+jwt"}"#),
        ("kid twice", r#"{"alg":"EdDSA","kid":"ec","kid":"ed","typ":"at+jwt"}"#),
        ("typ twice", r#"{"alg":"EdDSA","kid":"ed","typ":"JWT","typ":"at+jwt"}"#),
    ];
    for (name, header) in twice {
        attacks.push(attack(name, door(&HONEST.token("ed", header, &claims().to_string()))));
    }
}

#[test]
fn harmless_members_of_a_header_are_no_attack() {
    for change in [
        json!({ "x": 1 }),
        json!({ "x5t": "AA" }),
        json!({ "typ": "AT+JWT" }),
        json!({ "typ": "application/at+jwt" }),
    ] {
        door(&with("ed", change)).unwrap();
    }
    door(&with("ed", json!({ "alg": "Ed25519" }))).unwrap();
}
