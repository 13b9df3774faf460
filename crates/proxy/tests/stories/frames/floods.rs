//! Floods: each is bounded, told, and costs nobody else their answer.

use std::time::{Duration, Instant};

use super::hpack::{get, indexed, literal, post, remembered};
use super::*;
use crate::framing::SOON;
use crate::patience::Stopwatch;
use crate::rig::field;

/// A flood: what is repeated, the number of the time given; the rule that ends it, or none where `h2` ends it by itself.
type Flood = (&'static str, fn(u32) -> Vec<u8>, Option<&'static str>);

/// Far more than anybody needs.
const TIMES: u32 = 40_000;

const FLOODS: &[Flood] = &[
    (
        "RFC 9113 §10.5 rapid reset (CVE-2023-44487)",
        |n| [request(2 * n + 1, &get()), reset(2 * n + 1, CANCEL)].concat(),
        None,
    ),
    (
        "RFC 9113 §10.5 streams that the server has to reset (CVE-2025-8671)",
        |n| [head(2 * n + 1, &post()), window(2 * n + 1, 0)].concat(),
        None,
    ),
    ("RFC 9113 §10.5 malformed requests", |n| request(2 * n + 1, &literal("x", b"y")), None),
    (
        "RFC 9113 §10.5 CONTINUATION without an end (CVE-2024-27316)",
        |n| {
            if n == 0 { frame(HEADERS, 0, 1, &get()) } else { frame(CONTINUATION, 0, 1, &literal("x", b"y")) }
        },
        None,
    ),
    (
        "RFC 9113 §10.5 empty CONTINUATION without an end",
        |n| if n == 0 { frame(HEADERS, 0, 1, &get()) } else { frame(CONTINUATION, 0, 1, &[]) },
        None,
    ),
    ("RFC 9113 §10.5 SETTINGS (CVE-2019-9515)", |_| frame(SETTINGS, 0, 0, &[]), Some("limit.frames")),
    (
        "RFC 9113 §10.5 SETTINGS that change windows",
        |n| frame(SETTINGS, 0, 0, &setting(4, n)),
        Some("limit.frames"),
    ),
    ("RFC 9113 §10.5 PING (CVE-2019-9512)", |_| frame(PING, 0, 0, b"12345678"), Some("limit.frames")),
    (
        "RFC 9113 §10.5 PRIORITY (CVE-2019-9513)",
        |n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1]),
        Some("limit.frames"),
    ),
    ("RFC 9113 §10.5 WINDOW_UPDATE", |_| window(0, 1), Some("limit.frames")),
    (
        "RFC 9113 §10.5 empty DATA (CVE-2019-9518)",
        |n| if n == 0 { head(1, &post()) } else { data(1, b"", false) },
        None,
    ),
    (
        "RFC 9113 §10.5 DATA that is nothing but padding",
        |n| if n == 0 { head(1, &post()) } else { frame(DATA, PADDED, 1, &[2, 0, 0]) },
        None,
    ),
    ("RFC 9113 §10.5 frames that nobody knows", |_| frame(0xfa, 0, 0, b""), Some("limit.frames")),
    (
        "RFC 9113 §10.5 RST_STREAM of what is over",
        |n| if n == 0 { [request(1, &get()), reset(1, CANCEL)].concat() } else { reset(1, CANCEL) },
        Some("limit.frames"),
    ),
];

#[test]
fn each_flood_is_ended_and_its_neighbours_are_served() {
    let before = Before::start("limits: { streams: 64 }\n");
    for (name, make, rule) in FLOODS {
        let begun = Instant::now();
        let mut client = Client::new(before.rig.gateway, &[]);
        let mut sent = 0;
        while sent < TIMES && !client.closed && client.goaway().is_none() {
            let burst: Vec<u8> = (sent..sent + 500).flat_map(make).collect();
            sent += 500;
            if !client.try_send(&burst) {
                break;
            }
            client.until(Duration::from_millis(1), |_| false);
        }
        client.until(SOON, |_| false);
        assert!(client.closed, "{name}: still open after {sent}");
        // Whoever goes on sending may lose the reason to a reset of the connection; the event has it.
        let code = client.goaway();
        let codes = [None, Some(ENHANCE_YOUR_CALM), Some(PROTOCOL_ERROR)];
        assert!(codes.contains(&code), "{name}: {code:?}");
        let served = before.seen_from(client.address()).len();
        assert!(served < 1_500, "{name}: the service saw {served}");
        println!(
            "{name}: ended after at most {sent}, {code:?}, {served} reached the service, {:?}",
            begun.elapsed()
        );
        if let Some(rule) = rule {
            before.rig.event(name, |r| field(r, "/firewall_rule/uid") == *rule && r.denied());
        }
        let mut honest = Client::new(before.rig.gateway, &[]);
        honest.send(&[request(1, &get()), frame(PING, 0, 0, OURS)].concat());
        judge(&before, name, &mut honest, &Expected::Answer(1, 200));
    }
}

#[test]
fn a_bomb_of_one_remembered_field_costs_no_more_than_the_limit() {
    // RFC 7541, section 7.3: one entry of 4,000 bytes, named 4,000 times, is 16 MB.
    let before = Before::start("");
    let mut client = Client::new(before.rig.gateway, &[]);
    client.send(
        &[request(1, &[get(), remembered("x", &[b'y'; 4_000])].concat()), frame(PING, 0, 0, OURS)].concat(),
    );
    judge(&before, "one field", &mut client, &Expected::Answer(1, 200));
    client.send(&request(3, &[get(), indexed(62).repeat(4_000)].concat()));
    judge(&before, "the bomb", &mut client, &Expected::Gone(&[ENHANCE_YOUR_CALM]));
    // Just above the limit: its own stream alone.
    let mut client = Client::new(before.rig.gateway, &[]);
    client.send(&request(1, &[get(), remembered("x", &[b'y'; 4_000]), indexed(62).repeat(16)].concat()));
    client.send(&[request(3, &get()), frame(PING, 0, 0, OURS)].concat());
    client.until(SOON, |came| came.iter().filter(|f| f.kind == HEADERS).count() == 2);
    assert_eq!((client.status(1), client.status(3)), (Some(431), Some(200)), "{:?}", client.came);
}

/// Whether the connection ends within this time, and not before that.
fn ends(client: &mut Client, begun: Instant, from: Duration, to: Duration) -> bool {
    let watch = Stopwatch::start();
    client.until(SOON, |_| false);
    client.closed && begun.elapsed() >= from && watch.elapsed() < to
}

#[test]
fn what_begins_and_does_not_end_is_ended() {
    let before = Before::start("limits: { header_time: 500ms, idle: 1s }\n");
    let (from, to) = (Duration::from_millis(300), Duration::from_secs(4));
    for (name, bytes) in [
        ("no SETTINGS behind the preface", PREFACE.to_vec()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("half the head of a frame", [PREFACE, &frame(SETTINGS, 0, 0, &[]), &[0, 0, 8]].concat()),
        (
            "a head block without its end",
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0, 1, &get())].concat(),
        ),
        (
            "half a HEADERS",
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &framed(90, HEADERS, END_HEADERS, 1, &get())].concat(),
        ),
        ("nothing behind SETTINGS", [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()),
    ] {
        let begun = Instant::now();
        let mut client = Client::silent(before.rig.gateway);
        client.send(&bytes);
        assert!(ends(&mut client, begun, from, to), "{name}: {:?}", client.came);
    }
    // Byte by byte is no better.
    let mut client = Client::new(before.rig.gateway, &[]);
    client.send(&frame(HEADERS, 0, 1, &get()));
    let begun = Instant::now();
    while !client.closed && begun.elapsed() < SOON {
        client.send(&frame(CONTINUATION, 0, 1, &literal("x", b"y")));
        client.until(Duration::from_millis(100), |_| false);
    }
    assert!(client.closed, "{:?}", client.came);
    before.rig.event("the slow head", |r| field(r, "/firewall_rule/uid") == "limit.header-time");
}

#[test]
fn a_window_that_never_opens_ends_its_stream_alone() {
    // CVE-2019-9511, CVE-2019-9517: whoever asks and then takes nothing.
    let before = Before::start("limits: { idle: 4s }\n");
    let mut client = Client::new(before.rig.gateway, &setting(4, 0));
    client.send(&request(1, &get()));
    client.until(SOON, |came| came.iter().any(|f| f.kind == RST_STREAM || f.kind == GOAWAY));
    assert_eq!(client.first(RST_STREAM, 1).and_then(Frame::code), Some(CANCEL), "{:?}", client.came);
    client.send(&[request(3, &get()), window(3, 100), frame(PING, 0, 0, OURS)].concat());
    before.seen_from(client.address());
    judge(&before, "the next stream", &mut client, &Expected::Answer(3, 200));
}
