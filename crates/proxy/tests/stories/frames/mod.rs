//! HTTP/2 and HPACK through the running gateway, case by case, with a client that writes every frame itself.
//!
//! Each case names the section of the standard and says what the standard says. Where it leaves a choice (a malformed request may be
//! answered or reset, a stream error may end the connection), each choice passes; that nothing malformed reaches the service always holds.

mod client;
mod compression;
mod connection;
mod floods;
mod hpack;
mod messages;
mod settings;
mod streams;

use std::collections::BTreeSet;

pub use self::client::*;
pub use self::hpack::get;
use crate::framing::{Before, every, find};

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// What the standard has a server do.
pub enum Expected {
    /// The stream is answered with this status, and the connection goes on.
    Answer(u32, u16),
    /// The stream is served, and the service saw exactly this.
    Sees(u32, &'static str),
    /// Nothing is said, and the connection goes on.
    Ignored,
    /// A stream error with one of these codes; the whole connection may end with the same.
    Reset(u32, &'static [u32]),
    /// The request is malformed (section 8.1.1): reset with PROTOCOL_ERROR, or answered with a status of 4xx or 5xx.
    Malformed(u32),
    /// A connection error with one of these codes.
    Gone(&'static [u32]),
    /// The connection is closed, with or without a word.
    Closed,
}

/// A name that begins with the section, what is sent behind preface and settings, what is to come.
pub type Case = (&'static str, fn() -> Vec<u8>, Expected);

const OURS: &[u8] = b"ringtest";

/// An own PING came back.
fn is_pong(frame: &Frame) -> bool {
    frame.kind == PING && frame.flags & ACK != 0 && frame.payload == OURS
}

/// Where the `h2` crate does not do what the standard says: what is done, and why that is good enough.
type Deviation = (&'static str, Expected, &'static str);

const DEVIATIONS: &[Deviation] = &[
    (
        "RFC 9113 §5.1 DATA behind END_STREAM",
        Expected::Gone(&[PROTOCOL_ERROR]),
        "stricter: the connection ends, not the stream alone",
    ),
    (
        "RFC 9113 §5.1 DATA behind DATA with END_STREAM",
        Expected::Gone(&[PROTOCOL_ERROR]),
        "stricter: the connection ends, not the stream alone",
    ),
    (
        "RFC 9113 §6.5.2 SETTINGS_INITIAL_WINDOW_SIZE of 2^31",
        Expected::Gone(&[PROTOCOL_ERROR]),
        "the same end by a more general name",
    ),
    (
        "RFC 9113 §8.1 trailers with a pseudo-header field",
        Expected::Sees(
            1,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        "the field is dropped before anybody sees it, and goes nowhere",
    ),
    (
        "RFC 9113 §8.3.1 :path with a fragment",
        Expected::Sees(1, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
        "the fragment is dropped before the path is judged: what is judged is what is sent",
    ),
];

/// What is done of what the standard says. A block that cannot be decoded ends the connection as it must, by a more general name:
/// `h2` says PROTOCOL_ERROR for COMPRESSION_ERROR.
fn done((name, _, expected): &'static Case) -> &'static Expected {
    match DEVIATIONS.iter().find(|deviation| deviation.0 == *name) {
        Some((_, done, _)) => done,
        None if matches!(expected, Expected::Gone([COMPRESSION_ERROR])) => &Expected::Gone(&[PROTOCOL_ERROR]),
        None => expected,
    }
}

fn check(before: &Before, case: &'static Case) {
    let (name, bytes, _) = case;
    let mut client = Client::new(before.rig.gateway, &[]);
    client.send(&bytes());
    client.send(&frame(PING, 0, 0, OURS));
    judge(before, name, &mut client, done(case));
}

pub fn judge(before: &Before, name: &str, client: &mut Client, expected: &Expected) {
    let time = std::time::Duration::from_secs(60);
    let over = |came: &[Frame], stream: u32| {
        let of = |frame: &&Frame| frame.stream == stream;
        came.iter().filter(of).any(|frame| {
            frame.kind == RST_STREAM
                || (matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0)
        })
    };
    let alive = |client: &mut Client, stream: u32| {
        client.until(time, |came| came.iter().any(is_pong) && (stream == 0 || over(came, stream)))
    };
    let mut served = 0;
    match expected {
        Expected::Answer(stream, status) => {
            assert!(alive(client, *stream), "{name}: {:?}", client.came);
            assert_eq!(client.status(*stream), Some(*status), "{name}: {:?}", client.came);
            served = usize::from(*status == 200);
        }
        Expected::Sees(stream, request) => {
            assert!(alive(client, *stream), "{name}: {:?}", client.came);
            assert_eq!(client.status(*stream), Some(200), "{name}: {:?}", client.came);
            // Two streams may reach the service in either order.
            let seen = before.seen_from(client.address());
            let seen: Vec<_> = seen.iter().map(|request| String::from_utf8_lossy(request)).collect();
            assert!(seen.iter().any(|seen| seen == request), "{name}: {seen:?}");
            return;
        }
        Expected::Ignored => {
            assert!(alive(client, 0), "{name}: {:?}", client.came);
            let said = |frame: &&Frame| matches!(frame.kind, RST_STREAM | GOAWAY);
            assert_eq!(client.came.iter().find(said), None, "{name}");
        }
        Expected::Reset(stream, codes) => {
            client.until(time, |came| {
                came.iter().any(|f| f.kind == GOAWAY)
                    || came.iter().any(|f| f.kind == RST_STREAM && f.stream == *stream)
            });
            let code = client.first(RST_STREAM, *stream).and_then(Frame::code).or_else(|| client.goaway());
            assert!(code.is_some_and(|code| codes.contains(&code)), "{name}: {:?}", client.came);
            // Whether what came before it was served is another question.
            before.seen_from(client.address());
            return;
        }
        Expected::Malformed(stream) => {
            client.until(time, |came| over(came, *stream) || came.iter().any(|f| f.kind == GOAWAY));
            let code = client.first(RST_STREAM, *stream).and_then(Frame::code).or_else(|| client.goaway());
            let status = client.status(*stream);
            assert!(
                code == Some(PROTOCOL_ERROR) || status.is_some_and(|status| (400..=505).contains(&status)),
                "{name}: {:?}",
                client.came
            );
        }
        Expected::Gone(codes) => {
            client.until(time, |_| false);
            assert!(client.closed, "{name}: {:?}", client.came);
            assert!(client.goaway().is_some_and(|code| codes.contains(&code)), "{name}: {:?}", client.came);
            before.seen_from(client.address());
            return;
        }
        Expected::Closed => {
            client.until(time, |_| false);
            assert!(client.closed, "{name}: {:?}", client.came);
        }
    }
    let seen = before.seen_from(client.address());
    let shown: Vec<_> = seen.iter().map(|request| String::from_utf8_lossy(request)).collect();
    assert_eq!(seen.len(), served, "{name}: {shown:?}");
    assert!(seen.iter().all(|request| find(request, b"smuggled").is_none()), "{name}: {shown:?}");
}

#[test]
fn each_http_2_and_hpack_case_is_answered_as_the_standard_says() {
    let before = Before::start("limits: { streams: 16 }\n");
    let cases: Vec<&Case> =
        [connection::CASES, settings::CASES, streams::CASES, messages::CASES, compression::CASES]
            .into_iter()
            .flatten()
            .collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    assert!(names.iter().all(|name| name.starts_with("RFC 9113 §") || name.starts_with("RFC 7541 §")));
    assert!(cases.len() >= 150, "{}", cases.len());
    assert!(DEVIATIONS.iter().all(|(name, _, why)| names.contains(name) && !why.is_empty()));
    every(cases.iter().map(|case| case.0), |at| check(&before, cases[at]));
    println!("HTTP/2 and HPACK: {} cases", cases.len());
}

#[test]
fn what_comes_before_the_settings_decides_what_is_spoken() {
    let before = Before::start("");
    let ping = || frame(PING, 0, 0, OURS);
    // RFC 9113, section 3.4: the preface is followed by SETTINGS.
    let cases: [(&str, Vec<u8>, Expected); 6] = [
        (
            "RFC 9113 §3.4 no SETTINGS behind the preface",
            [PREFACE, &ping()].concat(),
            Expected::Gone(&[PROTOCOL_ERROR]),
        ),
        (
            "RFC 9113 §3.4 a request before SETTINGS",
            [PREFACE, &request(1, &get())].concat(),
            Expected::Gone(&[PROTOCOL_ERROR]),
        ),
        ("RFC 9113 §3.4 a broken preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), Expected::Closed),
        ("RFC 9113 §3.4 frames without a preface", frame(SETTINGS, 0, 0, &[]), Expected::Closed),
        (
            "RFC 9113 §3.4 a preface of another version",
            b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n".to_vec(),
            Expected::Closed,
        ),
        (
            "RFC 9113 §3.4 SETTINGS of 16 KiB and one byte",
            [PREFACE, &frame(SETTINGS, 0, 0, &[0; 16_386])].concat(),
            Expected::Gone(&[FRAME_SIZE_ERROR]),
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut client = Client::silent(before.rig.gateway);
        client.send(&bytes);
        judge(&before, name, &mut client, &expected);
    }
    // The preface in single bytes is the same preface.
    let mut client = Client::silent(before.rig.gateway);
    for byte in [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request(1, &get())].concat() {
        client.send(&[byte]);
    }
    client.send(&ping());
    judge(&before, "RFC 9113 §3.4 byte by byte", &mut client, &Expected::Answer(1, 200));
    let settings = client.came.first().expect("the server's preface");
    assert_eq!((settings.kind, settings.flags), (SETTINGS, 0), "the server begins with its settings");
}
