//! HTTP/1.1 framing through the running gateway, case by case: what is refused, and what the service saw, byte by byte.
//!
//! Each case names the section of the standard. A request to `/marker` follows on the same connection: after a refusal it must never be
//! seen, after a request that passes it must be seen as exactly the next one.

mod bodies;
mod heads;
mod passing;
mod upstream;

use std::collections::BTreeSet;
use std::io::{Read, Write};

pub use self::upstream::{Before, SOON, connect, connect_from, find};

/// What becomes of the bytes of a case.
pub enum Outcome {
    /// Refused with this status; the connection is closed; the service saw nothing of it.
    Refused(u16),
    /// The service saw exactly these requests; then the marker.
    Seen(&'static [&'static str]),
    /// The service saw exactly these requests; what came next was refused with this status.
    SeenThen(&'static [&'static str], u16),
    /// The service saw exactly these requests; then the connection was closed.
    SeenLast(&'static [&'static str]),
}
use Outcome::{Refused, Seen, SeenLast, SeenThen};

/// A name that begins with the section, the bytes, what becomes of them.
type Case = (&'static str, &'static [u8], Outcome);

const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n";
const MARKER_SEEN: &str = "GET /marker HTTP/1.1\r\nHost: marker\r\n\r\n";

/// Sends bytes and reads to the end of the connection, which has to come by itself.
fn send(before: &Before, name: &str, bytes: &[u8]) -> String {
    let mut stream = before.connect();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{name}: not closed within {SOON:?}: {e}: {}", String::from_utf8_lossy(&answer)),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of each final response.
fn statuses(answer: &str) -> Vec<u16> {
    let found = answer.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok());
    found.filter(|status| *status != 100).collect()
}

fn check(before: &Before, (name, bytes, outcome): &Case) {
    let answer = send(before, name, &[bytes, MARKER].concat());
    let found = statuses(&answer);
    let seen: Vec<String> =
        before.seen().iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect();
    let (requests, refused, goes_on) = match outcome {
        Refused(status) => (&[][..], Some(*status), false),
        Seen(requests) => (*requests, None, true),
        SeenThen(requests, status) => (*requests, Some(*status), false),
        SeenLast(requests) => (*requests, None, false),
    };
    let mut expected: Vec<&str> = requests.to_vec();
    let mut answers = vec![200; requests.len()];
    if let Some(status) = refused {
        answers.push(status);
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{name}: {answer}");
    }
    if goes_on {
        expected.push(MARKER_SEEN);
        answers.push(200);
    }
    assert_eq!(seen, expected, "{name}: {answer}");
    assert_eq!(found, answers, "{name}: {answer}");
}

/// Checks each of some cases, and tells all that fail, not only the first.
pub fn every<'a>(names: impl Iterator<Item = &'a str>, check: impl Fn(usize)) {
    let check = std::panic::AssertUnwindSafe(check);
    let fails = |at: usize| std::panic::catch_unwind(|| check(at)).is_err();
    let failed: Vec<&str> = names.enumerate().filter(|(at, _)| fails(*at)).map(|(_, name)| name).collect();
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}

#[test]
fn each_http_1_framing_case_is_refused_or_seen_as_what_was_judged() {
    let before = Before::start("");
    let cases: Vec<&Case> = heads::CASES.iter().chain(bodies::CASES).chain(passing::CASES).collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    assert!(names.iter().all(|name| name.starts_with("RFC 91")), "each name begins with its section");
    assert!(cases.len() >= 120, "{}", cases.len());
    every(cases.iter().map(|case| case.0), |at| check(&before, cases[at]));
    println!("HTTP/1.1 framing: {} cases", cases.len());
}
