//! Attacks that show a token of one kind where another is wanted. All are signed well by the same issuer.

use ringfence_spiffe::TrustDomain;
use ringfence_token::{KeySet, Profile};
use serde_json::{Value, json};

use crate::forge::{AUDIENCE, HONEST, ISSUER, NOW, changed, claims, profile};
use crate::{Attack, attack};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn domain() -> TrustDomain {
    TrustDomain::new("clinic").unwrap()
}

/// One honest token of each kind: its name, `typ` and claims.
fn tokens() -> Vec<(&'static str, Value, Value)> {
    let base = claims();
    let with = |change| changed(&base, change);
    vec![
        ("an access token", json!("at+jwt"), base.clone()),
        ("an ID token", json!("JWT"), with(json!({ "nonce": "n", "at_hash": "h", "scope": null }))),
        ("a logout token", json!("logout+jwt"), with(json!({ "sid": "s", "events": { EVENT: {} } }))),
        ("a transaction token", json!("txntoken+jwt"), with(json!({ "txn": "x", "req_wl": "w" }))),
        (
            "a session token",
            json!("ringfence-session+jwt"),
            with(json!({ "iss": AUDIENCE, "idn": {}, "origin": { "iss": ISSUER } })),
        ),
        ("a JWT-SVID", json!("JOSE"), with(json!({ "sub": "spiffe://clinic/service/a" }))),
        (
            "a client assertion",
            json!("client-authentication+jwt"),
            with(json!({ "iss": "app", "sub": "app" })),
        ),
        ("a DPoP proof", json!("dpop+jwt"), with(json!({ "htm": "GET", "htu": "https://a/" }))),
        ("a workload identity token", json!("wit+jwt"), base.clone()),
        ("a workload proof token", json!("wpt+jwt"), base.clone()),
        ("a signed authorization request", json!("oauth-authz-req+jwt"), base.clone()),
        ("a signed introspection answer", json!("token-introspection+jwt"), base.clone()),
        ("a security event", json!("secevent+jwt"), with(json!({ "events": { "urn:x": {} } }))),
    ]
}

fn doors() -> Vec<(&'static str, Profile)> {
    let audiences = [AUDIENCE.to_owned()];
    vec![
        ("an access token", Profile::access_token(ISSUER, &audiences)),
        ("an ID token", Profile::id_token(ISSUER, AUDIENCE)),
        ("a logout token", Profile::logout_token(ISSUER, AUDIENCE)),
        ("a transaction token", Profile::txn_token(&domain())),
        ("a session token", Profile::session(&domain())),
        ("a JWT-SVID", Profile::jwt_svid(&domain(), AUDIENCE)),
        ("a client assertion", Profile::client_assertion("app", &audiences)),
    ]
}

fn sign(typ: &Value, claims: &Value) -> String {
    let header = changed(&json!({ "alg": "EdDSA", "kid": "ed" }), json!({ "typ": typ }));
    HONEST.token("ed", &header.to_string(), &claims.to_string())
}

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (door, profile) in doors() {
        for (kind, typ, claims) in tokens() {
            if kind != door {
                attacks.push(attack(
                    format!("{kind} shown as {door}"),
                    profile.verify(&sign(&typ, &claims), &HONEST.set, NOW),
                ));
            }
        }
    }
    let plain = profile().with_plain_type();
    let logout = Profile::logout_token(ISSUER, AUDIENCE).with_plain_type();
    let id = Profile::id_token(ISSUER, AUDIENCE);
    let assertion = Profile::client_assertion("app", &[AUDIENCE.to_owned()]);
    let txn = Profile::txn_token(&domain());
    let own = json!({ "iss": "app", "sub": "app" });
    let event = json!({ EVENT: {} });
    let transaction = json!({ "txn": "x", "req_wl": "w", "iat": NOW - 5 });
    let with = |base: &Value, change: Value| changed(&changed(&claims(), base.clone()), change);
    for (name, profile, typ, claims) in [
        (
            "an ID token by its nonce, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "nonce": "n" })),
        ),
        (
            "an ID token by its at_hash, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "at_hash": "h" })),
        ),
        (
            "an ID token by its typ claim, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "typ": "ID" })),
        ),
        (
            "an ID token that has nothing of its own, where plain types are tolerated",
            &plain,
            "JWT",
            with(
                &json!({}),
                json!({ "azp": AUDIENCE, "auth_time": NOW - 20, "scope": null, "client_id": null }),
            ),
        ),
        (
            "an ID token by its token_use, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "token_use": "id" })),
        ),
        (
            "a refresh token, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "typ": "Refresh" })),
        ),
        (
            "a logout token, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "events": event })),
        ),
        (
            "a transaction token, where plain types are tolerated",
            &plain,
            "JWT",
            with(&json!({}), json!({ "txn": "x" })),
        ),
        (
            "a logout token without its event",
            &logout,
            "logout+jwt",
            with(&json!({ "sid": "s" }), json!({ "events": {} })),
        ),
        (
            "a logout token with a nonce",
            &logout,
            "logout+jwt",
            with(&json!({ "events": event }), json!({ "nonce": "n" })),
        ),
        (
            "a logout token of nobody",
            &logout,
            "logout+jwt",
            with(&json!({ "events": event }), json!({ "sub": null })),
        ),
        (
            "a logout token without jti",
            &logout,
            "logout+jwt",
            with(&json!({ "events": event }), json!({ "jti": null })),
        ),
        (
            "an ID token for another party",
            &id,
            "JWT",
            with(&json!({ "nonce": "n" }), json!({ "azp": "other" })),
        ),
        (
            "an ID token for several without azp",
            &id,
            "JWT",
            with(&json!({}), json!({ "aud": [AUDIENCE, "other"] })),
        ),
        ("an ID token without iat", &id, "JWT", with(&json!({ "nbf": null }), json!({ "iat": null }))),
        (
            "an access token by its typ claim as an ID token",
            &id,
            "JWT",
            with(&json!({}), json!({ "typ": "Bearer" })),
        ),
        ("an assertion about another client", &assertion, "JWT", with(&own, json!({ "sub": "other" }))),
        ("an assertion by another client", &assertion, "JWT", with(&own, json!({ "iss": "other" }))),
        ("an assertion without jti", &assertion, "JWT", with(&own, json!({ "jti": null }))),
        ("an assertion for years", &assertion, "JWT", with(&own, json!({ "exp": NOW + 99_999_999 }))),
        (
            "an assertion that does not say since when",
            &assertion,
            "JWT",
            with(&own, json!({ "iat": null, "nbf": null })),
        ),
        (
            "a transaction token for hours",
            &txn,
            "txntoken+jwt",
            with(&transaction, json!({ "exp": NOW + 7200 })),
        ),
        (
            "a transaction token of several domains",
            &txn,
            "txntoken+jwt",
            with(&transaction, json!({ "aud": ["clinic"] })),
        ),
        (
            "a transaction token without scope",
            &txn,
            "txntoken+jwt",
            with(&transaction, json!({ "scope": null })),
        ),
        (
            "a transaction token without its transaction",
            &txn,
            "txntoken+jwt",
            with(&transaction, json!({ "txn": null })),
        ),
        (
            "a transaction token without workload",
            &txn,
            "txntoken+jwt",
            with(&transaction, json!({ "req_wl": null })),
        ),
        (
            "a transaction token whose context is a text",
            &txn,
            "txntoken+jwt",
            with(&transaction, json!({ "tctx": "x" })),
        ),
        ("a transaction token with a plain type", &txn, "JWT", with(&transaction, json!({}))),
    ] {
        attacks.push(attack(name, profile.verify(&sign(&json!(typ), &claims), &HONEST.set, NOW)));
    }
    let svid = Profile::jwt_svid(&domain(), AUDIENCE);
    for (name, sub) in [
        ("an SVID of another trust domain", "spiffe://other/service/a"),
        ("an SVID of a trust domain that begins like ours", "spiffe://clinic.evil/service/a"),
        ("an SVID of the trust domain itself", "spiffe://clinic"),
        ("an SVID whose path climbs", "spiffe://clinic/service/../node/a"),
        ("an SVID whose subject is no SPIFFE ID", "https://clinic/service/a"),
        ("an SVID with an encoded path", "spiffe://clinic/service%2Fa"),
    ] {
        let claims = changed(&claims(), json!({ "sub": sub }));
        attacks.push(attack(name, svid.verify(&sign(&json!("JWT"), &claims), &HONEST.set, NOW)));
    }
    attacks
}

#[test]
fn each_kind_is_accepted_at_its_own_door() {
    let tokens = tokens();
    for (door, profile) in doors() {
        let (_, typ, claims) = tokens.iter().find(|(kind, ..)| *kind == door).unwrap();
        let token =
            profile.verify(&sign(typ, claims), &HONEST.set, NOW).unwrap_or_else(|e| panic!("{door}: {e}"));
        assert_eq!(token.kind(), profile.kind());
    }
    let plain = profile().with_plain_type();
    for typ in [json!("JWT"), json!("jwt"), Value::Null, json!("at+jwt")] {
        plain.verify(&sign(&typ, &claims()), &HONEST.set, NOW).unwrap();
    }
    let id = Profile::id_token(ISSUER, AUDIENCE);
    let several = changed(&claims(), json!({ "aud": [AUDIENCE, "other"], "azp": AUDIENCE, "nonce": "n" }));
    let token = id.verify(&sign(&Value::Null, &several), &HONEST.set, NOW).unwrap();
    assert!(token.has_nonce("n") && !token.has_nonce("m") && !token.has_nonce(""));
    assert!(id.verify(&sign(&Value::Null, &several), &KeySet::default(), NOW).is_err());
}
