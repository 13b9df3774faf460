//! One way to listen, for all services: bounded in connections, header time, request time and body size, HTTP/1.1 and
//! HTTP/2 on the same port, and an orderly end on SIGTERM.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::config;
use crate::passed::Passed;
use crate::problem::Problem;

const CONNECTIONS: usize = 256;
const BODY_BYTES: usize = 64 << 10;
const HEAD_TIME: Duration = Duration::from_secs(10);
const REQUEST_TIME: Duration = Duration::from_secs(10);
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// Listens where the fence says, or where the environment says otherwise, and says so.
pub(crate) async fn listen(service: &str, port: u16) -> io::Result<TcpListener> {
    let address = config::listen(port);
    let listener = TcpListener::bind(&address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("{service} cannot listen on {address}: {error}"))
    })?;
    println!("{service} listens on {}", listener.local_addr()?);
    Ok(listener)
}

/// Resolves when the process is asked to end.
pub(crate) async fn asked_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
    Ok(())
}

/// Serves `app` until the process is asked to end.
pub(crate) async fn http(service: &'static str, port: u16, app: Router) -> io::Result<()> {
    let app = app
        .route("/health", get(|| async { axum::Json(serde_json::json!({ "status": "ok" })) }))
        .fallback(|| async { Problem::not_found("page") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this page does not take that method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(watch));
    let listener = listen(service, port).await?;
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(64 << 10);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(128).max_header_list_size(64 << 10);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let stop = asked_to_stop();
    tokio::pin!(stop);
    loop {
        let slot = slots.clone().acquire_owned().await.expect("invariant: the semaphore is never closed");
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("{service}: cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            stopped = &mut stop => {
                stopped?;
                break;
            }
        };
        stream.set_nodelay(true)?;
        let app = TowerToHyperService::new(app.clone());
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), app).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A caller that breaks off, or speaks something else, harms only its own connection.
            drop(connection.await);
            drop(slot);
        });
    }
    drop(listener);
    drop(tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await);
    Ok(())
}

/// One line for each request, and a bound on its time.
async fn watch(request: Request, next: Next) -> Response {
    let (start, passed) = (Instant::now(), Passed::of(request.headers()));
    let line = format!("{} {}", request.method(), request.uri().path());
    let late = || Problem::new(StatusCode::GATEWAY_TIMEOUT, "the clinic took too long").into_response();
    let response = tokio::time::timeout(REQUEST_TIME, next.run(request)).await.unwrap_or_else(|_| late());
    let (status, spent) = (response.status().as_u16(), start.elapsed().as_millis());
    println!("{line} {status} {spent}ms trace={}", passed.trace());
    response
}
