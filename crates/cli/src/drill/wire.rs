//! Raw bytes to a listener of the fence, with or without TLS, and what came back.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{ClientConfig, ClientConnection, Error};

/// How long an answer may take, and how long it may pause.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
/// Most that is read of an answer.
const MAX_ANSWER: usize = 256 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
    /// Our own address, by which an event can be told from others.
    pub(crate) local: SocketAddr,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side closed.
    Closed,
    /// The other side ended TLS with this alert.
    Alert(String),
    /// Nothing more came.
    Silent,
}

/// How the listener is spoken to.
pub(crate) enum Speak {
    Plain,
    Tls(Arc<ClientConfig>, String),
}

/// Sends `bytes` over a new connection and reads what comes back.
pub(crate) fn exchange(address: SocketAddr, speak: &Speak, bytes: &[u8]) -> io::Result<Answer> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let local = socket.local_addr()?;
    let mut answer = Answer { bytes: Vec::new(), end: End::Silent, local };
    match speak {
        Speak::Plain => plain(&mut socket, bytes, &mut answer)?,
        Speak::Tls(config, name) => {
            let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
            let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
            encrypted(&mut socket, tls, bytes, &mut answer)?;
        }
    }
    Ok(answer)
}

fn plain(socket: &mut TcpStream, bytes: &[u8], answer: &mut Answer) -> io::Result<()> {
    // A listener that refuses early may close before it has read all.
    let _ = socket.write_all(bytes);
    let begun = Instant::now();
    let mut chunk = [0; 8192];
    while wait(socket, answer, begun)? {
        match socket.read(&mut chunk) {
            Ok(0) => answer.end = End::Closed,
            Ok(n) => answer.bytes.extend_from_slice(&chunk[..n]),
            Err(e) if is_silence(&e) => return Ok(()),
            Err(_) => answer.end = End::Closed,
        }
        if answer.end != End::Silent {
            return Ok(());
        }
    }
    Ok(())
}

fn encrypted(
    socket: &mut TcpStream,
    mut tls: ClientConnection,
    bytes: &[u8],
    answer: &mut Answer,
) -> io::Result<()> {
    tls.writer().write_all(bytes)?;
    let begun = Instant::now();
    loop {
        while tls.wants_write() {
            if tls.write_tls(socket).is_err() {
                // What it said before it closed may still be there.
                break;
            }
        }
        if !wait(socket, answer, begun)? {
            return Ok(());
        }
        match tls.read_tls(socket) {
            Ok(0) => answer.end = End::Closed,
            Ok(_) => {}
            Err(e) if is_silence(&e) => return Ok(()),
            Err(_) => answer.end = End::Closed,
        }
        match tls.process_new_packets() {
            Ok(_) => {}
            Err(Error::AlertReceived(alert)) => answer.end = End::Alert(format!("{alert:?}")),
            Err(e) => return Err(io::Error::other(e)),
        }
        let mut chunk = [0; 8192];
        while let Ok(n) = tls.reader().read(&mut chunk) {
            if n == 0 {
                break;
            }
            answer.bytes.extend_from_slice(&chunk[..n]);
        }
        if answer.end != End::Silent {
            return Ok(());
        }
    }
}

/// Whether to read on: not for ever, and once something came only for a moment.
fn wait(socket: &TcpStream, answer: &Answer, begun: Instant) -> io::Result<bool> {
    let left = PATIENCE.saturating_sub(begun.elapsed());
    if left.is_zero() || answer.bytes.len() > MAX_ANSWER {
        return Ok(false);
    }
    let timeout = if answer.bytes.is_empty() { left } else { left.min(PAUSE) };
    socket.set_read_timeout(Some(timeout)).map(|()| true)
}

fn is_silence(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Status of the first HTTP/1 response in these bytes.
pub(crate) fn status(bytes: &[u8]) -> Option<u16> {
    let text = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// How many HTTP/1 responses begin in these bytes.
pub(crate) fn responses(bytes: &[u8]) -> usize {
    bytes.windows(9).filter(|w| w.starts_with(b"HTTP/1.") && w[8] == b' ').count()
}

/// An HTTP/2 client's first bytes with one request, whose fields are written as they are, sensible or not.
pub(crate) fn http2_request(fields: &[(&str, &str)]) -> Vec<u8> {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END: u8 = 0x1 | 0x4;
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal field without indexing, neither string compressed (RFC 7541, section 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or(0x7e).min(0x7e));
            block.extend_from_slice(&text.as_bytes()[..text.len().min(0x7e)]);
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&u32::try_from(block.len()).unwrap_or(0).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[HEADERS, END, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    bytes
}

/// What an HTTP/2 server made of one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Http2 {
    /// It answered 400.
    BadRequest,
    /// It ended the stream or the connection.
    Reset,
    /// It answered something else.
    Answered,
    /// It said nothing about it.
    Nothing,
}

/// Looks through the frames of an answer.
pub(crate) fn http2_answer(mut bytes: &[u8]) -> Http2 {
    // Static table: `:status: 400` (RFC 7541, appendix A).
    const STATUS_400: u8 = 0x80 | 12;
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, next)) = rest.split_at_checked(length) else { return Http2::Nothing };
        match kind {
            1 => {
                let padded = usize::from(flags & 0x8 != 0) + if flags & 0x20 != 0 { 5 } else { 0 };
                let mut block = payload.get(padded..).unwrap_or_default().iter();
                // Changes of the dynamic table's size may come first.
                let first = block.find(|byte| *byte & 0xe0 != 0x20);
                return if first == Some(&STATUS_400) { Http2::BadRequest } else { Http2::Answered };
            }
            3 | 7 => return Http2::Reset,
            _ => bytes = next,
        }
    }
    Http2::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_frames_is_told_by_its_first_verdict() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let head =
            |first: &[u8]| [&settings[..], &[0, 0, first.len() as u8, 1, 4, 0, 0, 0, 1], first].concat();
        assert_eq!(http2_answer(&head(&[0x8c])), Http2::BadRequest);
        assert_eq!(http2_answer(&head(&[0x20, 0x8c])), Http2::BadRequest);
        assert_eq!(http2_answer(&head(&[0x88])), Http2::Answered);
        assert_eq!(
            http2_answer(&[&settings[..], &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1]].concat()),
            Http2::Reset
        );
        assert_eq!(http2_answer(&settings), Http2::Nothing);
        assert_eq!(http2_answer(&[0xff; 12]), Http2::Nothing);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_listener_sends_is_looked_through(bytes: Vec<u8>, frames: Vec<(u8, u8, Vec<u8>)>) {
            let framed: Vec<u8> = frames.iter().flat_map(|(kind, flags, payload)| {
                [&(payload.len() as u32).to_be_bytes()[1..], &[*kind, *flags, 0, 0, 0, 1], payload].concat()
            }).collect();
            for bytes in [bytes, framed] {
                let (_, _, _) = (http2_answer(&bytes), status(&bytes), responses(&bytes));
            }
        }
    }

    #[test]
    fn two_responses_on_one_connection_are_two() {
        let text = b"HTTP/1.1 400 Bad Request\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!((status(text), responses(text)), (Some(400), 2));
        assert_eq!((status(b"nonsense"), responses(b"")), (None, 0));
    }
}
