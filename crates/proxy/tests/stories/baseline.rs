//! A fence that says nothing of attacks: the embedded rules look for them, in whatever way a body is sent, and uploads stream.

use std::future::Future as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::Poll;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::grpc::{client, runtime};
use crate::net::echo;
use crate::patience::HELP;
use crate::rig::{Rig, eventually, field, get, local, raw};
use crate::waf::{dial, status};

const ATTACK: &str = "1%27%20UNION%20SELECT%20name,%20password%20FROM%20users%20--%20";

/// A fence that says nothing of attacks but on two routes.
fn fence(port: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ path: / }}, {{ path: /watched, waf: observe }}, {{ path: /open, waf: off }}]
"
    )
}

fn start() -> Rig {
    let (listener, port) = local();
    echo(listener);
    Rig::start(&fence(port))
}

/// Posts with these fields to `/`.
fn post(rig: &Rig, fields: &str, body: &[u8]) -> u16 {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = raw(dial(rig), &[head.as_bytes(), body].concat());
    if status(&answer) == 200 {
        assert!(answer.as_bytes().ends_with(&String::from_utf8_lossy(body).as_bytes()[body.len() / 2..]));
    }
    status(&answer)
}

#[test]
fn a_fence_that_says_nothing_is_protected_and_one_that_says_off_is_not() {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port));
    let ask = |path: &str| status(&get(dial(&rig), "a", path));
    assert_eq!((ask("/?q=O%27Brien"), ask(&format!("/?q={ATTACK}"))), (200, 403));
    let event = rig.event("a refusal", |r| field(r, "/unmapped/stage") == "inspect");
    assert!(field(&event, "/firewall_rule/uid").starts_with("waf.4610"), "{}", event.json);
    assert_eq!(field(&event, "/unmapped/position"), "ringfence.yaml:3:1", "{}", event.json);
    assert_eq!(ask(&format!("/watched?q={ATTACK}")), 200);
    let event = rig.event("what was watched", |r| field(r, "/unmapped/observed_verdict") == "deny");
    assert_eq!(field(&event, "/http_request/url/path"), "/watched");
    assert_eq!(ask(&format!("/open?q={ATTACK}")), 200);
    rig.apply(&(fence(port) + "waf: off\n"));
    assert_eq!(ask(&format!("/?q={ATTACK}")), 200);
    rig.apply(&(fence(port) + "waf: enforce\n"));
    assert_eq!((ask("/?q=O%27Brien"), ask(&format!("/?q={ATTACK}"))), (200, 403));
}

#[test]
fn no_type_and_no_lie_about_it_leads_an_attack_past_the_rules() {
    let rig = start();
    let form = format!("a=1&q={ATTACK}");
    // What an escape hides, only a reader of JSON sees.
    let json = br#"{"a":{"q":"1\u0027 UNION SELECT name, password FROM users -- "}}"#;
    let wide: Vec<u8> = json.iter().flat_map(|byte| [*byte, 0]).collect();
    let xml = b"<a><q>1' UNION SELECT name, password FROM users -- </q></a>";
    let prose = b"1' UNION SELECT name, password FROM users -- ";
    let lines = [&b"{\"a\":1}\n"[..], json].concat();
    let multipart =
        [&json[..], b"\r\n--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"].concat();
    for kind in ["", "text/plain", "application/x-unknown", "x", "application/octet-stream", "image/png"] {
        let is_opaque = kind.ends_with("stream") || kind.ends_with("png");
        let fields = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        for body in [&json[..], &[b" \r\n", &json[..]].concat(), xml, &wide, &lines] {
            assert_eq!(post(&rig, &fields, body), 403, "{kind}: {}", String::from_utf8_lossy(body));
        }
        for body in [form.as_bytes(), prose, &[b"\0\x01", &prose[..]].concat()] {
            let expected = if is_opaque { 200 } else { 403 };
            assert_eq!(post(&rig, &fields, body), expected, "{kind}: {}", String::from_utf8_lossy(body));
        }
        for body in [
            &br#"{"name":"O'Brien","note":"select one of the union's rooms"}"#[..],
            b"[draft] don't",
            b"a < b",
        ] {
            assert_eq!(post(&rig, &fields, body), 200, "{kind}: {}", String::from_utf8_lossy(body));
        }
    }
    let typed = |kind: &str, body: &[u8]| post(&rig, &format!("Content-Type: {kind}\r\n"), body);
    assert_eq!(typed("application/x-www-form-urlencoded", json), 403);
    assert_eq!(typed("application/x-www-form-urlencoded", br#"{"name":"O'Brien"}"#), 200);
    assert_eq!(typed("multipart/form-data; boundary=x", &multipart), 403);
    assert_eq!(typed("application/json", form.as_bytes()), 400, "what says that it is JSON has to be");
}

#[test]
fn what_is_packed_is_judged_unpacked_and_as_it_came() {
    let rig = start();
    let attack = format!("a=1&q={ATTACK}");
    let pack = |coding: &str, plain: &[u8]| {
        let fast = Compression::fast();
        match coding {
            "gzip" => {
                let mut gzip = GzEncoder::new(Vec::new(), fast);
                gzip.write_all(plain).unwrap();
                gzip.finish().unwrap()
            }
            "zlib" => {
                let mut zlib = ZlibEncoder::new(Vec::new(), fast);
                zlib.write_all(plain).unwrap();
                zlib.finish().unwrap()
            }
            _ => {
                let mut raw = DeflateEncoder::new(Vec::new(), fast);
                raw.write_all(plain).unwrap();
                raw.finish().unwrap()
            }
        }
    };
    let mut letters = ZlibEncoder::new(Vec::new(), Compression::none());
    letters.write_all(format!("no=field&\0&{attack}&\0").as_bytes()).unwrap();
    let letters = letters.finish().unwrap();
    for (packed, coding) in [("gzip", "gzip"), ("zlib", "deflate"), ("raw", "deflate")] {
        let fields = |kind: &str| format!("Content-Encoding: {coding}\r\nContent-Type: {kind}\r\n");
        let form = fields("application/x-www-form-urlencoded");
        assert_eq!(post(&rig, &form, &pack(packed, b"a=1")), 200, "{packed}");
        assert_eq!(post(&rig, &form, &pack(packed, attack.as_bytes())), 403, "{packed}");
        let json = br#"{"q":"1\u0027 UNION SELECT name, password FROM users -- "}"#;
        assert_eq!(post(&rig, &fields("application/octet-stream"), &pack(packed, json)), 403, "{packed}");
        assert_eq!(
            post(&rig, &fields("application/octet-stream"), &pack(packed, b"\x89PNG\r\n")),
            200,
            "{packed}"
        );
        // What claims to be packed and is not.
        for kind in ["application/x-www-form-urlencoded", "application/octet-stream", "text/plain"] {
            assert_eq!(post(&rig, &fields(kind), attack.as_bytes()), 400, "{packed} {kind}");
        }
    }
    // Unpacked it is a picture, to whoever does not unpack it is a form.
    let fields = "Content-Encoding: deflate\r\nContent-Type: image/png\r\n";
    assert_eq!(post(&rig, fields, &letters), 200, "nothing in it looks like what a service would read");
    let fields = "Content-Encoding: deflate\r\nContent-Type: application/json\r\n";
    let mut hidden = ZlibEncoder::new(Vec::new(), Compression::none());
    hidden.write_all(format!("{{\"a\":\"&{attack}&\"}}").as_bytes()).unwrap();
    assert_eq!(post(&rig, fields, &hidden.finish().unwrap()), 403);
    // In a coding that nobody here knows, only what is no text passes.
    let coded = |kind: &str, body: &[u8]| {
        post(&rig, &format!("Content-Encoding: br\r\nContent-Type: {kind}\r\n"), body)
    };
    assert_eq!(coded("application/json", b"\x0b\x01\x80a=1\x03"), 415);
    assert_eq!(coded("application/octet-stream", b"\x0b\x01\x80a=1\x03"), 200);
    assert_eq!(coded("application/octet-stream", br#"{"q":1}"#), 415);
}

#[test]
fn uploads_stream_whatever_their_length_and_long_text_is_judged_by_its_head() {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port));
    let long = vec![b'z'; 1 << 20];
    for kind in ["application/octet-stream", "text/plain", "application/x-www-form-urlencoded"] {
        assert_eq!(post(&rig, &format!("Content-Type: {kind}\r\n"), &long), 200, "{kind}");
    }
    let attack = [format!("q={ATTACK}&a=").as_bytes(), &long].concat();
    assert_eq!(post(&rig, "Content-Type: application/x-www-form-urlencoded\r\n", &attack), 403);
    // Of what is no text, nothing is waited for but how it begins.
    let (listener, port) = local();
    rig.apply(&fence(port));
    for fields in ["", "Content-Encoding: zstd\r\n"] {
        let mut client = dial(&rig);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n{fields}Content-Length: 300000\r\n\r\n"
        );
        client.write_all(&[head.as_bytes(), &[0x28, 0xb5, 0x2f, 0xfd]].concat()).unwrap();
        let (mut service, _) = listener.accept().unwrap();
        service.set_read_timeout(Some(HELP)).unwrap();
        let mut came = Vec::new();
        while !came.ends_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            came.push(byte(&mut service));
        }
    }
}

fn byte(stream: &mut TcpStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn requests_that_wait_to_be_judged_are_bounded_by_what_they_cost_and_others_pass() {
    let rig = start();
    // A byte of a body each, and never the rest: by their bytes they are nothing.
    runtime().block_on(async {
        let (mut clients, mut flood) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let mut client = client(rig.gateway).await;
            for _ in 0..90 {
                client = client.ready().await.unwrap();
                let request =
                    http::Request::post("http://a/flood").header("content-type", "application/json");
                let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
                body.send_data(bytes::Bytes::from_static(b"{"), false).unwrap();
                flood.push((answer, body));
            }
            clients.push(client);
        }
        // More than there is memory for, so somebody is answered although nobody sent all.
        let (mut answers, mut bodies): (Vec<_>, Vec<_>) = flood.into_iter().unzip();
        let refused = std::future::poll_fn(|cx| {
            let mut is_refused = false;
            // Some may have waited for too long where it took long to send them all.
            answers.retain_mut(|answer| match Pin::new(answer).poll(cx) {
                Poll::Ready(answer) => {
                    is_refused |= answer.is_ok_and(|answer| answer.status() == 503);
                    false
                }
                Poll::Pending => true,
            });
            if is_refused { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(HELP, refused).await.expect("somebody is refused");
        let mut served = 0;
        eventually("others are served", || {
            served += usize::from(post(&rig, "Content-Type: application/json\r\n", b"{}") == 200);
            (served >= 20).then_some(())
        });
        bodies.clear();
    });
    rig.event("somebody gave way", |r| field(r, "/firewall_rule/uid") == "limit.held");
}
