//! The npm package `oidc-provider` as a provider of the fence, which follows orders while it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

use crate::running::text;
use crate::talk::Talk;

/// Where clients of the clinic that are no browsers behind the gateway are sent back to; nothing listens there.
const REDIRECT: &str = "https://app.clinic.example/callback";

pub(crate) struct Provider {
    pub(crate) issuer: String,
    /// Its private authority.
    pub(crate) ca: PathBuf,
    talk: Talk,
    _folder: tempfile::TempDir,
}

impl Provider {
    pub(crate) fn start() -> Self {
        Self::start_with(json!({}))
    }

    /// One that does a few things otherwise.
    pub(crate) fn start_with(mut setup: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, certificate, key) = certificate();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, root).unwrap();
        setup["tls"] = json!({ "cert": certificate, "key": key });
        setup["groups"] = json!({ "ann": ["nurse"], "bob": ["clerk"] });
        setup["clients"] = clients();
        let file = folder.path().join("setup.json");
        std::fs::write(&file, setup.to_string()).unwrap();
        let mut command = Command::new("node");
        command.arg(here("provider.mjs")).args([&modules(), &file]);
        let (talk, issuer) = Talk::start(&mut command, folder.path().join("provider"));
        assert!(issuer.starts_with("https://"), "{issuer}: {}", talk.log());
        Self { issuer, ca, talk, _folder: folder }
    }

    /// Has it do something, of `orders` in `provider.mjs`.
    pub(crate) fn order(&self, order: &Value) -> Value {
        self.talk.order(order)
    }

    /// How it behaves from now on, of `moods` in `provider.mjs`.
    pub(crate) fn mood(&self, mood: &str) {
        self.order(&json!({ "do": "mood", "is": mood }));
    }

    /// An access token of a client, by its credentials (RFC 6749, section 4.4).
    pub(crate) fn token(&self, client: &str, scope: &str) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
            .arg(&self.ca)
            .args(["--user", &format!("{client}:secret"), "--data"])
            .arg(format!("grant_type=client_credentials&scope={scope}"))
            .arg(format!("{}/token", self.issuer))
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr)));
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

fn clients() -> Value {
    let machine = |id: &str, scope: &str| {
        json!({
            "client_id": id, "client_secret": "secret", "grant_types": ["client_credentials"],
            "redirect_uris": [], "response_types": [], "scope": scope, "id_token_signed_response_alg": "ES256",
        })
    };
    let app = json!({
        "client_id": "app", "client_secret": "secret", "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": [REDIRECT], "response_types": ["code"], "scope": "openid offline_access read write",
        "id_token_signed_response_alg": "ES256",
    });
    // Its tokens are bound to the certificate that it shows (RFC 8705).
    let mut bound = machine("bound", "read");
    bound["tls_client_certificate_bound_access_tokens"] = true.into();
    // The gateway itself, which asks what opaque tokens are.
    let mut gateway = machine("clinic-gateway", "read");
    gateway["grant_types"] = json!([]);
    json!([machine("nightly", "read write"), machine("reader", "read"), app, bound, gateway])
}

/// A file beside the tests.
pub(crate) fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/access").join(name)
}

/// Where the npm packages lie.
pub(crate) fn modules() -> PathBuf {
    let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("node/node_modules");
    for name in ["oidc-provider", "openid-client", "oauth4webapi"] {
        assert!(
            modules.join(name).exists(),
            "{} lacks the npm package {name}: run the tests by `cargo xtask test`, which installs it",
            modules.display()
        );
    }
    modules
}

/// A CA and a certificate for `localhost`, with its key; PEM.
fn certificate() -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
    (root, leaf, key.serialize_pem())
}
