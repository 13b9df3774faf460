//! A client's HTTP/1 connection: heads in, requests handled one after another, until either side has had enough.

use std::task::Poll;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::again::Granted;
use crate::deny::Deny;
use crate::front::{Client, Front};
use crate::h1::{Decoder, Framing, Limits, Parsed, Refusal, RequestHead, Scratch, Version, parse_request};
use crate::handle::{Ctx, Next, answer, handle};
use crate::headers::Forwarding;
use crate::io::Io;
use crate::live::Live;
use crate::peer::Peer;
use crate::pipeline;
use crate::pool::Upstream;
use crate::tunnel::End;
use crate::view::HeadView;
use crate::wire::Wire;
use crate::worker::Worker;

/// Bytes and time that are spent on reading what a refused client still sends, so that it sees the answer.
pub(crate) const LINGER_BYTES: usize = 256 * 1024;
pub(crate) const LINGER_MS: u64 = 1_000;

enum Read {
    Head(RequestHead),
    Http2,
    Closed,
    Refused(Refusal),
    TimedOut,
}

/// Serves a connection. Gives it back when the client begins HTTP/2 without asking.
pub(crate) async fn serve(
    worker: &Worker,
    live: &Live,
    peer: &Peer,
    io: Io,
    read: BytesMut,
) -> Option<(BytesMut, Io)> {
    let forwarding = Forwarding::of(peer);
    let mut client = Client { io, read, scratch: Scratch::default(), wire: Wire::default() };
    let mut wire = Wire::default();
    loop {
        let table = worker.table();
        let defaults;
        let (limits, bounds) = match &table {
            Some(table) => (&table.http1, &table.limits),
            None => {
                defaults = (Limits::default(), ringfence_model::Limits::default());
                (&defaults.0, &defaults.1)
            }
        };
        let (idle, header) = (bounds.idle.as_millis() as u64, bounds.header_time.as_millis() as u64);
        let read = read_head(worker, live, &mut client, limits, idle, header).await;
        let ctx = Ctx { worker, live, peer, forwarding: &forwarding, limits };
        let deny = match read {
            Read::Closed => return None,
            Read::Http2 => return Some((client.read, client.io)),
            Read::Head(head) => {
                let over = match request(&ctx, &mut client, &mut wire, &head).await {
                    Step::Next => false,
                    Step::Tunnel(upstream, granted) => {
                        let (client, callee) = (
                            End { io: client.io, read: client.read },
                            End { io: upstream.io, read: upstream.read },
                        );
                        granted.tunnel(idle, client, callee).await;
                        return None;
                    }
                    Step::Over => true,
                };
                if over {
                    break;
                }
                client.scratch.recycle_request(head);
                continue;
            }
            Read::Refused(refusal) => Deny::new(refusal.status(), "parse", "framing", refusal.to_string()),
            Read::TimedOut => {
                Deny::new(408, "parse", "limit.header-time", "the head took longer than the limit allows")
            }
        };
        refuse_unread(&ctx, &mut client, &deny).await;
        break;
    }
    linger(worker, live, &mut client).await;
    None
}

enum Step<'a> {
    Next,
    Tunnel(Box<Upstream>, Box<Granted<'a>>),
    Over,
}

/// Handles one request.
async fn request<'a>(
    ctx: &'a Ctx<'a>,
    client: &mut Client,
    wire: &mut Wire,
    head: &'a RequestHead,
) -> Step<'a> {
    let decoder = Decoder::new(head.framing(), ctx.limits);
    let keep = head.keep_alive() && !ctx.live.draining() && !ctx.worker.is_draining();
    let front = Front::h1(client, decoder, head.version(), keep, head.takes_trailers());
    let mut front = front.of_method(head.method());
    match handle(ctx, HeadView::H1(head), &mut front, wire).await {
        Next::Request if front.keeps() => Step::Next,
        Next::Request | Next::Close => Step::Over,
        Next::Tunnel(upstream, granted) => Step::Tunnel(upstream, granted),
    }
}

async fn read_head(
    worker: &Worker,
    live: &Live,
    client: &mut Client,
    limits: &Limits,
    idle: u64,
    header: u64,
) -> Read {
    let mut begun = false;
    // One that is to end soon is given a little time for what is on its way.
    let idle = if live.draining() { idle.min(LINGER_MS) } else { idle };
    live.arm(worker.now_ms() + idle);
    std::future::poll_fn(|cx| {
        loop {
            if !client.read.is_empty() {
                match parse_request(&mut client.read, limits, &mut client.scratch) {
                    Ok(Parsed::Request(head)) => return Poll::Ready(Read::Head(head)),
                    Ok(Parsed::Http2) => return Poll::Ready(Read::Http2),
                    Ok(Parsed::NeedMore) => {}
                    Err(refusal) => return Poll::Ready(Read::Refused(refusal)),
                }
                if !begun {
                    begun = true;
                    live.arm(worker.now_ms() + header);
                }
            }
            match client.io.poll_read_more(cx, &mut client.read) {
                Poll::Ready(Ok(0)) if client.read.is_empty() => return Poll::Ready(Read::Closed),
                Poll::Ready(Ok(0)) => return Poll::Ready(Read::Refused(Refusal::Truncated)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Read::Closed),
                Poll::Pending if live.timed_out() => {
                    return Poll::Ready(if begun { Read::TimedOut } else { Read::Closed });
                }
                Poll::Pending => {
                    if !begun {
                        client.wire.rest();
                        client.read = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// Answers what could not be read as a request; nothing of it has been passed on.
async fn refuse_unread(ctx: &Ctx<'_>, client: &mut Client, deny: &Deny) {
    let id = pipeline::tell_refused(ctx.worker, ctx.peer, deny);
    let decoder = Decoder::new(Framing::None, ctx.limits);
    let mut front = Front::h1(client, decoder, Version::Http11, false, false);
    let _: Next<'_> = answer(ctx, &mut front, false, deny, id).await;
}

/// Closes so that the client reads the answer before it learns that nobody listens any more.
async fn linger(worker: &Worker, live: &Live, client: &mut Client) {
    live.set_busy(false);
    live.arm(worker.now_ms() + LINGER_MS);
    let _ = live
        .within(async {
            if client.io.shutdown().await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES;
            while left > 0 {
                client.read.clear();
                let read = std::future::poll_fn(|cx| client.io.poll_read_more(cx, &mut client.read)).await;
                match read {
                    Ok(n) if n > 0 => left = left.saturating_sub(n),
                    _ => return,
                }
            }
        })
        .await;
}
