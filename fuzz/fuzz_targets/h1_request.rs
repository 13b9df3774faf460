//! Request heads and bodies: no panic, the same result however the bytes arrive, and what is written reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_proxy::h1::Limits;

#[path = "../../crates/proxy/tests/h1/message.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod message;

use message::{Read, read_request, read_request_in_pieces, write_request};

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let limits = Limits { head: 1024, target: 128, fields: 16, trailer: 128, ..Limits::default() };
    let whole = read_request(bytes, &limits);
    let pieced = read_request_in_pieces(bytes.chunks(usize::from(*step) + 1), &limits);
    match (&whole, &pieced) {
        (Ok(_), _) => assert_eq!(format!("{whole:?}"), format!("{pieced:?}")),
        (Err(_), Err(_) | Ok(Read::Waits)) => {}
        (Err(refusal), Ok(_)) => panic!("{refusal} as a whole, {pieced:?} in pieces"),
    }
    if let Ok(Read::Message { head, body, trailers, .. }) = whole {
        let written = write_request(&head, &body, trailers.as_ref());
        let Ok(Read::Message { head: second, body: second_body, trailers: second_trailers, rest }) =
            read_request(&written, &Limits::default())
        else {
            panic!("not read again: {}", String::from_utf8_lossy(&written));
        };
        assert_eq!(
            (head.method(), head.path(), head.query()),
            (second.method(), second.path(), second.query())
        );
        assert_eq!((head.authority(), head.framing()), (second.authority(), second.framing()));
        assert_eq!(body, second_body);
        assert_eq!(trailers.map(|found| found.to_map()), second_trailers.map(|found| found.to_map()));
        assert!(rest.is_empty());
    }
});
