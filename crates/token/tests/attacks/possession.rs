//! Attacks on bound tokens: proofs that are replayed, made for something else, or by somebody else.

use std::sync::Arc;

use ringfence_token::{
    Algorithms, Binding, Check, KeySet, Nonces, Possession, Profile, Proof, PublicKey, Replays, Request,
    Revocations, VerifiedToken, Verifier,
};
use serde_json::{Value, json};

use crate::forge::{ATTACKER, HONEST, Keys, NOW, b64, changed, claims, header, jwk, profile, rsa_jwk};
use crate::{Attack, attack};

const URI: &str = "https://api.clinic.example/records/7";
const CERTIFICATE: &[u8] = b"a certificate";

fn sha256(bytes: &[u8]) -> [u8; 32] {
    ringfence_keys::digest::sha256(bytes)
}

fn request<'a>() -> Request<'a> {
    Request {
        method: "GET",
        uri: URI,
        nonces: None,
        remembered_since: None,
        algorithms: Algorithms::ALL,
        now: NOW,
    }
}

fn token(change: Value) -> String {
    HONEST.token("ed", &header("ed").to_string(), &changed(&claims(), change).to_string())
}

/// An access token bound to the honest client's key.
fn bound() -> String {
    let key = PublicKey::from(HONEST.ec.verifying_key());
    token(json!({ "cnf": { "jkt": b64(key.thumbprint()) } }))
}

/// A proof, with its header and claims changed.
fn proof(keys: &Keys, header: Value, claims: Value) -> String {
    let own = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(&keys.ec, "ec") });
    let good =
        json!({ "jti": "p1", "htm": "GET", "htu": URI, "iat": NOW, "ath": b64(sha256(bound().as_bytes())) });
    let kid = match header.get("alg").and_then(Value::as_str) {
        Some("RS256") => "rsa",
        Some("EdDSA") => "ed",
        _ => "ec",
    };
    keys.token(kid, &changed(&own, header).to_string(), &changed(&good, claims).to_string())
}

/// The same, verified when the token was: each attack must fail either way.
fn lazily(token: &str, proof: Option<&str>, replays: &Replays) -> Result<Arc<VerifiedToken>, String> {
    let request = request();
    let possession = match proof {
        Some(proof) => Possession::NONE.with_shown(proof, &request, replays),
        None => Possession::NONE,
    };
    by(&profile(), token, possession)
}

fn shown(token: &str, proof: Option<&str>, replays: &Replays) -> Result<Arc<VerifiedToken>, String> {
    at(&profile(), token, proof, replays, &request())
}

fn at(
    profile: &Profile,
    token: &str,
    proof: Option<&str>,
    replays: &Replays,
    request: &Request<'_>,
) -> Result<Arc<VerifiedToken>, String> {
    let proof = proof.map(|proof| Proof::verify(proof, request)).transpose().map_err(|e| e.to_string())?;
    let possession = match &proof {
        Some(proof) => Possession::NONE.with_proof(proof, replays, request.now),
        None => Possession::NONE,
    };
    by(profile, token, possession)
}

fn by(profile: &Profile, token: &str, possession: Possession<'_>) -> Result<Arc<VerifiedToken>, String> {
    let revocations = Revocations::new(1);
    let check = Check { profile, keys: &HONEST.set, revocations: &revocations, possession, now: NOW };
    Verifier::new(4).verify(token, &check).map_err(|e| e.to_string())
}

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let fresh = || Replays::new(100);
    let none = || json!({});
    attacks.push(attack("a bound token without proof", shown(&bound(), None, &fresh())));
    let stolen = proof(&ATTACKER, none(), none());
    attacks.push(attack("a proof by the thief's own key", shown(&bound(), Some(&stolen), &fresh())));
    let (public, rsa) = (jwk(&HONEST.ec, "ec"), rsa_jwk(&HONEST.rsa, "r", "RS256"));
    for (name, header, claims) in [
        ("a proof for another method", none(), json!({ "htm": "POST" })),
        ("a proof for the method in lower case", none(), json!({ "htm": "get" })),
        ("a proof without method", none(), json!({ "htm": null })),
        ("a proof for another host", none(), json!({ "htu": "https://other.example/records/7" })),
        (
            "a proof for a host that begins like ours",
            none(),
            json!({ "htu": "https://api.clinic.example.evil/records/7" }),
        ),
        (
            "a proof for our host as user name",
            none(),
            json!({ "htu": "https://api.clinic.example@evil/records/7" }),
        ),
        ("a proof for another path", none(), json!({ "htu": "https://api.clinic.example/records/8" })),
        (
            "a proof for a path in another case",
            none(),
            json!({ "htu": "https://api.clinic.example/Records/7" }),
        ),
        (
            "a proof for a path that climbs elsewhere",
            none(),
            json!({ "htu": "https://api.clinic.example/records/7/../8" }),
        ),
        (
            "a proof for a path with an encoded slash",
            none(),
            json!({ "htu": "https://api.clinic.example/records%2F7" }),
        ),
        ("a proof for another port", none(), json!({ "htu": "https://api.clinic.example:8443/records/7" })),
        ("a proof for plain http", none(), json!({ "htu": "http://api.clinic.example/records/7" })),
        ("a proof for a relative address", none(), json!({ "htu": "/records/7" })),
        ("a proof without address", none(), json!({ "htu": null })),
        ("a proof for another token", none(), json!({ "ath": b64(sha256(b"another")) })),
        ("a proof for no token", none(), json!({ "ath": null })),
        ("a proof whose ath is hexadecimal", none(), json!({ "ath": "00".repeat(32) })),
        ("a proof without jti", none(), json!({ "jti": null })),
        ("a proof with an empty jti", none(), json!({ "jti": "" })),
        ("a proof with a jti that is a number", none(), json!({ "jti": 1 })),
        ("a proof of an hour ago", none(), json!({ "iat": NOW - 3600 })),
        ("a proof just too old", none(), json!({ "iat": NOW - 90 })),
        ("a proof of the future", none(), json!({ "iat": NOW + 31 })),
        ("a proof without time", none(), json!({ "iat": null })),
        ("a proof whose time is a text", none(), json!({ "iat": NOW.to_string() })),
        ("a proof past its own end", none(), json!({ "exp": NOW - 30 })),
        ("a proof before its own start", none(), json!({ "nbf": NOW + 31 })),
        ("a proof of type JWT", json!({ "typ": "JWT" }), none()),
        ("a proof of type at+jwt", json!({ "typ": "at+jwt" }), none()),
        ("a proof without type", json!({ "typ": null }), none()),
        ("a proof without key", json!({ "jwk": null }), none()),
        ("a proof whose key is a text", json!({ "jwk": "ec" }), none()),
        ("a proof with its private key", json!({ "jwk": changed(&public, json!({ "d": "AA" })) }), none()),
        (
            "a proof with a shared secret",
            json!({ "jwk": { "kty": "oct", "k": "AA" }, "alg": "HS256" }),
            none(),
        ),
        ("a proof with alg none", json!({ "alg": "none" }), none()),
        ("a proof with another algorithm than its key", json!({ "alg": "EdDSA" }), none()),
        (
            "a proof with a weak RSA key",
            json!({ "alg": "RS256", "jwk": changed(&rsa, json!({ "e": "AQ" })) }),
            none(),
        ),
        ("a proof by another of the client's keys", json!({ "alg": "RS256", "jwk": rsa }), none()),
        (
            "a proof whose key is for encryption",
            json!({ "jwk": changed(&public, json!({ "use": "enc" })) }),
            none(),
        ),
        (
            "a proof whose key is another than it was signed with",
            json!({ "jwk": jwk(&ATTACKER.ec, "ec") }),
            none(),
        ),
        ("a proof that points at its key", json!({ "jku": "https://evil.example" }), none()),
        ("a proof with crit", json!({ "crit": ["x"], "x": 1 }), none()),
    ] {
        let proof = proof(&HONEST, header, claims);
        lazily(&bound(), Some(&proof), &fresh()).expect_err(name);
        attacks.push(attack(name, shown(&bound(), Some(&proof), &fresh())));
    }
    replays(&mut attacks);
    nonces(&mut attacks);
    certificates(&mut attacks);
    attacks
}

fn replays(attacks: &mut Vec<Attack>) {
    let (replays, once) = (Replays::new(2), proof(&HONEST, json!({}), json!({})));
    shown(&bound(), Some(&once), &replays).unwrap();
    attacks.push(attack("a proof twice", shown(&bound(), Some(&once), &replays)));
    let again = proof(&HONEST, json!({}), json!({}));
    assert_ne!(again, once, "signed anew");
    attacks.push(attack("a jti twice under a new signature", shown(&bound(), Some(&again), &replays)));
    let later = Request { now: NOW + 89, ..request() };
    let late = Proof::verify(&once, &later).unwrap();
    attacks.push(attack("a proof again just before its end", replays.admit(&late, NOW + 89)));
    shown(&bound(), Some(&proof(&HONEST, json!({}), json!({ "jti": "p2" }))), &replays).unwrap();
    let third = proof(&HONEST, json!({}), json!({ "jti": "p3" }));
    attacks.push(attack(
        "a proof when there is no room to remember it",
        shown(&bound(), Some(&third), &replays),
    ));
    replays.admit(&Proof::verify(&third, &request()).unwrap(), NOW + 200).unwrap_err();
    assert_eq!(replays.len(), 0, "what is over is forgotten");
    let unbound = token(json!({}));
    let ath = json!({ "ath": b64(sha256(unbound.as_bytes())) });
    attacks.push(attack(
        "a proof beside a token that is not bound",
        shown(&unbound, Some(&proof(&HONEST, json!({}), ath)), &replays),
    ));
    assert!(replays.is_empty(), "a proof that did not fit does not count");
    let dpop = profile().with_binding(Binding::Dpop);
    attacks.push(attack("a bearer where DPoP is demanded", at(&dpop, &unbound, None, &replays, &request())));
}

fn nonces(attacks: &mut Vec<Attack>) {
    let (nonces, others) = (Nonces::new(&[1; 32], 30), Nonces::new(&[2; 32], 30));
    let request = Request { nonces: Some(&nonces), ..request() };
    let show = |nonce: Value| {
        at(
            &profile(),
            &bound(),
            Some(&proof(&HONEST, json!({}), json!({ "nonce": nonce }))),
            &Replays::new(9),
            &request,
        )
    };
    show(json!(nonces.issue(NOW))).unwrap();
    show(json!(nonces.issue(NOW - 30))).unwrap();
    // A store that was empty a while ago: only what is older than it may have been used already.
    let since = |since| {
        let request = Request { nonces: Some(&nonces), remembered_since: Some(since), ..request };
        at(&profile(), &bound(), Some(&proof(&HONEST, json!({}), json!({}))), &Replays::new(9), &request)
    };
    since(NOW - 30).unwrap();
    attacks.push(attack("a proof that may have been used before a restart", since(NOW - 29)));
    for (name, nonce) in [
        ("a proof without the nonce", Value::Null),
        ("a proof with an old nonce", json!(nonces.issue(NOW - 60))),
        ("a proof with a nonce of the future", json!(nonces.issue(NOW + 30))),
        ("a proof with a nonce of another cluster", json!(others.issue(NOW))),
        ("a proof with a nonce that is no text", json!(1)),
        ("a proof with an empty nonce", json!("")),
    ] {
        attacks.push(attack(name, show(nonce)));
    }
}

fn certificates(attacks: &mut Vec<Attack>) {
    let bound = token(json!({ "cnf": { "x5t#S256": b64(sha256(CERTIFICATE)) } }));
    let mtls = profile().with_binding(Binding::Mtls);
    by(&mtls, &bound, Possession::NONE.with_certificate(CERTIFICATE)).unwrap();
    let other = Possession::NONE.with_certificate(b"another");
    attacks.push(attack(
        "a certificate-bound token without certificate",
        by(&profile(), &bound, Possession::NONE),
    ));
    attacks.push(attack("a certificate-bound token with another certificate", by(&profile(), &bound, other)));
    attacks.push(attack("a bearer where a certificate is demanded", by(&mtls, &token(json!({})), other)));
    let key = PublicKey::from(HONEST.ec.verifying_key());
    let both =
        token(json!({ "cnf": { "x5t#S256": b64(sha256(CERTIFICATE)), "jkt": b64(key.thumbprint()) } }));
    let half = Possession::NONE.with_certificate(CERTIFICATE);
    attacks.push(attack("half of what a token is bound to", by(&profile(), &both, half)));
}

#[test]
fn an_honest_proof_is_accepted_once_for_its_token_with_each_kind_of_key() {
    let replays = Replays::new(9);
    lazily(&bound(), Some(&proof(&HONEST, json!({}), json!({}))), &replays).unwrap();
    lazily(&bound(), Some(&proof(&HONEST, json!({}), json!({}))), &replays).unwrap_err();
    lazily(&token(json!({})), Some("no proof at all"), &replays).unwrap_err();
    let token = shown(&bound(), Some(&proof(&HONEST, json!({}), json!({}))), &Replays::new(9)).unwrap();
    assert_eq!(token.subject(), Some("ann"));
    for (uri, alg) in [("HTTPS://API.clinic.example:443/records/./7?x#y", "ES256"), (URI, "ES256")] {
        let proof = proof(&HONEST, json!({ "alg": alg }), json!({ "htu": uri }));
        shown(&bound(), Some(&proof), &Replays::new(9)).unwrap();
    }
    for (alg, key) in [("EdDSA", jwk(&HONEST.ed, "e")), ("RS256", rsa_jwk(&HONEST.rsa, "r", "RS256"))] {
        let proof = proof(&HONEST, json!({ "alg": alg, "jwk": key }), json!({}));
        let proof = Proof::verify(&proof, &request()).unwrap();
        let jwk = KeySet::from_json(json!({ "keys": [key] }).to_string().as_bytes()).unwrap();
        assert_eq!(jwk.len(), 1);
        let expected = PublicKey::from_jwk(key.as_object().unwrap()).unwrap().thumbprint();
        assert_eq!(*proof.thumbprint(), expected);
    }
    assert!(
        Proof::verify(
            &proof(&HONEST, json!({}), json!({})),
            &Request { algorithms: Algorithms::from_iter([]), ..request() }
        )
        .is_err()
    );
}
