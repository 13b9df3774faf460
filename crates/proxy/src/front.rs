//! The client's side of an exchange: the request's body comes from it, the response goes to it.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderName, HeaderValue};

use crate::body::{self, Broken, Piece, Receive, Send, Trailers};
use crate::h1::{
    ClientConnection, Decoder, DropList, Framing, Reply, ResponseWriter, Scratch, Version, reply_framing,
    respond_to_h2, write_continue,
};
use crate::io::Io;
use crate::responses::Dress;
use crate::view::ResponseView;
use crate::wire::Wire;

/// A client's HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) io: Io,
    pub(crate) read: BytesMut,
    pub(crate) scratch: Scratch,
    pub(crate) wire: Wire,
}

/// One exchange with an HTTP/1 client.
#[derive(Debug)]
pub(crate) struct H1Front<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) decoder: Decoder,
    pub(crate) version: Version,
    /// Whether the connection goes on after this exchange.
    pub(crate) keep: bool,
    pub(crate) takes_trailers: bool,
    /// Whether a HEAD request is answered: no body follows, whatever the head says.
    head_only: bool,
    begun: bool,
    /// What the response says besides.
    more: Vec<(&'static str, String)>,
    /// What responses at this place look like.
    dress: Option<Arc<Dress>>,
}

/// One exchange with an HTTP/2 client.
#[derive(Debug)]
pub(crate) struct H2Front {
    receive: Receive,
    respond: SendResponse<Bytes>,
    send: Option<Send>,
    head_only: bool,
    /// What the response says besides.
    more: Vec<(&'static str, String)>,
    /// What responses at this place look like.
    dress: Option<Arc<Dress>>,
}

/// Either.
#[derive(Debug)]
pub(crate) enum Front<'a> {
    H1(H1Front<'a>),
    H2(H2Front),
}

/// What is dropped from responses that look like this.
fn drops(dress: Option<&Dress>) -> &DropList {
    match dress {
        Some(dress) => dress.drops(),
        None => keep_all(),
    }
}

fn append(response: &mut http::Response<()>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(HeaderName::from_static(name), value);
    }
}

/// Nothing is dropped from responses but what the writer drops by itself.
fn keep_all() -> &'static DropList {
    static NONE: std::sync::LazyLock<DropList> = std::sync::LazyLock::new(DropList::default);
    &NONE
}

impl<'a> Front<'a> {
    pub(crate) fn h1(
        client: &'a mut Client,
        decoder: Decoder,
        version: Version,
        keep: bool,
        takes_trailers: bool,
    ) -> Self {
        Self::H1(H1Front {
            client,
            decoder,
            version,
            keep,
            takes_trailers,
            head_only: false,
            begun: false,
            more: Vec::new(),
            dress: None,
        })
    }

    pub(crate) fn h2(receive: h2::RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self::H2(H2Front {
            receive: Receive::new(receive),
            respond,
            send: None,
            head_only: false,
            more: Vec::new(),
            dress: None,
        })
    }

    /// The same for a request of this method.
    pub(crate) fn of_method(mut self, method: &str) -> Self {
        match &mut self {
            Self::H1(front) => front.head_only = method == "HEAD",
            Self::H2(front) => front.head_only = method == "HEAD",
        }
        self
    }

    /// Has the response renew a session. No cache that serves others may keep one that does.
    pub(crate) fn set_cookie(&mut self, set: &str) {
        self.tell("set-cookie", set.to_owned());
        self.tell("cache-control", "private".to_owned());
    }

    /// Has the response say this besides. The value has no control characters.
    pub(crate) fn tell(&mut self, name: &'static str, value: String) {
        match self {
            Self::H1(front) => front.more.push((name, value)),
            Self::H2(front) => front.more.push((name, value)),
        }
    }

    /// Has responses look like this.
    pub(crate) fn set_dress(&mut self, dress: Arc<Dress>) {
        match self {
            Self::H1(front) => front.dress = Some(dress),
            Self::H2(front) => front.dress = Some(dress),
        }
    }

    /// Whether the head of the final response was put.
    pub(crate) fn begun(&self) -> bool {
        match self {
            Self::H1(front) => front.begun,
            Self::H2(front) => front.send.is_some(),
        }
    }

    /// Whether the request's body has come whole.
    pub(crate) fn request_is_end(&self) -> bool {
        match self {
            Self::H1(front) => front.decoder.is_end(),
            Self::H2(front) => front.receive.is_end(),
        }
    }

    /// Whether the connection can carry another request.
    pub(crate) fn keeps(&self) -> bool {
        match self {
            Self::H1(front) => front.keep && front.decoder.is_end(),
            Self::H2(_) => true,
        }
    }

    /// The next piece of the request's body.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        match self {
            Self::H1(front) => {
                body::poll_h1(cx, &mut front.client.io, &mut front.client.read, &mut front.decoder)
            }
            Self::H2(front) => front.receive.poll_piece(cx),
        }
    }

    /// Whether the client gave up. An HTTP/1 client that closed its half may still want the answer.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(_) => Poll::Pending,
            Self::H2(front) => match &mut front.send {
                Some(send) => send.poll_reset(cx).map(drop),
                None => front.respond.poll_reset(cx).map(drop),
            },
        }
    }

    /// Whether the client has given up by now.
    pub(crate) fn is_given_up(&mut self) -> bool {
        self.poll_gone(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    /// Tells the client to send its body.
    pub(crate) fn put_continue(&mut self) {
        if let Self::H1(front) = self
            && front.version == Version::Http11
        {
            write_continue(&mut front.client.wire.out);
        }
    }

    /// Puts the head of the response. `last`: no body follows, not even trailers.
    pub(crate) fn put_head(
        &mut self,
        view: ResponseView<'_>,
        framing: Framing,
        last: bool,
    ) -> Result<(), Broken> {
        match self {
            Self::H1(front) => {
                let framing = reply_framing(front.version, framing);
                if framing == Framing::UntilClose {
                    front.keep = false;
                }
                let connection = match view.status() {
                    101 => ClientConnection::Upgrade,
                    _ => ClientConnection::of(front.version, front.keep),
                };
                let wire = &mut front.client.wire;
                wire.begin(framing);
                let mut writer = ResponseWriter::new(
                    &mut wire.out,
                    view,
                    &Reply { framing, connection, drop: drops(front.dress.as_deref()) },
                );
                if let Some(dress) = &front.dress {
                    dress.add(view, |name, value| writer.field(name, value.as_bytes()));
                }
                for (name, value) in &front.more {
                    writer.field(name, value.as_bytes());
                }
                writer.finish();
                front.begun = true;
                Ok(())
            }
            Self::H2(front) => {
                let drop = drops(front.dress.as_deref());
                let mut response = respond_to_h2(view, framing, drop).map_err(Broken::Refused)?;
                if let Some(dress) = &front.dress {
                    dress.add(view, |name, value| append(&mut response, name, value));
                }
                for (name, value) in &front.more {
                    append(&mut response, name, value);
                }
                let stream = front.respond.send_response(response, last).map_err(Broken::H2)?;
                front.send = Some(Send::new(stream, last));
                Ok(())
            }
        }
    }

    /// Puts a whole response of the proxy's own.
    pub(crate) fn put_own(
        &mut self,
        status: u16,
        fields: &[(&'static str, &str)],
        body: String,
    ) -> Result<(), Broken> {
        match self {
            Self::H1(front) => {
                let wire = &mut front.client.wire;
                wire.begin(Framing::None);
                let connection = ClientConnection::of(front.version, front.keep);
                let framing = if status == 204 { Framing::None } else { Framing::Length(body.len() as u64) };
                let mut writer = ResponseWriter::own(&mut wire.out, status, framing, connection);
                for (name, value) in fields {
                    writer.field(name, value.as_bytes());
                }
                if let Some(dress) = &front.dress {
                    dress.add_own(fields, |name, value| writer.field(name, value.as_bytes()));
                }
                writer.finish();
                if !front.head_only {
                    wire.out.put_slice(body.as_bytes());
                }
                front.begun = true;
                Ok(())
            }
            Self::H2(front) => {
                let mut response = http::Response::new(());
                *response.status_mut() =
                    http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
                for (name, value) in fields {
                    append(&mut response, name, value);
                }
                if let Some(dress) = &front.dress {
                    dress.add_own(fields, |name, value| append(&mut response, name, value));
                }
                let last = body.is_empty() || front.head_only;
                let stream = front.respond.send_response(response, last).map_err(Broken::H2)?;
                let mut send = Send::new(stream, last);
                if !last {
                    send.data(body.into());
                    send.end(None);
                }
                front.send = Some(send);
                Ok(())
            }
        }
    }

    /// Whether another piece of the response may be put.
    pub(crate) fn takes(&self) -> bool {
        match self {
            Self::H1(front) => front.client.wire.takes(),
            Self::H2(front) => front.send.as_ref().is_some_and(Send::takes),
        }
    }

    /// Whether the client has not taken yet what was put.
    pub(crate) fn is_behind(&self) -> bool {
        match self {
            Self::H1(front) => !front.client.wire.is_empty(),
            Self::H2(front) => front.send.as_ref().is_some_and(|send| !send.takes()),
        }
    }

    pub(crate) fn put_data(&mut self, data: Bytes) {
        match self {
            Self::H1(front) => front.client.wire.data(data),
            Self::H2(front) => {
                if let Some(send) = &mut front.send {
                    send.data(data);
                }
            }
        }
    }

    pub(crate) fn put_end(&mut self, trailers: Option<Trailers>) {
        match self {
            Self::H1(front) => {
                let trailers = if front.takes_trailers { trailers } else { None };
                front.client.wire.end(trailers);
            }
            Self::H2(front) => {
                if let Some(send) = &mut front.send {
                    send.end(trailers);
                }
            }
        }
    }

    /// Sends what was put.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::H1(front) => {
                let client = &mut *front.client;
                client.wire.poll_flush(cx, &mut client.io).map_err(Broken::Io)
            }
            Self::H2(front) => match &mut front.send {
                Some(send) => {
                    ready!(send.poll_flush(cx)).map_err(Broken::H2)?;
                    Poll::Ready(Ok(()))
                }
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// Ends the stream with an error, when the head of the response has gone already. HTTP/1 has only the connection's end.
    pub(crate) fn abort(&mut self, reason: h2::Reason) {
        match self {
            Self::H1(front) => front.keep = false,
            Self::H2(front) => match &mut front.send {
                Some(send) => send.reset(reason),
                None => front.respond.send_reset(reason),
            },
        }
    }
}
