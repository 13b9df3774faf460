//! One request and its response, pumped both ways at once by the task that owns the client's connection.
//!
//! No task, channel or box per request: both directions are polled together, so an answer that comes before the request
//! has ended is passed on at once, and whatever ends the client's task ends the rest.

use std::task::{Context, Poll, ready};

use crate::back::{Back, BackHead};
use crate::body::{Broken, Piece, Trailers};
use crate::deny::Deny;
use crate::flow::Flow;
use crate::front::Front;
use crate::h1::Framing;
use crate::handling::{Again, Answered, by_head};
use crate::held::{Held, Share};
use crate::live::Live;
use crate::protect::Watch;
use crate::worker::Worker;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of the request's body.
    pub(crate) body: Option<u64>,
    /// How long nothing may move, in milliseconds.
    pub(crate) idle_ms: u64,
    /// When the whole must be over, by the worker's clock.
    pub(crate) end_ms: u64,
    /// Which answers are not the client's.
    pub(crate) again: Option<Again>,
    /// Whether somebody wants to know how the callee is.
    pub(crate) breaks: bool,
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
    /// Nothing was answered yet, and its time is over.
    Late,
    /// The answer, which nobody saw, had this status: it is made again after so many milliseconds.
    Again { status: u16, pause_ms: u64 },
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
    /// The response is judged before any of it goes on.
    Held(Box<HeldResponse>),
    Body(u16),
    Switch,
}

#[derive(Debug)]
struct HeldResponse {
    head: BackHead,
    body: Held,
    most: usize,
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
    /// Who judges the response, if anybody does.
    watch: Option<Watch<'x>>,
    share: Option<Share>,
    steps: u64,
    /// Bytes of the response's body that were given to the client's connection.
    given: u64,
    answered: Answered,
}

impl<'x, 'f, 'b> Exchange<'x, 'f, 'b> {
    pub(crate) fn new(
        worker: &'x Worker,
        live: &'x Live,
        front: &'x mut Front<'f>,
        back: Back<'b>,
        flow: &'x mut Flow,
        bounds: Bounds,
        watch: Option<Watch<'x>>,
    ) -> Self {
        Self {
            worker,
            live,
            front,
            back,
            flow,
            bounds,
            stage: Stage::Head,
            request_over: false,
            response_ended: false,
            trailers: None,
            watch,
            share: None,
            steps: 0,
            given: 0,
            answered: Answered::default(),
        }
    }

    /// Runs it to its end.
    pub(crate) async fn run(&mut self) -> Outcome {
        self.arm();
        let mut seen = 0;
        let mut pace = self.live.pace().run(self.worker.now_ms());
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = self.poll(cx) {
                return Poll::Ready(outcome);
            }
            pace.note(self.flow.taken + self.given, self.waits_for_client());
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

    /// Whether nothing goes on before the client sends or takes something.
    fn waits_for_client(&self) -> bool {
        (!self.flow.ended && self.back.takes())
            || (matches!(self.stage, Stage::Body(_)) && self.front.is_behind())
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
            (_, true, _) => Outcome::Late,
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
            if self.flow.held.is_some() && self.back.takes() {
                self.put_held();
            }
            let mut starved = false;
            while !self.flow.ended && self.flow.held.is_none() && self.back.takes() {
                match self.front.poll_piece(cx) {
                    Poll::Pending => {
                        starved = true;
                        break;
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(Side::Front(broken))),
                    Poll::Ready(Ok(Piece::Data(data))) => {
                        self.flow.passes(&data);
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
                    Poll::Ready(Ok(Piece::Trailers(trailers))) => self.flow.passes_trailers(Some(trailers)),
                    Poll::Ready(Ok(Piece::End)) => {
                        self.flow.ended = true;
                        self.back.put_end(self.flow.trailers.take());
                    }
                }
            }
            ready!(self.back.poll_flush(cx)).map_err(|_| Side::Back)?;
            if self.flow.ended {
                self.flow.share = None;
                return Poll::Ready(Ok(()));
            }
            if starved {
                return Poll::Pending;
            }
        }
    }

    /// Puts what was read of the request's body before it was let pass.
    fn put_held(&mut self) {
        let Some((data, trailers, ended, share)) = self.flow.held.take().map(Held::into_parts) else {
            return;
        };
        self.flow.share = Some(share);
        self.flow.passes(&data);
        if !data.is_empty() {
            self.back.put_data(data);
            self.steps += 1;
        }
        self.flow.passes_trailers(trailers);
        if ended {
            self.flow.ended = true;
            self.back.put_end(self.flow.trailers.take());
        }
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match &self.stage {
                Stage::Head => {
                    let head = match ready!(self.back.poll_head(cx)) {
                        Ok(head) => head,
                        Err(broken) => return Poll::Ready(self.no_answer(broken)),
                    };
                    self.steps += 1;
                    if let Err(outcome) = self.take_head(head) {
                        return Poll::Ready(outcome);
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
                Stage::Held(_) => {
                    if let Err(outcome) = ready!(self.poll_held(cx)) {
                        return Poll::Ready(outcome);
                    }
                }
                Stage::Body(status) => {
                    let status = *status;
                    return self.poll_body(cx, status);
                }
            }
        }
    }

    fn take_head(&mut self, head: BackHead) -> Result<(), Outcome> {
        let status = head.view().status();
        if status == 101 {
            let put = self.front.put_head(head.view(), Framing::None, true);
            put.map_err(|broken| self.no_answer(broken))?;
            self.stage = Stage::Switch;
        } else if status < 200 {
            if status == 100 && !self.flow.ended && !self.flow.asked {
                self.front.put_continue();
            }
        } else {
            if self.bounds.breaks {
                self.answered.head = Some(by_head(head.view(), head.is_last()));
                self.answered.at_us = Some(self.worker.touch());
            }
            if let Some(again) = self.bounds.again.filter(|_| self.flow.can_rewind())
                && let Some(pause_ms) = again.instead(self.worker, head.view(), head.is_last())
            {
                self.back.recycle(head);
                return Err(Outcome::Again { status, pause_ms });
            }
            if let (Front::H1(front), false) = (&mut *self.front, self.flow.ended) {
                // The rest of the request would be read as the next one.
                front.keep = false;
            }
            if let Some(watch) = &self.watch {
                let most = watch.head(head.view(), head.is_last()).map_err(Outcome::Failed)?;
                if let Some(most) = most {
                    let body = Held::new(self.worker.budget.share());
                    self.stage = Stage::Held(Box::new(HeldResponse { head, body, most }));
                    return Ok(());
                }
            }
            self.pass_head(&head)?;
        }
        self.back.recycle(head);
        Ok(())
    }

    /// The head of the final response goes to the client.
    fn pass_head(&mut self, head: &BackHead) -> Result<(), Outcome> {
        let put = self.front.put_head(head.view(), head.framing(), head.is_last());
        put.map_err(|broken| self.no_answer(broken))?;
        self.response_ended = head.is_last();
        if self.response_ended {
            self.front.put_end(None);
        }
        self.stage = Stage::Body(head.view().status());
        Ok(())
    }

    /// Reads as much of the response as is judged, has it judged, and lets it go on.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        let Stage::Held(held) = &mut self.stage else { return Poll::Ready(Ok(())) };
        while !held.body.ended() && held.body.len() <= held.most {
            match ready!(self.back.poll_piece(cx)) {
                Ok(Piece::Data(data)) => {
                    held.body.add(data, self.back.response_is_end()).map_err(Outcome::Failed)?;
                    self.steps += 1;
                }
                Ok(Piece::Trailers(trailers)) => held.body.add_trailers(trailers),
                Ok(Piece::End) => held.body.end(),
                Err(broken) => {
                    let (reason, _) = explain(&broken);
                    return Poll::Ready(Err(Outcome::Failed(Deny::failure(502, "upstream.broken", reason))));
                }
            }
        }
        if let Some(watch) = &self.watch {
            watch.body(held.head.view(), &mut held.body, held.most).map_err(Outcome::Failed)?;
        }
        let Stage::Held(held) = std::mem::replace(&mut self.stage, Stage::Head) else {
            return Poll::Ready(Ok(()));
        };
        let HeldResponse { head, body, .. } = *held;
        self.pass_head(&head)?;
        self.back.recycle(head);
        let (data, trailers, ended, share) = body.into_parts();
        self.share = Some(share);
        if !data.is_empty() {
            self.front.put_data(data);
        }
        if ended {
            self.response_ended = true;
            self.front.put_end(trailers);
        } else {
            self.trailers = trailers;
        }
        Poll::Ready(Ok(()))
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
                        self.answered.broke = true;
                        let (reason, reset) = explain(&broken);
                        return Poll::Ready(Outcome::Broken { status, reason, reset });
                    }
                    Poll::Ready(Ok(Piece::Data(data))) => {
                        self.given += data.len() as u64;
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

    /// What it shows of the callee.
    pub(crate) fn answered(&self) -> Answered {
        Answered { sent: self.flow.sent, ..self.answered }
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
