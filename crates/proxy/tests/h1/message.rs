//! Reads whole messages with the codec, the way a connection would.

use bytes::BytesMut;
use ringfence_proxy::h1::{
    Asked, Decoded, Decoder, DropList, Framing, Limits, Outbound, Parsed, Refusal, RequestHead,
    RequestWriter, ResponseHead, Scratch, Trailers, parse_request, parse_response, write_chunk_start,
    write_last_chunk,
};
use ringfence_proxy::view::HeadView;

/// What became of some bytes.
#[derive(Debug)]
pub(crate) enum Read<H> {
    Message { head: H, body: Vec<u8>, trailers: Option<Trailers>, rest: Vec<u8> },
    Waits,
    Http2,
}

pub(crate) fn read_request(bytes: &[u8], limits: &Limits) -> Result<Read<RequestHead>, Refusal> {
    read_request_in_pieces([bytes], limits)
}

/// Feeds the pieces one by one, asking the codec after each.
pub(crate) fn read_request_in_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Result<Read<RequestHead>, Refusal> {
    let mut scratch = Scratch::default();
    let mut pieces = pieces.into_iter();
    let mut buf = BytesMut::new();
    let head = loop {
        match parse_request(&mut buf, limits, &mut scratch)? {
            Parsed::Request(head) => break head,
            Parsed::Http2 => return Ok(Read::Http2),
            Parsed::NeedMore => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None => return Ok(Read::Waits),
            },
        }
    };
    let framing = head.framing();
    finish(head, framing, buf, pieces, limits)
}

pub(crate) fn read_response(bytes: &[u8], asked: Asked) -> Result<Read<ResponseHead>, Refusal> {
    read_response_in_pieces([bytes], asked, &Limits::default())
}

pub(crate) fn read_response_in_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    asked: Asked,
    limits: &Limits,
) -> Result<Read<ResponseHead>, Refusal> {
    let mut scratch = Scratch::default();
    let mut pieces = pieces.into_iter();
    let mut buf = BytesMut::new();
    let head = loop {
        match parse_response(&mut buf, limits, &mut scratch, asked)? {
            Some(head) => break head,
            None => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None => return Ok(Read::Waits),
            },
        }
    };
    let framing = head.framing();
    finish(head, framing, buf, pieces, limits)
}

fn finish<'a, H>(
    head: H,
    framing: Framing,
    mut buf: BytesMut,
    mut pieces: impl Iterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Result<Read<H>, Refusal> {
    let mut decoder = Decoder::new(framing, limits);
    let (mut body, mut trailers) = (Vec::new(), None);
    loop {
        match decoder.decode(&mut buf)? {
            Decoded::Data(data) => {
                assert!(!data.is_empty(), "data is never empty");
                body.extend_from_slice(&data);
            }
            Decoded::Trailers(found) => trailers = Some(found),
            Decoded::NeedMore => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None if decoder.closed().is_ok() => break,
                None => return Ok(Read::Waits),
            },
            Decoded::End => break,
        }
    }
    let mut rest = buf.to_vec();
    pieces.for_each(|piece| rest.extend_from_slice(piece));
    Ok(Read::Message { head, body, trailers, rest })
}

/// Writes a request the way the forwarder does, with one field of its own.
pub(crate) fn write_request(head: &RequestHead, body: &[u8], trailers: Option<&Trailers>) -> Vec<u8> {
    let drop = DropList::default();
    let how = Outbound {
        framing: head.framing(),
        host: None,
        upgrade: head.websocket_upgrade(),
        expect: head.expects_continue(),
        drop: &drop,
    };
    let mut out = BytesMut::new();
    let mut writer = RequestWriter::new(&mut out, HeadView::H1(head), &how);
    writer.field("X-Forwarded-For", b"192.0.2.1");
    writer.finish();
    put_body(&mut out, head.framing(), body, trailers);
    out.to_vec()
}

pub(crate) fn put_body(out: &mut BytesMut, framing: Framing, body: &[u8], trailers: Option<&Trailers>) {
    if framing == Framing::Chunked {
        for piece in body.chunks(1000) {
            write_chunk_start(out, piece.len());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        write_last_chunk(out, trailers);
    } else {
        out.extend_from_slice(body);
    }
}
