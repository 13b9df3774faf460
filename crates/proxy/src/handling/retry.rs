//! What is tried again: what may be repeated without harm, while the caller waits and the budget has tries.
//!
//! Safe are methods that are so by their meaning (RFC 9110, section 9.2.2) and what the fence declares to be. A call of gRPC is a POST
//! whatever it does, so of those only the statuses that the fence names are: that a callee is unavailable, or has had enough, does not
//! say that it did nothing. What provably never reached the callee may be tried again whatever it is.

use ringfence_model::{Handling, Retries};

use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Kind;
use crate::live::Live;
use crate::table::EdgeId;
use crate::view::{HeadView, ResponseView};
use crate::worker::Worker;

/// The first pause before another try, in milliseconds; each further one is twice as long.
const PAUSE_MS: u64 = 25;
/// The longest that a callee can ask for, in milliseconds: its answer goes to the caller otherwise.
const LONGEST_MS: u64 = 2_000;
const UNAVAILABLE: u8 = 14;

/// What becomes of the tries of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retrying<'a> {
    declared: &'a Retries,
    edge: EdgeId,
    safe: bool,
    grpc: bool,
    end_ms: u64,
    tries: u32,
}

/// Whether an answer is kept from the caller, and the request made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    edge: EdgeId,
    /// By status of HTTP.
    http: bool,
    /// Which statuses of gRPC.
    grpc: u32,
    pause_ms: u64,
    end_ms: u64,
}

impl<'a> Retrying<'a> {
    /// Of a request along `edge` that is over at `end_ms`; none if nothing of it is tried again. Counts the request.
    pub(crate) fn of(
        worker: &Worker,
        view: HeadView<'_>,
        handling: Option<&'a Handling>,
        edge: EdgeId,
        end_ms: u64,
    ) -> Option<Self> {
        let declared = handling?.retries.as_ref()?;
        worker.budgets.earn(edge, declared.budget);
        let grpc = view.known(Kind::ContentType).is_some_and(|value| value.starts_with(b"application/grpc"));
        let by_method = matches!(view.method(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE") && !grpc;
        // A client that waits to be asked for its body, or wants another protocol, is somewhere between two messages.
        let plain = !view.expects_continue() && view.present() & Kind::Upgrade.bit() == 0;
        let safe = plain && (declared.idempotent || by_method);
        Some(Self { declared, edge, safe, grpc: grpc && plain, end_ms, tries: 0 })
    }

    /// Whether what is sent has to be kept for another try.
    pub(crate) fn keeps(&self) -> bool {
        self.safe || (self.grpc && !self.declared.grpc.is_empty())
    }

    /// Which answers to this try are not the caller's.
    pub(crate) fn again(&self, spread: u64) -> Option<Again> {
        if self.tries >= self.declared.most || !self.keeps() {
            return None;
        }
        let mut grpc = 0;
        if self.grpc {
            grpc =
                self.declared.grpc.iter().fold(0, |mask, status| mask | 1_u32 << u32::from(*status).min(31));
            if self.safe {
                grpc |= 1 << UNAVAILABLE;
            }
        }
        let (edge, end_ms) = (self.edge, self.end_ms);
        Some(Again { edge, http: self.safe, grpc, pause_ms: self.pause_ms(spread), end_ms })
    }

    /// Whether a request that got no answer is made again, and after which pause. `unsent`: the callee has not seen it.
    pub(crate) fn without_answer(
        &self,
        worker: &Worker,
        deny: &Deny,
        unsent: bool,
        spread: u64,
    ) -> Option<u64> {
        let broke = matches!(
            &*deny.rule,
            "connect.failed" | "connect.timeout" | "upstream.broken" | "upstream.closed"
        );
        let pause_ms = self.pause_ms(spread);
        let may = broke && (unsent || self.safe) && self.tries < self.declared.most;
        (may && worker.now_ms() + pause_ms < self.end_ms && worker.budgets.spend(self.edge))
            .then_some(pause_ms)
    }

    /// It is tried once more.
    pub(crate) fn count(&mut self) -> u32 {
        self.tries += 1;
        self.tries
    }

    /// Twice as long each time, and not the same for all: `spread` is any number.
    fn pause_ms(&self, spread: u64) -> u64 {
        let most = PAUSE_MS << self.tries.min(5);
        most / 2 + spread % (most / 2 + 1)
    }
}

impl Again {
    /// Whether an answer with this head is kept from the caller; the pause before the next try, which has been paid for.
    pub(crate) fn instead(&self, worker: &Worker, head: ResponseView<'_>, last: bool) -> Option<u64> {
        let by_grpc =
            last && self.grpc != 0 && grpc_status(head).is_some_and(|status| self.grpc >> status & 1 == 1);
        let asked = head.field("retry-after");
        let by_http = self.http
            && match head.status() {
                502..=504 => true,
                429 => asked.is_some(),
                _ => false,
            };
        if !by_grpc && !by_http {
            return None;
        }
        let pause_ms = match asked {
            Some(asked) => asked_ms(asked)?.max(self.pause_ms),
            None => self.pause_ms,
        };
        worker.touch();
        (worker.now_ms() + pause_ms < self.end_ms && worker.budgets.spend(self.edge)).then_some(pause_ms)
    }
}

/// The status of a call that was answered with nothing else.
fn grpc_status(head: ResponseView<'_>) -> Option<u32> {
    let status: u32 = std::str::from_utf8(head.field("grpc-status")?).ok()?.parse().ok()?;
    (status < 32).then_some(status)
}

/// Seconds of `Retry-After`; a date, or what is too long, is for the caller to see.
fn asked_ms(value: &[u8]) -> Option<u64> {
    let seconds: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1_000)).filter(|ms| *ms <= LONGEST_MS)
}

/// Waits before another try; `false` when the client has gone.
pub(crate) async fn pause(live: &Live, front: &mut Front<'_>, ms: u64) -> bool {
    live.disarm();
    let mut over = std::pin::pin!(tokio::time::sleep(std::time::Duration::from_millis(ms)));
    std::future::poll_fn(|cx| {
        if over.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(true);
        }
        front.poll_gone(cx).map(|()| false)
    })
    .await
}
