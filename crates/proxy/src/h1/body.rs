//! Message bodies: where they end, without copying a byte of them.

use bytes::{Buf, Bytes, BytesMut};

use super::chunk::{self, Trailers};
use super::{Framing, Limits, Refusal, find_head_end};

/// One step of a body.
#[derive(Debug)]
pub enum Decoded {
    /// The buffer has no complete step; read more.
    NeedMore,
    /// Body bytes, taken out of the buffer. Never empty.
    Data(Bytes),
    /// Trailer fields; the body ends with them and the next step is [`Decoded::End`].
    Trailers(Trailers),
    /// The body is complete; what is left in the buffer belongs to the next message.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    UntilClose,
    End,
}

/// Follows one body to its end.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions_left: usize,
    chunk_line: usize,
    trailer: usize,
    trailer_fields: usize,
    scanned: usize,
}

impl Decoder {
    /// A decoder for a body of this framing.
    #[must_use]
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extensions_left: limits.chunk_extensions,
            chunk_line: limits.chunk_line,
            trailer: limits.trailer,
            trailer_fields: limits.trailer_fields,
            scanned: 0,
        }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Bytes still to come, where the framing tells.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Takes the next step out of `buf`.
    ///
    /// # Errors
    /// The first rule of chunked framing that the bytes break. The connection must not be read on after an error.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        loop {
            match self.state {
                State::End => return Ok(Decoded::End),
                _ if buf.is_empty() => return Ok(Decoded::NeedMore),
                State::Length(left) => {
                    let (data, left) = take(buf, left);
                    self.state = if left == 0 { State::End } else { State::Length(left) };
                    return Ok(Decoded::Data(data));
                }
                State::UntilClose => return Ok(Decoded::Data(buf.split().freeze())),
                State::Size => match chunk::size_line(buf, self.chunk_line)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(line) => {
                        self.extensions_left = self
                            .extensions_left
                            .checked_sub(line.extensions)
                            .ok_or(Refusal::ChunkExtension)?;
                        buf.advance(line.len);
                        self.state = if line.size == 0 { State::Trailers } else { State::Data(line.size) };
                    }
                },
                State::Data(left) => {
                    let (data, left) = take(buf, left);
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Decoded::Data(data));
                }
                State::DataEnd => match &buf[..] {
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        self.state = State::Size;
                    }
                    [b'\r'] => return Ok(Decoded::NeedMore),
                    _ => return Err(Refusal::ChunkEnd),
                },
                State::Trailers => return self.trailers(buf),
            }
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        match &buf[..] {
            [b'\r', b'\n', ..] => {
                buf.advance(2);
                self.state = State::End;
                return Ok(Decoded::End);
            }
            [b'\r'] => return Ok(Decoded::NeedMore),
            [b'\r' | b'\n', ..] => return Err(Refusal::BareLineEnd),
            _ => {}
        }
        let len = match find_head_end(buf, self.scanned) {
            Ok(len) => len,
            Err(scanned) if buf.len() <= self.trailer => {
                self.scanned = scanned;
                return Ok(Decoded::NeedMore);
            }
            Err(_) => return Err(Refusal::TrailerSection),
        };
        if len > self.trailer {
            return Err(Refusal::TrailerSection);
        }
        let trailers = Trailers::parse(buf.split_to(len).freeze(), self.trailer_fields)?;
        self.state = State::End;
        Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
    }

    /// The peer closed its side: complete only where the framing says so, or the body was at its end.
    ///
    /// # Errors
    /// [`Refusal::Truncated`] where more was due.
    pub fn closed(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::End => Ok(()),
            State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(Refusal::Truncated),
        }
    }
}

/// Splits off what is there of the next `left` bytes.
fn take(buf: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    (buf.split_to(here).freeze(), left - here as u64)
}
