//! What we accept and write, hyper and nginx read as exactly that one request.
//!
//! Each request is followed by a marker request on the same connection. Whoever sees another method, target or host, a
//! body that ends elsewhere, or anything but the marker after it, has read a different message than we judged. They may
//! refuse a request as a whole; the tests count that, so that agreement is not empty.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use ringfence_proxy::h1::{Asked, Framing, Limits, RequestHead};
use tokio::io::AsyncWriteExt as _;

use crate::message::{Read, read_request, read_response_in_pieces, write_request};
use crate::passing::PASSING;
use crate::properties::any_request;

const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n";

struct Accepted {
    head: RequestHead,
    body: Vec<u8>,
    written: Vec<u8>,
}

/// The table's requests and `count` generated ones that our codec accepts.
fn accepted(count: usize) -> Vec<Accepted> {
    let mut runner = TestRunner::deterministic();
    let generated = std::iter::repeat_with(|| any_request().new_tree(&mut runner).unwrap().current());
    let table = PASSING.iter().map(|case| case.1.to_vec());
    table
        .chain(generated)
        .filter_map(|bytes| match read_request(&bytes, &Limits::default()) {
            Ok(Read::Message { head, body, trailers, .. }) => {
                let written = write_request(&head, &body, trailers.as_ref());
                Some(Accepted { head, body, written })
            }
            _ => None,
        })
        .take(PASSING.len() + count)
        .collect()
}

fn target(head: &RequestHead) -> String {
    head.query().map_or_else(|| head.path().to_owned(), |query| format!("{}?{query}", head.path()))
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    host: String,
    body: Vec<u8>,
}

async fn hyper_sees(bytes: &[u8]) -> Vec<Seen> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let log = Arc::clone(&log);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let host = parts.headers.get("host").map_or("", |host| host.to_str().unwrap()).to_owned();
                log.lock().unwrap().push(Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    host,
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        }
    });
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    // An error here is a refusal; what was seen before it is what counts.
    let _ = tokio::time::timeout(Duration::from_secs(60), connection).await.expect("hyper does not hang");
    drop(client);
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

#[tokio::test]
async fn hyper_reads_what_we_write_as_the_one_request_that_we_read() {
    let mut agreed = 0;
    let requests = accepted(1500);
    for request in &requests {
        let seen = hyper_sees(&[&request.written[..], MARKER].concat()).await;
        let shown = String::from_utf8_lossy(&request.written);
        if seen.is_empty() {
            continue;
        }
        let ours = Seen {
            method: request.head.method().to_owned(),
            target: target(&request.head),
            host: request.head.authority().to_owned(),
            body: request.body.clone(),
        };
        let marker =
            Seen { method: "GET".into(), target: "/marker".into(), host: "marker".into(), body: Vec::new() };
        assert_eq!(seen, [ours, marker], "{shown}");
        agreed += 1;
    }
    assert!(agreed * 100 > requests.len() * 90, "hyper took only {agreed} of {}", requests.len());
}

struct Nginx {
    child: Child,
    port: u16,
    _kept: socket2::Socket,
    _directory: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_nginx() -> Nginx {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().display();
    for _ in 0..5 {
        // Bound and not listening: nobody else is given the port, and nginx may have it.
        let kept = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        kept.set_reuse_address(true).unwrap();
        kept.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = kept.local_addr().unwrap().as_socket().unwrap().port();
        let configuration = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
             events {{ worker_connections 64; }}
             http {{
               access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
               fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
               default_type text/plain; merge_slashes off; large_client_header_buffers 4 40k;
               server {{
                 listen 127.0.0.1:{port};
                 location / {{ return 200 \"$request_method $request_uri $http_host $http_content_length\"; }}
               }}
             }}"
        );
        std::fs::write(directory.path().join("nginx.conf"), configuration).unwrap();
        let mut child = Command::new("nginx")
            .args([
                "-c",
                &format!("{root}/nginx.conf"),
                "-p",
                &root.to_string(),
                "-e",
                &format!("{root}/error.log"),
            ])
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts: install nginx-light for this test");
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Nginx { child, port, _kept: kept, _directory: directory };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!(
        "nginx did not come up: {}",
        std::fs::read_to_string(directory.path().join("error.log")).unwrap_or_default()
    );
}

/// Status and body of each response that nginx gives to these bytes.
fn nginx_answers(nginx: &Nginx, bytes: &[u8]) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // Whoever is refused early may see the connection end while still sending.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    // nginx may reset a connection after it refused it; what it said before is what counts.
    let _ = stream.read_to_end(&mut all);
    let mut answers = Vec::new();
    while !all.is_empty() {
        match read_response_in_pieces([&all[..]], Asked::default(), &Limits::default()) {
            Ok(Read::Message { head, body, rest, .. }) => {
                if !head.is_interim() {
                    answers.push((head.status(), String::from_utf8(body).unwrap()));
                }
                all = rest;
            }
            other => panic!("nginx's answer is not read: {other:?} of {}", String::from_utf8_lossy(&all)),
        }
    }
    answers
}

#[test]
fn nginx_reads_what_we_write_as_the_one_request_that_we_read() {
    let nginx = start_nginx();
    let mut agreed = 0;
    let requests = accepted(1000);
    for request in &requests {
        let shown = String::from_utf8_lossy(&request.written);
        let answers = nginx_answers(&nginx, &[&request.written[..], MARKER].concat());
        let marker = (200, "GET /marker marker ".to_owned());
        match &answers[..] {
            [(400..=599, _)] => {}
            [(400..=599, _), second] => assert_eq!(*second, marker, "{shown}"),
            [(200, first), second] => {
                let length = match request.head.framing() {
                    Framing::Length(length) => length.to_string(),
                    _ => String::new(),
                };
                let head = &request.head;
                let expected = format!("{} {} {} {length}", head.method(), target(head), head.authority());
                assert_eq!((first, second), (&expected, &marker), "{shown}");
                agreed += 1;
            }
            other => panic!("nginx gave {other:?} to {shown}"),
        }
    }
    assert!(agreed * 100 > requests.len() * 90, "nginx took only {agreed} of {}", requests.len());
}
