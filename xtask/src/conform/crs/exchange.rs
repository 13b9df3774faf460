//! One request as raw bytes, and what came back.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request that asks for nothing more is waited for, once its answer is there.
const QUIET: Duration = Duration::from_millis(300);
/// Bytes of an answer that are looked at.
const MOST: usize = 1 << 20;

/// What a request was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u16),
    /// Nothing, or something that is no HTTP.
    None,
}

/// Sends `request` from `source` to the gateway.
pub(super) fn ask(source: Ipv4Addr, port: u16, request: &[u8]) -> Answer {
    let answer = exchange(source, port, request).unwrap_or_default();
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    status
        .and_then(|s| std::str::from_utf8(s).ok())
        .and_then(|s| s.parse().ok())
        .map_or(Answer::None, Answer::Status)
}

fn exchange(source: Ipv4Addr, port: u16, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket.connect_timeout(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A refusal may come, and the connection end, before all is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while answer.len() < MOST && !is_whole(&answer) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                answer.extend_from_slice(&buffer[..read]);
                stream.set_read_timeout(Some(QUIET))?;
            }
            Err(_) => break,
        }
    }
    Ok(answer)
}

/// Whether the answer says its length and has it.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() - end - 4 >= length)
}
