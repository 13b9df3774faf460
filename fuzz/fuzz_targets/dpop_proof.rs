//! DPoP proofs: none is believed that was not signed by the key inside it, and the claims may be anything.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_token::{Algorithms, KeySet, Nonces, Proof, Replays, Request, SigningInput};

const NOW: u64 = 1_800_000_000;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Ed25519).unwrap());
/// The JWK of the key, as JSON.
static JWK: LazyLock<String> = LazyLock::new(|| {
    let set = KeySet::from_keys([(String::new(), KEY.verifying_key().clone())]).to_json("sig");
    set.strip_prefix("{\"keys\":[").unwrap().strip_suffix("]}").unwrap().to_owned()
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let nonces = Nonces::new(&[7; 32], 60);
    let plain = Request {
        method: "POST",
        uri: "https://api.example/a/b",
        nonces: None,
        remembered_since: None,
        algorithms: Algorithms::ALL,
        now: NOW,
    };
    let request = Request { nonces: Some(&nonces), ..plain };
    assert!(Proof::verify(text, &request).is_err(), "no input knows the nonce");
    let _ = Proof::verify(text, &plain);
    // An address of any form, and claims of any content under a good signature.
    let _ = Proof::verify(text, &Request { uri: text, ..plain });
    let Ok(claims) = serde_json::from_str(text) else { return };
    let Ok(input) = SigningInput::new("dpop+jwt", ringfence_token::Algorithm::EdDsa, "k", &claims) else { return };
    let signed = std::str::from_utf8(input.as_bytes()).unwrap();
    let (_, payload) = signed.split_once('.').unwrap();
    let header = format!("{{\"alg\":\"EdDSA\",\"typ\":\"dpop+jwt\",\"jwk\":{}}}", *JWK);
    let signed = format!("{}.{payload}", base64(header.as_bytes()));
    let proof = format!("{signed}.{}", base64(&KEY.sign(signed.as_bytes()).unwrap()));
    if let Ok(proof) = Proof::verify(&proof, &plain) {
        let replays = Replays::new(2);
        assert!(replays.admit(&proof, NOW).is_ok());
        assert!(replays.admit(&proof, NOW).is_err());
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
