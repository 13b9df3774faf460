//! One request and its response, pumped both ways at once by the task that owns the client's connection.
//!
//! No task, channel or box per request: both directions are polled together, so an answer that comes before the request
//! has ended is passed on at once, and whatever ends the client's task ends the rest.

use std::task::{Context, Poll, ready};

use crate::back::{Back, BackHead};
use crate::body::{Broken, Piece, Trailers};
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Framing;
use crate::live::Live;
use crate::worker::Worker;

/// How far the request's body has come; outlives a try, because what was taken from the client cannot be asked for again.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Bytes taken from the client.
    pub(crate) taken: u64,
    ended: bool,
    sent: bool,
    trailers: Option<Trailers>,
}

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of the request's body.
    pub(crate) body: Option<u64>,
    /// How long nothing may move, in milliseconds.
    pub(crate) idle_ms: u64,
    /// When the whole must be over, by the worker's clock.
    pub(crate) end_ms: u64,
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The response went out whole.
    Done { status: u16 },
    /// The callee switched protocols; its 101 went out.
    Switched,
    /// The callee has provably not seen the request: it may be tried again.
    Unsent,
    /// Nothing was answered yet.
    Failed(Deny),
    /// The answer began and could not be finished.
    Broken { status: u16, reason: String, reset: h2::Reason },
    /// The client gave up.
    Gone,
}

enum Side {
    Front(Broken),
    Back,
    TooLarge,
}

#[derive(Debug)]
enum Stage {
    Head,
    Body(u16),
    Switch,
}

/// An exchange under way.
pub(crate) struct Exchange<'x, 'f, 'b> {
    pub(crate) worker: &'x Worker,
    pub(crate) live: &'x Live,
    pub(crate) front: &'x mut Front<'f>,
    pub(crate) back: Back<'b>,
    pub(crate) flow: &'x mut Flow,
    pub(crate) bounds: Bounds,
    stage: Stage,
    request_over: bool,
    response_ended: bool,
    trailers: Option<Trailers>,
    steps: u64,
}

impl<'x, 'f, 'b> Exchange<'x, 'f, 'b> {
    pub(crate) fn new(
        worker: &'x Worker,
        live: &'x Live,
        front: &'x mut Front<'f>,
        back: Back<'b>,
        flow: &'x mut Flow,
        bounds: Bounds,
    ) -> Self {
        let (stage, request_over, response_ended) = (Stage::Head, false, false);
        Self {
            worker,
            live,
            front,
            back,
            flow,
            bounds,
            stage,
            request_over,
            response_ended,
            trailers: None,
            steps: 0,
        }
    }

    /// Runs it to its end.
    pub(crate) async fn run(&mut self) -> Outcome {
        self.arm();
        let mut seen = 0;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = self.poll(cx) {
                return Poll::Ready(outcome);
            }
            if self.steps != seen {
                seen = self.steps;
                self.arm();
            } else if self.live.timed_out() {
                return Poll::Ready(self.timed_out());
            }
            Poll::Pending
        })
        .await
    }

    fn arm(&self) {
        self.live.arm(self.bounds.end_ms.min(self.worker.now_ms() + self.bounds.idle_ms));
    }

    fn timed_out(&self) -> Outcome {
        let whole = self.worker.now_ms() >= self.bounds.end_ms;
        match (&self.stage, whole, self.flow.ended) {
            (Stage::Body(status), ..) => Outcome::Broken {
                status: *status,
                reason: "the response stopped for longer than the limit allows".into(),
                reset: h2::Reason::CANCEL,
            },
            (_, true, _) => Outcome::Failed(Deny::failure(
                504,
                "limit.request-time",
                "the request took longer than the limit allows",
            )),
            (_, false, false) => Outcome::Failed(Deny::failure(
                408,
                "limit.idle",
                "the client's body stopped for longer than the limit allows",
            )),
            (_, false, true) => Outcome::Failed(Deny::failure(
                504,
                "limit.idle",
                "the callee did not answer within the limit",
            )),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if !self.request_over {
            match self.poll_request(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.request_over = true;
                    self.flow.sent = true;
                }
                Poll::Ready(Err(Side::Front(broken))) => return Poll::Ready(self.front_broke(&broken)),
                Poll::Ready(Err(Side::TooLarge)) => return Poll::Ready(self.too_large()),
                Poll::Ready(Err(Side::Back)) if self.back.is_untouched() => {
                    return Poll::Ready(Outcome::Unsent);
                }
                // The callee may have answered before it stopped reading.
                Poll::Ready(Err(Side::Back)) => self.request_over = true,
            }
        }
        match self.poll_response(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => self.front.poll_gone(cx).map(|()| Outcome::Gone),
        }
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Side>> {
        loop {
            let mut starved = false;
            while !self.flow.ended && self.back.takes() {
                match self.front.poll_piece(cx) {
                    Poll::Pending => {
                        starved = true;
                        break;
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(Side::Front(broken))),
                    Poll::Ready(Ok(Piece::Data(data))) => {
                        self.flow.taken += data.len() as u64;
                        if self.bounds.body.is_some_and(|most| self.flow.taken > most) {
                            return Poll::Ready(Err(Side::TooLarge));
                        }
                        self.back.put_data(data);
                        self.steps += 1;
                        if self.front.request_is_end() {
                            self.flow.ended = true;
                            self.back.put_end(None);
                        }
                    }
                    Poll::Ready(Ok(Piece::Trailers(trailers))) => self.flow.trailers = Some(trailers),
                    Poll::Ready(Ok(Piece::End)) => {
                        self.flow.ended = true;
                        self.back.put_end(self.flow.trailers.take());
                    }
                }
            }
            ready!(self.back.poll_flush(cx)).map_err(|_| Side::Back)?;
            if self.flow.ended {
                return Poll::Ready(Ok(()));
            }
            if starved {
                return Poll::Pending;
            }
        }
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match self.stage {
                Stage::Head => {
                    let head = match ready!(self.back.poll_head(cx)) {
                        Ok(head) => head,
                        Err(broken) => return Poll::Ready(self.no_answer(broken)),
                    };
                    self.steps += 1;
                    if let Err(broken) = self.take_head(head) {
                        return Poll::Ready(self.no_answer(broken));
                    }
                    if matches!(self.stage, Stage::Head) {
                        // An interim head should not wait for the final one.
                        if let Poll::Ready(Err(_)) = self.front.poll_flush(cx) {
                            return Poll::Ready(Outcome::Gone);
                        }
                    }
                }
                Stage::Switch => {
                    return match ready!(self.front.poll_flush(cx)) {
                        Ok(()) => Poll::Ready(Outcome::Switched),
                        Err(_) => Poll::Ready(Outcome::Gone),
                    };
                }
                Stage::Body(status) => return self.poll_body(cx, status),
            }
        }
    }

    fn take_head(&mut self, head: BackHead) -> Result<(), Broken> {
        let status = head.view().status();
        if status == 101 {
            self.front.put_head(head.view(), Framing::None, true)?;
            self.stage = Stage::Switch;
        } else if status < 200 {
            if status == 100 && !self.flow.ended {
                self.front.put_continue();
            }
        } else {
            if let (Front::H1(front), false) = (&mut *self.front, self.flow.ended) {
                // The rest of the request would be read as the next one.
                front.keep = false;
            }
            self.front.put_head(head.view(), head.framing(), head.is_last())?;
            self.response_ended = head.is_last();
            if self.response_ended {
                self.front.put_end(None);
            }
            self.stage = Stage::Body(status);
        }
        self.back.recycle(head);
        Ok(())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, status: u16) -> Poll<Outcome> {
        loop {
            let mut starved = false;
            while !self.response_ended && self.front.takes() {
                match self.back.poll_piece(cx) {
                    Poll::Pending => {
                        starved = true;
                        break;
                    }
                    Poll::Ready(Err(broken)) => {
                        let (reason, reset) = explain(&broken);
                        return Poll::Ready(Outcome::Broken { status, reason, reset });
                    }
                    Poll::Ready(Ok(Piece::Data(data))) => {
                        self.front.put_data(data);
                        self.steps += 1;
                        if self.back.response_is_end() {
                            self.response_ended = true;
                            self.front.put_end(None);
                        }
                    }
                    Poll::Ready(Ok(Piece::Trailers(trailers))) => self.trailers = Some(trailers),
                    Poll::Ready(Ok(Piece::End)) => {
                        self.response_ended = true;
                        self.front.put_end(self.trailers.take());
                    }
                }
            }
            match ready!(self.front.poll_flush(cx)) {
                Ok(()) => {}
                Err(_) => return Poll::Ready(Outcome::Gone),
            }
            if self.response_ended {
                return Poll::Ready(Outcome::Done { status });
            }
            if starved {
                return Poll::Pending;
            }
        }
    }

    /// Whether the request went out whole, so that the connection is in step.
    pub(crate) fn request_sent(&self) -> bool {
        self.flow.sent
    }

    fn no_answer(&mut self, broken: Broken) -> Outcome {
        if self.back.is_untouched() {
            return Outcome::Unsent;
        }
        if let Broken::H2(e) = &broken {
            let refused = e.reason() == Some(h2::Reason::REFUSED_STREAM) && e.is_remote();
            // Streams above the last one that a GOAWAY names end with it; they were not looked at.
            let turned_away = e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR);
            if turned_away {
                self.back.retire();
            }
            if (refused || turned_away) && self.flow.taken == 0 {
                return Outcome::Unsent;
            }
        }
        let (reason, _) = explain(&broken);
        Outcome::Failed(Deny::failure(502, "upstream.broken", reason))
    }

    fn front_broke(&self, broken: &Broken) -> Outcome {
        match (broken, &self.stage) {
            (Broken::Refused(refusal), Stage::Head) => {
                Outcome::Failed(Deny::new(refusal.status(), "parse", "framing", refusal.to_string()))
            }
            _ => Outcome::Gone,
        }
    }

    fn too_large(&self) -> Outcome {
        match self.stage {
            Stage::Head => Outcome::Failed(Deny::new(
                413,
                "limit",
                "limit.body",
                "the body is larger than the limit allows",
            )),
            _ => Outcome::Gone,
        }
    }
}

fn explain(broken: &Broken) -> (String, h2::Reason) {
    match broken {
        Broken::Refused(refusal) => {
            (format!("the callee's response is malformed: {refusal}"), h2::Reason::PROTOCOL_ERROR)
        }
        Broken::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ("the callee closed the connection without an answer".into(), h2::Reason::INTERNAL_ERROR)
        }
        Broken::Io(e) => (format!("the connection to the callee broke: {e}"), h2::Reason::INTERNAL_ERROR),
        Broken::H2(e) => {
            (format!("the callee ended the stream: {e}"), e.reason().unwrap_or(h2::Reason::INTERNAL_ERROR))
        }
    }
}
