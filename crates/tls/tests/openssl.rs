//! Somebody else's TLS against our mesh and gateway listeners, over loopback.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a step that fails fails the test")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use ringfence_spiffe::{KeyAlgorithm, LeafKey};
use ringfence_tls::{
    Alpn, GatewayCertificate, GatewayCertificates, Group, Mesh, ProtocolVersion, Refusal, ServerConfig,
    gateway_asking_config, gateway_server_config, negotiated_group,
};
use support::Authority;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

/// What our side saw of one connection.
#[derive(Debug, PartialEq)]
enum Seen {
    Accepted { group: Group, version: Option<ProtocolVersion>, caller: Option<String>, shown: usize },
    Refused(String),
}

/// Serves one connection while `openssl s_client` with these arguments connects; our verdict and its output.
fn s_client(config: Arc<ServerConfig>, mesh: Option<&Mesh>, arguments: &[&str]) -> (Seen, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &address])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need the openssl command");
        // A client whose input ends quits, whether or not it has read the alert that is on its way.
        let mut input = child.stdin.take();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            match TlsAcceptor::from(config).accept(stream).await {
                Ok(mut stream) => {
                    let (_, connection) = stream.get_ref();
                    let seen = Seen::Accepted {
                        group: negotiated_group(connection),
                        version: connection.protocol_version(),
                        shown: connection.peer_certificates().map_or(0, <[_]>::len),
                        caller: mesh.map(|mesh| mesh.caller_of(connection).unwrap().id().to_string()),
                    };
                    drop(input.take());
                    let _ = stream.read(&mut [0; 16]).await;
                    seen
                }
                Err(error) => Seen::Refused(
                    Refusal::find(&error)
                        .map_or_else(|| error.to_string(), |refusal| refusal.reason().to_owned()),
                ),
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(60), serve).await;
        let ended = || child.try_wait().unwrap().is_some();
        if seen.is_err() || !eventually(Duration::from_secs(60), ended) {
            child.kill().unwrap();
        }
        drop(input);
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (seen.expect("a verdict in time"), String::from_utf8_lossy(&text).into_owned())
    })
}

fn eventually(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !done() {
        if start.elapsed() > within {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn write(folder: &Path, name: &str, contents: &str) -> String {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().write_all(contents.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A node with `patients`, and files with an SVID of `billing`.
struct Setup {
    mesh: Mesh,
    listener: Arc<ServerConfig>,
    root: String,
    cert: String,
    key: String,
    _folder: tempfile::TempDir,
}

fn pem(der: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-outform", "PEM"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(der).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn setup() -> Setup {
    let authority = Authority::new("clinic.example");
    let mesh = authority.mesh(&["patients"]);
    let key = LeafKey::generate(KeyAlgorithm::P256).unwrap();
    let svid = authority.sign(&authority.params("spiffe://clinic.example/service/billing"), &key);
    let folder = tempfile::tempdir().unwrap();
    let key_pem = KeyPair::try_from(key.pkcs8_der().as_slice()).unwrap().serialize_pem();
    Setup {
        listener: mesh.server_config(&[Alpn::H2, Alpn::Http1]),
        root: write(folder.path(), "root.pem", &pem(&authority.root)),
        cert: write(folder.path(), "svid.pem", &pem(&svid)),
        key: write(folder.path(), "key.pem", &key_pem),
        mesh,
        _folder: folder,
    }
}

const NAME: &str = "patients.clinic.example";

#[test]
fn openssl_with_an_svid_is_a_caller_like_any_other() {
    let setup = setup();
    let (seen, output) = s_client(
        setup.listener.clone(),
        Some(&setup.mesh),
        &[
            "-servername",
            NAME,
            "-cert",
            &setup.cert,
            "-key",
            &setup.key,
            "-CAfile",
            &setup.root,
            "-alpn",
            "h2",
        ],
    );
    let Seen::Accepted { group, version, caller, .. } = seen else { panic!("{seen:?}\n{output}") };
    // Which group depends on whether this openssl knows the hybrid; it is never one below X25519.
    assert!(matches!(group, Group::X25519 | Group::X25519Mlkem768), "{group:?}");
    assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(caller.as_deref(), Some("spiffe://clinic.example/service/billing"));
    assert!(output.contains("Verify return code: 0 (ok)"), "{output}");
    assert!(output.contains("ALPN protocol: h2"), "{output}");
    assert!(!output.contains("Post-Handshake New Session Ticket"), "{output}");
}

#[test]
fn a_classical_client_is_counted_as_classical() {
    let setup = setup();
    let (seen, output) = s_client(
        setup.listener.clone(),
        Some(&setup.mesh),
        &["-servername", NAME, "-cert", &setup.cert, "-key", &setup.key, "-groups", "X25519"],
    );
    assert!(matches!(seen, Seen::Accepted { group: Group::X25519, .. }), "{seen:?}\n{output}");
}

#[test]
fn tls_1_2_is_refused_in_the_mesh() {
    let setup = setup();
    let (seen, _) = s_client(
        setup.listener.clone(),
        None,
        &["-tls1_2", "-servername", NAME, "-cert", &setup.cert, "-key", &setup.key],
    );
    assert!(
        matches!(&seen, Seen::Refused(why) if why.contains("SupportedVersionsExtensionRequired")),
        "{seen:?}"
    );
}

#[test]
fn a_weak_group_is_refused_in_the_mesh() {
    let setup = setup();
    let (seen, _) = s_client(
        setup.listener.clone(),
        None,
        &["-servername", NAME, "-cert", &setup.cert, "-key", &setup.key, "-groups", "P-256"],
    );
    assert!(matches!(&seen, Seen::Refused(why) if why.contains("NoKxGroupsInCommon")), "{seen:?}");
}

#[test]
fn a_client_without_certificate_is_refused_in_the_mesh() {
    let setup = setup();
    let (seen, output) = s_client(setup.listener.clone(), None, &["-servername", NAME]);
    assert!(matches!(&seen, Seen::Refused(why) if why.contains("certificate")), "{seen:?}");
    assert!(output.contains("alert certificate required") || output.contains("alert number 116"), "{output}");
}

#[test]
fn an_unknown_or_missing_server_name_is_refused_with_an_alert() {
    let setup = setup();
    for name in [&["-servername", "mailer.clinic.example"][..], &["-noservername"]] {
        let arguments = [name, &["-cert", &setup.cert, "-key", &setup.key]].concat();
        let (seen, output) = s_client(setup.listener.clone(), None, &arguments);
        assert!(matches!(seen, Seen::Refused(_)), "{seen:?}");
        assert!(output.contains("alert access denied") || output.contains("alert number 49"), "{output}");
    }
}

fn localhost() -> GatewayCertificates {
    let key = KeyPair::generate().unwrap();
    let cert =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let certificates = GatewayCertificates::default();
    let pair = GatewayCertificate::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    certificates.set(&[pair]);
    certificates
}

/// A certificate that openssl made and signed itself, and its key.
fn self_signed(folder: &Path, kind: &[&str]) -> (String, String) {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-subj", "/CN=lab-7", "-days", "1", "-newkey"])
        .args(kind)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (cert.to_str().unwrap().into(), key.to_str().unwrap().into())
}

#[test]
fn a_gateway_that_asks_for_certificates_takes_any_whose_key_is_there_and_clients_without() {
    let certificates = localhost();
    let asking = gateway_asking_config(&certificates, &[Alpn::H2, Alpn::Http1]).unwrap();
    let not_asking = gateway_server_config(&certificates, &[Alpn::H2, Alpn::Http1]).unwrap();
    for kind in [&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..], &["rsa:2048"], &["ed25519"]] {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = self_signed(folder.path(), kind);
        for version in ["-tls1_3", "-tls1_2"] {
            let arguments = [version, "-servername", "localhost", "-cert", &cert, "-key", &key];
            let (seen, output) = s_client(asking.clone(), None, &arguments);
            assert!(matches!(seen, Seen::Accepted { shown: 1, .. }), "{kind:?} {seen:?}\n{output}");
            let (seen, output) = s_client(not_asking.clone(), None, &arguments);
            assert!(matches!(seen, Seen::Accepted { shown: 0, .. }), "{kind:?} {seen:?}\n{output}");
            let (seen, output) = s_client(asking.clone(), None, &arguments[..3]);
            assert!(matches!(seen, Seen::Accepted { shown: 0, .. }), "{kind:?} {seen:?}\n{output}");
        }
    }
}

#[test]
fn a_resumed_session_still_shows_the_certificate_that_it_was_begun_with() {
    let asking = gateway_asking_config(&localhost(), &[Alpn::Http1]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(folder.path(), &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let session = folder.path().join("session").to_str().unwrap().to_owned();
    let first = ["-tls1_2", "-servername", "localhost", "-cert", &cert, "-key", &key, "-sess_out", &session];
    let (seen, output) = s_client(asking.clone(), None, &first);
    assert!(matches!(seen, Seen::Accepted { shown: 1, .. }), "{seen:?}\n{output}");
    let again = ["-tls1_2", "-servername", "localhost", "-sess_in", &session];
    let (seen, output) = s_client(asking, None, &again);
    assert!(output.contains("Reused"), "{output}");
    assert!(matches!(seen, Seen::Accepted { shown: 1, .. }), "{seen:?}\n{output}");
}

#[test]
fn a_gateway_speaks_1_2_and_1_3_but_nothing_older() {
    let certificates = localhost();
    let config = gateway_server_config(&certificates, &[Alpn::H2, Alpn::Http1]).unwrap();
    for (flag, expected) in [("-tls1_3", ProtocolVersion::TLSv1_3), ("-tls1_2", ProtocolVersion::TLSv1_2)] {
        let (seen, output) = s_client(config.clone(), None, &[flag, "-servername", "localhost"]);
        assert!(
            matches!(&seen, Seen::Accepted { version: Some(version), .. } if *version == expected),
            "{seen:?}\n{output}"
        );
    }
    let (seen, _) =
        s_client(config, None, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-servername", "localhost"]);
    assert!(matches!(seen, Seen::Refused(_)), "{seen:?}");
}
