//! Bodies that are judged before they may pass: held whole, or their head, and nothing of them arrives unjudged.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, Request};

use crate::grpc::{client, runtime};
use crate::net::echo;
use crate::patience::HELP;
use crate::rig::{Rig, eventually, field, local, raw};
use crate::waf::{dial, start, status};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn head(path: &str, more: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n").into_bytes()
}

fn send(rig: &Rig, more: &str, body: &[u8]) -> String {
    let more = format!("{FORM}{more}Connection: close\r\nContent-Length: {}\r\n", body.len());
    raw(dial(rig), &[&head("/", &more), body].concat())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A service that counts what it is sent, and answers when `answer_at` bytes came, or at the end.
#[derive(Default)]
struct Sink {
    requests: AtomicU64,
    bytes: AtomicU64,
}

fn sink(listener: TcpListener, answer_at: u64) -> Arc<Sink> {
    let sink = Arc::new(Sink::default());
    let counts = sink.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counts = counts.clone();
            std::thread::spawn(move || drop(count(stream, answer_at, &counts)));
        }
    });
    sink
}

fn count(mut stream: TcpStream, answer_at: u64, counts: &Sink) -> std::io::Result<()> {
    let (mut buffer, mut head) = (vec![0; 64 << 10], Vec::new());
    let at = loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        counts.requests.fetch_or(1 << 63, Ordering::SeqCst);
        head.extend_from_slice(&buffer[..n]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..at]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let (length, mut came) = (length.unwrap_or(0), (head.len() - at) as u64);
    counts.requests.fetch_add(1, Ordering::SeqCst);
    counts.bytes.fetch_add(came, Ordering::SeqCst);
    while came < length.min(answer_at) {
        let n = stream.read(&mut buffer)? as u64;
        if n == 0 {
            return Ok(());
        }
        came += n;
        counts.bytes.fetch_add(n, Ordering::SeqCst);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    // Whoever closes what is still being sent to takes its own answer back: the other side closes first.
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

impl Sink {
    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst) & !(1 << 63)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

#[test]
fn a_body_arrives_as_it_came_after_it_was_judged() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    let answer = send(&rig, "", b"a=1&b=two");
    assert!(status(&answer) == 200 && answer.ends_with("\r\n\r\na=1&b=two"), "{answer}");
    // In pieces, with trailers, and more than one request on a connection.
    let chunked = [
        &head("/", &format!("{FORM}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"))[..],
        b"4\r\na=1&\r\n5\r\nb=two\r\n0\r\nX-Sum: 7\r\n\r\n",
        &head("/", &format!("{FORM}Connection: close\r\nContent-Length: 5\r\n")),
        b"c=333",
    ];
    let answer = raw(dial(&rig), &chunked.concat());
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert!(answer.contains("\r\n\r\na=1&b=two") && answer.ends_with("\r\n\r\nc=333"), "{answer}");
    // One byte after the other.
    let mut stream = dial(&rig);
    stream.set_nodelay(true).unwrap();
    let slowly =
        [&head("/", &format!("{FORM}Connection: close\r\nContent-Length: 15\r\n"))[..], b"q=union sxlect1"];
    for byte in slowly.concat() {
        stream.write_all(&[byte]).unwrap();
    }
    let answer = raw(stream, b"");
    assert!(answer.ends_with("q=union sxlect1"), "{answer}");
}

#[test]
fn nothing_of_an_attack_arrives_however_it_is_cut() {
    let (listener, port) = local();
    let sink = sink(listener, u64::MAX);
    let rig = start(port, "");
    let attack = b"a=1&q=1+union+select+1";
    assert_eq!(status(&send(&rig, "", attack)), 403);
    let more = format!("{FORM}Connection: close\r\nTransfer-Encoding: chunked\r\n");
    let chunks: Vec<u8> = attack.iter().flat_map(|byte| [b"1\r\n", &[*byte][..], b"\r\n"].concat()).collect();
    let answer = raw(dial(&rig), &[&head("/", &more)[..], &chunks, b"0\r\n\r\n"].concat());
    assert_eq!(status(&answer), 403, "{answer}");
    // Behind as much harmless text as fits.
    let padded = [&b"a="[..], &vec![b'x'; 100 << 10], b"&q=union+select"].concat();
    assert_eq!(status(&send(&rig, "", &padded)), 403);
    let over_h2 = runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        let request = Request::post("http://a/").header("content-type", "application/x-www-form-urlencoded");
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        for byte in attack {
            body.send_data(Bytes::copy_from_slice(&[*byte]), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        answer.await.unwrap().status().as_u16()
    });
    assert_eq!(over_h2, 403);
    assert_eq!(sink.requests.load(Ordering::SeqCst), 0, "not a byte, not even a head");
}

#[test]
fn long_bodies_are_judged_beside_and_each_gets_its_own_verdict() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    let body = |tail: &str| format!("a={}{tail}", "x".repeat(60 << 10));
    let (clean, hostile) = (body("&b=2"), body("&q=1+union+select+1"));
    std::thread::scope(|scope| {
        for n in 0..24 {
            let (rig, clean, hostile) = (&rig, &clean, &hostile);
            scope.spawn(move || match n % 4 {
                0 => {
                    let answer = send(rig, "", clean.as_bytes());
                    assert!(status(&answer) == 200 && answer.ends_with(clean), "passes as it came");
                }
                1 => assert_eq!(status(&send(rig, "", hostile.as_bytes())), 403),
                2 => assert_eq!(status(&send(rig, "", b"a=1")), 200),
                _ => {
                    // One that leaves before it is answered takes nobody's turn.
                    let head = head("/", &format!("{FORM}Content-Length: {}\r\n", clean.len()));
                    dial(rig).write_all(&[&head[..], clean.as_bytes()].concat()).unwrap();
                }
            });
        }
    });
    let event = rig.event("what was found", |r| field(r, "/firewall_rule/uid").starts_with("waf."));
    assert!(event.json.to_string().contains("union"), "{}", event.json);
    // Two on one connection, in their order.
    let first = [&head("/", &format!("{FORM}Content-Length: {}\r\n", clean.len()))[..], clean.as_bytes()];
    let last = [&head("/", &format!("{FORM}Connection: close\r\nContent-Length: 3\r\n"))[..], b"b=2"];
    let answers = raw(dial(&rig), &[first.concat(), last.concat()].concat());
    assert!(answers.contains(&clean) && answers.ends_with("\r\n\r\nb=2"));
}

#[test]
fn over_http2_bodies_and_trailers_arrive_too() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    let long = [&b"a="[..], &vec![b'y'; 120 << 10]].concat();
    for (body, trailers) in [(&b"a=1"[..], false), (b"a=1", true), (b"", true), (&long, false), (&long, true)]
    {
        let answer = runtime().block_on(async {
            let mut client = client(rig.gateway).await;
            let request =
                Request::post("http://a/").header("content-type", "application/x-www-form-urlencoded");
            let (answer, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
            send.send_data(Bytes::copy_from_slice(body), !trailers).unwrap();
            if trailers {
                let mut map = HeaderMap::new();
                map.insert("x-sum", "7".parse().unwrap());
                send.send_trailers(map).unwrap();
            }
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            let (mut all, mut body) = (Vec::new(), answer.into_body());
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            all
        });
        assert!(answer.ends_with(&[b"\r\n\r\n", body].concat()), "{}", answer.len());
    }
}

#[test]
fn who_may_not_pass_need_not_send_and_who_waits_is_told_to() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    let begin = |more: &str| {
        let mut stream = dial(&rig);
        stream.set_read_timeout(Some(HELP)).unwrap();
        stream.write_all(&head("/", &format!("{FORM}{more}"))).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (stream, String::from_utf8(first.to_vec()).unwrap())
    };
    let expect = "Expect: 100-continue\r\nConnection: close\r\n";
    // By its head alone, or by its length alone: no byte of the body is asked for.
    assert_eq!(begin(&format!("{expect}User-Agent: evilbot\r\nContent-Length: 5\r\n")).1, "HTTP/1.1 403");
    assert_eq!(begin("User-Agent: evilbot\r\nContent-Length: 5\r\n").1, "HTTP/1.1 403");
    assert_eq!(begin(&format!("{expect}Content-Length: 200000\r\n")).1, "HTTP/1.1 413");
    assert_eq!(begin("Content-Length: 200000\r\n").1, "HTTP/1.1 413");
    rig.event("the refusal", |r| field(r, "/firewall_rule/uid") == "waf.body");
    let (stream, first) = begin(&format!("{expect}Content-Length: 5\r\n"));
    assert_eq!(first, "HTTP/1.1 100");
    let answer = raw(stream, b"a=123");
    assert!(answer.contains("HTTP/1.1 200") && answer.ends_with("a=123"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("expect"), "the service need not wait: {answer}");
    assert!(!answer.contains("HTTP/1.1 100"), "told once: {answer}");
}

#[test]
fn a_longer_body_is_refused_or_its_head_is_judged_and_the_rest_streams_on() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, ", body: { inspect: 4KiB, beyond: reject }");
    let (fits, longer) = (vec![b'x'; 4096], vec![b'x'; 4097]);
    let chunked = |body: &[u8]| {
        let head = head("/", &format!("{FORM}Connection: close\r\nTransfer-Encoding: chunked\r\n"));
        let size = format!("{:x}\r\n", body.len());
        raw(dial(&rig), &[&head[..], size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat())
    };
    assert_eq!((status(&send(&rig, "", &fits)), status(&chunked(&fits))), (200, 200));
    assert_eq!((status(&send(&rig, "", &longer)), status(&chunked(&longer))), (413, 413));
    rig.apply(&crate::waf::fence(port, ", body: { inspect: 4KiB, beyond: head }"));
    assert_eq!((status(&send(&rig, "", &longer)), status(&chunked(&longer))), (200, 200));
    let early = [b"q=union+select&a=", &longer[..]].concat();
    let late = [b"a=", &longer[..], b"&q=union+select"].concat();
    assert_eq!((status(&send(&rig, "", &early)), status(&chunked(&early))), (403, 403));
    assert_eq!((status(&send(&rig, "", &late)), status(&chunked(&late))), (200, 200));
    // Whoever waits to be told is told once, and all of it arrives.
    let mut stream = dial(&rig);
    let more =
        format!("{FORM}Connection: close\r\nExpect: 100-continue\r\nContent-Length: {}\r\n", late.len());
    stream.write_all(&head("/", &more)).unwrap();
    let answer = raw(stream, &late);
    assert!(
        answer.ends_with("&q=union+select") && answer.matches("HTTP/1.1 100").count() == 1,
        "{}",
        answer.len()
    );
}

/// A service that reads so much and no more until it is told to.
fn patient(listener: TcpListener, first: u64, go: mpsc::Receiver<()>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut came) = (vec![0; 64 << 10], 0);
        let mut told = false;
        loop {
            if came >= first && !told {
                go.recv().unwrap();
                told = true;
            }
            match stream.read(&mut buffer).unwrap() {
                0 => return came,
                n => came += n as u64,
            }
            if buffer.contains(&b'!') {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .unwrap();
                return came;
            }
        }
    })
}

#[test]
fn large_uploads_stream_and_an_early_answer_comes_early() {
    const LENGTH: usize = 64 << 20;
    let (listener, port) = local();
    let (tell, go) = mpsc::sync_channel(1);
    let service = patient(listener, 1 << 20, go);
    let rig = start(port, ", body: { beyond: head }");
    let mut stream = dial(&rig);
    // Whoever is slower than this is taken for one that does not read, and loses nothing by it.
    stream.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    stream
        .write_all(&head("/", &format!("{FORM}Connection: close\r\nContent-Length: {LENGTH}\r\n")))
        .unwrap();
    let piece = vec![b'z'; 64 << 10];
    let mut sent = 0;
    // Whoever does not read makes the client wait: what is on its way lies in the sockets, and nowhere else.
    while let Ok(n) = stream.write(&piece[..piece.len().min(LENGTH - 1 - sent)]) {
        sent += n;
        assert!(sent < LENGTH / 2, "somebody takes it all");
    }
    tell.send(()).unwrap();
    stream.set_write_timeout(Some(HELP)).unwrap();
    while sent < LENGTH - 1 {
        sent += stream.write(&piece[..piece.len().min(LENGTH - 1 - sent)]).unwrap();
    }
    assert_eq!(status(&raw(stream, b"!")), 200);
    assert!(service.join().unwrap() as usize >= LENGTH);
    // One that answers before the rest came.
    let (listener, port) = local();
    let early = sink(listener, 1 << 20);
    rig.apply(&crate::waf::fence(port, ", body: { beyond: head }"));
    let mut stream = dial(&rig);
    stream.set_read_timeout(Some(HELP)).unwrap();
    stream.write_all(&head("/", &format!("{FORM}Content-Length: 1000000000\r\n"))).unwrap();
    // The answer may be there before all of this is sent.
    let _ = stream.write_all(&vec![b'z'; 2 << 20]);
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!((&first, early.requests()), (b"HTTP/1.1 200", 1));
}

#[test]
fn a_body_that_no_rule_looks_at_streams_whatever_its_length() {
    let (listener, port) = local();
    let sink = sink(listener, u64::MAX);
    let rig = start(port, "");
    let mut stream = dial(&rig);
    let more = "Content-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: 300000\r\n";
    stream.write_all(&[&head("/", more)[..], &[b'z'; 1000]].concat()).unwrap();
    eventually("the beginning", || (sink.bytes() == 1000).then_some(()));
    assert_eq!(status(&raw(stream, &vec![b'z'; 299_000])), 200);
    assert_eq!(sink.bytes(), 300_000);
}

#[test]
fn compressed_bodies_are_judged_unpacked_and_sent_as_they_came() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, "");
    let (gz, coded) = ("Content-Encoding: gzip\r\n", |answer: &str| status(answer));
    let (harmless, attack) = (gzip(b"a=1"), gzip(b"q=union+select"));
    assert_eq!(coded(&send(&rig, gz, &harmless)), 200);
    assert_eq!(coded(&send(&rig, gz, &attack)), 403);
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(b"q=union+select").unwrap();
    assert_eq!(coded(&send(&rig, "Content-Encoding: deflate\r\n", &zlib.finish().unwrap())), 403);
    assert_eq!(coded(&send(&rig, gz, b"no gzip")), 400);
    assert_eq!(coded(&send(&rig, gz, &[&harmless[..], &attack].concat())), 400, "two members");
    assert_eq!(coded(&send(&rig, "Content-Encoding: br\r\n", b"\x0b\x01\x80a=1\x03")), 415);
    assert_eq!(coded(&send(&rig, "Content-Encoding: gzip, gzip\r\n", &gzip(&harmless))), 415);
    let bomb = gzip(&vec![b'a'; 32 << 20]);
    assert_eq!(coded(&send(&rig, gz, &bomb)), 413);
    // Who only watches lets them pass.
    rig.apply(&crate::waf::fence(port, ", mode: observe"));
    for (more, body) in [(gz, &attack[..]), (gz, b"no gzip"), ("Content-Encoding: br\r\n", b"x"), (gz, &bomb)]
    {
        assert_eq!(status(&send(&rig, more, body)), 200);
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_long() {
    let (listener, port) = local();
    let sink = sink(listener, u64::MAX);
    let rig = start(port, "");
    rig.apply(&(crate::waf::fence(port, "") + "limits: { idle: 1s }\n"));
    let answer =
        raw(dial(&rig), &[&head("/", &format!("{FORM}Content-Length: 10\r\n"))[..], b"a=1"].concat());
    assert_eq!(status(&answer), 408, "{answer}");
    // One whose client goes is not waited for at all.
    rig.apply(&(crate::waf::fence(port, "") + "limits: { idle: 10m }\n"));
    let mut stream = dial(&rig);
    stream
        .write_all(&[&head("/gone", &format!("{FORM}Content-Length: 10\r\n"))[..], b"a=1"].concat())
        .unwrap();
    drop(stream);
    rig.event("its end", |r| field(r, "/http_request/url/path") == "/gone");
    // A stream that is reset before anybody took it was none: then once more, a little later.
    let mut pause = Duration::from_millis(50);
    eventually("its end", || {
        pause *= 2;
        runtime().block_on(async {
            let mut client = client(rig.gateway).await;
            let request =
                Request::post("http://a/reset").header("content-type", "application/x-www-form-urlencoded");
            let request = request.body(()).unwrap();
            let (answer, mut body) = client.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"a=1"), false).unwrap();
            tokio::time::sleep(pause).await;
            body.send_reset(h2::Reason::CANCEL);
            answer.await.unwrap_err();
        });
        std::thread::sleep(pause);
        rig.events().into_iter().find(|r| field(r, "/http_request/url/path") == "/reset")
    });
    assert_eq!(sink.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_flood_of_held_bodies_takes_no_more_memory_than_there_is_for_them_and_others_pass() {
    let (listener, port) = local();
    echo(listener);
    let rig = start(port, ", body: { inspect: 2MiB, beyond: reject }");
    // Each almost a whole body, of which a little goes on coming: together several times what may be held.
    let body = vec![b'x'; (2 << 20) - 500_000];
    let begin = head("/flood", &format!("{FORM}Content-Length: {}\r\n", 2 << 20));
    let flood: Vec<TcpStream> = (0..140)
        .map(|_| {
            let mut stream = dial(&rig);
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            // Refused ones may be closed before all was taken.
            let _ = stream.write_all(&begin).and_then(|()| stream.write_all(&body));
            stream
        })
        .collect();
    flood.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    let flood = Arc::new(flood);
    let (over, ended) = mpsc::channel::<()>();
    let drips = flood.clone();
    let dripping = std::thread::spawn(move || {
        // Bounded: this many pieces are less than what is missing.
        for _ in 0..40_000 {
            if ended.try_recv() != Err(mpsc::TryRecvError::Empty) {
                break;
            }
            for mut stream in &*drips {
                let _ = stream.write(b"12345678");
            }
        }
    });
    rig.event("the refusals", |r| field(r, "/firewall_rule/uid") == "limit.held");
    // Whoever sends what it has is not held up by those who wait.
    let mut served = 0;
    eventually("calm", || {
        served += usize::from(status(&send(&rig, "", b"a=1&b=2")) == 200);
        (served >= 20).then_some(())
    });
    let waits = |stream: &&TcpStream| {
        stream.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    };
    let waiting = flood.iter().filter(waits).count();
    assert!(waiting > 10, "the flood waits still, as far as there is memory for it: {waiting}");
    drop(over);
    dripping.join().unwrap();
    drop(flood);
    eventually("all that they took", || (status(&send(&rig, "", &body)) == 200).then_some(()));
}
