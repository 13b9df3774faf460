//! A client's HTTP/2 connection: each stream is a task of its own, cut by itself.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use ringfence_event::Verdict;

use crate::body::Piece;
use crate::deny::Deny;
use crate::frames::{Fault, PER_TICK};
use crate::front::Front;
use crate::handle::{Ctx, answer, handle};
use crate::headers::Forwarding;
use crate::http1::{LINGER_BYTES, LINGER_MS};
use crate::io::{Gather, Io};
use crate::live::Live;
use crate::peer::Peer;
use crate::pipeline;
use crate::view::{H2Head, HeadView};
use crate::wire::Wire;
use crate::worker::Worker;

/// Streams that a client may have reset while we still hold them: what a rapid reset floods.
const MAX_RESET: usize = 32;

/// Streams after which it is looked at how many of them the client gave up at once.
const CHURN: u32 = 256;
/// What counts as at once.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves a connection on which these bytes were read already.
pub(crate) async fn serve(worker: &Rc<Worker>, live: &Live, peer: &Rc<Peer>, read: BytesMut, io: Io) {
    let limits = worker.table().map(|t| t.limits.clone()).unwrap_or_default();
    let idle = limits.idle.as_millis() as u64;
    live.arm(worker.now_ms() + limits.header_time.as_millis() as u64);
    let gather = Gather::of_client(read, io);
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(512 * 1024)
        .max_send_buffer_size(64 * 1024)
        .max_concurrent_reset_streams(MAX_RESET)
        .max_pending_accept_reset_streams(MAX_RESET)
        .max_local_error_reset_streams(Some(64))
        .handshake::<_, Bytes>(gather.clone());
    let Ok(Ok(mut connection)) = live.within(gather.flushing(handshake)).await else { return };
    let forwarding = Rc::new(Forwarding::of(peer));
    let streams = Rc::new(Cell::new(0_usize));
    let churn = Rc::new(Churn::default());
    let most = limits.streams as usize + MAX_RESET;
    let header = limits.header_time.as_millis() as u64;
    let mut leaving = false;
    // Since when a frame or header block is under way, and until when time was paid for.
    let (mut within, mut paid) = (None, worker.now_ms());
    live.arm(worker.now_ms() + idle);
    loop {
        let accepted = std::future::poll_fn(|cx| {
            if !leaving && (live.draining() || worker.is_draining()) {
                leaving = true;
                connection.graceful_shutdown();
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Ok(accepted));
            }
            let now = worker.now_ms();
            if now >= paid + 100 {
                gather.earn(PER_TICK.saturating_mul(u32::try_from((now - paid) / 100).unwrap_or(u32::MAX)));
                paid = now;
            }
            match (gather.is_within(), within) {
                (true, None) => {
                    within = Some(now);
                    live.arm(now + header.min(idle));
                }
                (true, Some(since)) if live.timed_out() && now >= since + header => {
                    return Poll::Ready(Err(SLOW));
                }
                (true, Some(_)) => {}
                (false, None) => {}
                (false, Some(_)) => {
                    within = None;
                    live.arm(now + idle);
                }
            }
            if let Some(fault) = gather.fault() {
                return Poll::Ready(Err(rude(fault)));
            }
            let busy = streams.get() > 0;
            live.set_busy(busy);
            if live.timed_out() {
                if !busy && leaving {
                    return Poll::Ready(Ok(None));
                }
                // Streams have deadlines of their own; the connection ends once it has been without any for a while.
                if !busy {
                    leaving = true;
                    connection.graceful_shutdown();
                    let _ = connection.poll_closed(cx);
                }
                live.arm(worker.now_ms() + idle);
            }
            match gather.poll_flush(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Ok(None)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let (request, respond) = match accepted {
            Ok(Some(Ok(accepted))) => accepted,
            Ok(Some(Err(_)) | None) => return,
            Err(rude) => return calm(worker, live, peer, &gather, connection, rude).await,
        };
        within = None;
        live.arm(worker.now_ms() + idle);
        // A stream that its client reset is none to the protocol any more, but it was passed on, and that was work.
        if streams.get() >= most || churn.is_flood() {
            drop((request, respond));
            return calm(worker, live, peer, &gather, connection, RESETS).await;
        }
        let (worker, peer, forwarding) = (worker.clone(), peer.clone(), forwarding.clone());
        let (count, churn, pace) = (Count::new(&streams), churn.clone(), live.pace());
        tokio::task::spawn_local(async move {
            let entry = worker.live.enter();
            entry.live().set_pace(pace);
            let begun = std::time::Instant::now();
            let ended = entry.run(stream(&worker, entry.live(), &peer, &forwarding, request, respond)).await;
            match ended {
                Err(cut) => pipeline::tell_cut(&worker, &peer, entry.live(), cut),
                Ok(given_up) => churn.note(given_up && begun.elapsed() < AT_ONCE),
            }
            drop(count);
        });
    }
}

/// What a client did with all its streams together: the rule, how, and what it is told.
struct Rude(&'static str, &'static str, &'static str, h2::Reason);

const CALM: h2::Reason = h2::Reason::ENHANCE_YOUR_CALM;
const RESETS: Rude =
    Rude("limit", "limit.resets", "the client opens streams and resets them at once, again and again", CALM);
const SLOW: Rude = Rude("parse", "limit.header-time", "a head took longer than the limit allows", CALM);

fn rude(fault: Fault) -> Rude {
    match fault {
        Fault::Worn => {
            Rude("limit", "limit.frames", "the client sends frames that bring nothing, again and again", CALM)
        }
        Fault::Unsettled => {
            let reason = h2::Reason::PROTOCOL_ERROR;
            Rude("parse", "framing", "the client's first frame is not SETTINGS", reason)
        }
        Fault::Length => {
            let reason = h2::Reason::FRAME_SIZE_ERROR;
            Rude("parse", "framing", "a frame of a fixed length has another", reason)
        }
    }
}

/// Ends a connection whose client does more harm than it asks for.
async fn calm(
    worker: &Worker,
    live: &Live,
    peer: &Peer,
    gather: &Gather,
    mut connection: h2::server::Connection<Gather, Bytes>,
    Rude(stage, rule, reason, code): Rude,
) {
    let verdict = Verdict::Denied { stage, rule, position: None, reason, missing: None };
    pipeline::tell_connection(worker, peer, &peer.callee_name(worker), true, verdict);
    connection.abrupt_shutdown(code);
    live.arm(worker.now_ms() + 1_000);
    let _ = live.within(gather.flushing(std::future::poll_fn(|cx| connection.poll_closed(cx)))).await;
    // What it still sends is read for a while: a connection that is closed over unread bytes takes the reason with it.
    let mut left = LINGER_BYTES;
    let rest = std::future::poll_fn(|cx| {
        loop {
            match std::task::ready!(gather.poll_discard(cx)) {
                Ok(n) if (1..left).contains(&n) => left -= n,
                _ => return Poll::Ready(()),
            }
        }
    });
    let _ = live.within(rest).await;
}

/// Serves one stream; whether the client gave it up.
async fn stream(
    worker: &Worker,
    live: &Live,
    peer: &Peer,
    forwarding: &Forwarding,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> bool {
    let table = worker.table();
    let defaults = crate::h1::Limits::default();
    let limits = table.as_ref().map_or(&defaults, |t| &t.http1);
    let ctx = Ctx { worker, live, peer, forwarding, limits };
    let (parts, body) = request.into_parts();
    let end = body.is_end_stream();
    let mut front = Front::h2(body, respond).of_method(parts.method.as_str());
    match H2Head::new(parts, end, limits) {
        Ok(head) => {
            let mut wire = Wire::default();
            handle(&ctx, HeadView::H2(&head), &mut front, &mut wire).await;
        }
        Err(refusal) => {
            let deny = Deny::new(refusal.status(), "parse", "framing", refusal.to_string());
            let id = pipeline::tell_refused(worker, peer, &deny);
            answer(&ctx, &mut front, false, &deny, id).await;
        }
    }
    let given_up = front.is_given_up();
    linger(worker, live, &mut front).await;
    given_up
}

/// Reads for a while what a client still sends after its answer has gone. A stream that is reset instead looks broken to clients that
/// were still sending, and they throw the answer away.
async fn linger(worker: &Worker, live: &Live, front: &mut Front<'_>) {
    if front.request_is_end() || !front.begun() {
        return;
    }
    live.arm(worker.now_ms() + LINGER_MS);
    let mut left = LINGER_BYTES;
    let rest = std::future::poll_fn(|cx| {
        while left > 0 && !front.request_is_end() {
            match std::task::ready!(front.poll_piece(cx)) {
                Ok(Piece::Data(data)) => left = left.saturating_sub(data.len()),
                Ok(Piece::Trailers(_)) => {}
                Ok(Piece::End) | Err(_) => break,
            }
        }
        Poll::Ready(())
    });
    let _ = live.within(rest).await;
}

/// How many of the last streams the client gave up at once.
#[derive(Default)]
struct Churn {
    streams: Cell<u32>,
    given_up: Cell<u32>,
}

impl Churn {
    fn note(&self, given_up: bool) {
        if self.streams.get() >= 2 * CHURN {
            // What was long ago counts less and less.
            self.streams.set(self.streams.get() / 2);
            self.given_up.set(self.given_up.get() / 2);
        }
        self.streams.set(self.streams.get() + 1);
        self.given_up.set(self.given_up.get() + u32::from(given_up));
    }

    fn is_flood(&self) -> bool {
        self.streams.get() >= CHURN && self.given_up.get() > self.streams.get() / 2
    }
}

/// Counts a stream while it runs.
struct Count(Rc<Cell<usize>>);

impl Count {
    fn new(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
