//! Peers that are not who they should be, limits, and egress.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use ringfence_spiffe::{BundleSet, LeafKey, SpiffeId, TrustBundle, TrustDomain};
use ringfence_tls::pki_types::{PrivateKeyDer, ServerName};
use ringfence_tls::{
    Alpn, ClientConnection, GatewayCertificate, GatewayCertificates, Identity, Mesh, ServerConnection,
    gateway_server_config,
};

use crate::gateway::fence;
use crate::mesh::clinic;
use crate::net::echo;
use crate::patience::HELP;
use crate::rig::{Authority, Rig, TRUST_DOMAIN, eventually, field, get, half, local, raw};

/// The mesh side of somebody who holds these certificates.
pub fn mesh_of(authority: &Authority, trusted: &Authority, id: &str) -> Mesh {
    let key = KeyPair::generate().unwrap();
    let leaf = authority.issue(&[id.to_owned()], &key, Duration::from_secs(600));
    let td = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let bundle = Arc::new(TrustBundle::new(td, vec![trusted.root.clone()], vec![], 1, None).unwrap());
    let mesh = Mesh::new(BundleSet::new(1, [bundle]));
    let key = LeafKey::from_pkcs8(zeroize::Zeroizing::new(key.serialize_der())).unwrap();
    mesh.put_identity(Identity::new(SpiffeId::parse(id).unwrap(), vec![leaf], &key).unwrap());
    mesh
}

/// Calls a service over the mesh directly; what came back, or that nothing did.
fn call(rig: &Rig, mesh: &Mesh, own: &str, callee: &str) -> Result<String, String> {
    let (own, callee) = (SpiffeId::parse(own).unwrap(), SpiffeId::parse(callee).unwrap());
    let config = mesh.client_config(&own, &callee, &[Alpn::Http1]).unwrap();
    let name = ringfence_tls::mesh_server_name(&callee).unwrap();
    let mut session = ClientConnection::new(config, name).map_err(|e| e.to_string())?;
    let mut socket = TcpStream::connect(rig.mesh).unwrap();
    socket.set_read_timeout(Some(HELP)).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        ServerName::try_from("records").unwrap().to_str()
    );
    let mut stream = rustls_stream(&mut session, &mut socket);
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    if answer.is_empty() {
        Err(read.err().map_or_else(|| "closed".to_owned(), |e| e.to_string()))
    } else {
        Ok(answer)
    }
}

pub struct Stream<'a>(&'a mut ClientConnection, &'a mut TcpStream);

pub fn rustls_stream<'a>(session: &'a mut ClientConnection, socket: &'a mut TcpStream) -> Stream<'a> {
    Stream(session, socket)
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            while self.0.is_handshaking() || self.0.wants_write() {
                self.0.complete_io(self.1)?;
            }
            match self.0.reader().read(buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.0.complete_io(self.1)?;
                }
                other => return other,
            }
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.complete_io(self.1)?;
        let n = self.0.writer().write(bytes)?;
        self.0.complete_io(self.1)?;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn on_the_mesh_only_callers_of_the_fence_pass_and_only_along_their_edges() {
    let clinic = clinic();
    let rig = &clinic.rig;
    let authority = rig.control.authority.lock().unwrap().clone();
    let service = |name: &str| format!("spiffe://{TRUST_DOMAIN}/service/{name}");
    let with = |id: &str| mesh_of(&authority, &authority, id);
    // The rig's own certificates work, so what follows fails for the reason given.
    let answer = call(rig, &with(&service("portal")), &service("portal"), &service("records")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A real SVID without an edge.
    call(rig, &with(&service("patients")), &service("patients"), &service("records")).unwrap_err();
    rig.event("the refusal", |r| {
        field(r, "/firewall_rule/uid") == "edge.undeclared"
            && field(r, "/src_endpoint/svc_name") == "patients"
    });
    // Nobody of this fence.
    let stranger = format!("spiffe://{TRUST_DOMAIN}/host/laptop");
    call(rig, &with(&stranger), &stranger, &service("records")).unwrap_err();
    rig.event("the stranger", |r| field(r, "/firewall_rule/uid") == "mesh.stranger");
    // A forged SVID: another root signed it.
    let forged = mesh_of(&Authority::new(TRUST_DOMAIN), &authority, &service("portal"));
    call(rig, &forged, &service("portal"), &service("records")).unwrap_err();
    rig.event("the forgery", |r| matches!(field(r, "/firewall_rule/uid"), "bad_signature" | "untrusted"));
    // A service that nobody of this node is.
    call(rig, &with(&service("portal")), &service("portal"), &service("nobody")).unwrap_err();
}

#[test]
fn a_callee_that_proves_another_identity_gets_no_byte_of_the_request() {
    let (listener, port) = local();
    let yaml = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: spiffe
    routes: [{{ path: / }}]
"
    );
    let rig = Rig::start(&yaml);
    let authority = rig.control.authority.lock().unwrap().clone();
    let serve = |id: &str| {
        // A server that shows an SVID of this trust domain to whatever name is asked for.
        let key = KeyPair::generate().unwrap();
        let leaf = authority.issue(
            &[id.to_owned(), "portal.clinic.example".to_owned()],
            &key,
            Duration::from_secs(600),
        );
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certificates = GatewayCertificates::default();
        certificates.set(&[GatewayCertificate::new(vec![leaf], &key).unwrap()]);
        gateway_server_config(&certificates, &[Alpn::Http1]).unwrap()
    };
    for (id, passes) in
        [("spiffe://clinic.example/service/other", false), ("spiffe://clinic.example/service/portal", true)]
    {
        let (config, listener) = (serve(id), listener.try_clone().unwrap());
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(HELP)).unwrap();
            let mut session = ServerConnection::new(config).unwrap();
            let mut plain = Vec::new();
            while plain.is_empty() {
                if session.complete_io(&mut socket).is_err() {
                    break;
                }
                let mut buffer = [0; 2048];
                if let Ok(n) = session.reader().read(&mut buffer) {
                    plain.extend_from_slice(&buffer[..n]);
                    if n == 0 {
                        break;
                    }
                }
            }
            if !plain.is_empty() {
                session
                    .writer()
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .unwrap();
                let _ = session.complete_io(&mut socket);
            }
            plain
        });
        let answer = get(TcpStream::connect(rig.gateway).unwrap(), "x", "/secret");
        let seen = String::from_utf8(server.join().unwrap()).unwrap();
        if passes {
            assert!(answer.starts_with("HTTP/1.1 200") && seen.contains("GET /secret"), "{answer} {seen}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 502") && seen.is_empty(), "{answer} {seen}");
            rig.event("the impostor", |r| field(r, "/firewall_rule/uid") == "mesh.callee");
        }
    }
}

#[test]
fn each_limit_answers_with_its_status() {
    let (listener, port) = local();
    echo(listener);
    // Each of its own, so that none takes the place of another where a step takes longer than it should.
    let with = |limits: &str| fence(port) + &format!("limits: {{ {limits} }}\n");
    let rig = Rig::start(&with("header_bytes: 4KiB, headers: 20, body: 1KiB"));
    let send = |bytes: &[u8]| raw(TcpStream::connect(rig.gateway).unwrap(), bytes);
    let head = |more: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
    assert!(send(head(&format!("X: {}\r\n", "x".repeat(5000))).as_bytes()).starts_with("HTTP/1.1 431"));
    assert!(send(head(&"X: 1\r\n".repeat(30)).as_bytes()).starts_with("HTTP/1.1 431"));
    assert!(send(head("Content-Length: 2000\r\n").as_bytes()).starts_with("HTTP/1.1 413"));
    let chunked =
        head("Transfer-Encoding: chunked\r\n") + &format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    assert!(send(chunked.as_bytes()).starts_with("HTTP/1.1 413"));
    rig.apply(&with("header_time: 1s"));
    assert!(send(b"GET / HTTP/1.1\r\nHo").starts_with("HTTP/1.1 408"), "a head that does not end");
    rig.apply(&with("idle: 1s"));
    let mut idle = TcpStream::connect(rig.gateway).unwrap();
    idle.set_read_timeout(Some(HELP)).unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "an idle connection is closed without a word");
    // Unless the beginning itself came too late.
    eventually("the end of a body that does not come", || {
        let answer = send(head("Content-Length: 10\r\n").as_bytes());
        (answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 504")).then_some(())
    });
    rig.apply(&with("request_time: 1s"));
    assert!(
        send(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 504"),
        "a callee that is too slow"
    );
    rig.apply(&with("connections: 40"));
    let open: Vec<_> = (0..80).map(|_| TcpStream::connect(rig.gateway).unwrap()).collect();
    rig.event("the limit", |r| field(r, "/firewall_rule/uid") == "limit.connections");
    drop(open);
    eventually("service", || {
        send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 200")
            .then_some(())
    });
}

#[test]
fn a_callee_that_is_down_gives_502_and_one_that_talks_nonsense_too() {
    let (listener, port) = local();
    let rig = Rig::start(&fence(port));
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer);
            let answer: &[u8] = match n {
                0 => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
                1 => b"",
                _ => return,
            };
            let _ = stream.write_all(answer);
        }
    });
    for _ in 0..3 {
        let answer = get(TcpStream::connect(rig.gateway).unwrap(), "x", "/");
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway"), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

fn egress_fence(port: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
services:
  mailer:
    run: [mailer]
    listen: 9004
    egress:
      - {{ host: loopback.test, port: {port}, tls: false, allow_private: true }}
      - {{ host: rebound.test, port: {port}, tls: false }}
"
    )
}

#[test]
fn egress_reaches_what_is_declared_and_never_what_a_name_was_bent_to() {
    let (listener, port) = local();
    echo(listener);
    let mut rig = Rig::start(&egress_fence(port));
    let mailer = rig.shim("mailer", &[80, port]);
    let ask = b"GET /mail HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = half(mailer.connect(&rig.egress("loopback.test"), port), ask);
    assert!(answer.contains("GET /mail"), "{answer}");
    // A name that resolves to loopback, and is not declared as private.
    assert_eq!(get(mailer.connect(&rig.egress("rebound.test"), port), "rebound.test", "/"), "");
    let event = rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "egress.address");
    assert_eq!(field(&event, "/src_endpoint/svc_name"), "mailer");
    // A port, and an address, that are not declared.
    assert_eq!(get(mailer.connect(&rig.egress("loopback.test"), 80), "localhost", "/"), "");
    assert_eq!(get(mailer.connect("198.19.0.77", port), "localhost", "/"), "");
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "egress.undeclared");
}

#[test]
fn egress_with_tls_is_for_the_declared_name_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut read = [0; 4096];
            if stream.read(&mut read).is_ok() {
                let _ = stream.write_all(b"reached").and_then(|()| stream.shutdown(Shutdown::Write));
                while stream.read(&mut read).is_ok_and(|n| n > 0) {}
            }
        }
    });
    let yaml = egress_fence(port).replace("tls: false, allow_private", "tls: true, allow_private");
    let mut rig = Rig::start(&yaml);
    let mailer = rig.shim("mailer", &[port]);
    let hello = |name: &str| {
        let authority = Authority::new("x.example");
        let roots = ringfence_tls::EgressRoots::from_pem(pem(&authority).as_bytes()).unwrap();
        let config = ringfence_tls::egress_client_config(&roots, &[]);
        let mut client =
            ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    };
    let dial = |bytes: &[u8]| raw(mailer.connect(&rig.egress("loopback.test"), port), bytes);
    assert_eq!(dial(&hello("localhost")), "reached");
    assert_eq!(dial(&hello("evil.example")), "");
    assert_eq!(dial(b"GET / HTTP/1.1\r\n\r\n"), "");
    rig.event("the other name", |r| field(r, "/firewall_rule/uid") == "egress.server-name");
    rig.event("no TLS", |r| field(r, "/firewall_rule/uid") == "egress.not-tls");
}

pub fn pem(authority: &Authority) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = serde_json::to_string(&ringfence_snapshot::Der(authority.root.to_vec())).unwrap();
    for line in text.trim_matches('"').as_bytes().chunks(64) {
        writeln!(out, "{}", String::from_utf8_lossy(line)).unwrap();
    }
    out + "-----END CERTIFICATE-----\n"
}

#[test]
fn curl_speaks_both_versions_with_the_gateway_s_own_certificate() {
    let (listener, port) = local();
    echo(listener);
    let yaml = fence(port).replace(", tls: off }\nexternal", ", hosts: [clinic.test] }\nexternal");
    let rig = Rig::start(&yaml);
    let ca = rig.dir.path().join("ca.pem");
    std::fs::write(&ca, pem(&rig.control.authority.lock().unwrap())).unwrap();
    let address = format!("clinic.test:{}:127.0.0.1", rig.gateway.port());
    for (version, says) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
        let out = std::process::Command::new("curl")
            .args(["--silent", "--show-error", version, "--cacert"])
            .arg(&ca)
            .args([
                "--resolve",
                &address,
                "--data",
                "some body",
                "--write-out",
                "%{http_version} %{http_code}",
            ])
            .arg(format!("https://clinic.test:{}/path", rig.gateway.port()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.ends_with(says), "{version}: {text} {}", String::from_utf8_lossy(&out.stderr));
        assert!(text.contains("x-forwarded-proto: https") && text.contains("some body"), "{text}");
    }
}
