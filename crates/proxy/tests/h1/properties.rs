//! What holds for any bytes.

use bytes::BytesMut;
use proptest::prelude::*;
use ringfence_proxy::h1::{
    Asked, CHUNK_END, Decoded, Decoder, DropList, Framing, KeptFields, Limits, Parsed, Refusal, RequestHead,
    Scratch, parse_request, write_chunk_start, write_last_chunk,
};
use ringfence_proxy::view::HeadView;

use crate::message::{
    Read, put_body, read_request, read_request_in_pieces, read_response_in_pieces, write_request,
};

/// Mostly proper lines, now and then one that is not, put together as requests.
pub(crate) fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![8 => Just("GET"), 8 => Just("POST"), 2 => Just("PUT"), 1 => Just("OPTIONS"), 1 => Just("get"), 1 => Just("CONNECT")];
    let target = prop_oneof![
        8 => "/[a-z0-9]{0,8}",
        4 => "/[a-z]{1,4}/(\\.\\./)?[a-z]{1,4}(\\?[!-~]{0,8})?",
        2 => "(/[a-z%2e;.]{0,6}){1,3}",
        2 => Just("http://host.example/x".to_owned()),
        1 => Just("*".to_owned()),
        1 => Just("/a#b".to_owned()),
        1 => "[ -~]{1,10}",
    ];
    let version =
        prop_oneof![20 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2"), 1 => Just("")];
    let host = prop_oneof![20 => Just("Host: host.example"), 1 => Just("Host: a\r\nHost: b"), 1 => Just("X: y"), 1 => Just("Host:")];
    let plain = prop_oneof!["X-[A-Za-z]{1,8}: ?[!-~ ]{0,20}", "[a-z_-]{1,12}:[a-z, ]{0,8}"];
    let field = prop_oneof![
        40 => plain,
        2 => Just("Connection: close, x-a".to_owned()),
        2 => Just("X-Forwarded-For: 1".to_owned()),
        2 => Just("Content_Length: 5".to_owned()),
        2 => Just("TE: trailers".to_owned()),
        1 => Just("Expect: 100-continue".to_owned()),
        1 => Just(" folded".to_owned()),
        1 => Just("Bad : x".to_owned()),
        1 => Just("NUL: \0".to_owned()),
        1 => Just("CR: a\rb".to_owned()),
    ];
    let framing = prop_oneof![
        6 => Just((None, None)),
        6 => (0usize..40).prop_map(|length| (Some(format!("Content-Length: {length}")), None)),
        8 => Just((Some("Transfer-Encoding: chunked".to_owned()), Some(()))),
        1 => Just((Some("Transfer-Encoding: chunked\r\nContent-Length: 3".to_owned()), Some(()))),
        1 => Just((Some("Transfer-Encoding: x, chunked".to_owned()), Some(()))),
        1 => Just((Some("Content-Length: 3\r\nContent-Length: 4".to_owned()), None)),
        1 => Just((Some("Content-Length: +3".to_owned()), None)),
    ];
    let chunk = prop_oneof![
        30 => "[ -~]{1,30}".prop_map(|data| format!("{:x}\r\n{data}\r\n", data.len())),
        2 => Just("1;ext=\"a b\"\r\na\r\n".to_owned()),
        1 => Just("1 \r\na\r\n".to_owned()),
        1 => Just("1\na\r\n".to_owned()),
        1 => Just("2\r\na\r\n".to_owned()),
        1 => Just("1\r\nab\r\n".to_owned()),
    ];
    let end = prop_oneof![10 => Just("0\r\n\r\n"), 3 => Just("0\r\nX-T: 1\r\nHost: b\r\n\r\n"), 1 => Just("0\n\r\n"), 1 => Just("0\r\nX\r\n\r\n")];
    let line_end = prop_oneof![60 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just(" \r\n")];
    let head = (method, target, version, host, prop::collection::vec(field, 0..6), framing);
    let body = (prop::collection::vec(chunk, 0..4), end, "[ -~]{0,40}");
    (head, body, line_end, prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        |(
            (method, target, version, host, fields, (framing, chunked)),
            (chunks, end, plain),
            line_end,
            flip,
        )| {
            let mut out = format!("{method} {target} {version}\r\n{host}\r\n");
            for field in fields.into_iter().chain(framing) {
                out.push_str(&field);
                out.push_str(line_end);
            }
            out.push_str("\r\n");
            match chunked {
                Some(()) => out.extend(chunks.iter().map(String::as_str).chain([end])),
                None => out.push_str(&plain),
            }
            let mut bytes = out.into_bytes();
            if let Some((at, byte)) = flip {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

/// Cuts bytes at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    let mut from = 0;
    let mut out = Vec::new();
    for cut in at.into_iter().chain([bytes.len()]) {
        out.push(&bytes[from..cut]);
        from = cut;
    }
    out
}

fn has_head_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn told<H: std::fmt::Debug>(read: &Result<Read<H>, Refusal>) -> String {
    format!("{read:?}")
}

/// Forwards as a proxy does: piece by piece, until the end or the first refusal.
fn forward_streaming(bytes: &[u8]) -> (Vec<u8>, Option<Refusal>) {
    let (limits, mut out) = (Limits::default(), BytesMut::new());
    let mut buf = BytesMut::from(bytes);
    let head = match parse_request(&mut buf, &limits, &mut Scratch::default()) {
        Ok(Parsed::Request(head)) => head,
        Ok(_) => return (Vec::new(), None),
        Err(refusal) => return (Vec::new(), Some(refusal)),
    };
    out.extend_from_slice(&write_request(&head, b"", None));
    if head.framing() == Framing::Chunked {
        out.truncate(out.len() - b"0\r\n\r\n".len());
    }
    let mut decoder = Decoder::new(head.framing(), &limits);
    let mut trailers = None;
    loop {
        match decoder.decode(&mut buf) {
            Ok(Decoded::Data(data)) if head.framing() == Framing::Chunked => {
                write_chunk_start(&mut out, data.len());
                out.extend_from_slice(&data);
                out.extend_from_slice(CHUNK_END);
            }
            Ok(Decoded::Data(data)) => out.extend_from_slice(&data),
            Ok(Decoded::Trailers(found)) => trailers = Some(found),
            Ok(Decoded::NeedMore) => return (out.to_vec(), None),
            Ok(Decoded::End) => {
                if head.framing() == Framing::Chunked {
                    write_last_chunk(&mut out, trailers.as_ref());
                }
                return (out.to_vec(), None);
            }
            Err(refusal) => return (out.to_vec(), Some(refusal)),
        }
    }
}

fn kept(head: &RequestHead) -> Vec<(String, Vec<u8>)> {
    KeptFields::of_request(HeadView::H1(head), &DropList::default())
        .map(|(_, name, value)| (String::from_utf8_lossy(name).to_lowercase(), value.to_vec()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn how_the_bytes_arrive_changes_nothing(bytes in any_request(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let limits = Limits::default();
        let whole = read_request(&bytes, &limits);
        let pieced = read_request_in_pieces(pieces(&bytes, &cuts), &limits);
        // A head that will be refused may be awaited to its end first, when its beginning came alone.
        if !matches!((&whole, &pieced), (Err(_), Ok(Read::Waits))) || has_head_end(&bytes) {
            prop_assert_eq!(told(&whole), told(&pieced));
        }
        let by_byte = read_request_in_pieces(bytes.chunks(1), &limits);
        if !matches!((&whole, &by_byte), (Err(_), Ok(Read::Waits))) || has_head_end(&bytes) {
            prop_assert_eq!(told(&whole), told(&by_byte));
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same_request(bytes in any_request()) {
        if let Ok(Read::Message { head, body, trailers, .. }) = read_request(&bytes, &Limits::default()) {
            let written = write_request(&head, &body, trailers.as_ref());
            let again = read_request(&written, &Limits::default());
            let Ok(Read::Message { head: second, body: second_body, trailers: second_trailers, rest }) = again else {
                return Err(TestCaseError::fail(format!("{again:?} of {}", String::from_utf8_lossy(&written))));
            };
            prop_assert_eq!((head.method(), head.path(), head.query()), (second.method(), second.path(), second.query()));
            prop_assert_eq!((head.authority(), head.framing()), (second.authority(), second.framing()));
            prop_assert_eq!(kept(&head), kept(&second));
            prop_assert_eq!(second.fields().first("x-forwarded-for"), Some(&b"192.0.2.1"[..]));
            prop_assert_eq!(body, second_body);
            prop_assert_eq!(trailers.map(|found| found.to_map()), second_trailers.map(|found| found.to_map()));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn of_what_is_refused_nothing_complete_goes_on(bytes in any_request()) {
        let (sent, refusal) = forward_streaming(&bytes);
        if refusal.is_some() {
            let seen = read_request(&sent, &Limits::default());
            prop_assert!(matches!(seen, Ok(Read::Waits)), "{:?} of {}", seen, String::from_utf8_lossy(&sent));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), chunked in any::<bool>()) {
        let head: &[u8] = if chunked { b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
        let _ = read_request(&[head, &bytes].concat(), &Limits::default());
        let status: &[u8] = if chunked { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
        let _ = read_response_in_pieces([&[status, &bytes].concat()[..]], Asked::default(), &Limits::default());
    }

    #[test]
    fn any_body_survives_chunking(body in prop::collection::vec(any::<u8>(), 0..5000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut bytes = BytesMut::from(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]);
        put_body(&mut bytes, Framing::Chunked, &body, None);
        let read = read_response_in_pieces(pieces(&bytes, &cuts), Asked::default(), &Limits::default());
        let Ok(Read::Message { body: found, rest, .. }) = read else { return Err(TestCaseError::fail(format!("{read:?}"))) };
        prop_assert_eq!(found, body);
        prop_assert!(rest.is_empty());
    }
}

#[test]
fn a_connection_reuses_its_field_list_and_reads_request_after_request() {
    let mut scratch = Scratch::default();
    let mut buf = BytesMut::new();
    for round in 0..100 {
        buf.extend_from_slice(format!("GET /{round} HTTP/1.1\r\nHost: a\r\nX: {round}\r\n\r\n").as_bytes());
        let Ok(Parsed::Request(head)) = parse_request(&mut buf, &Limits::default(), &mut scratch) else {
            panic!()
        };
        assert_eq!(head.path(), format!("/{round}"));
        assert_eq!(head.fields().len(), 2);
        scratch.recycle_request(head);
    }
    assert!(buf.is_empty());
}
