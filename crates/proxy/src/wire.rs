//! HTTP/1 bytes on their way out: heads and small bodies gathered for one write, large pieces passed through uncopied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::body::Trailers;
use crate::h1::{CHUNK_END, Framing, write_chunk_start, write_last_chunk, write_last_chunk_with_map};
use crate::io::Io;

/// Pieces up to this size are copied behind the head; a system call costs more.
const COPY: usize = 4 * 1024;
/// Bytes gathered before more is asked for.
const FULL: usize = 16 * 1024;
/// Capacity that a connection may keep while nothing is to be sent.
const KEEP: usize = 2 * 1024;

/// Output of one direction: `out`, then `tail`, then `after`.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) out: BytesMut,
    at: usize,
    tail: Bytes,
    after: BytesMut,
    chunked: bool,
    touched: bool,
}

impl Wire {
    /// Begins a message. The head goes to [`Self::out`].
    pub(crate) fn begin(&mut self, framing: Framing) {
        self.chunked = framing == Framing::Chunked;
        self.touched = false;
    }

    /// Drops what has not left: the message begins again elsewhere.
    pub(crate) fn reset(&mut self) {
        self.out.clear();
        self.after.clear();
        self.tail = Bytes::new();
        self.at = 0;
        self.touched = false;
    }

    /// Whether another piece may be put.
    pub(crate) fn takes(&self) -> bool {
        self.tail.is_empty() && self.out.len() < FULL
    }

    /// Whether some of the message has left, so that it cannot be sent again elsewhere.
    pub(crate) fn touched(&self) -> bool {
        self.touched
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.tail.is_empty() && self.after.is_empty()
    }

    pub(crate) fn data(&mut self, data: Bytes) {
        if self.chunked {
            write_chunk_start(&mut self.out, data.len());
        }
        if data.len() <= COPY {
            self.out.put_slice(&data);
            if self.chunked {
                self.out.put_slice(CHUNK_END);
            }
        } else {
            self.tail = data;
            if self.chunked {
                self.after.put_slice(CHUNK_END);
            }
        }
    }

    /// Ends the body.
    pub(crate) fn end(&mut self, trailers: Option<Trailers>) {
        if !self.chunked {
            return;
        }
        let out = if self.tail.is_empty() { &mut self.out } else { &mut self.after };
        match trailers {
            None => write_last_chunk(out, None),
            Some(Trailers::H1(trailers)) => write_last_chunk(out, Some(&trailers)),
            Some(Trailers::H2(trailers)) => write_last_chunk_with_map(out, &trailers),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        loop {
            let n = if self.at < self.out.len() {
                let head = &self.out[self.at..];
                if self.tail.is_empty() {
                    ready!(Pin::new(&mut *io).poll_write(cx, head))?
                } else {
                    let both = [IoSlice::new(head), IoSlice::new(&self.tail)];
                    ready!(Pin::new(&mut *io).poll_write_vectored(cx, &both))?
                }
            } else if !self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail))?
            } else if !self.after.is_empty() {
                self.out.clear();
                self.at = 0;
                std::mem::swap(&mut self.out, &mut self.after);
                continue;
            } else {
                break;
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.touched = true;
            let of_head = n.min(self.out.len() - self.at);
            self.at += of_head;
            self.tail.advance(n - of_head);
        }
        self.out.clear();
        self.at = 0;
        if io.buffers() { Pin::new(io).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Gives back memory while the connection is idle.
    pub(crate) fn rest(&mut self) {
        if self.out.capacity() > KEEP {
            self.out = BytesMut::new();
        }
        self.after = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_message_is_left_when_it_begins_again() {
        let mut wire = Wire::default();
        wire.begin(Framing::Chunked);
        wire.out.put_slice(b"PUT / HTTP/1.1\r\n\r\n");
        wire.data(Bytes::from(vec![0; 2 * COPY]));
        wire.end(None);
        wire.touched = true;
        assert!(!wire.is_empty() && !wire.takes());
        wire.reset();
        assert!(wire.is_empty() && wire.takes() && !wire.touched());
    }
}
