//! What a service reaches outside: the declared host at the declared port, by its own name, at an address that is outside.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::lab::{From, Lab, SOON, Who, eventually, running::free_port, venv_python};

/// A host outside, on this host's loopback: TLS at one port, plain text at the other.
const OUTSIDE: &str = r#"
import socketserver, ssl, sys, threading
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"220 hello from outside")
        try: self.request.recv(100)
        except OSError: pass
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    def get_request(self):
        stream, source = self.socket.accept()
        stream.settimeout(60)
        return (context.wrap_socket(stream, server_side=True, do_handshake_on_connect=False), source) if self.tls else (stream, source)
    def handle_error(self, *_): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
for port, tls in ((int(sys.argv[1]), True), (int(sys.argv[2]), False)):
    server = Server(("127.0.0.1", port), Handler)
    server.tls = tls
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"#;

struct World {
    lab: Lab,
    tls: u16,
    plain: u16,
    server: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn start(who: Who) -> World {
    let (tls, plain) = (free_port(), free_port());
    let services = format!(
        "
  caller:
    PY caller.py 9100
    listen: 9100
    routes: [{{ path: /caller }}]
    egress:
      - {{ host: mail.lab.test, port: {tls}, tls: true, allow_private: true }}
      - {{ host: mail.lab.test, port: {plain}, allow_private: true }}
      - {{ host: rebound.lab.test, port: {plain} }}
      - {{ host: nowhere.lab.test, port: {plain}, allow_private: true }}
  other: {{ PY caller.py 9101, listen: 9101 }}
"
    );
    let fill = |folder: &Path| {
        std::fs::write(
            folder.join("hosts"),
            "127.0.0.1 localhost mail.lab.test rebound.lab.test other.lab.test\n",
        )
        .unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                "/CN=mail.lab.test",
                "-addext",
                "subjectAltName=DNS:mail.lab.test,DNS:other.lab.test",
            ])
            .args(["-keyout", "key.pem", "-out", "outside.pem"])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", crate::lab::text(&made.stderr));
    };
    // Names that only this `up` knows: its own hosts file, in a mount namespace of its own.
    let user: &[&str] =
        if running_as_root() { &[] } else { &["--user", "--map-current-user", "--keep-caps"] };
    let script = "mount --bind hosts /etc/hosts && exec \"$@\"";
    let before = [&["unshare", "--mount"], user, &["sh", "-c", script, "sh"]].concat();
    let before = before.into_iter().map(ToOwned::to_owned).collect();
    let lab = Lab::start_before(who, &services, &[], before, fill);
    let folder = &lab.clinic.folder;
    let mut server = Command::new(venv_python())
        .args(["-c", OUTSIDE, &tls.to_string(), &plain.to_string()])
        .args([folder.join("outside.pem"), folder.join("key.pem")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    World { lab, tls, plain, server }
}

fn running_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl World {
    fn dial(&self, target: &Value) -> Value {
        self.lab.tell(From::Caller, "tcp_client", "dial", target)
    }

    fn event(&self, host: &str, rule: &str) -> Value {
        let told = eventually(SOON, || {
            let mut events = self
                .lab
                .events(|e| e["dst_endpoint"]["svc_name"] == host && e["firewall_rule"]["uid"] == rule);
            events.pop()
        });
        told.unwrap_or_else(|| {
            panic!("no event of {rule} for {host}: {:?}", self.lab.events(|e| e["action_id"] == 2))
        })
    }
}

#[test]
fn a_declared_host_is_reached_by_its_own_name_only() {
    for who in [Who::Root, Who::Nobody] {
        let world = start(who);
        let ca = "outside.pem";
        let (tls, plain) = (world.tls, world.plain);
        let said = world.dial(&json!({ "address": "mail.lab.test", "port": plain }));
        assert_eq!(said["heard"], "220 hello from outside", "{who:?}: {said}");
        let said = world
            .dial(&json!({ "address": "mail.lab.test", "port": tls, "ca": ca, "name": "mail.lab.test" }));
        assert_eq!(said["heard"], "220 hello from outside", "{who:?}: {said}");

        // The server would answer to this name as well; the fence does not declare it.
        let said = world
            .dial(&json!({ "address": "mail.lab.test", "port": tls, "ca": ca, "name": "other.lab.test" }));
        assert!(said.get("refused").is_some(), "{who:?}: {said}");
        world.event("mail.lab.test", "egress.server-name");
        // Not TLS where TLS is declared.
        let said = world.dial(&json!({ "address": "mail.lab.test", "port": tls }));
        assert!(said["heard"] == "" || said.get("refused").is_some(), "{who:?}: {said}");
        world.event("mail.lab.test", "egress.not-tls");
        // A name that points inside, without leave to.
        let said = world.dial(&json!({ "address": "rebound.lab.test", "port": plain }));
        assert!(said["heard"] == "" || said.get("refused").is_some(), "{who:?}: {said}");
        let event = world.event("rebound.lab.test", "egress.address");
        assert!(event["unmapped"]["missing"].as_str().unwrap().contains("allow_private"), "{event}");
        // A name that does not resolve.
        let said = world.dial(&json!({ "address": "nowhere.lab.test", "port": plain }));
        assert!(said["heard"] == "" || said.get("refused").is_some(), "{who:?}: {said}");
        // A service without this egress does not find the name; by the address it reaches nothing.
        let said = world.lab.clinic.inside(
            "other",
            &format!(
                "import socket\ntry: socket.create_connection(('198.19.0.1', {plain}), 3).getpeername(); print('CONNECTED')\n\
                 except OSError as e: print('refused', e)"
            ),
        );
        assert!(said.starts_with("refused"), "{who:?}: {said}");
    }
}
