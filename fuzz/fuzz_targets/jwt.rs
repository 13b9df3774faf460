//! Tokens: whatever they say, nothing that no trusted key signed is believed, and a signed payload of any content never panics.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{
    Check, KeySet, Possession, Profile, Revocations, Verifier, peek_key_id, verify_payload, verify_svid,
};

const NOW: u64 = 1_800_000_000;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::P256).unwrap());
static TRUSTED: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::from_keys([("k".to_owned(), KEY.verifying_key().clone())]));
static DOMAIN: LazyLock<TrustDomain> = LazyLock::new(|| TrustDomain::new("clinic.example").unwrap());
static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let audiences = ["clinic".to_owned()];
    vec![
        Profile::access_token("https://id.example", &audiences).with_plain_type(),
        Profile::id_token("https://id.example", "clinic"),
        Profile::logout_token("https://id.example", "clinic").with_plain_type(),
        Profile::client_assertion("app", &audiences),
        Profile::txn_token(&DOMAIN),
        Profile::jwt_svid(&DOMAIN, "billing"),
    ]
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = peek_key_id(text);
    assert!(verify_payload(text, &TRUSTED).is_err());
    assert!(verify_svid(text, &DOMAIN, &TRUSTED, "billing", NOW).is_err());
    let revocations = Revocations::new(1);
    let mut verifier = Verifier::new(4);
    for profile in PROFILES.iter() {
        let check = Check { profile, keys: &TRUSTED, revocations: &revocations, possession: Possession::NONE, now: NOW };
        assert!(verifier.verify(text, &check).is_err());
    }
    // The same bytes as header and payload, signed: what is believed then is within its times and for us.
    let Some((header, payload)) = text.split_once('\n') else { return };
    let input = format!("{}.{}", base64(header.as_bytes()), base64(payload.as_bytes()));
    let token = format!("{input}.{}", base64(&KEY.sign(input.as_bytes()).unwrap()));
    for profile in PROFILES.iter() {
        if let Ok(token) = profile.verify(&token, &TRUSTED, NOW) {
            assert!(token.expires_at() + 30 > NOW && token.audiences().count() > 0);
            assert!(profile.issuer().is_none_or(|issuer| token.issuer() == Some(issuer)));
            let _ = (token.scopes().count(), token.client(), revocations.check(&token));
        }
    }
});

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let value = chunk.iter().fold(0_u32, |v, b| v << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(value >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}
