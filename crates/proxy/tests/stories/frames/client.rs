//! An HTTP/2 client that writes frames as it is told, right or wrong, and tells what came back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::hpack;
use crate::framing::connect_from;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it stands on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    framed(payload.len(), kind, flags, stream, payload)
}

/// The same with any length in its head.
pub fn framed(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (length as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

pub fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A whole request without a body.
pub fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

/// The head of a request whose body follows.
pub fn head(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

pub fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    frame(DATA, if last { END_STREAM } else { 0 }, stream, bytes)
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// A connection of the client.
pub struct Client {
    stream: TcpStream,
    address: Ipv4Addr,
    buffer: Vec<u8>,
    /// Everything that came.
    pub came: Vec<Frame>,
    /// The server closed.
    pub closed: bool,
    statuses: Vec<u16>,
}

impl Client {
    /// Connected, from an address of its own; nothing is sent yet.
    pub fn silent(to: SocketAddr) -> Self {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let [high, low] = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        Self {
            stream: connect_from(address, to),
            address,
            buffer: Vec::new(),
            came: Vec::new(),
            closed: false,
            statuses: Vec::new(),
        }
    }

    /// Connected, with these settings.
    pub fn new(address: SocketAddr, settings: &[u8]) -> Self {
        let mut client = Self::silent(address);
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        client
    }

    /// Where it comes from.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Sends; a server that has closed already is seen when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Whether the server took all of it.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads until what came is enough, the server closes, or the time is over; whether it was enough.
    pub fn until(&mut self, time: Duration, enough: impl Fn(&[Frame]) -> bool) -> bool {
        let end = Instant::now() + time;
        loop {
            if enough(&self.came) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.closed || left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => self.closed = true,
                Ok(n) => {
                    self.buffer.extend_from_slice(&bytes[..n]);
                    self.split();
                }
                Err(e)
                    if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => self.closed = true,
            }
        }
    }

    fn split(&mut self) {
        while let Some(head) = self.buffer.first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if self.buffer.len() < 9 + length {
                return;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            let (kind, flags) = (head[3], head[4]);
            let payload = self.buffer[9..9 + length].to_vec();
            self.buffer.drain(..9 + length);
            self.came.push(Frame { kind, flags, stream, payload });
        }
    }

    /// The first frame of this kind on this stream.
    pub fn first(&self, kind: u8, stream: u32) -> Option<&Frame> {
        self.came.iter().find(|frame| frame.kind == kind && frame.stream == stream)
    }

    pub fn goaway(&self) -> Option<u32> {
        self.came.iter().filter(|frame| frame.kind == GOAWAY).find_map(Frame::code)
    }

    /// The status of the final response on a stream.
    pub fn status(&mut self, stream: u32) -> Option<u16> {
        let heads = self.came.iter().filter(|frame| frame.kind == HEADERS && frame.stream == stream);
        let table = &mut self.statuses;
        heads.filter_map(|frame| hpack::status(&frame.payload, table)).find(|status| *status >= 200)
    }
}
