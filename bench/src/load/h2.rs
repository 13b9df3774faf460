//! HTTP/2 and gRPC: several streams on each connection.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use tokio::task::JoinSet;

use super::h1::connect;
use super::{Tally, Target, Timetable};
use crate::case::Case;
use crate::certs::NAME;
use crate::upstream::BODY_BYTES;

/// An uncompressed gRPC message of 64 bytes, with its prefix.
const MESSAGE: &[u8; 69] = &{
    let mut message = [b'x'; 69];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 64);
    message
};

pub(super) async fn many(
    target: &Target,
    timetables: &mut Vec<Timetable>,
    tally: &Rc<Tally>,
) -> io::Result<()> {
    let wire = connect(target).await?;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 22)
        .enable_push(false)
        .handshake::<_, Bytes>(wire)
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::task::spawn_local(async move { drop(connection.await) });
    let mut streams = JoinSet::new();
    for mut timetable in timetables.drain(..) {
        let (case, mut send, tally) = (target.case, send.clone(), tally.clone());
        streams.spawn_local(async move {
            let done = stream(case, &mut send, &mut timetable, &tally).await;
            (timetable, done)
        });
    }
    drop(send);
    let mut done = Ok(());
    while let Some(joined) = streams.join_next().await {
        let (timetable, end) = joined.map_err(io::Error::other)?;
        timetables.push(timetable);
        done = done.and(end);
    }
    driver.abort();
    done
}

async fn stream(
    case: Case,
    send: &mut SendRequest<Bytes>,
    timetable: &mut Timetable,
    tally: &Tally,
) -> io::Result<()> {
    while !tally.stopped.get() {
        let since = timetable.turn().await;
        if case == Case::Grpc { call(send).await } else { get(send).await }.map_err(flat)?;
        tally.answered(since);
    }
    Ok(())
}

async fn get(send: &mut SendRequest<Bytes>) -> Result<(), Failure> {
    let request = Request::get(format!("https://{NAME}/patients/p-1001?view=short"))
        .header("user-agent", "ringfence-bench")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip")
        .header("accept-language", "en")
        .body(())?;
    std::future::poll_fn(|context| send.poll_ready(context)).await?;
    let (answer, _) = send.send_request(request, true)?;
    let answer = answer.await?;
    let status = answer.status();
    let length = body(&mut answer.into_body()).await?;
    if (status, length) == (StatusCode::OK, BODY_BYTES) {
        return Ok(());
    }
    Err(format!("{status} with {length} bytes").into())
}

async fn call(send: &mut SendRequest<Bytes>) -> Result<(), Failure> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{NAME}/clinic.billing.v1.Billing/GetInvoice"))
        .header("user-agent", "ringfence-bench")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    std::future::poll_fn(|context| send.poll_ready(context)).await?;
    let (answer, mut message) = send.send_request(request, false)?;
    message.send_data(Bytes::from_static(MESSAGE), true)?;
    let answer = answer.await?;
    let status = answer.status();
    let mut answer = answer.into_body();
    let length = body(&mut answer).await?;
    let trailers = answer.trailers().await?;
    let grpc = trailers.and_then(|fields| fields.get("grpc-status").cloned());
    if status == StatusCode::OK && length == MESSAGE.len() && grpc.as_ref().is_some_and(|s| s == "0") {
        return Ok(());
    }
    Err(format!("{status} with {length} bytes and gRPC status {grpc:?}").into())
}

async fn body(stream: &mut h2::RecvStream) -> Result<usize, h2::Error> {
    let mut length = 0;
    while let Some(part) = stream.data().await {
        let part = part?;
        stream.flow_control().release_capacity(part.len())?;
        length += part.len();
    }
    Ok(length)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn flat(error: Failure) -> io::Error {
    io::Error::other(error)
}
