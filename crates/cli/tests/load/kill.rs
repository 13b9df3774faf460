//! Random kills of Ringfence's own processes under load: requests may fail meanwhile, but nothing undeclared ever succeeds,
//! nothing outside is ever reached, and everything heals.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::running::{Clinic, Who, children, eventually, text};
use crate::traffic::Traffic;
use crate::{ca, clinic, gateway, length};

/// Runs in a service, as whoever has taken it over would: one undeclared call, one dial of the host's loopback and one
/// outside, again and again until its standard input ends. One line per success, and the number of attempts at the end.
const ATTACKER: &str = r#"
import http.client, select, socket, sys, urllib.request
url, port, attempts = sys.argv[1], int(sys.argv[2]), 0
def undeclared():
    # Whoever is refused with a status gets an error.
    return urllib.request.urlopen(url, timeout=2)
def dial(address, port):
    # Some kernels wake whoever waits before they note the error; who is not connected has no peer.
    with socket.create_connection((address, port), 0.5) as dialled:
        return dialled.getpeername()
tries = [('undeclared call', undeclared), ('loopback', lambda: dial('127.0.0.1', port)), ('outside', lambda: dial('203.0.113.9', 443)),
         ('another service', lambda: dial('198.18.1.2', 22))]
while not select.select([sys.stdin], [], [], 0.05)[0]:
    for name, attempt in tries:
        attempts += 1
        try:
            if attempt(): print('OPEN', name, flush=True)
        except (OSError, http.client.HTTPException): pass
print('attempts', attempts, flush=True)
"#;

#[test]
fn whichever_process_dies_the_fence_never_opens_and_it_heals() {
    let length = length(Duration::from_secs(20));
    let mut clinic = clinic(Who::Root);
    // Something that would answer, on the host's loopback.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reached = watch(listener.try_clone().unwrap());
    let port = listener.local_addr().unwrap().port();
    let attackers = [("mailer", "http://patients:9001/patients/p-1001"), ("patients", "http://mailer:9004/")]
        .map(|(service, undeclared)| Attacker::start(&clinic, service, undeclared, port));
    let traffic = Traffic::start(gateway(&clinic), &ca(&clinic));
    let (start, mut kills) = (Instant::now(), Vec::new());
    while start.elapsed() < length {
        let role = ["node", "control", "keeper", "up"][dice(4)];
        let began = Instant::now();
        if role == "up" {
            clinic.replace_up();
        } else {
            // None while it has not been started again.
            let Some(pid) = process(&clinic, role) else { continue };
            assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
            // Now and then the next one comes before the first has healed.
            if dice(3) == 0 {
                std::thread::sleep(Duration::from_millis(200));
                kills.push((role, None));
                continue;
            }
        }
        let healed =
            eventually(Duration::from_secs(120), || (clinic.get("/api/appointments").0 == 200).then_some(()));
        assert!(healed.is_some(), "not healed after the kill of {role}, after {kills:?}\n{}", clinic.said());
        kills.push((role, Some(began.elapsed())));
        clinic.wait_ready();
    }
    let attempts = attackers.map(Attacker::stop);
    let (_, line) = traffic.stop();
    let healing = kills.iter().filter_map(|(_, took)| *took).max();
    println!(
        "{line}\nkills {}, longest healing {healing:?}, forbidden attempts {attempts:?}, none succeeded",
        kills.len()
    );
    assert!(attempts.iter().all(|n| *n > length.as_secs() / 5), "the attackers were at work: {attempts:?}");
    assert_eq!(reached.load(Ordering::Relaxed), 0, "somebody reached the host's loopback");
    for path in crate::traffic::PATHS {
        let healed = eventually(Duration::from_secs(60), || (clinic.get(path).0 == 200).then_some(()));
        assert!(healed.is_some(), "{path}: {:?}\n{}", clinic.get(path), clinic.said());
    }
    assert_eq!(clinic.stop(), [""; 0]);
}

/// The running process of a role, whether or not anybody can be asked about it.
fn process(clinic: &Clinic, role: &str) -> Option<u32> {
    children(clinic.up_pid()).into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(role.as_bytes())
    })
}

struct Attacker(std::process::Child);

impl Attacker {
    fn start(clinic: &Clinic, service: &str, undeclared: &str, port: u16) -> Self {
        // A report may be a moment behind.
        let pid = eventually(Duration::from_secs(60), || {
            let status = clinic.json(&["status", "--json"]);
            let services = status["report"]["services"].as_array()?;
            let init =
                services.iter().find(|s| s["name"] == service)?["init"].as_u64().filter(|init| *init > 1)?;
            children(u32::try_from(init).unwrap()).into_iter().next()
        });
        let pid = pid.expect("the service runs");
        let child = Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--all", "--preserve-credentials", "--wd=/", "--"])
            .args(["python3", "-c", ATTACKER, undeclared, &port.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// How often it tried; panics if anything succeeded.
    fn stop(mut self) -> u64 {
        drop(self.0.stdin.take());
        let said = text(&self.0.wait_with_output().unwrap().stdout);
        assert!(!said.contains("OPEN"), "{said}");
        said.trim().strip_prefix("attempts ").unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    }
}

/// Counts who connects.
fn watch(listener: TcpListener) -> Arc<AtomicU64> {
    let reached = Arc::<AtomicU64>::default();
    let counter = reached.clone();
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    reached
}

fn dice(sides: usize) -> usize {
    usize::from(u16::from_le_bytes(ringfence_keys::random())) % sides
}
