//! What a token costs, in microseconds of one core: verified anew, remembered, and an API key among a million.
//!
//! `cargo run --release -p ringfence-token --example token_cost`. The best of several rounds counts: whatever else runs on the
//! machine can only make a round slower.

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{Algorithm, SigningKey, random};
use ringfence_token::{
    ApiKey, Check, KeyRecord, KeySet, KeyTable, Possession, Profile, Proof, Replays, Request, Revocations,
    Revoked, TxnSpec, Verifier,
};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.clinic.example";
const KEYS: usize = 1_000_000;
const ROUNDS: usize = 7;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // First, while the memory in use is that of the keys alone.
    api_keys()?;
    let profile = Profile::access_token(ISSUER, &["clinic".to_owned()]);
    let (ed, ec) = (SigningKey::generate(Algorithm::Ed25519)?, SigningKey::generate(Algorithm::P256)?);
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
    // `RSAPublicKey` in DER: nine bytes before the 256 of the modulus, two before the three of the exponent.
    let public = rsa.public_key().as_ref();
    let mut list: Value = serde_json::from_str(
        &KeySet::from_keys([
            ("EdDSA".to_owned(), ed.verifying_key().clone()),
            ("ES256".to_owned(), ec.verifying_key().clone()),
        ])
        .to_json("sig"),
    )?;
    list["keys"].as_array_mut().ok_or("a list")?.push(json!({
        "kty": "RSA", "kid": "RS256",
        "n": URL_SAFE_NO_PAD.encode(&public[9..265]),
        "e": URL_SAFE_NO_PAD.encode(&public[267..]),
    }));
    let keys = KeySet::from_json(list.to_string().as_bytes())?;
    let sign = |alg: &str, input: &[u8]| -> Result<Vec<u8>, Failure> {
        Ok(match alg {
            "EdDSA" => ed.sign(input)?,
            "ES256" => ec.sign(input)?,
            _ => {
                let mut signature = vec![0; rsa.public_modulus_len()];
                rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature)?;
                signature
            }
        })
    };
    for alg in ["EdDSA", "ES256", "RS256"] {
        let token = token(alg, "0", |input| sign(alg, input))?;
        let cost = cost(2000, || drop(black_box(profile.verify(&token, &keys, NOW))));
        println!("{:<48} {cost:>8.2} µs", format!("verify anew, {alg} ({} bytes)", token.len()));
    }
    remembered(&profile, &keys, |input| sign("EdDSA", input))?;
    others(&ed)
}

/// A token as providers make them.
fn token(
    alg: &str,
    id: &str,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, Failure>,
) -> Result<String, Failure> {
    let header = json!({ "alg": alg, "kid": alg, "typ": "at+jwt" });
    let claims = json!({
        "iss": ISSUER, "sub": "5c9d3c8e-3b0f-4f0e-9a1d-0f5a7d9c1b2e", "aud": ["clinic"], "client_id": "portal",
        "iat": NOW - 10, "exp": NOW + 290, "jti": format!("f3c1d2e4-{id}"), "sid": "0b1f6e7a", "acr": "phr",
        "scope": "openid profile read write", "groups": ["nurse", "ward-7"], "auth_time": NOW - 600,
    });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(input.as_bytes())?;
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Hits among ten thousand tokens, with revocations in force.
fn remembered(
    profile: &Profile,
    keys: &KeySet,
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, Failure>,
) -> Result<(), Failure> {
    let mut verifier = Verifier::new(16_384);
    let mut tokens = Vec::new();
    for i in 0..10_000 {
        tokens.push(token("EdDSA", &i.to_string(), &sign)?);
    }
    let mut revocations = Revocations::new(20_000);
    for full in [false, true] {
        for i in 0..if full { 10_000 } else { 0 } {
            revocations.revoke(ISSUER, Revoked::Session(&format!("gone-{i}")), u64::MAX, NOW + 1000)?;
        }
        let check =
            Check { profile, keys, revocations: &revocations, possession: Possession::NONE, now: NOW };
        for token in &tokens {
            verifier.verify(token, &check)?;
        }
        let mut at = 0;
        let cost = cost(50_000, || {
            at = (at + 7919) % tokens.len();
            drop(black_box(verifier.verify(&tokens[at], &check)));
        });
        let name = format!("remembered, 10,000 tokens, {} revocations", revocations.len());
        println!("{name:<48} {cost:>8.2} µs");
        let hot = self::cost(50_000, || drop(black_box(verifier.verify(&tokens[0], &check))));
        println!("{:<48} {hot:>8.2} µs", "  the same token again and again");
    }
    Ok(())
}

/// A proof and a transaction token.
fn others(key: &SigningKey) -> Result<(), Failure> {
    let jwk: Value = serde_json::from_str(
        &KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())]).to_json("sig"),
    )?;
    let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk["keys"][0] });
    let claims =
        json!({ "jti": "p", "htm": "GET", "htu": "https://api.clinic.example/records/7", "iat": NOW });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", encode(header), encode(claims));
    let proof = format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())?));
    let request = Request {
        method: "GET",
        uri: "https://api.clinic.example/records/7",
        nonces: None,
        remembered_since: None,
        algorithms: ringfence_token::Algorithms::DEFAULT,
        now: NOW,
    };
    let verified = Proof::verify(&proof, &request)?;
    let cost = cost(2000, || drop(black_box(Proof::verify(&proof, &request))));
    println!("{:<48} {cost:>8.2} µs", "DPoP proof, EdDSA");
    Replays::new(1).admit(&verified, NOW)?;
    let domain = ringfence_spiffe::TrustDomain::new("clinic.example")?;
    let spec = TxnSpec {
        trust_domain: &domain,
        transaction: "0198f0a2-7c1e-7000-8000-000000000000",
        subject: "ann",
        scope: "read write",
        workload: "spiffe://clinic.example/gateway/main",
        context: json!({ "principal": { "kind": "user", "id": "ann" } })
            .as_object()
            .cloned()
            .unwrap_or_default(),
        request: json!({ "ip": "192.0.2.7" }).as_object().cloned().unwrap_or_default(),
        origin: None,
        issued_at: NOW,
        expires_at: NOW + 120,
    };
    let mint = self::cost(2000, || {
        let sign = |input: &[u8]| key.sign(input).map_err(ringfence_token::TokenError::from);
        drop(black_box(spec.sign(ringfence_token::Algorithm::EdDsa, "k", sign)));
    });
    println!("{:<48} {mint:>8.2} µs", "transaction token made, EdDSA, keeper excluded");
    Ok(())
}

fn api_keys() -> Result<(), Failure> {
    let before = resident()?;
    let mut table = KeyTable::new();
    let mut mine = Vec::new();
    for i in 0..KEYS {
        let key = ApiKey::generate();
        table.insert(&KeyRecord {
            prefix: key.prefix(),
            secret: key.digest(),
            previous: None,
            client: format!("client-{}", i % 10_000),
            scopes: vec!["read".to_owned()],
            not_before: None,
            expires_at: Some(NOW + 1),
            disabled: false,
            last_used: None,
        })?;
        if i % 50 == 0 {
            mine.push(key.to_text().expose().clone());
        }
    }
    let bytes = (resident()? - before) / KEYS as u64;
    println!("{:<48} {bytes:>8} bytes", format!("API key, each of {}", table.len()));
    let mut at = usize::from_le_bytes(random()) % mine.len();
    let mut step = |table: &KeyTable| {
        at = (at + 7919) % mine.len();
        ApiKey::parse(&mine[at]).is_some_and(|key| table.authenticate(&key, NOW).is_ok())
    };
    assert!(step(&table), "it is known");
    let cost = cost(50_000, || assert!(step(&table)));
    println!("{:<48} {cost:>8.2} µs", "API key read, hashed, looked up and compared");
    Ok(())
}

/// Microseconds per call, in the best of the rounds.
fn cost(calls: usize, mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / calls as f64);
    }
    best
}

/// Bytes of memory in use.
fn resident() -> Result<u64, Failure> {
    let pages: u64 =
        std::fs::read_to_string("/proc/self/statm")?.split(' ').nth(1).ok_or("a number")?.parse()?;
    Ok(pages * 4096)
}
