//! HTTP/2 and gRPC along gateway and sidecars, with the frames in the test's own hands.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};

use crate::mesh::clinic;
use crate::net::echo;
use crate::patience::{HELP, Stopwatch};
use crate::rig::{Rig, eventually, field};

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, tls: off }
services:
  billing: { run: [billing], listen: 9003, protocol: grpc, routes: [{ path: / }] }
";

/// What the service saw.
#[derive(Default)]
struct Seen {
    cancelled: AtomicBool,
    timeout: AtomicBool,
}

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-tail", "end".parse().unwrap());
    trailers
}

/// A gRPC-shaped service: what it does is in the path.
fn service(listener: TcpListener, seen: Arc<Seen>) {
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, seen.clone()));
                    }
                });
            }
        });
    });
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    seen: Arc<Seen>,
) {
    let path = request.uri().path().to_owned();
    seen.timeout.fetch_or(request.headers().contains_key("grpc-timeout"), Ordering::Relaxed);
    let mut body = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    if path == "/Fail" {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .body(())
            .unwrap();
        respond.send_response(head, true).unwrap();
        return;
    }
    if path == "/Hang" {
        let mut send = respond.send_response(head, false).unwrap();
        std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
        seen.cancelled.store(true, Ordering::Relaxed);
        return;
    }
    let mut send = respond.send_response(head, false).unwrap();
    match path.as_str() {
        "/ServerStream" => {
            for n in 0..5_u8 {
                send.send_data(Bytes::from(vec![n; 10]), false).unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        "/Bidi" => {
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                send.send_data(data, false).unwrap();
            }
        }
        _ => {
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            send.send_data(Bytes::from(all.len().to_string()), false).unwrap();
        }
    }
    send.send_trailers(ok_trailers()).unwrap();
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

fn call(path: &str) -> Request<()> {
    Request::post(format!("http://clinic.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .body(())
        .unwrap()
}

async fn read_all(body: &mut h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap())
}

#[test]
fn all_four_kinds_of_call_pass_with_their_trailers() {
    let mut rig = Rig::start(FENCE);
    let net = rig.shim("billing", &[]);
    let seen = Arc::<Seen>::default();
    service(net.service(9003), seen.clone());
    runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        // Unary, and a stream from the client that is larger than any window.
        for (path, pieces, size) in [("/Unary", 1, 20), ("/ClientStream", 40, 32 * 1024)] {
            let (response, mut send) = client.send_request(call(path), false).unwrap();
            for n in 0..pieces {
                let mut piece = Bytes::from(vec![0_u8; size]);
                while !piece.is_empty() {
                    send.reserve_capacity(piece.len());
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    let part = piece.split_to(room.min(piece.len()));
                    send.send_data(part, piece.is_empty() && n + 1 == pieces).unwrap();
                }
            }
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let (body, trailers) = read_all(&mut response.into_body()).await;
            assert_eq!(String::from_utf8(body).unwrap(), (pieces * size).to_string(), "{path}");
            assert_eq!(trailers.unwrap()["x-tail"], "end", "{path}");
        }
        let (response, _) = client.send_request(call("/ServerStream"), true).unwrap();
        let (body, trailers) = read_all(&mut response.await.unwrap().into_body()).await;
        assert_eq!((body.len(), trailers.unwrap()["grpc-status"].clone()), (50, "0".parse().unwrap()));
        // Each message comes back before the next one is sent.
        let (response, mut send) = client.send_request(call("/Bidi"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for n in 0..5_u8 {
            send.send_data(Bytes::from(vec![n]), n == 4).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap()[0], n);
        }
        assert!(read_all(&mut body).await.1.is_some());
        // Trailers only.
        let (response, _) = client.send_request(call("/Fail"), true).unwrap();
        let response = response.await.unwrap();
        assert!(response.body().is_end_stream() && response.headers()["grpc-status"] == "5");
        // A cancelled call is cancelled at the service.
        let (response, send) = client.send_request(call("/Hang"), false).unwrap();
        let body = response.await.unwrap().into_body();
        drop((body, send));
        for _ in 0..6_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if seen.cancelled.load(Ordering::Relaxed) {
                break;
            }
        }
        assert!(seen.cancelled.load(Ordering::Relaxed), "the service saw the cancellation");
        assert!(seen.timeout.load(Ordering::Relaxed), "the deadline was passed on");
    });
}

#[test]
fn a_grpc_client_is_refused_in_its_own_words_and_its_stream_is_cut_with_its_route() {
    let mut rig = Rig::start(FENCE);
    let net = rig.shim("billing", &[]);
    service(net.service(9003), Arc::default());
    runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        let (response, _hold) = client.send_request(call("/Hang"), false).unwrap();
        let mut hanging = response.await.unwrap().into_body();
        let began = Stopwatch::start();
        rig.apply_policy(&FENCE.replace(", routes: [{ path: / }]", ""));
        let ended = tokio::time::timeout(HELP, hanging.data()).await.expect("it is cut");
        assert!(ended.unwrap().is_err());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        let (response, _) = client.send_request(call("/Unary"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &"12".parse().unwrap())
        );
        assert!(response.body().is_end_stream());
    });
    rig.event("the cut", |r| field(r, "/firewall_rule/uid") == "edge.removed");
}

#[test]
fn an_http2_client_reaches_an_http1_service() {
    let clinic = clinic();
    runtime().block_on(async {
        let mut client = client(clinic.rig.gateway).await;
        let mut streams = Vec::new();
        for n in 0..20 {
            let request = Request::post(format!("http://clinic.test/n/{n}")).body(()).unwrap();
            let (response, mut send) = client.send_request(request, false).unwrap();
            send.send_data(Bytes::from(format!("body {n}")), true).unwrap();
            streams.push(response);
        }
        for (n, response) in streams.into_iter().enumerate() {
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200, "{:#?}", clinic.rig.troubles());
            let (body, _) = read_all(&mut response.into_body()).await;
            let text = String::from_utf8(body).unwrap();
            assert!(text.starts_with(&format!("POST /n/{n} HTTP/1.1\r\nHost: clinic.test\r\n")), "{text}");
            assert!(
                text.ends_with(&format!("\r\n\r\nbody {n}")) || text.contains(&format!("body {n}")),
                "{text}"
            );
        }
    });
}

#[test]
fn a_rapid_reset_ends_the_connection_and_not_the_node() {
    let (listener, port) = crate::rig::local();
    echo(listener);
    let rig = Rig::start(&crate::gateway::fence(port));
    runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        let mut refused = false;
        for _ in 0..5_000 {
            let request = Request::get("http://clinic.test/slow").body(()).unwrap();
            match client.send_request(request, true) {
                Ok((response, mut send)) => {
                    send.send_reset(h2::Reason::CANCEL);
                    drop(response);
                }
                Err(_) => {
                    refused = true;
                    break;
                }
            }
            client = match client.ready().await {
                Ok(client) => client,
                Err(_) => {
                    refused = true;
                    break;
                }
            };
            tokio::task::yield_now().await;
        }
        assert!(refused, "the flood was stopped");
    });
    eventually("service for others", || {
        let answer = crate::rig::get(std::net::TcpStream::connect(rig.gateway).unwrap(), "x", "/");
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn a_client_that_gives_up_what_was_passed_on_again_and_again_is_told_to_calm_down() {
    // A service that accepts and never answers.
    let (listener, port) = crate::rig::local();
    let reached = Arc::<AtomicUsize>::default();
    let count = reached.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            held.push(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let rig = Rig::start(&crate::gateway::fence(port));
    let stopped = runtime().block_on(async {
        let mut client = client(rig.gateway).await;
        for n in 0..1_000 {
            let request = Request::get("http://clinic.test/slow").body(()).unwrap();
            let Ok((mut response, mut send)) = client.send_request(request, true) else { return Some(n) };
            // Until the stream is taken and passed on, or everything is over.
            let begun = Instant::now();
            while reached.load(Ordering::Relaxed) <= n
                && tokio::time::timeout(Duration::from_millis(1), &mut response).await.is_err()
            {
                assert!(begun.elapsed() < HELP, "neither passed on nor answered");
            }
            send.send_reset(h2::Reason::CANCEL);
            drop(response);
            client = match client.ready().await {
                Ok(client) => client,
                Err(e) => {
                    // Whoever is still sending may lose the reason to the end of the connection; the event has it.
                    assert!(matches!(e.reason(), None | Some(h2::Reason::ENHANCE_YOUR_CALM)), "{e}");
                    return Some(n);
                }
            };
        }
        None
    });
    assert!(stopped.is_some_and(|n| (200..600).contains(&n)), "{stopped:?}");
    rig.event("the flood", |r| field(r, "/firewall_rule/uid") == "limit.resets");
}
