//! The standards SPIFFE-ID, JWT-SVID (its subject) and Trust Domain and Bundle as tables.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use base64::Engine;
use ringfence_spiffe::{BundleError, IdError, JwtAuthority, SpiffeId, TrustBundle, TrustDomain};
use serde_json::{Value, json};
use support::{Fixture, Key};

#[test]
fn every_case_of_the_spiffe_id_standard_has_its_verdict() {
    let long_domain = "a".repeat(255);
    let too_long_domain = "a".repeat(256);
    let longest = format!("spiffe://example.org/{}", "a".repeat(2048 - 21));
    let too_long = format!("{longest}a");
    #[rustfmt::skip]
    let cases: &[(&str, &str, Result<(), IdError>)] = &[
        ("SPIFFE-ID 2", "spiffe://example.org/service", Ok(())),
        ("SPIFFE-ID 2", "spiffe://example.org", Ok(())),
        ("SPIFFE-ID 2", "", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "spiffe:example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "spiffe:/example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "//example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "http://example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "Spiffe://example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "spiffes://example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", " spiffe://example.org/service", Err(IdError::Scheme)),
        ("SPIFFE-ID 2", "spiffe://", Err(IdError::TrustDomainEmpty)),
        ("SPIFFE-ID 2", "spiffe:///service", Err(IdError::TrustDomainEmpty)),
        ("SPIFFE-ID 2", "spiffe://example.org/service?a=b", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2", "spiffe://example.org/service?", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2", "spiffe://example.org?a=b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2", "spiffe://example.org/service#a", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2", "spiffe://example.org/service#", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2", "spiffe://example.org#a", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://a/b", Ok(())),
        ("SPIFFE-ID 2.1", "spiffe://my_trust-domain.123/b", Ok(())),
        ("SPIFFE-ID 2.1", "spiffe://10.0.0.1/b", Ok(())),
        ("SPIFFE-ID 2.1", "spiffe://Example.org/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://user@example.org/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://user:secret@example.org/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://example.org:443/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://example.org:/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://[::1]/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://example%2eorg/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://ex ample.org/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://exämple.org/b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.1", "spiffe://example.org\\b", Err(IdError::TrustDomainCharacter)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a/b/c", Ok(())),
        ("SPIFFE-ID 2.2", "spiffe://example.org/A-z_0.9", Ok(())),
        ("SPIFFE-ID 2.2", "spiffe://example.org/...", Ok(())),
        ("SPIFFE-ID 2.2", "spiffe://example.org/.a/b..", Ok(())),
        ("SPIFFE-ID 2.2", "spiffe://example.org/", Err(IdError::TrailingSlash)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a/", Err(IdError::TrailingSlash)),
        ("SPIFFE-ID 2.2", "spiffe://example.org//a", Err(IdError::EmptySegment)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a//b", Err(IdError::EmptySegment)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/.", Err(IdError::DotSegment)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a/./b", Err(IdError::DotSegment)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a/../b", Err(IdError::DotSegment)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a/..", Err(IdError::DotSegment)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a%2fb", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a b", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a:b", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a\\b", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/é", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2.2", "spiffe://example.org/a\n", Err(IdError::PathCharacter)),
        ("SPIFFE-ID 2.3", &longest, Ok(())),
        ("SPIFFE-ID 2.3", &too_long, Err(IdError::TooLong)),
        ("SPIFFE-ID 2.3", &format!("spiffe://{long_domain}/a"), Ok(())),
        ("SPIFFE-ID 2.3", &format!("spiffe://{too_long_domain}/a"), Err(IdError::TrustDomainTooLong)),
        ("JWT-SVID 3.1", "spiffe://example.org/workload", Ok(())),
        ("JWT-SVID 3.1", "workload", Err(IdError::Scheme)),
        ("JWT-SVID 3.1", "https://example.org/workload", Err(IdError::Scheme)),
    ];
    for (section, text, expected) in cases {
        let verdict = SpiffeId::parse(text).map(|_| ());
        assert_eq!(verdict, *expected, "{section}: {text:?}");
    }
}

/// A bundle document with these keys.
fn document(keys: &[Value]) -> Value {
    json!({ "keys": keys, "spiffe_sequence": 7, "spiffe_refresh_hint": 300 })
}

fn x509_key() -> Value {
    let fixture = Fixture::new("example.org");
    let bundle = fixture.bundle().unwrap().to_json();
    serde_json::from_str::<Value>(&bundle).unwrap()["keys"][0].clone()
}

fn jwt_key(key_id: &str) -> Value {
    let authority = JwtAuthority::new(key_id, Key::new().point()).unwrap();
    let td = TrustDomain::new("example.org").unwrap();
    let bundle = TrustBundle::new(td, vec![], vec![authority], 1, None).unwrap().to_json();
    serde_json::from_str::<Value>(&bundle).unwrap()["keys"][0].clone()
}

fn read(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_json(TrustDomain::new("example.org").unwrap(), document.to_string().as_bytes())
}

/// Section, what is read, and how many authorities come out of it or why none does.
type BundleCase<'a> = (&'a str, &'a str, Vec<Value>, Result<(usize, usize), &'a str>);

/// How many X.509 and JWT authorities are read from these keys.
fn counts(keys: &[Value]) -> Result<(usize, usize), &'static str> {
    match read(&document(keys)) {
        Ok(bundle) => Ok((bundle.x509_authorities().len(), bundle.jwt_authorities().len())),
        Err(BundleError::Malformed { .. }) => Err("malformed"),
        Err(BundleError::NotAuthority { .. }) => Err("not an authority"),
        Err(BundleError::KeyId) => Err("key id"),
        Err(BundleError::PublicKey(_)) => Err("public key"),
        Err(BundleError::Json(_)) => Err("json"),
        Err(_) => Err("other"),
    }
}

fn with(mut key: Value, parameter: &str, value: Value) -> Value {
    key[parameter] = value;
    key
}

fn without(mut key: Value, parameter: &str) -> Value {
    key.as_object_mut().unwrap().remove(parameter);
    key
}

#[test]
fn every_case_of_the_bundle_standard_has_its_verdict() {
    let (x509, other, jwt) = (x509_key(), x509_key(), jwt_key("k1"));
    let der = x509["x5c"][0].clone();
    let leaf = base64::engine::general_purpose::STANDARD.encode(&Fixture::new("example.org").chain()[0]);
    let foreign =
        serde_json::from_str::<Value>(&Fixture::new("other.org").bundle().unwrap().to_json()).unwrap();
    #[rustfmt::skip]
    let cases: Vec<BundleCase<'_>> = vec![
        ("Bundle 4.1.3", "no key", vec![], Ok((0, 0))),
        ("Bundle 4.1.3", "both kinds", vec![x509.clone(), jwt.clone()], Ok((1, 1))),
        ("Bundle 2", "several roots", vec![x509.clone(), other.clone()], Ok((2, 0))),
        ("Bundle 2", "several JWT keys", vec![jwt.clone(), jwt_key("k2")], Ok((0, 2))),
        ("Bundle 4.1.3", "an entry that is no object", vec![json!(1), x509.clone()], Ok((1, 0))),
        ("Bundle 4.1.3", "parameters of other types", vec![with(x509.clone(), "kty", json!(1)), jwt.clone()], Ok((0, 1))),
        ("Bundle 4.2", "a parameter that nobody knows", vec![with(x509.clone(), "x-note", json!({"a": 1}))], Ok((1, 0))),
        ("Bundle 4.2.1", "an unknown key type", vec![with(x509.clone(), "kty", json!("AKP")), jwt.clone()], Ok((0, 1))),
        ("Bundle 4.2.1", "no key type", vec![without(x509.clone(), "kty"), jwt.clone()], Ok((0, 1))),
        ("Bundle 4.2.1", "a symmetric JWT key", vec![with(jwt.clone(), "kty", json!("oct"))], Ok((0, 0))),
        ("Bundle 4.2.2", "an unknown use", vec![with(x509.clone(), "use", json!("wit-svid")), jwt.clone()], Ok((0, 1))),
        ("Bundle 4.2.2", "no use", vec![without(x509.clone(), "use"), jwt.clone()], Ok((0, 1))),
        ("Bundle 4.2.2", "a use in capitals", vec![with(x509.clone(), "use", json!("X509-SVID"))], Ok((0, 0))),
        ("Bundle 4.2.2", "the use of web keys", vec![with(jwt.clone(), "use", json!("sig"))], Ok((0, 0))),
        ("X509-SVID 6.2", "no x5c", vec![without(x509.clone(), "x5c"), jwt.clone()], Ok((0, 1))),
        ("X509-SVID 6.2", "an empty x5c", vec![with(x509.clone(), "x5c", json!([])), jwt.clone()], Ok((0, 1))),
        ("X509-SVID 6.2", "two values in x5c", vec![with(x509.clone(), "x5c", json!([der, other["x5c"][0]]))], Ok((1, 0))),
        ("X509-SVID 6.2", "junk behind the first value", vec![with(x509.clone(), "x5c", json!([der, "!"]))], Ok((1, 0))),
        ("X509-SVID 6.2", "a value that is no base64", vec![with(x509.clone(), "x5c", json!(["!"]))], Err("json")),
        ("X509-SVID 6.2", "a value that is no certificate", vec![with(x509.clone(), "x5c", json!(["MAA="]))], Err("malformed")),
        ("X509-SVID 6.1", "a leaf for a root", vec![with(x509.clone(), "x5c", json!([leaf]))], Err("not an authority")),
        ("X509-SVID 3.2", "a root of another trust domain", vec![foreign["keys"][0].clone()], Err("not an authority")),
        ("JWT-SVID 2.2", "a JWT key without key ID", vec![without(jwt.clone(), "kid")], Err("key id")),
        ("JWT-SVID 2.2", "an empty key ID", vec![with(jwt.clone(), "kid", json!(""))], Err("key id")),
        ("JWT-SVID 2.2", "one key ID twice", vec![jwt.clone(), jwt_key("k1")], Err("key id")),
        ("JWT-SVID 2.1", "a JWT key on a curve that is not used", vec![with(jwt.clone(), "crv", json!("P-521"))], Ok((0, 0))),
        ("JWT-SVID 2.1", "a point that is not on the curve", vec![with(jwt.clone(), "x", jwt["y"].clone())], Err("public key")),
        ("JWT-SVID 2.1", "half a point", vec![without(jwt.clone(), "y")], Err("public key")),
        ("JWT-SVID 2.1", "a coordinate that is too short", vec![with(jwt.clone(), "x", json!("AAAA"))], Err("public key")),
    ];
    for (section, what, keys, expected) in &cases {
        assert_eq!(counts(keys), *expected, "{section}: {what}");
    }
}

#[test]
fn parameters_of_the_set_follow_the_bundle_standard() {
    // 4.1.1: at least 64 bits; 4.1.2: seconds; both may be absent; unknown ones are passed over (4.1).
    let bundle =
        read(&json!({ "keys": [], "spiffe_sequence": u64::MAX, "spiffe_refresh_hint": 5, "more": [] }))
            .unwrap();
    assert_eq!((bundle.sequence(), bundle.refresh_hint()), (u64::MAX, Some(5)));
    let bundle = read(&json!({ "keys": [] })).unwrap();
    assert_eq!((bundle.sequence(), bundle.refresh_hint()), (0, None));
    for broken in [
        json!({}),
        json!([]),
        json!({ "keys": {} }),
        json!({ "keys": [], "spiffe_sequence": "7" }),
        json!({ "keys": [], "spiffe_sequence": -1 }),
        json!({ "keys": [], "spiffe_sequence": 1.5 }),
        json!({ "keys": [], "spiffe_refresh_hint": "5m" }),
    ] {
        assert!(matches!(read(&broken), Err(BundleError::Json(_))), "{broken}");
    }
}

#[test]
fn what_is_published_follows_the_standards() {
    let x509 = x509_key();
    // X509-SVID 6.1
    assert_eq!(x509["use"], "x509-svid");
    assert!(x509.get("kid").is_none());
    assert_eq!(x509["x5c"].as_array().map(Vec::len), Some(1));
    // RFC 7517, 4.1 and RFC 7518, 6.2: the key's own parameters.
    assert_eq!((&x509["kty"], &x509["crv"]), (&json!("EC"), &json!("P-256")));
    assert!(x509["x"].is_string() && x509["y"].is_string());
    let jwt = jwt_key("k1");
    assert_eq!((&jwt["use"], &jwt["kid"], &jwt["kty"]), (&json!("jwt-svid"), &json!("k1"), &json!("EC")));
}

#[test]
fn a_document_has_bounds() {
    let key = jwt_key("k");
    let many: Vec<Value> = (0..65).map(|i| with(key.clone(), "kid", json!(format!("k{i}")))).collect();
    assert_eq!(counts(&many), Err("other"));
    let td = TrustDomain::new("example.org").unwrap();
    let large = vec![b' '; 1024 * 1024 + 1];
    assert!(matches!(TrustBundle::from_json(td, &large), Err(BundleError::TooLarge)));
}
