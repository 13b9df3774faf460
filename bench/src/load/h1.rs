//! HTTP/1.1 by hand: the load must cost less than the proxy it loads.

use std::io;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Tally, Target, Timetable};
use crate::upstream::BODY_BYTES;

const REQUEST: &str = "GET /patients/p-1001?view=short HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ringfence-bench\r\n\
Accept: application/json\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\n";
const HEAD_BYTES: usize = 16 << 10;

/// A whole request, with a token or without.
pub(super) fn request(token: Option<&str>) -> Vec<u8> {
    let field = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    format!("{REQUEST}{field}\r\n").into_bytes()
}

pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Wire for S {}

pub(super) async fn connect(target: &Target) -> io::Result<Box<dyn Wire>> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let Some((config, name)) = &target.tls else { return Ok(Box::new(stream)) };
    let stream = TlsConnector::from(config.clone()).connect(name.clone(), stream).await?;
    if target.case.h2() && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the proxy did not choose HTTP/2"));
    }
    Ok(Box::new(stream))
}

pub(super) async fn one_after_another(
    target: &Target,
    timetable: &mut Timetable,
    tally: &Tally,
) -> io::Result<()> {
    let (mut wire, mut answer) = (connect(target).await?, Vec::with_capacity(4096));
    while !tally.stopped.get() {
        let since = timetable.turn().await;
        exchange(&mut wire, tally.request(target), target.status, &mut answer).await?;
        tally.answered(since);
    }
    Ok(())
}

pub(super) async fn each_on_its_own(
    target: &Target,
    timetable: &mut Timetable,
    tally: &Tally,
) -> io::Result<()> {
    let mut answer = Vec::with_capacity(4096);
    while !tally.stopped.get() {
        let since = timetable.turn().await;
        let mut wire = connect(target).await?;
        exchange(&mut wire, tally.request(target), target.status, &mut answer).await?;
        tally.answered(since);
        wire.shutdown().await?;
    }
    Ok(())
}

pub(super) async fn exactly(target: &Target, requests: u32) -> io::Result<()> {
    let (mut wire, mut answer) = (connect(target).await?, Vec::with_capacity(4096));
    for _ in 0..requests {
        exchange(&mut wire, &target.requests[0], target.status, &mut answer).await?;
    }
    wire.shutdown().await
}

pub(super) async fn used_once(target: &Target) -> io::Result<Box<dyn Wire>> {
    let mut wire = connect(target).await?;
    exchange(&mut wire, &target.requests[0], target.status, &mut Vec::new()).await?;
    Ok(wire)
}

/// One request that must be answered with this status.
pub(super) async fn refuses(target: &Target, request: &[u8], status: u16) -> io::Result<()> {
    let mut wire = connect(target).await?;
    wire.write_all(request).await?;
    wire.flush().await?;
    let mut answer = Vec::with_capacity(4096);
    let wanted = format!("HTTP/1.1 {status} ");
    while answer.len() < wanted.len() {
        if wire.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    if answer.starts_with(wanted.as_bytes()) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    Err(io::Error::other(format!("{status} expected, not {said}")))
}

/// One request and its whole answer.
async fn exchange(
    wire: &mut Box<dyn Wire>,
    request: &[u8],
    status: u16,
    answer: &mut Vec<u8>,
) -> io::Result<()> {
    wire.write_all(request).await?;
    wire.flush().await?;
    answer.clear();
    let mut whole = None;
    loop {
        if wire.read_buf(answer).await? == 0 {
            return Err(io::Error::other("the proxy hung up"));
        }
        if whole.is_none() {
            whole = length(answer, status)?;
        }
        match whole {
            Some(whole) if answer.len() == whole => return Ok(()),
            Some(whole) if answer.len() > whole => return Err(io::Error::other("more than one answer")),
            None if answer.len() > HEAD_BYTES => return Err(io::Error::other("a head without end")),
            _ => {}
        }
    }
}

/// Bytes of the whole answer, once its head is there. One that was let pass is the upstream's.
fn length(answer: &[u8], status: u16) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(answer, b"\r\n\r\n") else { return Ok(None) };
    let head = &answer[..end];
    let text = || String::from_utf8_lossy(&answer[..end.min(400)]).into_owned();
    if head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)) != Some(status.to_string().as_bytes()) {
        return Err(io::Error::other(text()));
    }
    let field = b"content-length: ";
    let line = head
        .split(|&byte| byte == b'\n')
        .find(|line| line.get(..field.len()).is_some_and(|start| start.eq_ignore_ascii_case(field)));
    let digits = line.and_then(|line| std::str::from_utf8(&line[field.len()..]).ok());
    match digits.and_then(|digits| digits.trim().parse::<usize>().ok()) {
        Some(bytes) if bytes == BODY_BYTES || status != 200 => Ok(Some(end + 4 + bytes)),
        _ => Err(io::Error::other(text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_says_so() {
        let head = "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 1024\r\n\r\n";
        assert_eq!(length(head.as_bytes(), 200).unwrap(), Some(head.len() + 1024));
        assert_eq!(length(&head.as_bytes()[..40], 200).unwrap(), None);
        let refused = head.replace("200", "403").replace("1024", "9");
        assert_eq!(length(refused.as_bytes(), 403).unwrap(), Some(refused.len() + 9));
        assert!(length(refused.as_bytes(), 200).is_err());
        for wrong in [head.replace("200", "502"), head.replace("1024", "0"), head.replace("content", "x")] {
            assert!(length(wrong.as_bytes(), 200).is_err(), "{wrong}");
        }
    }
}
