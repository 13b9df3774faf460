//! Every private key of a keeper, taken out of its sealed files with the master key, in the forms in which it could lie in a
//! process's memory.

use std::path::Path;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use ringfence_keys::{Keyring, MasterSource, Purpose, from_hex, to_hex};
use serde_json::Value;

/// One private key.
pub(crate) struct Key {
    /// `root`, `issuing`, `serving`, `token`, `txn`, `snapshot`.
    pub(crate) role: &'static str,
    pub(crate) forms: Vec<(&'static str, Vec<u8>)>,
}

/// All keys of the keeper of a data directory.
pub(crate) fn of_keeper(data: &Path) -> Vec<Key> {
    let folder = data.join("keeper");
    let master = MasterSource::KeyFile { path: data.join("master.key") };
    let keyring = Keyring::open(&folder.join("keyring.json"), &master).unwrap();
    let stored: Value =
        serde_json::from_slice(&std::fs::read(folder.join("authority.json")).unwrap()).unwrap();
    let groups = [
        ("root", "roots", Purpose::Authority),
        ("issuing", "issuing", Purpose::Authority),
        ("serving", "serving", Purpose::Authority),
        ("token", "tokens", Purpose::Token),
        ("txn", "txn", Purpose::Token),
        ("snapshot", "snapshot", Purpose::Snapshot),
    ];
    let mut keys = Vec::new();
    for (role, member, purpose) in groups {
        let list = &stored[member];
        for record in list.as_array().cloned().unwrap_or_else(|| vec![list.clone()]) {
            let Some(sealed) = record["key"].as_str() else { continue };
            let name = format!("{role}/{}", record["id"].as_str().unwrap());
            let pkcs8 = keyring.open_sealed(purpose, &name, 1, &from_hex(sealed).unwrap()).unwrap();
            keys.push(Key { role, forms: forms(pkcs8.expose()) });
        }
    }
    keys
}

/// The master key itself: as in its file, and as bytes.
pub(crate) fn master(data: &Path) -> Key {
    let text = std::fs::read_to_string(data.join("master.key")).unwrap().trim().to_owned();
    let raw = from_hex(&text).unwrap();
    Key { role: "master", forms: vec![("hexadecimal", text.into_bytes()), ("bytes", raw)] }
}

/// PKCS#8 as it is and as text, and the number or seed in it in both orders of bytes.
fn forms(pkcs8: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let secret = secret(pkcs8).to_vec();
    let reversed = secret.iter().rev().copied().collect();
    vec![
        ("PKCS#8", pkcs8.to_vec()),
        ("PKCS#8 in base64", Base64::encode_string(pkcs8).into_bytes()),
        ("secret in hexadecimal", to_hex(&secret).into_bytes()),
        ("secret in base64", Base64::encode_string(&secret).trim_end_matches('=').as_bytes()[..42].to_vec()),
        ("secret in base64url", Base64UrlUnpadded::encode_string(&secret).as_bytes()[..42].to_vec()),
        ("secret, most significant byte first", secret),
        ("secret, least significant byte first", reversed),
    ]
}

/// The 32 bytes that matter: the only octet string of that length in a PKCS#8 key of P-256 or Ed25519.
fn secret(pkcs8: &[u8]) -> &[u8] {
    let at = pkcs8.windows(2).position(|w| w == [0x04, 0x20]).unwrap() + 2;
    &pkcs8[at..at + 32]
}

#[test]
fn the_secret_of_a_key_is_found_in_its_pkcs8() {
    use ringfence_keys::{Algorithm, SecretBytes, SigningKey};
    for (algorithm, before) in [
        (Algorithm::Ed25519, "302e020100300506032b657004220420"),
        (Algorithm::P256, "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"),
    ] {
        let key = SigningKey::generate(algorithm).unwrap();
        let pkcs8 = key.to_pkcs8().unwrap();
        let again = [&from_hex(before).unwrap(), secret(pkcs8.expose())].concat();
        let again = SigningKey::from_pkcs8(algorithm, &SecretBytes::new(again)).unwrap();
        assert_eq!(again.verifying_key().raw(), key.verifying_key().raw(), "{algorithm:?}");
    }
}
