//! The JOSE vectors of Wycheproof for the one elliptic curve algorithm that is spoken here.

use std::io::Write;
use std::path::Path;

use ringfence_token::{KeySet, verify_payload};
use serde_json::{Value, json};

#[test]
#[expect(clippy::disallowed_methods, reason = "a test finds its golden data through the environment")]
fn every_es256_vector_is_judged_as_it_should_be() {
    let Some(golden) = std::env::var_os("RINGFENCE_GOLDEN") else {
        // Written past the capture of the test runner, so that it is seen.
        writeln!(std::io::stderr(), "RINGFENCE_GOLDEN is not set: the Wycheproof vectors are not run here")
            .unwrap();
        return;
    };
    let text = std::fs::read(Path::new(&golden).join("wycheproof/json_web_signature_test.json")).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in document["testGroups"].as_array().unwrap() {
        let public = &group["public"];
        if public["crv"] != "P-256" {
            continue;
        }
        let keys = KeySet::from_json(json!({ "keys": [public] }).to_string().as_bytes()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let outcome = verify_payload(test["jws"].as_str().unwrap(), &keys);
            assert_eq!(outcome.is_ok(), test["result"] == "valid", "{}: {outcome:?}", test["tcId"]);
            if outcome.is_ok() { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (2, 39));
}
