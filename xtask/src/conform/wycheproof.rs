//! Wycheproof's JOSE vectors: signatures, key sets, and encryption, which is refused as a whole.

use std::path::Path;

use ringfence_token::{KeySet, verify_payload};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Outcome;

const FILES: [&str; 4] =
    ["json_web_signature_test", "json_web_encryption_test", "json_web_crypto_test", "json_web_key_test"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Suite {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    /// A key or a set of keys; the public half where there is one.
    public: Option<Value>,
    private: Option<Value>,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    tc_id: usize,
    result: String,
    jws: Option<Value>,
    jwe: Option<Value>,
}

/// Runs every case of the four files in this folder.
pub(crate) fn run(folder: &Path) -> Result<Vec<Outcome>, String> {
    let mut outcomes = Vec::new();
    for name in FILES {
        let file = folder.join(name).with_extension("json");
        let text =
            std::fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let suite: Suite =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let before = outcomes.len();
        for group in &suite.test_groups {
            for test in &group.tests {
                outcomes.push(Outcome {
                    case: format!("{name}/{}", test.tc_id),
                    expected_accept: test.result == "valid",
                    verdict: verify(group, test),
                });
            }
        }
        if outcomes.len() - before != suite.number_of_tests {
            return Err(format!("{}: not as many cases as it says", file.display()));
        }
    }
    Ok(outcomes)
}

fn verify(group: &Group, test: &Test) -> Result<(), String> {
    let key = group.public.as_ref().or(group.private.as_ref()).ok_or("no key")?;
    let text = test.jws.as_ref().or(test.jwe.as_ref()).ok_or("neither a JWS nor a JWE")?;
    // The JSON form is an object; what a header carries is a text, so it is taken as one.
    let token = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    let set = if key.get("keys").is_some() { key.clone() } else { json!({ "keys": [key] }) };
    let keys = match KeySet::from_json(set.to_string().as_bytes()) {
        Ok(keys) => keys,
        // Where the key itself is of no use here, the text is judged all the same.
        Err(error) => match verify_payload(&token, &KeySet::default()) {
            Ok(_) => return Err("accepted without a key".into()),
            Err(_) => return Err(error.to_string()),
        },
    };
    let left_out = keys.left_out().first().map(|key| format!(" (its key is {})", key.reason));
    verify_payload(&token, &keys)
        .map(drop)
        .map_err(|error| format!("{error}{}", left_out.unwrap_or_default()))
}
