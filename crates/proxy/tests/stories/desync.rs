//! Whatever a client sends, other people's servers behind the gateway see exactly the requests that the gateway judged: nginx, haproxy and
//! lighttpd, by their own logs.
//!
//! Streams of requests are made and then broken by what smuggling is made of: lengths and codings twice or misspelt, chunk sizes, line
//! ends, white space, control bytes. Bodies hold requests that nobody may see. What the gateway judges is what its codec reads.
//! The long form is `cargo xtask conform desync`.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringfence_proxy::h1::{Decoded, Decoder, Limits, Parsed, Scratch, parse_request};

use crate::framing::connect;
use crate::patience::HELP;
use crate::rig::{Rig, eventually, kept};

/// What haproxy writes where it has no request to write.
const BAD: &str = "<BADREQ>";
/// As long as what stands for them in streams, so that lengths stay right.
const HOSTS: [&str; 3] = ["ngin.x", "hapr.x", "ligh.x"];

/// A small generator of numbers: the same at every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }
}

/// Lines about length and coding, right and wrong.
const LINES: &[&str] = &[
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding:\r\n chunked",
    "Transfer_Encoding: chunked",
    "TRANSFER-ENCODING: chunked",
    "Transfer-Encoding: gzip, chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: 44",
    "Content-Length: +5",
    "Content-Length: 05",
    "Content-Length: 5, 5",
    "Content-Length: 0x5",
    "Content-Length : 5",
    "Content_Length: 5",
    "Content-Length: 5\x0b",
    "Content-Length:\r\n 5",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: Content-Length",
    "Connection: Transfer-Encoding",
    "Upgrade: h2c",
    "Host: other",
];

const BYTES: &[u8] = b"\r\n\0 \t\x0b\x0c:;,+-0x\"\x7f\x85\xa0";

/// One request of a stream.
fn request(dice: &mut Dice, stream: usize, number: usize) -> Vec<u8> {
    let hidden = format!("GET /hidden{stream} HTTP/1.1\r\nHost: HOST.X\r\n\r\n");
    let target = format!("/s{stream}r{number}");
    let head = |method: &str, more: &str| format!("{method} {target} HTTP/1.1\r\nHost: HOST.X\r\n{more}\r\n");
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
    match dice.roll(7) {
        0 => head("GET", ""),
        1 => head("HEAD", "Accept: */*\r\n"),
        2 => head("POST", &format!("Content-Length: {}\r\n", hidden.len())) + &hidden,
        3 => head("POST", "Transfer-Encoding: chunked\r\n") + &chunk(&hidden) + "0\r\n\r\n",
        4 => {
            head("PUT", "Transfer-Encoding: chunked\r\n")
                + &chunk("0\r\n\r\n")
                + &chunk(&hidden)
                + "0\r\nX-Sum: 1\r\n\r\n"
        }
        5 => head("GET", &format!("Content-Length: {}\r\n", hidden.len())) + &hidden,
        _ => head("DELETE", "Content-Length: 0\r\n"),
    }
    .into_bytes()
}

/// Breaks something.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let line_ends: Vec<usize> =
        (1..bytes.len()).filter(|at| bytes[at - 1..=*at] == *b"\r\n").map(|at| at + 1).collect();
    match dice.roll(8) {
        0 | 1 if !line_ends.is_empty() => {
            let at = line_ends[dice.roll(line_ends.len())];
            let line = format!("{}\r\n", dice.pick(LINES));
            bytes.splice(at..at, line.into_bytes());
        }
        2 if !line_ends.is_empty() => {
            let at = line_ends[dice.roll(line_ends.len())] - 2;
            let end: &[u8] = dice.pick::<[u8]>(&[b"\n", b"\r", b"\r\r\n", b"\n\r\n", b" \r\n", b""]);
            bytes.splice(at..at + 2, end.iter().copied());
        }
        3 => {
            let at = dice.roll(bytes.len());
            bytes[at] = BYTES[dice.roll(BYTES.len())];
        }
        4 => {
            let at = dice.roll(bytes.len());
            bytes.insert(at, BYTES[dice.roll(BYTES.len())]);
        }
        5 => drop(bytes.remove(dice.roll(bytes.len()))),
        6 => {
            // A digit of some length.
            let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
            if !digits.is_empty() {
                bytes[digits[dice.roll(digits.len())]] = b"0123456789abcdef"[dice.roll(16)];
            }
        }
        _ => {
            let (from, length) = (dice.roll(bytes.len()), 1 + dice.roll(40));
            let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
            bytes.splice(from..from, piece);
        }
    }
}

/// What the gateway judges of a stream: whole requests, and perhaps a last one of which only the head is right.
#[derive(Default)]
struct Judged {
    whole: Vec<String>,
    begun: Option<String>,
}

fn judge(bytes: &[u8], host: &str) -> Judged {
    let limits = Limits { head: 64 << 10, ..Limits::default() };
    let (mut read, mut scratch, mut judged) = (BytesMut::from(bytes), Scratch::default(), Judged::default());
    while let Ok(Parsed::Request(head)) = parse_request(&mut read, &limits, &mut scratch) {
        let query = head.query().map_or(String::new(), |query| format!("?{query}"));
        let line = format!("{} {}{query} HTTP/1.1", head.method(), head.path());
        let mut decoder = Decoder::new(head.framing(), &limits);
        let whole = loop {
            match decoder.decode(&mut read) {
                Ok(Decoded::End) => break true,
                Ok(Decoded::NeedMore) | Err(_) => break false,
                Ok(Decoded::Data(_) | Decoded::Trailers(_)) => {}
            }
        };
        // No route leads to any other host: the gateway answers by itself, and goes on where it can.
        let routed = head.authority().eq_ignore_ascii_case(host);
        if !whole {
            judged.begun = Some(line).filter(|_| routed);
            break;
        }
        if routed {
            judged.whole.push(line);
        }
        if !head.keep_alive() {
            break;
        }
    }
    judged
}

/// A server of somebody else's, and its log.
struct Server {
    child: Child,
    log: std::path::PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Starts one of them at this port.
fn server(name: &str, port: u16, dir: &Path) -> Server {
    let root = dir.display();
    let (log, config) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.conf")));
    let (text, mut command) = match name {
        "nginx" => (
            format!(
                "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log; events {{}}
                 http {{ log_format raw escape=none '$request'; access_log {root}/nginx.log raw; merge_slashes off; keepalive_requests 100000;
                   client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                   server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }} }}"
            ),
            Command::new("nginx"),
        ),
        "haproxy" => (
            format!(
                "global\n log stdout format raw local0\ndefaults\n mode http\n timeout client 20s\n timeout http-request 20s\n timeout connect 1s\n timeout server 1s\n option http-buffer-request\nfrontend f\n bind 127.0.0.1:{port}\n log global\n log-format %r\n http-request return status 200 content-type text/plain string ok\n"
            ),
            Command::new("haproxy"),
        ),
        _ => (
            format!(
                "server.document-root = \"{root}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\nserver.modules = (\"mod_accesslog\")\nserver.errorlog = \"{root}/lighttpd.err\"\naccesslog.filename = \"{root}/lighttpd.log\"\naccesslog.format = \"%r\"\n"
            ),
            Command::new("lighttpd"),
        ),
    };
    std::fs::write(&config, text).unwrap();
    match name {
        "nginx" => {
            command.arg("-c").arg(&config).args(["-p", &root.to_string(), "-e", &format!("{root}/error.log")])
        }
        "haproxy" => command.args(["-db", "-f"]).arg(&config).stdout(std::fs::File::create(&log).unwrap()),
        _ => command.args(["-D", "-f"]).arg(&config),
    };
    let path = format!("{}:/usr/sbin:/sbin", search_path());
    let child = command.env("PATH", path).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|e| panic!("{name} is needed for this test: {e}"));
    let server = Server { child, log };
    eventually(name, || TcpStream::connect(("127.0.0.1", port)).ok());
    server
}

#[expect(clippy::disallowed_methods, reason = "servers are found where the test itself would find them")]
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the long form is asked for by xtask")]
fn streams() -> usize {
    std::env::var("RINGFENCE_DESYNC_STREAMS").map_or(400, |count| count.parse().unwrap())
}

/// Sends a stream; the status of each answer that came from the server behind.
fn answers(rig: &Rig, bytes: &[u8]) -> Vec<u16> {
    let mut stream = connect(rig.gateway);
    stream.set_read_timeout(Some(HELP)).unwrap();
    // Whoever is refused early may see the connection end while still sending.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let heads = text.split("HTTP/1.1 ").skip(1).filter(|head| !head.starts_with("100"));
    let theirs = heads.filter(|head| !head.contains("application/problem+json"));
    theirs.filter_map(|head| head.get(..3)?.parse().ok()).collect()
}

/// How often a server told of each request.
fn told(log: &Path) -> HashMap<String, usize> {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let mut seen: HashMap<String, usize> = HashMap::new();
    // Servers tell of other things too.
    for line in text
        .lines()
        .map(|line| line.trim_matches('"'))
        // lighttpd leaves out what it did not take.
        .map(|line| if line.starts_with("  HTTP/") { BAD } else { line })
        .filter(|line| line.contains(" HTTP/") || *line == BAD)
    {
        *seen.entry(line.to_owned()).or_default() += 1;
    }
    seen
}

fn plain(line: &str) -> bool {
    line.bytes().all(|b| b.is_ascii_alphanumeric() || b"/?=._- ".contains(&b))
}

#[test]
fn other_people_s_servers_see_the_requests_that_were_judged_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["nginx", "haproxy", "lighttpd"];
    let kept = names.map(|_| kept());
    let ports = [kept[0].1, kept[1].1, kept[2].1];
    let servers: Vec<Server> =
        names.iter().zip(ports).map(|(name, port)| server(name, port, dir.path())).collect();
    let external: String = (0..3)
        .map(|at| {
            format!(
                "  {}: {{ address: 127.0.0.1:{}, tls: off, routes: [{{ path: /, host: {} }}] }}\n",
                names[at], ports[at], HOSTS[at]
            )
        })
        .collect();
    let rig = Rig::start(&format!(
        "fence: clinic\ntrust_domain: clinic.example\ngateway: {{ listen: 127.0.0.1:8443, tls: off }}\nwaf: off\nexternal:\n{external}limits: {{ idle: 5s }}\n"
    ));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut expected: [HashMap<String, (usize, usize)>; 3] = Default::default();
    let mut sources: HashMap<String, String> = HashMap::new();
    let (mut judged_whole, mut refused, mut sent) = (0, 0, 0);
    while sent < streams() {
        let mut bytes = Vec::new();
        for number in 0..1 + dice.roll(4) {
            bytes.extend(request(&mut dice, sent, number));
        }
        for _ in 0..[0, 1, 1, 1, 2, 3][dice.roll(6)] {
            mutate(&mut dice, &mut bytes);
        }
        let text = |at: usize| -> Vec<u8> {
            let mut bytes = bytes.clone();
            while let Some(found) = bytes.windows(6).position(|w| w == b"HOST.X") {
                bytes.splice(found..found + 6, HOSTS[at].bytes());
            }
            bytes
        };
        let first = judge(&text(0), HOSTS[0]);
        let all: Vec<&String> = first.whole.iter().chain(&first.begun).collect();
        if !all.iter().all(|line| plain(line)) {
            continue;
        }
        sent += 1;
        for (at, expected) in expected.iter_mut().enumerate() {
            let bytes = text(at);
            let judged = judge(&bytes, HOSTS[at]);
            let answered = answers(&rig, &bytes);
            let shown = String::from_utf8_lossy(&bytes);
            assert!(
                answered.len() <= judged.whole.len() + usize::from(judged.begun.is_some()),
                "{answered:?} to {shown:?}"
            );
            for (n, line) in judged.whole.iter().chain(&judged.begun).enumerate() {
                let counts = expected.entry(line.clone()).or_default();
                // Answered: it was seen. Not answered: it may have been, since a server may answer before the body has come.
                // A server need not log what it refuses to read.
                let served = answered.get(n).is_some_and(|status| ![400, 411, 501, 505].contains(status));
                counts.0 += usize::from(served);
                counts.1 += 1;
                sources.insert(line.clone(), format!("{answered:?} to {shown:?}"));
            }
            // haproxy and lighttpd have one line for all that they refuse, and for what ends before it is whole.
            let unread = answered.iter().filter(|status| **status >= 400).count()
                + usize::from(judged.begun.is_some());
            expected.entry(BAD.to_owned()).or_default().1 += unread;
            judged_whole += judged.whole.len();
            refused += usize::from(answered.len() < judged.whole.len() || judged.whole.is_empty());
        }
    }
    let logs: Vec<_> = servers.iter().map(|server| server.log.clone()).collect();
    drop(rig);
    // A server may write its line when it has seen the connection end, or a while later.
    std::thread::sleep(Duration::from_secs(1));
    let end = Instant::now() + HELP;
    let is_told = || {
        logs.iter().zip(&expected).all(|(log, expected)| {
            let seen = told(log);
            expected.iter().all(|(line, counts)| seen.get(line).copied().unwrap_or(0) >= counts.0)
        })
    };
    while !is_told() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(servers);
    for ((name, log), expected) in names.iter().zip(&logs).zip(&expected) {
        let seen = told(log);
        for (line, count) in &seen {
            let most = expected.get(line).map_or(0, |counts| counts.1);
            assert!(*count <= most, "{name} saw {line:?} {count} times, and it was judged {most} times");
        }
        for (line, counts) in expected {
            let count = seen.get(line).copied().unwrap_or(0);
            assert!(
                count >= counts.0,
                "{name} saw {line:?} {count} times, and {} were answered: {}",
                counts.0,
                sources[line]
            );
        }
        println!(
            "{name}: {} requests seen of {} judged",
            seen.values().sum::<usize>(),
            expected.values().map(|c| c.1).sum::<usize>()
        );
    }
    println!(
        "desync: {sent} streams to each of 3 servers, {judged_whole} requests judged, {refused} streams cut short"
    );
    println!("desync: {sent}/{sent}");
}
