//! Ours against hyper: what we accept and write, hyper reads as exactly that one request, and where hyper takes the
//! original bytes at all, it reads the same body from them.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use ringfence_proxy::h1::Limits;
use tokio::io::AsyncWriteExt as _;

#[path = "../../crates/proxy/tests/h1/message.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod message;

use message::{Read, read_request, write_request};

const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n";

type Seen = (String, String, Vec<u8>);

async fn hyper_sees(bytes: &[u8]) -> Vec<Seen> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let log = Arc::clone(&log);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let entry = (parts.method.to_string(), parts.uri.to_string(), body.to_bytes().to_vec());
                log.lock().expect("one thread").push(entry);
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        }
    });
    client.write_all(bytes).await.expect("the pipe is wide enough");
    client.shutdown().await.expect("the pipe is open");
    let mut builder = hyper::server::conn::http1::Builder::new();
    let _ = builder.half_close(true).serve_connection(TokioIo::new(server), service).await;
    let seen = seen.lock().expect("one thread");
    seen.clone()
}

fuzz_target!(|data: &[u8]| {
    let Ok(Read::Message { head, body, trailers, .. }) = read_request(data, &Limits::default()) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let written = write_request(&head, &body, trailers.as_ref());
    let target =
        head.query().map_or_else(|| head.path().to_owned(), |query| format!("{}?{query}", head.path()));
    let ours = (head.method().to_owned(), target, body.clone());
    let marker = ("GET".to_owned(), "/marker".to_owned(), Vec::new());
    let seen = runtime.block_on(hyper_sees(&[&written[..], MARKER].concat()));
    assert!(seen.is_empty() || seen == [ours, marker], "{seen:?} of {}", String::from_utf8_lossy(&written));
    if let Some((method, _, seen_body)) = runtime.block_on(hyper_sees(data)).into_iter().next() {
        assert_eq!((method.as_str(), &seen_body), (head.method(), &body));
    }
});
