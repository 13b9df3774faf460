//! The callee's side of an exchange: the request goes to it, the response comes from it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;

use crate::body::{self, Broken, Piece, Receive, Send, Trailers};
use crate::h1::{Asked, Decoder, Framing, Limits, ResponseHead, parse_response};
use crate::pool::{Hold, Upstream};
use crate::view::{ResponseView, h2_response_framing};
use crate::wire::Wire;

/// One exchange with an HTTP/1 callee.
#[derive(Debug)]
pub(crate) struct H1Back<'a> {
    pub(crate) upstream: Upstream,
    pub(crate) wire: &'a mut Wire,
    asked: Asked,
    limits: &'a Limits,
    decoder: Decoder,
    /// The callee ends the connection after this response.
    keep: bool,
    /// Some of the response has come.
    heard: bool,
}

/// One exchange with an HTTP/2 callee.
#[derive(Debug)]
pub(crate) struct H2Back {
    hold: Hold,
    response: ResponseFuture,
    send: Send,
    receive: Option<Receive>,
    head_request: bool,
    /// Bytes of the body that its length still promises.
    left: u64,
}

/// Either.
#[derive(Debug)]
pub(crate) enum Back<'a> {
    H1(H1Back<'a>),
    H2(H2Back),
}

/// The head of a response.
#[derive(Debug)]
pub(crate) enum BackHead {
    H1(ResponseHead),
    H2(http::response::Parts, Framing, bool),
}

impl BackHead {
    pub(crate) fn view(&self) -> ResponseView<'_> {
        match self {
            Self::H1(head) => ResponseView::H1(head),
            Self::H2(parts, ..) => ResponseView::H2(parts),
        }
    }

    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self::H1(head) => head.framing(),
            Self::H2(_, framing, _) => *framing,
        }
    }

    /// Whether nothing follows, not even trailers.
    pub(crate) fn is_last(&self) -> bool {
        match self {
            Self::H1(head) => matches!(head.framing(), Framing::None | Framing::Length(0)),
            Self::H2(_, _, last) => *last,
        }
    }
}

impl<'a> Back<'a> {
    /// The head of the request, and perhaps more, is in `wire` already.
    pub(crate) fn h1(upstream: Upstream, wire: &'a mut Wire, asked: Asked, limits: &'a Limits) -> Self {
        let decoder = Decoder::new(Framing::None, limits);
        Self::H1(H1Back { upstream, wire, asked, limits, decoder, keep: false, heard: false })
    }

    pub(crate) fn h2(hold: Hold, response: ResponseFuture, send: Send, head_request: bool) -> Self {
        Self::H2(H2Back { hold, response, send, receive: None, head_request, left: 0 })
    }

    pub(crate) fn takes(&self) -> bool {
        match self {
            Self::H1(back) => back.wire.takes(),
            Self::H2(back) => back.send.takes(),
        }
    }

    pub(crate) fn put_data(&mut self, data: Bytes) {
        match self {
            Self::H1(back) => back.wire.data(data),
            Self::H2(back) => back.send.data(data),
        }
    }

    pub(crate) fn put_end(&mut self, trailers: Option<Trailers>) {
        match self {
            Self::H1(back) => back.wire.end(trailers),
            Self::H2(back) => {
                if !back.send.ended {
                    back.send.end(trailers);
                }
            }
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::H1(back) => back.wire.poll_flush(cx, &mut back.upstream.io).map_err(Broken::Io),
            Self::H2(back) => back.send.poll_flush(cx).map_err(Broken::H2),
        }
    }

    /// Whether the callee cannot have seen a byte of the request.
    pub(crate) fn is_untouched(&self) -> bool {
        match self {
            Self::H1(back) => !back.wire.touched() && !back.heard,
            Self::H2(_) => false,
        }
    }

    /// The next head, interim or final.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<BackHead, Broken>> {
        match self {
            Self::H1(back) => loop {
                let upstream = &mut back.upstream;
                let parsed =
                    parse_response(&mut upstream.read, back.limits, &mut upstream.scratch, back.asked);
                if let Some(head) = parsed.map_err(Broken::Refused)? {
                    back.keep = head.keep_alive();
                    back.decoder = Decoder::new(head.framing(), back.limits);
                    return Poll::Ready(Ok(BackHead::H1(head)));
                }
                if ready!(upstream.io.poll_read_more(cx, &mut upstream.read)).map_err(Broken::Io)? == 0 {
                    return Poll::Ready(Err(Broken::Io(std::io::ErrorKind::UnexpectedEof.into())));
                }
                back.heard = true;
            },
            Self::H2(back) => {
                let response = ready!(std::pin::Pin::new(&mut back.response).poll(cx)).map_err(Broken::H2)?;
                let (parts, stream) = response.into_parts();
                let receive = Receive::new(stream);
                let last = receive.is_end();
                let framing =
                    h2_response_framing(&parts, last, back.head_request).map_err(Broken::Refused)?;
                back.receive = Some(receive);
                if let Framing::Length(length) = framing {
                    back.left = length;
                }
                Poll::Ready(Ok(BackHead::H2(parts, framing, last)))
            }
        }
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        match self {
            Self::H1(back) => {
                let upstream = &mut back.upstream;
                body::poll_h1(cx, &mut upstream.io, &mut upstream.read, &mut back.decoder)
            }
            Self::H2(back) => match &mut back.receive {
                Some(receive) => match ready!(receive.poll_piece(cx)) {
                    // A callee that has answered in full may reset a request whose rest it does not want (RFC 9113, section
                    // 8.1); h2 then tells of the reset instead of the end.
                    Err(Broken::H2(e)) if back.left == 0 && unwanted_rest(&e) => Poll::Ready(Ok(Piece::End)),
                    Ok(Piece::Data(data)) => {
                        back.left = back.left.saturating_sub(data.len() as u64);
                        Poll::Ready(Ok(Piece::Data(data)))
                    }
                    other => Poll::Ready(other),
                },
                None => Poll::Ready(Ok(Piece::End)),
            },
        }
    }

    /// Whether the response has come whole.
    pub(crate) fn response_is_end(&self) -> bool {
        match self {
            Self::H1(back) => back.decoder.is_end(),
            Self::H2(back) => back.receive.as_ref().is_none_or(Receive::is_end),
        }
    }

    /// Takes back the allocation of a head that is done with.
    pub(crate) fn recycle(&mut self, head: BackHead) {
        if let (Self::H1(back), BackHead::H1(head)) = (self, head) {
            back.upstream.scratch.recycle_response(head);
        }
    }

    /// The connection, if another request can go over it.
    pub(crate) fn into_reusable(self) -> Option<Upstream> {
        match self {
            Self::H1(back) => {
                (back.keep && back.decoder.is_end() && back.wire.is_empty()).then_some(back.upstream)
            }
            Self::H2(_) => None,
        }
    }

    /// The connection, whatever its state, for a tunnel or another try.
    pub(crate) fn into_upstream(self) -> Option<Upstream> {
        match self {
            Self::H1(back) => Some(back.upstream),
            Self::H2(_) => None,
        }
    }

    /// The connection takes no new streams (GOAWAY).
    pub(crate) fn retire(&self) {
        if let Self::H2(back) = self {
            back.hold.0.retire();
        }
    }
}

fn unwanted_rest(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
