//! Bodies as a row of pieces, whichever version they came over.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::h1::{self, Decoded, Decoder, Refusal};
use crate::io::{Io, READ};

/// A part of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Never empty.
    Data(Bytes),
    /// The last but one.
    Trailers(Trailers),
    /// The last.
    End,
}

/// Trailers of either version.
#[derive(Debug)]
pub(crate) enum Trailers {
    H1(h1::Trailers),
    H2(HeaderMap),
}

/// Why a body does not go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Its framing is wrong.
    Refused(Refusal),
    /// Its connection broke.
    Io(io::Error),
    /// Its stream was reset.
    H2(h2::Error),
}

/// Takes the next piece of an HTTP/1 body out of `read`, filling it from `io`.
pub(crate) fn poll_h1(
    cx: &mut Context<'_>,
    io: &mut Io,
    read: &mut BytesMut,
    decoder: &mut Decoder,
) -> Poll<Result<Piece, Broken>> {
    loop {
        match decoder.decode(read).map_err(Broken::Refused)? {
            Decoded::Data(data) => return Poll::Ready(Ok(Piece::Data(data))),
            Decoded::Trailers(trailers) => return Poll::Ready(Ok(Piece::Trailers(Trailers::H1(trailers)))),
            Decoded::End => return Poll::Ready(Ok(Piece::End)),
            Decoded::NeedMore => {
                // A long body is worth a buffer of its own; a short one goes through the thread's.
                if decoder.remaining().is_none_or(|left| left > READ as u64 / 4) {
                    read.reserve(READ);
                }
                if ready!(io.poll_read_more(cx, read)).map_err(Broken::Io)? == 0 {
                    decoder.closed().map_err(Broken::Refused)?;
                }
            }
        }
    }
}

/// The receiving half of an HTTP/2 stream. Its window opens again as pieces are passed on.
#[derive(Debug)]
pub(crate) struct Receive {
    stream: RecvStream,
    unreleased: usize,
    trailers_seen: bool,
}

impl Receive {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, unreleased: 0, trailers_seen: false }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// The next piece. The one before has been passed on when this is called.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        let unreleased = std::mem::take(&mut self.unreleased);
        if unreleased > 0 {
            // Refused only if the stream is gone, which the next read tells.
            let _ = self.stream.flow_control().release_capacity(unreleased);
        }
        loop {
            if self.trailers_seen {
                return Poll::Ready(Ok(Piece::End));
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.unreleased = data.len();
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Some(Err(e)) => return Poll::Ready(Err(Broken::H2(e))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(Broken::H2)?;
                    self.trailers_seen = true;
                    if let Some(trailers) = trailers {
                        return Poll::Ready(Ok(Piece::Trailers(Trailers::H2(trailers))));
                    }
                }
            }
        }
    }
}

/// The sending half of an HTTP/2 stream, one piece at a time.
#[derive(Debug)]
pub(crate) struct Send {
    stream: SendStream<Bytes>,
    waiting: Bytes,
    ending: Option<Option<HeaderMap>>,
    pub(crate) ended: bool,
}

impl Send {
    pub(crate) fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self { stream, waiting: Bytes::new(), ending: None, ended }
    }

    pub(crate) fn takes(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn data(&mut self, data: Bytes) {
        self.waiting = data;
    }

    pub(crate) fn end(&mut self, trailers: Option<Trailers>) {
        let trailers = trailers.map(|trailers| match trailers {
            Trailers::H1(trailers) => trailers.to_map(),
            Trailers::H2(mut map) => {
                h1::Trailers::filter_map(&mut map);
                map
            }
        });
        self.ending = Some(trailers);
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.waiting.is_empty() {
            self.stream.reserve_capacity(self.waiting.len());
            let n = match ready!(self.stream.poll_capacity(cx)) {
                Some(n) => n?.min(self.waiting.len()),
                None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
            };
            if n == 0 {
                continue;
            }
            let last = n == self.waiting.len() && matches!(self.ending, Some(None));
            self.stream.send_data(self.waiting.split_to(n), last)?;
            if last {
                self.ending = None;
                self.ended = true;
            }
        }
        match self.ending.take() {
            None => {}
            Some(_) if self.ended => {}
            Some(None) => {
                self.stream.send_data(Bytes::new(), true)?;
                self.ended = true;
            }
            Some(Some(trailers)) => {
                self.stream.send_trailers(trailers)?;
                self.ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the other side gave the stream up.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<h2::Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }

    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
    }
}
