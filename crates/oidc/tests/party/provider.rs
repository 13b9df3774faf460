//! The npm package `oidc-provider`, as the provider that people sign in at.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

pub(crate) struct Provider {
    pub(crate) issuer: String,
    /// What signs its certificate; the user agent needs it too.
    pub(crate) ca: Option<String>,
    pub(crate) ca_file: PathBuf,
    folder: tempfile::TempDir,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Provider {
    /// Starts it; `clients` are registered, `more` is for the script.
    pub(crate) fn start(tls: bool, keys: &[(&str, &str)], clients: &Value, more: &[(&str, Value)]) -> Self {
        let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("node/node_modules");
        assert!(
            modules.join("oidc-provider").exists(),
            "{} lacks the npm package oidc-provider: run the tests by `cargo xtask test`, which installs it",
            modules.display()
        );
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let mut setup = json!({ "clients": clients, "keys": named(keys) });
        for (name, value) in more {
            setup[*name] = value.clone();
        }
        let mut ca = None;
        if tls {
            let (root, certificate, key) = certificate();
            std::fs::write(&ca_file, &root).unwrap();
            setup["tls"] = json!({ "cert": certificate, "key": key });
            ca = Some(root);
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/party/provider.mjs"))
            .arg(&modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("node can be started");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut provider = Self { issuer: String::new(), ca, ca_file, folder, child, input, output };
        provider.issuer = provider.say(&setup);
        provider
    }

    /// Has other keys from now on.
    pub(crate) fn rotate(&mut self, keys: &[(&str, &str)]) {
        self.say(&json!({ "keys": named(keys) }));
    }

    /// What it complained about.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn say(&mut self, message: &Value) -> String {
        writeln!(self.input, "{message}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.starts_with("http"), "the provider failed: {}", self.log());
        line.trim().to_owned()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the provider said:\n{}", self.log());
        }
    }
}

fn named(keys: &[(&str, &str)]) -> Vec<Value> {
    keys.iter().map(|(kid, alg)| json!({ "kid": kid, "alg": alg })).collect()
}

/// A CA and a certificate for `localhost`, with its key; PEM.
fn certificate() -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(rcgen::DnType::CommonName, "a CA for tests");
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &issuer).unwrap().pem();
    (root, certificate, key.serialize_pem())
}

/// The client that all tests use, with more members.
pub(crate) fn client(more: &Value) -> Value {
    let mut client = json!({
        "client_id": "clinic-gateway",
        "client_secret": "a secret/with +odd% signs",
        "redirect_uris": ["https://portal.clinic.example/callback"],
        "post_logout_redirect_uris": ["https://portal.clinic.example/bye"],
        "grant_types": ["authorization_code", "refresh_token"],
        "id_token_signed_response_alg": "ES256",
    });
    for (name, value) in more.as_object().unwrap() {
        client[name] = value.clone();
    }
    client
}
