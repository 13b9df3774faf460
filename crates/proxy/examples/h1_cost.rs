//! What one head costs: run it under callgrind with two counts and divide the difference.
//!
//!     cargo build --release -p ringfence-proxy --example h1_cost
//!     for n in 1000 11000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/h1_cost request $n; done

use bytes::BytesMut;
use ringfence_proxy::h1::{
    Asked, ClientConnection, DropList, Framing, Limits, Outbound, Parsed, Reply, RequestWriter,
    ResponseWriter, Scratch, parse_request, parse_response,
};
use ringfence_proxy::view::{HeadView, ResponseView};

const REQUEST: &[u8] = b"GET /patients/4711/appointments?from=2026-01-01&to=2026-02-01 HTTP/1.1\r\n\
    Host: clinic.example:8443\r\n\
    Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://clinic.example:8443/patients\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 2\r\n\
    Date: Mon, 05 Jan 2026 10:00:00 GMT\r\n\
    Server: clinic\r\n\
    Cache-Control: no-store\r\n\r\n{}";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let count: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let (limits, drop) = (Limits::default(), DropList::default());
    let (mut scratch, mut buf, mut out) = (Scratch::default(), BytesMut::new(), BytesMut::new());
    for _ in 0..count {
        buf.clear();
        buf.reserve(4096);
        out.clear();
        match what.as_str() {
            "fill" => buf.extend_from_slice(REQUEST),
            "request-parse" | "request" => {
                buf.extend_from_slice(REQUEST);
                let Ok(Parsed::Request(head)) = parse_request(&mut buf, &limits, &mut scratch) else {
                    panic!("the request is refused");
                };
                if what == "request" {
                    let how = Outbound {
                        framing: Framing::None,
                        host: None,
                        upgrade: false,
                        expect: false,
                        drop: &drop,
                    };
                    let mut writer = RequestWriter::new(&mut out, HeadView::H1(&head), &how);
                    writer.field("X-Forwarded-For", b"192.0.2.1");
                    writer.field("X-Forwarded-Proto", b"https");
                    writer.finish();
                }
                scratch.recycle_request(head);
            }
            "response" => {
                buf.extend_from_slice(RESPONSE);
                let Ok(Some(head)) = parse_response(&mut buf, &limits, &mut scratch, Asked::default()) else {
                    panic!("the response is refused");
                };
                let how =
                    Reply { framing: head.framing(), connection: ClientConnection::KeepAlive, drop: &drop };
                ResponseWriter::new(&mut out, ResponseView::H1(&head), &how).finish();
                scratch.recycle_response(head);
            }
            other => panic!("what is {other:?}? say fill, request-parse, request or response"),
        }
    }
}
