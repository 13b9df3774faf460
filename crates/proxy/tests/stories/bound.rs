//! Tokens that are bound to their holder, and client certificates: as it should be, and as others try it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ringfence_keys::digest::sha256;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_snapshot::ClientAuthority;
use ringfence_snapshot::node::ProviderKeys;
use ringfence_token::{KeySet, PublicKey};
use serde_json::{Value, json};

use crate::net::echo;
use crate::rig::{Rig, eventually, field, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

/// Providers that give out bound tokens only.
const KEYED: &str = "https://keyed.clinic.example";
const CERTIFIED: &str = "https://certified.clinic.example";

/// A client with a key that proofs are signed with.
struct Client(SigningKey);

fn changed(mut value: Value, changes: &Value) -> Value {
    let members = value.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        members.insert(name.clone(), value.clone());
        if value.is_null() {
            members.remove(name);
        }
    }
    value
}

impl Client {
    fn new() -> Self {
        Self(SigningKey::generate(Algorithm::P256).unwrap())
    }

    fn jwk(&self) -> Value {
        let set = KeySet::from_keys([("c".to_owned(), self.0.verifying_key().clone())]).to_json("sig");
        serde_json::from_str::<Value>(&set).unwrap()["keys"][0].clone()
    }

    /// What binds a token to the key.
    fn cnf(&self) -> Value {
        let key = PublicKey::from(self.0.verifying_key());
        json!({ "cnf": { "jkt": URL_SAFE_NO_PAD.encode(key.thumbprint()) } })
    }

    fn proof(&self, token: &str, path: &str, header: &Value, claims: &Value) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let header = changed(json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() }), header);
        let good = json!({
            "jti": format!("p{}", NUMBER.fetch_add(1, Ordering::Relaxed)), "htm": "GET", "iat": unix(),
            "htu": format!("http://portal.example{path}"), "ath": URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())),
        });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(header), encode(changed(good, claims)));
        let signature = self.0.sign(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn fence(port: u16, gateway: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443{gateway} }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic] }}
  keyed: {{ issuer: {KEYED}, audiences: [clinic], bound: dpop }}
  certified: {{ issuer: {CERTIFIED}, audiences: [clinic], bound: mtls }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes:
      - {{ host: portal.example, path: /, accept: [{{ token: staff }}], require: {{ scopes: [read] }} }}
      - {{ host: portal.example, path: /keyed, accept: [{{ token: keyed }}] }}
      - {{ host: portal.example, path: /certified, accept: [{{ token: certified }}] }}
      - {{ host: portal.example, path: /open }}
"
    )
}

fn rig(gateway: &str) -> (Rig, Provider) {
    let (listener, port) = local();
    echo(listener);
    let provider = Provider::new("k1");
    let rig = Rig::start(&fence(port, gateway));
    for (name, issuer) in [("staff", ISSUER), ("keyed", KEYED), ("certified", CERTIFIED)] {
        let keys = provider.keys(unix() + 600);
        tell(&rig, ProviderKeys { provider: name.into(), issuer: issuer.into(), ..keys });
    }
    (rig, provider)
}

fn ask(rig: &Rig, method: &str, path: &str, fields: &str) -> String {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: portal.example\r\n{fields}Connection: close\r\n\r\n");
    raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes())
}

fn shown(token: &str, proof: &str) -> String {
    format!("Authorization: DPoP {token}\r\nDPoP: {proof}\r\n")
}

fn nonce(answer: &str) -> Value {
    let nonce = answer.lines().find_map(|line| line.strip_prefix("dpop-nonce: ")).expect("a nonce");
    json!({ "nonce": nonce })
}

fn rule(rig: &Rig, path: &str) -> String {
    let event = rig.event("the refusal", |r| r.denied() && field(r, "/http_request/url/path") == path);
    field(&event, "/firewall_rule/uid").to_owned()
}

#[test]
fn a_bound_token_lets_in_whoever_proves_to_hold_its_key_once_per_proof() {
    let ((rig, provider), client) = (rig(", tls: off"), Client::new());
    let token = provider.token(&client.cnf());
    let none = json!({});
    // A node that was just started cannot know which proofs were used before: it has them made anew.
    let first = ask(&rig, "GET", "/a", &shown(&token, &client.proof(&token, "/a", &none, &none)));
    assert!(first.starts_with("HTTP/1.1 401"), "{first}");
    let challenge = "www-authenticate: DPoP realm=\"clinic\", error=\"use_dpop_nonce\", algs=\"";
    assert!(first.contains(challenge) && first.contains("ES256"), "{first}");
    let nonce = nonce(&first);
    let keyed = provider.token(&changed(client.cnf(), &json!({ "iss": KEYED })));
    for (token, path, query) in
        [(&token, "/a", "/a?x=1"), (&keyed, "/keyed/a", "/keyed/a"), (&token, "/%61b", "/%61b")]
    {
        let answer = ask(&rig, "GET", query, &shown(token, &client.proof(token, path, &none, &nonce)));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains("ringfence-user: ada\r\n"), "{answer}");
        assert_eq!(answer.contains("dpop-nonce: "), path.starts_with("/keyed"), "{answer}");
        let told = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(!told.to_lowercase().contains("dpop") && !told.contains(token), "{answer}");
    }
    // The same over HTTP/2, where method and address are fields of their own.
    let proof = client.proof(&token, "/h2", &none, &nonce);
    let url = format!("http://portal.example:{}/h2", rig.gateway.port());
    let status =
        curl(&rig, &["--http2-prior-knowledge", "-H", &format!("DPoP: {proof}")], &token, "DPoP", &url);
    assert_eq!(status.0, "401", "another port than in the proof");
    let claims = changed(nonce.clone(), &json!({ "htu": url }));
    let proof = client.proof(&token, "/h2", &none, &claims);
    let status =
        curl(&rig, &["--http2-prior-knowledge", "-H", &format!("DPoP: {proof}")], &token, "DPoP", &url);
    assert_eq!(status.0, "200", "{}", status.1);
    // Sixteen at once, on all threads: one passes.
    let once = shown(&token, &client.proof(&token, "/once", &none, &nonce));
    let answers = std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(|| ask(&rig, "GET", "/once", &once))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count(), 1);
    let replayed =
        |answer: &&String| answer.starts_with("HTTP/1.1 401") && answer.contains("invalid_dpop_proof");
    assert_eq!(answers.iter().filter(replayed).count(), 15);
    assert_eq!(rule(&rig, "/once"), "proof.replayed");
    // What is open is the service's own business, proof and all.
    let answer = ask(&rig, "GET", "/open", &shown("opaque", "its own"));
    assert!(answer.contains("Authorization: DPoP opaque") && answer.contains("DPoP: its own"), "{answer}");
}

#[test]
fn whoever_has_the_token_and_not_the_key_is_turned_away() {
    let ((rig, provider), client, thief) = (rig(", tls: off"), Client::new(), Client::new());
    let token = provider.token(&client.cnf());
    let none = json!({});
    let nonce = nonce(&ask(&rig, "GET", "/n", &shown(&token, &client.proof(&token, "/n", &none, &none))));
    let with = |mut claims: Value| {
        let members = claims.as_object_mut().unwrap();
        members.entry("nonce").or_insert_with(|| nonce["nonce"].clone());
        claims
    };
    let of = |path: &str, header: Value, claims: Value| {
        shown(&token, &client.proof(&token, path, &header, &with(claims)))
    };
    let unbound = provider.token(&json!({}));
    let keyed = provider.token(&changed(client.cnf(), &json!({ "iss": KEYED })));
    let loose = provider.token(&json!({ "iss": KEYED }));
    let swapped = provider.token(&thief.cnf());
    let mut private = client.jwk();
    private["d"] = "AA".into();
    let huge = "x".repeat(20_000);
    // A proof is good for half a minute: each is made when it is shown.
    type Shown<'a> = &'a dyn Fn() -> String;
    let cases: [(&str, Shown<'_>, &str); 25] = [
        ("/bearer", &|| bearer(&token), "token.bound"),
        (
            "/bearer-with-proof",
            &|| bearer(&token) + &format!("DPoP: {}\r\n", client.proof(&token, "/x", &none, &nonce)),
            "token.bound",
        ),
        ("/missing", &|| format!("Authorization: DPoP {token}\r\n"), "proof.missing"),
        ("/thief", &|| shown(&token, &thief.proof(&token, "/thief", &none, &nonce)), "token.bound"),
        ("/unbound", &|| shown(&unbound, &client.proof(&unbound, "/unbound", &none, &nonce)), "token.bound"),
        ("/keyed/unbound", &|| bearer(&loose), "token.bound"),
        ("/keyed/late", &|| shown(&keyed, &client.proof(&keyed, "/keyed/late", &none, &none)), "proof.nonce"),
        ("/swapped", &|| shown(&swapped, &client.proof(&swapped, "/swapped", &none, &nonce)), "token.bound"),
        ("/method", &|| of("/method", none.clone(), json!({ "htm": "POST" })), "proof.elsewhere"),
        ("/path", &|| of("/other", none.clone(), none.clone()), "proof.elsewhere"),
        (
            "/host",
            &|| of("/host", none.clone(), json!({ "htu": "http://bank.example/host" })),
            "proof.elsewhere",
        ),
        (
            "/https",
            &|| of("/https", none.clone(), json!({ "htu": "https://portal.example/https" })),
            "proof.elsewhere",
        ),
        ("/token", &|| shown(&token, &client.proof(&unbound, "/token", &none, &nonce)), "token.bound"),
        ("/no-ath", &|| of("/no-ath", none.clone(), json!({ "ath": null })), "token.bound"),
        ("/old", &|| of("/old", none.clone(), json!({ "iat": unix() - 100 })), "proof.time"),
        ("/future", &|| of("/future", none.clone(), json!({ "iat": unix() + 900 })), "proof.time"),
        ("/type", &|| of("/type", json!({ "typ": "JWT" }), none.clone()), "proof.invalid"),
        ("/none", &|| of("/none", json!({ "alg": "none" }), none.clone()), "proof.invalid"),
        ("/hmac", &|| of("/hmac", json!({ "alg": "HS256" }), none.clone()), "proof.invalid"),
        ("/private", &|| of("/private", json!({ "jwk": private.clone() }), none.clone()), "proof.invalid"),
        ("/keyless", &|| of("/keyless", json!({ "jwk": null }), none.clone()), "proof.invalid"),
        ("/other-key", &|| of("/other-key", json!({ "jwk": thief.jwk() }), none.clone()), "proof.invalid"),
        ("/nonce", &|| of("/nonce", none.clone(), json!({ "nonce": "guessed" })), "proof.nonce"),
        ("/huge", &|| shown(&token, &huge), "proof.invalid"),
        ("/nonsense", &|| shown(&token, "a.b.c"), "proof.invalid"),
    ];
    for (path, fields, expected) in cases {
        let fields = fields();
        let answer = ask(&rig, "GET", path, &fields);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
        assert_eq!(rule(&rig, path), expected, "{path}");
        let dpop = !fields.contains("Bearer") || path.starts_with("/keyed");
        assert_eq!(answer.contains("dpop-nonce: "), dpop || path == "/bearer-with-proof", "{path}: {answer}");
        assert_eq!(answer.contains("DPoP realm=\"clinic\""), dpop, "{path}: {answer}");
    }
    let good = client.proof(&token, "/x", &none, &nonce);
    let twice = shown(&token, &good) + &format!("DPoP: {good}\r\n");
    assert!(ask(&rig, "GET", "/x", &twice).starts_with("HTTP/1.1 400"), "two proofs are one too many");
    assert!(
        ask(&rig, "GET", "/x", &shown(&token, &good)).starts_with("HTTP/1.1 200"),
        "the honest twin passes"
    );
    // A scope that is missing is said in the words of the scheme that was used.
    let poor = provider.token(&changed(client.cnf(), &json!({ "scope": "write" })));
    let answer = ask(&rig, "GET", "/poor", &shown(&poor, &client.proof(&poor, "/poor", &none, &nonce)));
    assert!(answer.contains("DPoP realm=\"clinic\", error=\"insufficient_scope\""), "{answer}");
}

/// An authority of client certificates, and a folder for them.
pub struct Partners {
    pem: String,
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Partners {
    pub fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "partners");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let (pem, der) = (root.pem(), root.der().to_vec());
        Self { pem, der, issuer: Issuer::new(params, key), folder: folder.to_owned() }
    }

    /// A certificate with its key in one file, and the SHA-256 that tokens name it by.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, Value) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.folder.join(format!("{name}.pem"));
        std::fs::write(&path, leaf.pem() + &key.serialize_pem()).unwrap();
        let digest = URL_SAFE_NO_PAD.encode(sha256(leaf.der()));
        (path.to_str().unwrap().to_owned(), json!({ "cnf": { "x5t#S256": digest } }))
    }
}

/// The status and everything else that the client got.
pub fn curl(rig: &Rig, arguments: &[&str], token: &str, scheme: &str, url: &str) -> (String, String) {
    let mut command = Command::new("curl");
    let port = rig.gateway.port();
    command.args(["-sSk", "-w", "\n%{http_code}", "--max-time", "60", "-D", "-"]);
    command.args(["--connect-to", &format!("::127.0.0.1:{port}")]).args(arguments);
    if !token.is_empty() {
        command.args(["-H", &format!("Authorization: {scheme} {token}")]);
    }
    let output = command.arg(url).output().expect("these tests need curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (rest, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    (status.to_owned(), format!("{rest}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_token_that_is_bound_to_a_certificate_counts_on_connections_that_show_it() {
    let (rig, provider) = rig("");
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Partners::new(folder.path()), Partners::new(folder.path()));
    let (cert, bound) = ours.issue("lab-7", |_| ());
    let (other, _) = theirs.issue("lab-8", |_| ());
    let token = provider.token(&bound);
    let ask = |path: &str, certificate: &[&str], token: &str| {
        curl(&rig, certificate, token, "Bearer", &format!("https://portal.example{path}"))
    };
    let certified = provider.token(&changed(bound.clone(), &json!({ "iss": CERTIFIED })));
    for (path, token) in [("/a", &token), ("/certified/a", &certified)] {
        let (status, answer) = ask(path, &["--cert", &cert], token);
        assert_eq!(status, "200", "whoever issued it: {answer}");
        assert!(answer.contains("ringfence-user: ada"), "{answer}");
        let (status, _) = ask(path, &["--http1.1", "--cert", &cert], token);
        assert_eq!(status, "200", "{path} over HTTP/1.1");
    }
    let unbound = provider.token(&json!({}));
    let loose = provider.token(&json!({ "iss": CERTIFIED }));
    for (path, certificate, token) in [
        ("/without", &[][..], &token),
        ("/other", &["--cert", &other], &token),
        ("/certified/without", &[], &certified),
        ("/certified/unbound", &["--cert", &cert], &loose),
    ] {
        let (status, answer) = ask(path, certificate, token);
        assert_eq!(status, "401", "{path}: {answer}");
        assert_eq!(rule(&rig, path), "token.bound", "{path}");
    }
    assert_eq!(ask("/unbound", &[], &unbound).0, "200", "a client without a certificate is served as before");
}

#[test]
fn a_client_certificate_names_its_client_by_the_authority_of_the_route_alone() {
    let (listener, port) = local();
    echo(listener);
    let fence = |access: &str| {
        format!(
            "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ host: portal.example, path: /{access} }}, {{ host: portal.example, path: /open }}]
"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Partners::new(folder.path()), Partners::new(folder.path()));
    let (cert, _) = ours.issue("lab-7", |_| ());
    let (stranger, _) = theirs.issue("lab-7-of-others", |_| ());
    let (server, _) =
        ours.issue("server", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let (expired, _) =
        ours.issue("expired", |p| p.not_after = (SystemTime::now() - Duration::from_secs(9)).into());
    let rig = Rig::start(&fence(""));
    let ask = |path: &str, arguments: &[&str]| {
        curl(&rig, arguments, "", "", &format!("https://portal.example{path}"))
    };
    let verbose = ask("/before", &["-v", "--cert", &cert]).1;
    assert!(!verbose.contains("Request CERT"), "nobody is asked where nothing depends on it: {verbose}");

    let declared = ClientAuthority { file: "ca/partners.pem".into(), roots: vec![ours.der.clone().into()] };
    *rig.control.authorities.lock().unwrap() = vec![declared];
    assert!(ours.pem.contains("BEGIN CERTIFICATE"));
    rig.apply(&fence(", accept: [{ certificate: ca/partners.pem }]"));
    let (status, answer) = ask("/a", &["-v", "--cert", &cert, "-H", "Authorization: Basic YTpi"]);
    assert_eq!(status, "200", "{answer}");
    assert!(answer.contains("Request CERT"), "{answer}");
    assert!(
        answer.contains("ringfence-user: lab-7") && answer.contains("ringfence-provider: certificate"),
        "{answer}"
    );
    assert!(answer.contains("Basic YTpi"), "that is the service's own business: {answer}");
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/a");
    assert_eq!(field(&event, "/src_endpoint/owner/name"), "lab-7");
    for (path, arguments, expected) in [
        ("/none", &[][..], "credential.none"),
        (
            "/claimed",
            &["-H", "Ringfence-User: lab-7", "-H", "X-Forwarded-Client-Cert: Subject=CN=lab-7"],
            "credential.none",
        ),
        ("/stranger", &["--cert", &stranger], "certificate.untrusted"),
        ("/server", &["--cert", &server], "certificate.untrusted"),
        ("/expired", &["--cert", &expired], "certificate.untrusted"),
    ] {
        let (status, answer) = ask(path, arguments);
        assert_eq!(status, "403", "{path}: {answer}");
        assert_eq!(rule(&rig, path), expected, "{path}");
    }
    assert_eq!(ask("/open", &["--cert", &stranger]).0, "200");
    // Another authority under the same name: who was let in by the one before is not any more.
    let declared = ClientAuthority { file: "ca/partners.pem".into(), roots: vec![theirs.der.clone().into()] };
    *rig.control.authorities.lock().unwrap() = vec![declared];
    rig.apply(&fence(", accept: [{ certificate: ca/partners.pem }]"));
    assert_eq!(ask("/b", &["--cert", &cert]).0, "403");
    assert_eq!(ask("/b", &["--cert", &stranger]).0, "200");
    // And nobody is asked any more.
    rig.control.authorities.lock().unwrap().clear();
    rig.apply(&fence(""));
    eventually("a gateway that asks nobody", || {
        (!ask("/after", &["-v", "--cert", &cert]).1.contains("Request CERT")).then_some(())
    });
}
