//! What a request says, and what is answered to it, judged by the stages that read more than its head: validate, then inspect.
//!
//! Each is one file that implements [`Stage`], built with the table for the routes that use it ([`Protection`]). Heads are judged before
//! bodies are read, so a client that may not pass does not have to send its body. A stage that only watches notes what it finds
//! ([`Notes`]) and lets pass. What it holds of bodies, and how, is in `held.rs`.

use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::sync::Arc;

use crate::apart::Undone;
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Framing;
use crate::handle::{Ctx, Report};
use crate::held::{self, Body, Coding, Content, Held, Hold};
use crate::limits;
use crate::note::Notes;
use crate::peer::Authorized;
use crate::responses::Hygiene;
use crate::view::{HeadView, ResponseView};

/// Bodies of more bytes are judged beside the thread of their connection, which serves its others meanwhile.
const LONG: usize = 16 << 10;

/// The stages of a route that read more than heads, in their order; at least one.
pub(crate) type Protection = [Arc<dyn Stage>];

/// A stage that judges requests and responses by all that they say.
pub(crate) trait Stage: Debug + Send + Sync {
    /// Begins with a request, by its head. None: it has nothing to say about this one.
    fn begin(self: Arc<Self>, request: &Request<'_>, notes: &Notes)
    -> Result<Option<Box<dyn Judging>>, Deny>;
}

/// A stage at work on one request. Where the body is long that is on another thread.
pub(crate) trait Judging: Send {
    /// How much of the body it wants to see. The same at each call.
    fn wants(&self) -> Option<Hold<'_>>;

    /// Judges the request as a whole. Of a body it is given what it wanted.
    fn request(&mut self, body: Body<'_>, notes: &Notes) -> Result<(), Deny>;

    /// Whether it wants to see the response.
    fn watches(&self) -> bool {
        false
    }

    /// Judges the head of the response, and says how many bytes of the body it wants to see. `last`: there is none.
    fn response_head(
        &mut self,
        response: ResponseView<'_>,
        last: bool,
        notes: &Notes,
    ) -> Result<Option<usize>, Deny> {
        let _ = (response, last, notes);
        Ok(None)
    }

    /// Judges the response as a whole, if it wanted to see some of its body.
    fn response_body(
        &mut self,
        response: ResponseView<'_>,
        body: Body<'_>,
        notes: &Notes,
    ) -> Result<(), Deny> {
        let _ = (response, body, notes);
        Ok(())
    }
}

/// What a stage begins with.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) ctx: &'a Ctx<'a>,
    pub(crate) view: HeadView<'a>,
    pub(crate) authorized: &'a Authorized,
}

/// The stages at work on one request.
#[derive(Default)]
pub(crate) struct Judges(RefCell<Vec<Box<dyn Judging>>>);

/// These stages as those of a route; none, if there are none.
pub(crate) fn of(stages: impl IntoIterator<Item = Option<Arc<dyn Stage>>>) -> Option<Arc<Protection>> {
    let stages: Vec<_> = stages.into_iter().flatten().collect();
    (!stages.is_empty()).then(|| stages.into())
}

/// Judges a request, its body included where a stage wants to see it.
pub(crate) async fn request(
    report: &mut Report<'_>,
    front: &mut Front<'_>,
    authorized: &Authorized,
    protection: &Protection,
) -> Result<(), Deny> {
    let (ctx, view) = (report.ctx, report.view);
    let request = Request { ctx, view, authorized };
    // Whoever judges again begins anew, but for what was read.
    report.notes.clear();
    let mut judges = Vec::with_capacity(protection.len());
    for stage in protection {
        judges.extend(stage.clone().begin(&request, &report.notes)?);
    }
    let hold = judges.iter().filter_map(|judging| judging.wants()).reduce(Hold::and);
    if let Some(hold) = hold
        && !matches!(view.framing(), Framing::None | Framing::Length(0))
    {
        let limits = &authorized.edge.table().limits;
        held::read(ctx, view, front, limits, hold, &mut report.held).await?;
    }
    let content = report.held.as_ref().map(Held::content);
    let empty = matches!(view.framing(), Framing::None | Framing::Length(0));
    let outcome = if content.as_ref().is_some_and(|content| content.len() > LONG) {
        // It is ours to be quick now: no deadline of the client's runs on.
        ctx.live.disarm();
        let bytes = content.as_ref().map_or(0, |content| content.len());
        let work = move || {
            let notes = Notes::default();
            let outcome = judge(&mut judges, content.as_ref(), empty, &notes);
            (judges, notes, outcome)
        };
        let (back, notes, outcome) =
            ctx.worker.apart.run(bytes, work).await.map_err(|undone| match undone {
                Undone::Busy => {
                    limits::overload("there are more long bodies to judge than can be judged in time")
                }
                Undone::Broken => Deny::failure(500, "internal", "the judgement of the body broke off"),
            })?;
        judges = back;
        report.notes.merge(notes);
        outcome
    } else {
        judge(&mut judges, content.as_ref(), empty, &report.notes)
    };
    outcome?;
    judges.retain(|judging| judging.watches());
    report.judges = Judges(RefCell::new(judges));
    Ok(())
}

/// Has all stages judge a request. `empty`: it has no body.
fn judge(
    judges: &mut [Box<dyn Judging>],
    content: Option<&Content>,
    empty: bool,
    notes: &Notes,
) -> Result<(), Deny> {
    judges.iter_mut().try_for_each(|judging| {
        let most = judging.wants().map(|hold| hold.most);
        let body = match (content, most) {
            (Some(content), Some(most)) => content.body(most),
            (None, _) => Body { whole: empty, ..Body::default() },
            (Some(_), None) => Body::default(),
        };
        judging.request(body, notes)
    })
}

impl Judges {
    /// Whoever wants to see the response, if anybody does.
    pub(crate) fn watch<'a>(&'a self, notes: &'a Notes, hygiene: Option<Hygiene>) -> Option<Watch<'a>> {
        let watched = hygiene.is_some() || !self.0.borrow().is_empty();
        watched.then_some(Watch { judges: self, notes, hygiene })
    }
}

/// The stages at work on a response.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    judges: &'a Judges,
    notes: &'a Notes,
    /// Who looks at what services give away, if anybody does.
    hygiene: Option<Hygiene>,
}

impl Watch<'_> {
    /// Judges the head of a response. How many bytes of the body are to be held, if any.
    pub(crate) fn head(&self, response: ResponseView<'_>, last: bool) -> Result<Option<usize>, Deny> {
        let mut most = self.hygiene.and_then(|hygiene| hygiene.head(response, self.notes));
        for judging in &mut *self.judges.0.borrow_mut() {
            most = most.max(judging.response_head(response, last, self.notes)?);
        }
        Ok(most.filter(|_| !last))
    }

    /// Judges a response of which at most `most` bytes were held.
    pub(crate) fn body(&self, response: ResponseView<'_>, held: &mut Held, most: usize) -> Result<(), Deny> {
        // A service is no attacker: what cannot be unpacked is judged as it came.
        let _ = held.decode(Coding::of(response.fields()), most);
        for judging in &mut *self.judges.0.borrow_mut() {
            judging.response_body(response, held.body(most), self.notes)?;
        }
        match self.hygiene {
            Some(hygiene) if hygiene.looks_at(response) => {
                hygiene.body(response, held.body(most).bytes, self.notes)
            }
            _ => Ok(()),
        }
    }
}

impl Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
