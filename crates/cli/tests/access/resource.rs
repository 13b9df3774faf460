//! Services in another language believe a transaction token by themselves: with a JOSE library made by others, and the keys that their sidecar
//! publishes at `ringfence.internal`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::provider::{Provider, here};
use crate::running::{Clinic, Who, text};
use crate::{SOON, ask, served};

/// What the library consists of.
const PACKAGES: [&str; 5] = ["joserfc", "cryptography", "cffi", "_cffi_backend", "pycparser"];

fn start(provider: &Provider) -> Clinic {
    let service = |name: &str| {
        format!(
            "run: [/usr/bin/python3, -B, app/resource.py, {name}]\n    env: {{ PYTHONPATH: app/site }}\n    listen: 9000\n    ready: tcp"
        )
    };
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff: {{ issuer: {}, audiences: [clinic], ca: id/ca.pem, allow_private: true }}
services:
  portal:
    {}
    calls: [records]
    routes:
      - {{ path: /, accept: [{{ token: staff }}] }}
  records:
    {}
",
        provider.issuer,
        service("portal"),
        service("records"),
    );
    Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        for name in ["app/site", "id"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        std::fs::copy(here("resource.py"), folder.join("app/resource.py")).unwrap();
        copy_packages(&folder.join("app/site"));
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    })
}

/// Copies the library to where a fenced service sees it.
fn copy_packages(to: &Path) {
    let output = Command::new("python3")
        .args(["-c", "import joserfc, os; print(os.path.dirname(os.path.dirname(joserfc.__file__)))"])
        .output()
        .unwrap();
    assert!(output.status.success(), "run the tests by `cargo xtask test`: {}", text(&output.stderr));
    let site = PathBuf::from(text(&output.stdout).trim());
    for entry in std::fs::read_dir(&site).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if PACKAGES.iter().any(|package| name.split(['.', '-']).next() == Some(package)) {
            assert!(Command::new("cp").arg("-r").arg(entry.path()).arg(to).status().unwrap().success());
        }
    }
}

#[test]
fn a_service_in_another_language_verifies_transaction_tokens_by_the_published_keys() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let token = provider.token("nightly", "read+write");
    let own: Value = serde_json::from_str(&served(&clinic, "/own", &token)).unwrap();
    let claims = &own["claims"];
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("nightly"), &json!("clinic.example")), "{own}");
    assert_eq!(claims["scope"], "read write");
    assert_eq!(claims["tctx"]["idn"]["provider"], "staff", "{own}");
    assert_eq!(own["user"], "nightly", "the simple header says the same");
    assert_eq!(own["forged"], "BadSignatureError", "the library sees that somebody changed it: {own}");
    let lasts = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!(lasts <= 120, "{lasts}");

    // One hop further it is the same token, and whoever does not pass it on acts for itself.
    let (status, body) = ask(&clinic, "/records", &token);
    let there: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &there["claims"]["sub"]), (200, &json!("nightly")), "{there}");
    // The gateway has one token per thread.
    let again = (0..64).any(|_| {
        let there: Value = serde_json::from_str(&served(&clinic, "/records", &token)).unwrap();
        there["claims"]["txn"] == claims["txn"]
    });
    assert!(again, "reused for the same credential");
    for (path, rule) in [("/forgets", None), ("/alters", Some("delegate.unknown"))] {
        let (status, body) = ask(&clinic, path, &token);
        assert_eq!((status, &*body), (401, r#"{"tokens": 0}"#), "{path}");
        if let Some(rule) = rule {
            assert!(clinic.event(SOON, |e| e["firewall_rule"]["uid"] == rule).is_some(), "{path}");
        }
    }
    assert!(!body.contains(&token), "the provider's token stays at the gateway");
    assert_eq!(clinic.stop(), [""; 0]);
}
