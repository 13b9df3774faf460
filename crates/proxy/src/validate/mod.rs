//! Validate: requests, and where asked what is answered, are held to the description of the service's API.
//!
//! Descriptions are compiled once, on the control thread ([`Apis`]). The path is the one that routes are chosen by and that is sent on.
//! What is no HTTP exchange of its own (gRPC, WebSockets, tunnels) is not described, and passes.

mod apis;
mod crowd;
mod drift;
mod sampler;
mod told;

use std::net::IpAddr;
use std::sync::Arc;

use ringfence_model::{Mode, Protocol};
use ringfence_openapi::learn::Sample;
use ringfence_openapi::{Fields, Found, Length, Operation, Plan, Report, shape_of_path};

pub(crate) use self::apis::{Apis, Described};
use self::drift::Whence;
use self::told::About;
use crate::deny::Deny;
use crate::h1::{Framing, Kind};
use crate::held::{Body, Coding, Hold, Reject};
use crate::note::Notes;
use crate::protect::{Judging, Request, Stage};
use crate::view::{HeadView, ResponseView};

/// The longest body that is judged.
const MOST: usize = 1 << 20;

/// The stage of a service.
#[derive(Debug)]
pub(crate) struct Validate {
    described: Arc<Described>,
}

/// One request and its response under a description.
struct Validation {
    stage: Arc<Validate>,
    /// Number of the operation; none where the description has none.
    number: Option<usize>,
    operation: String,
    content_type: Option<Vec<u8>>,
    plan: Plan,
    /// Whether the body comes without its length.
    open: bool,
    sample: Option<Box<Sample>>,
    /// What a sample would be, if the rest has something new.
    spare: Option<Box<Sample>>,
    /// The answer, if its body is to be judged: status and content type.
    answer: Option<(u16, Option<Vec<u8>>)>,
    client: IpAddr,
    now_ms: u64,
}

/// The fields of a head, as the description reads them.
struct Head<I>(I);

impl Fields for Head<HeadView<'_>> {
    fn each(&self, found: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.fields().for_each(|(name, value)| found(name, value));
    }
}

impl Fields for Head<ResponseView<'_>> {
    fn each(&self, found: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.fields().for_each(|(name, value)| found(name, value));
    }
}

impl Validate {
    /// For a route of a service, if it is held to a description.
    pub(crate) fn of(apis: &Apis, service: &str, protocol: Protocol) -> Option<Arc<dyn Stage>> {
        let described = apis.get(service).filter(|_| protocol == Protocol::Http)?.clone();
        Some(Arc::new(Self { described }))
    }
}

/// Whether a request is no exchange that a description could have.
fn is_beyond(view: HeadView<'_>) -> bool {
    // Not what only the client claims, such as a content type or a wish for another protocol.
    view.method() == "CONNECT" || view.path() == "*"
}

impl Stage for Validate {
    fn begin(
        self: Arc<Self>,
        request: &Request<'_>,
        notes: &Notes,
    ) -> Result<Option<Box<dyn Judging>>, Deny> {
        let view = request.view;
        if is_beyond(view) {
            return Ok(None);
        }
        let (now_ms, client) = (request.ctx.worker.now_ms(), request.ctx.peer.source.ip());
        let length = match view.framing() {
            Framing::None => Length::Empty,
            Framing::Length(length) => Length::Known(length),
            Framing::Chunked | Framing::UntilClose => Length::Unknown,
        };
        let found = self.described.api.find(view.method(), view.path());
        let mut report = Report::default();
        let (number, template, plan) = match &found {
            Found::Operation(found) => {
                let plan = found.head(view.query(), &Head(view), length, &mut report);
                (Some(found.number()), Some(found.operation().path()), plan)
            }
            nothing => {
                report.violations.extend(nothing.violation());
                (None, None, Plan::Pass { most: None })
            }
        };
        let path = template.map_or_else(|| shape_of_path(view.path()), str::to_owned);
        let operation = format!("{} {path}", view.method());
        let whence = Whence { operation: &operation, described: number.is_some(), response: false, client };
        let news = About { described: &self.described, whence, now_ms }.decide(report, notes)?;
        let (mut sample, mut spare) = (None, None);
        if self.described.declared.mode == Mode::Observe {
            let wanted = self.described.sampler.wants(number, &operation, client, now_ms);
            let of = Box::new(Sample::new(view.method(), view.path(), template, view.query()));
            *(if news || wanted { &mut sample } else { &mut spare }) = Some(of);
        }
        if number.is_none() && sample.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(Validation {
            number,
            stage: self,
            operation,
            content_type: view.known(Kind::ContentType).map(<[u8]>::to_vec),
            plan,
            open: length == Length::Unknown,
            sample,
            spare,
            answer: None,
            client,
            now_ms,
        })))
    }
}

/// As much of a body as is seen, and what of it may be.
#[derive(Clone, Copy)]
struct Bound {
    /// The longest that may pass; nothing is said of others.
    most: Option<usize>,
    /// Whether it is judged by more than its length.
    judged: bool,
}

impl Validation {
    fn operation(&self) -> Option<&Operation> {
        self.stage.described.api.operations().get(self.number?)
    }

    /// Whether there was something that is only observed, and news.
    fn decide(&self, report: Report, response: bool, notes: &Notes) -> Result<bool, Deny> {
        if report.is_empty() {
            return Ok(false);
        }
        let (described, client) = (self.number.is_some(), self.client);
        let whence = Whence { operation: &self.operation, described, response, client };
        About { described: &self.stage.described, whence, now_ms: self.now_ms }.decide(report, notes)
    }

    /// The answer has something new: its shape is to be known, although nobody looked at the request.
    fn follow_news(&mut self, news: bool) {
        if news && self.sample.is_none() {
            self.sample = self.spare.take().map(|mut spare| {
                spare.response_only = true;
                spare
            });
        }
    }

    fn bound(&self) -> Bound {
        let bytes = |most: Option<u64>| most.and_then(|most| usize::try_from(most).ok());
        match self.plan {
            _ if self.stage.described.declared.mode.is_off() => Bound { most: None, judged: false },
            Plan::Hold { most } => Bound { most: Some(bytes(most).unwrap_or(MOST).min(MOST)), judged: true },
            // A length that was stated has been judged by it.
            Plan::Pass { most } if self.open => {
                Bound { most: bytes(most).map(|most| most.min(MOST)), judged: false }
            }
            Plan::Pass { .. } => Bound { most: None, judged: false },
        }
    }

    fn too_long(&self, most: usize) -> Report {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let violations = self.operation().map(|operation| operation.too_large(most));
        Report { violations: violations.into_iter().collect(), more: false }
    }
}

impl Judging for Validation {
    fn wants(&self) -> Option<Hold<'_>> {
        let bound = self.bound();
        let reads = self.sample.is_some() && self.content_type.as_deref().is_some_and(Sample::reads);
        let looks = if reads { sampler::BODY } else { 0 };
        let most = bound.most.unwrap_or_default().max(looks);
        if most == 0 {
            return None;
        }
        let described = &*self.stage.described;
        let position = Some(described.position.as_str());
        let enforces = described.declared.mode.enforces();
        let refuse = |beyond, rule| Reject { beyond, stage: "validate", rule, position };
        Some(Hold {
            most,
            reject: bound.most.filter(|_| enforces).map(|most| refuse(most, "openapi.size")),
            coded: (enforces && bound.judged).then(|| refuse(most, "openapi.coding")),
            only_text: false,
        })
    }

    fn request(&mut self, body: Body<'_>, notes: &Notes) -> Result<(), Deny> {
        let Bound { most, judged } = self.bound();
        if let Some(most) = most {
            let whole = body.whole && body.bytes.len() <= most;
            let mut report = Report::default();
            match self.operation() {
                _ if !whole => report = self.too_long(most),
                Some(operation) if judged => {
                    operation.body(self.content_type.as_deref(), body.bytes, true, &mut report);
                }
                _ => {}
            }
            if self.decide(report, false, notes)? && self.sample.is_none() {
                self.sample = self.spare.take();
            }
        }
        if let Some(sample) = &mut self.sample {
            let seen = body.whole && (1..=sampler::BODY).contains(&body.bytes.len());
            sample.set_request(self.content_type.as_deref(), seen.then_some(body.bytes));
        }
        Ok(())
    }

    fn watches(&self) -> bool {
        let described = self.operation().is_some_and(Operation::describes_responses);
        self.sample.is_some() || (described && !self.stage.described.declared.responses.is_off())
    }

    fn response_head(
        &mut self,
        response: ResponseView<'_>,
        last: bool,
        notes: &Notes,
    ) -> Result<Option<usize>, Deny> {
        let content_type = response.field("content-type");
        let length = if last { Length::Empty } else { Length::Unknown };
        let mut plan = Plan::Pass { most: None };
        let judges = !self.stage.described.declared.responses.is_off();
        if let Some(operation) =
            self.operation().filter(|operation| judges && operation.describes_responses())
        {
            let mut report = Report::default();
            plan = operation.response_head(response.status(), &Head(response), length, &mut report);
            let news = self.decide(report, true, notes)?;
            self.follow_news(news);
        }
        if let Some(sample) = &mut self.sample {
            sample.set_response(response.status(), content_type.filter(|_| !last), None);
            notes.set_shape(sample.to_json());
        }
        // What is compressed in another way cannot be read here, and a stream of events has no end to wait for.
        if last || Coding::of(response.fields()) == Coding::Unknown {
            self.sample = None;
            return Ok(None);
        }
        let judged = matches!(plan, Plan::Hold { .. });
        if judged {
            self.answer = Some((response.status(), content_type.map(<[u8]>::to_vec)));
        }
        let looks = self.sample.is_some() && content_type.is_some_and(Sample::reads);
        Ok(if judged { Some(MOST) } else { looks.then_some(sampler::BODY) })
    }

    fn response_body(
        &mut self,
        response: ResponseView<'_>,
        body: Body<'_>,
        notes: &Notes,
    ) -> Result<(), Deny> {
        if let Some((status, content_type)) = self.answer.take() {
            let mut report = Report::default();
            match self.operation() {
                _ if !body.whole => report = self.too_long(MOST),
                Some(operation) => {
                    operation.response_body(status, content_type.as_deref(), body.bytes, true, &mut report)
                }
                None => {}
            }
            let news = self.decide(report, true, notes)?;
            self.follow_news(news);
        }
        if let Some(mut sample) = self.sample.take() {
            let seen = (body.whole && body.bytes.len() <= sampler::BODY).then_some(body.bytes);
            sample.set_response(response.status(), response.field("content-type"), seen);
            notes.set_shape(sample.to_json());
        }
        Ok(())
    }
}
