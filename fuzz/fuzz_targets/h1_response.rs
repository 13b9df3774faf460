//! Response heads and bodies of upstreams: no panic, the same result however the bytes arrive, and what is written
//! reads as the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ringfence_proxy::h1::{
    Asked, ClientConnection, DropList, Limits, Reply, ResponseWriter, Version, reply_framing,
};
use ringfence_proxy::view::ResponseView;

#[path = "../../crates/proxy/tests/h1/message.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod message;

use message::{Read, put_body, read_response_in_pieces};

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let asked = Asked { head: first & 1 == 1, upgrade: first & 2 == 2 };
    let limits = Limits { head: 1024, fields: 16, trailer: 128, ..Limits::default() };
    let whole = read_response_in_pieces([bytes], asked, &limits);
    let pieced = read_response_in_pieces(bytes.chunks(usize::from(first >> 2) + 1), asked, &limits);
    match (&whole, &pieced) {
        (Ok(_), _) => assert_eq!(format!("{whole:?}"), format!("{pieced:?}")),
        (Err(_), Err(_) | Ok(Read::Waits)) => {}
        (Err(refusal), Ok(_)) => panic!("{refusal} as a whole, {pieced:?} in pieces"),
    }
    if let Ok(Read::Message { head, body, trailers, .. }) = whole {
        let framing = reply_framing(Version::Http11, head.framing());
        let connection =
            if head.status() == 101 { ClientConnection::Upgrade } else { ClientConnection::KeepAlive };
        let mut out = BytesMut::new();
        let how = Reply { framing, connection, drop: &DropList::default() };
        ResponseWriter::new(&mut out, ResponseView::H1(&head), &how).finish();
        put_body(&mut out, framing, &body, trailers.as_ref());
        let again = read_response_in_pieces([&out[..]], asked, &Limits::default());
        let Ok(Read::Message { head: second, body: second_body, rest, .. }) = again else {
            panic!("not read again: {again:?} of {}", String::from_utf8_lossy(&out));
        };
        assert_eq!((head.status(), framing), (second.status(), second.framing()));
        assert_eq!(body, second_body);
        assert!(rest.is_empty());
    }
});
