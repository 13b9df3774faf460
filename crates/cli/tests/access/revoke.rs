//! What an operator revokes ends everywhere within a second: real processes, real clients with something open.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::Value;

use crate::provider::Provider;
use crate::running::{Clinic, Stalls, Who, eventually, text};
use crate::{AT_ONCE, SOON, at_once, now, process};

/// `/stream` goes on until somebody stops it; the portal can ask another service for one, on the same behalf.
const STREAMS: &str = "
import http.server, sys, time, urllib.request
class Streams(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if not self.path.endswith('stream'):
            self.send_response(200)
            self.send_header('content-length', '2')
            self.end_headers()
            self.wfile.write(b'ok')
            return
        self.send_response(200)
        self.send_header('content-type', 'text/event-stream')
        self.send_header('transfer-encoding', 'chunked')
        self.end_headers()
        chunks = self.own() if 'far' not in self.path else self.far()
        for chunk in chunks:
            self.wfile.write(b'%x\\r\\n%s\\r\\n' % (len(chunk), chunk))
            self.wfile.flush()
    def own(self):
        while True:
            yield b'data: 1\\n\\n'
            time.sleep(0.02)
    def far(self):
        token = self.headers.get('txn-token')
        request = urllib.request.Request('http://records/stream', headers={'Txn-Token': token} if token else {})
        with urllib.request.urlopen(request) as answer:
            while chunk := answer.read1(64):
                yield chunk
        self.close_connection = True
http.server.ThreadingHTTPServer(('', int(sys.argv[1])), Streams).serve_forever()
";

fn start(who: Who, provider: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff: {{ issuer: {}, audiences: [clinic], ca: id/ca.pem, allow_private: true }}
services:
  portal:
    run: [python3, app/streams.py, '9000']
    listen: 9000
    ready: tcp
    routes: [{{ path: / }}, {{ path: /api, accept: [{{ token: staff }}, api_key] }}]
    calls: [records]
  records: {{ run: [python3, app/streams.py, '9001'], listen: 9001, ready: tcp }}
",
        provider.issuer
    );
    Clinic::start_fence(who, &fence, Vec::new(), |folder| {
        for name in ["app", "id"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("app/streams.py"), STREAMS).unwrap();
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    })
}

/// A curl that has something open.
struct Open {
    what: String,
    child: Arc<Mutex<Child>>,
    ended: Arc<Mutex<Option<Instant>>>,
}

impl Open {
    /// Opens it, and waits for its first bytes.
    fn new(clinic: &Clinic, version: &str, field: &str, path: &str) -> Self {
        Self::attempt(clinic, version, field, path).unwrap_or_else(|why| panic!("{why}\n{}", clinic.said()))
    }

    /// The same through to the other service, as soon as it can be.
    fn far(clinic: &Clinic, field: &str) -> Self {
        let open = eventually(SOON, || Self::attempt(clinic, "--http1.1", field, "/api/far/stream").ok());
        open.unwrap_or_else(|| panic!("it is never reached\n{}", clinic.said()))
    }

    fn attempt(clinic: &Clinic, version: &str, field: &str, path: &str) -> Result<Self, String> {
        let mut child = Command::new("curl")
            .args(["--silent", "--no-buffer", "--max-time", "600", version, "--cacert"])
            .arg(clinic.folder.join(".ringfence/ca.pem"))
            .args(["--header", field])
            .arg(format!("https://127.0.0.1:{}{path}", clinic.port))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut out, ended) = (child.stdout.take().unwrap(), Arc::new(Mutex::new(None)));
        let (first, begun) = std::sync::mpsc::channel();
        let watched = ended.clone();
        std::thread::spawn(move || {
            let mut read = [0; 4096];
            while let Ok(n) = std::io::Read::read(&mut out, &mut read) {
                if n == 0 {
                    break;
                }
                let _ = first.send(text(&read[..n]));
            }
            *watched.lock().unwrap() = Some(Instant::now());
        });
        let open = Self { what: format!("{version} {path}"), child: Arc::new(Mutex::new(child)), ended };
        match begun.recv_timeout(SOON) {
            Ok(said) if said.starts_with("data:") => Ok(open),
            Ok(said) => Err(format!("{}: {said}", open.what)),
            Err(why) => Err(format!("{}: {why}", open.what)),
        }
    }

    /// How long after `since` it was cut.
    fn cut(&self, (since, stalls): (Instant, Stalls)) -> Duration {
        let ended = eventually(SOON, || *self.ended.lock().unwrap());
        let took =
            ended.unwrap_or_else(|| panic!("{} was not cut", self.what)).saturating_duration_since(since);
        let without = stalls.without(took.as_secs_f64());
        assert!(without < AT_ONCE.as_secs_f64(), "{} was cut after {took:?}", self.what);
        took
    }

    fn lives(&self) {
        assert!(self.ended.lock().unwrap().is_none(), "{} was cut", self.what);
        assert!(self.child.lock().unwrap().try_wait().unwrap().is_none());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// A download over either version, and one that goes on to another service.
fn all(clinic: &Clinic, field: &str) -> Vec<Open> {
    [("--http1.1", "/api/stream"), ("--http2", "/api/stream"), ("--http1.1", "/api/far/stream")]
        .into_iter()
        .map(|(version, path)| Open::new(clinic, version, field, path))
        .collect()
}

fn code(clinic: &Clinic, field: &str) -> u16 {
    let said = text(&clinic.curl(&["-H", field, "-o", "/dev/null", "-w", "%{http_code}", "/api/x"]).stdout);
    said.parse().unwrap_or(0)
}

fn until(clinic: &Clinic, field: &str, wanted: u16) {
    let found = eventually(SOON, || (code(clinic, field) == wanted).then_some(()));
    assert!(found.is_some(), "never {wanted}: {}\n{}", code(clinic, field), clinic.said());
}

/// Runs a command that must succeed; when it returned, and what it printed.
fn run(clinic: &Clinic, args: &[&str]) -> ((Instant, Stalls), String) {
    let output = clinic.ringfence(args);
    let returned = now();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    (returned, text(&output.stdout).trim().to_owned())
}

/// The header and the claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let part = |at: usize| {
        let part = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&Base64UrlUnpadded::decode_vec(part).unwrap()).unwrap()
    };
    (part(0), part(1))
}

/// The serial numbers of what was issued to `records`, as events tell them.
fn serials(clinic: &Clinic) -> Vec<String> {
    let events = text(&clinic.ringfence(&["events", "--json"]).stdout);
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let issued = events.filter(|e| {
        let name = e["entity"]["name"].as_str();
        e["entity"]["type"] == "certificate" && name.is_some_and(|name| name.ends_with("/service/records"))
    });
    issued.filter_map(|e| Some(e["entity"]["uid"].as_str()?.to_owned())).collect()
}

#[test]
fn what_is_revoked_ends_everywhere_within_a_second_of_the_command() {
    for who in [Who::Root, Who::Nobody] {
        let provider = Provider::start();
        let clinic = start(who, &provider);
        let key = |client: &str| {
            let made = run(&clinic, &["key", "create", "--client", client, "--json"]).1;
            let made: Value = serde_json::from_str(&made).unwrap();
            (made["id"].as_str().unwrap().to_owned(), format!("X-API-Key: {}", made["key"].as_str().unwrap()))
        };
        let ((_, spared), (lab_id, lab)) = (key("spared"), key("lab"));
        until(&clinic, &spared, 200);
        let others = all(&clinic, &spared);
        for what in ["token", "user", "client", "key"] {
            let token = provider.token("reader", "read");
            let (header, claims) = parts(&token);
            let name = match what {
                "token" => &claims["jti"],
                "user" => &claims["sub"],
                "client" => &claims["client_id"],
                _ => &header["kid"],
            };
            let field = bearer(&token);
            until(&clinic, &field, 200);
            let mine = all(&clinic, &field);
            let revoke = ["revoke", what, "staff", name.as_str().unwrap(), "--why", "a test"];
            let (returned, id) = run(&clinic, &revoke);
            let took: Vec<Duration> = mine.iter().map(|open| open.cut(returned)).collect();
            println!("{who:?}: revoked {what}: cut {took:?} after the command returned");
            at_once(returned, 401, || code(&clinic, &field));
            others.iter().for_each(Open::lives);
            // What was issued until then is over; what comes later counts, once the second is.
            if what == "user" || what == "client" {
                let again = eventually(SOON, || {
                    let token = provider.token("reader", "read");
                    (code(&clinic, &bearer(&token)) == 200).then_some(())
                });
                assert!(again.is_some(), "a token that was issued after the revocation");
            }
            let list: Value = serde_json::from_str(&run(&clinic, &["revocations", "--json"]).1).unwrap();
            let one =
                list["revocations"].as_array().unwrap().iter().find(|one| one["id"] == id.as_str()).unwrap();
            assert_eq!(
                (&one["what"], &one["by"], &one["why"]),
                (&what.into(), &"operator".into(), &"a test".into())
            );
        }
        // Each connection tells of its own, in any order.
        let cut = clinic.event(SOON, |e| {
            e["firewall_rule"]["uid"] == "token.revoked"
                && e["unmapped"]["cut"] == true
                && e["src_endpoint"]["owner"]["domain"] == "staff"
        });
        assert!(cut.is_some(), "{}", text(&clinic.ringfence(&["events"]).stdout));

        until(&clinic, &lab, 200);
        let mine = all(&clinic, &lab);
        let (returned, _) = run(&clinic, &["key", "revoke", &lab_id]);
        let took: Vec<Duration> = mine.iter().map(|open| open.cut(returned)).collect();
        println!("{who:?}: revoked API key: cut {took:?} after the command returned");
        others.iter().for_each(Open::lives);

        // The SVIDs of a service: whatever it has open is cut, it gets another, and all goes on.
        let known = serials(&clinic);
        let (far, near): (Vec<_>, Vec<_>) = others.into_iter().partition(|open| open.what.contains("far"));
        let (returned, _) = run(&clinic, &["revoke", "svid", "records"]);
        let took: Vec<Duration> = far.iter().map(|open| open.cut(returned)).collect();
        println!("{who:?}: revoked SVIDs of a service: cut {took:?} after the command returned");
        near.iter().for_each(Open::lives);
        let far = Open::far(&clinic, &spared);
        println!("{who:?}: calls pass again {:?} after the command returned", returned.0.elapsed());

        // One SVID, by its number. Several are issued in the second of the revocation, and over as soon: which of
        // them the stream rests on, and whether its event is written already, only the cut tells.
        let (mut revoked, mut last) = (known, None);
        let last = eventually(SOON, || {
            if far.ended.lock().unwrap().is_none() {
                let fresh = serials(&clinic).into_iter().find(|one| !revoked.contains(one))?;
                last = Some(run(&clinic, &["revoke", "svid", &fresh]).0);
                revoked.push(fresh);
            }
            eventually(AT_ONCE, || *far.ended.lock().unwrap()).and(last)
        });
        let last = last.expect("one of the SVIDs that were issued is the one in use");
        println!("{who:?}: revoked one SVID: cut {:?} after the command returned", far.cut(last));

        // As a whole: nobody reaches it until that is taken back.
        let far = Open::far(&clinic, &spared);
        let (returned, id) = run(&clinic, &["revoke", "svid", "records", "--for-good"]);
        println!("{who:?}: revoked a service: cut {:?} after the command returned", far.cut(returned));
        let reached = || {
            let answer = clinic.curl(&["-H", &spared, "--max-time", "8", "/api/far/stream"]);
            text(&answer.stdout).contains("data:")
        };
        assert!(eventually(SOON, || (!reached()).then_some(())).is_some(), "it is reached");
        assert!(!reached(), "it is reached again");
        near.iter().for_each(Open::lives);
        run(&clinic, &["revocations", "remove", &id]);
        drop(Open::far(&clinic, &spared));
        assert_eq!(clinic.stop(), [""; 0]);
    }
}

#[test]
fn revocations_outlive_the_processes_that_know_them() {
    let provider = Provider::start();
    let mut clinic = start(Who::Root, &provider);
    let (gone, good) =
        (bearer(&provider.token("reader", "read")), bearer(&provider.token("nightly", "read")));
    until(&clinic, &gone, 200);
    let (returned, _) = run(&clinic, &["revoke", "user", "staff", "reader"]);
    at_once(returned, 401, || code(&clinic, &gone));
    for name in ["node", "control", "keeper"] {
        let pid = clinic.process(name);
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let again = eventually(SOON, || process(&clinic, name).filter(|now| *now != 0 && *now != pid));
        assert!(again.is_some(), "{name} is started again");
        until(&clinic, &good, 200);
        assert_eq!(code(&clinic, &gone), 401, "after {name}");
    }
    clinic.replace_up();
    until(&clinic, &good, 200);
    assert_eq!(code(&clinic, &gone), 401, "after all of them");
    for (wrong, code, said) in [
        (&["revoke", "user", "nobody", "ann"][..], 3, "it has staff"),
        (&["revoke", "svid", "nothing"], 3, "neither a service"),
        (&["revocations", "remove", "../x"], 3, "no revocation"),
        (&["revoke", "user", "staff"], 2, "NAME"),
    ] {
        let output = clinic.ringfence(wrong);
        assert!(text(&output.stderr).contains(said), "{wrong:?}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{wrong:?}");
    }
    assert!(run(&clinic, &["revocations"]).1.contains("user reader"));
    assert_eq!(clinic.stop(), [""; 0]);
}
