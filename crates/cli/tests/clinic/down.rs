//! `ringfence down` comes back when everything is gone, not before, and not without saying what it waits for.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::running::{Clinic, Who, eventually, text};

/// A service that takes 8 s to end: less than it is given, and long enough to be told of when all others are gone.
const SLOW: &str = "
fence: slow
trust_domain: slow.example
gateway: { listen: 127.0.0.1:8443 }
services:
  quick: { run: [/bin/sleep, '600'] }
  sluggish: { run: [/usr/bin/python3, sluggish.py], listen: 9000, ready: tcp }
";
const SLUGGISH: &str = "
import signal, socket, sys, time
def end(*_):
    time.sleep(8)
    sys.exit()
signal.signal(signal.SIGTERM, end)
listener = socket.create_server(('127.0.0.1', 9000))
while True:
    listener.accept()
";

fn slow(who: Who) -> Clinic {
    Clinic::start_fence(who, SLOW, Vec::new(), |folder| {
        std::fs::write(folder.join("sluggish.py"), SLUGGISH).unwrap();
    })
}

fn ended(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn down_comes_back_when_every_process_and_socket_is_gone() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start(who);
        assert!(clinic.leftovers().len() > 10, "many processes run: {:?}", clinic.leftovers());
        let down = ended(&clinic.ringfence(&["down"]));
        assert_eq!(clinic.leftovers(), [""; 0], "{who:?}: {down:?}");
        assert_eq!((down.0, &*down.1), (Some(0), "{\"done\":true}\n"), "{who:?}: {down:?}");
        // There is nothing to stop any more.
        let (code, _, said) = ended(&clinic.ringfence(&["down"]));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("no fence runs"), "{said}");
    }
}

#[test]
fn down_waits_for_a_service_that_takes_its_time_and_names_it() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = slow(who);
        let start = Instant::now();
        let (code, _, said) = ended(&clinic.ringfence(&["down"]));
        assert_eq!(clinic.leftovers(), [""; 0], "{who:?}: {said}");
        assert_eq!(code, Some(0), "{who:?}: {said}");
        assert!(start.elapsed() >= Duration::from_secs(8), "{who:?}: {:?}", start.elapsed());
        assert!(said.contains("still stopping: sluggish (its shim) (pid "), "{who:?}: {said}");
        // Said every two seconds; the others may take one of them on a busy machine.
        let last = said.lines().rfind(|line| line.contains("still stopping: ")).unwrap();
        assert!(!last.contains("quick"), "{who:?}: what is gone is not waited for: {said}");
    }
}

#[test]
fn down_that_lost_patience_says_what_is_still_there() {
    let clinic = slow(Who::Nobody);
    let (code, said, why) = ended(&clinic.ringfence(&["down", "--timeout", "1s"]));
    assert_eq!((code, &*said), (Some(3), ""), "{why}");
    assert!(why.contains("not gone after 1s: ") && why.contains("sluggish"), "{why}");
    assert!(!clinic.leftovers().is_empty());
    let gone = eventually(Duration::from_secs(60), || clinic.leftovers().is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", clinic.leftovers());
}
