//! Bytes both ways, not looked at: TCP services, egress, and WebSockets after their upgrade.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use crate::io::Io;
use crate::live::Live;
use crate::worker::Worker;

/// Bytes moved at once.
const CHUNK: usize = 32 * 1024;

/// One direction.
#[derive(Debug, Default)]
struct Half {
    waiting: BytesMut,
    moved: u64,
    ended: bool,
    closed: bool,
}

/// One end of a tunnel, with bytes that were read from it already.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) io: Io,
    pub(crate) read: BytesMut,
}

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both sides closed, or one broke off.
    Closed,
    /// Nothing came for as long as the limit allows.
    Idle,
}

/// Moves bytes until both directions have ended. The end of one direction is passed on and leaves the other open.
pub(crate) async fn run(worker: &Worker, live: &Live, idle_ms: u64, client: End, upstream: End) -> Ended {
    let (mut client, mut upstream) = (client, upstream);
    let mut up = Half { waiting: std::mem::take(&mut client.read), ..Half::default() };
    let mut down = Half { waiting: std::mem::take(&mut upstream.read), ..Half::default() };
    live.arm(worker.now_ms() + idle_ms);
    let mut seen = 0;
    std::future::poll_fn(|cx| {
        let a = up.poll(cx, &mut client.io, &mut upstream.io);
        let b = down.poll(cx, &mut upstream.io, &mut client.io);
        let moved = up.moved + down.moved;
        if moved != seen {
            seen = moved;
            live.arm(worker.now_ms() + idle_ms);
        }
        match (a, b) {
            // A direction that broke takes the other with it.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Ended::Closed),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Closed),
            _ if live.timed_out() => Poll::Ready(Ended::Idle),
            _ => Poll::Pending,
        }
    })
    .await
}

impl Half {
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &mut Io) -> Poll<io::Result<()>> {
        loop {
            if !self.waiting.is_empty() {
                let mut at = 0;
                let written = to.poll_write_all(cx, &self.waiting, &mut at);
                self.moved += at as u64;
                let _ = self.waiting.split_to(at);
                ready!(written)?;
            }
            if self.ended {
                if !self.closed {
                    // A peer that is gone needs no farewell.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            self.waiting.reserve(CHUNK);
            match from.poll_read_more(cx, &mut self.waiting) {
                Poll::Ready(n) => {
                    let n = n?;
                    self.moved += n as u64;
                    self.ended = n == 0;
                }
                Poll::Pending => {
                    // An idle tunnel holds no buffer; what was written into a TLS session must still go out.
                    self.waiting = BytesMut::new();
                    let _ = Pin::new(&mut *to).poll_flush(cx)?;
                    return Poll::Pending;
                }
            }
        }
    }
}
