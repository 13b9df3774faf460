//! Bodies whose type does not say how they are read: looked at in each way in which a lenient service might read them.
//!
//! Only where the rules are ours ([`crate::Options::sniff`]): the Core Rule Set has rules of its own about types.

use std::ops::ControlFlow;

use super::{Transaction, request::is_short, state::Bag};
use crate::body::{
    self, Kind, Sink as _,
    sniff::{self, Look},
};

/// What rules name text by that came without a name.
const NAME: &[u8] = b"body";
/// Least bytes of text between others that are looked at: of a body that is no text, of one that is packed.
const RUN: usize = 6;
const PACKED_RUN: usize = 12;
/// Most pieces of what may be a form to somebody and hardly is one.
const PIECES: usize = 512;

/// How much of a request's body rules want to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing.
    None,
    /// All, if it begins like text ([`sniff::begins`]) though its type says that it is none.
    IfText,
    /// All.
    All,
}

impl Transaction {
    /// How much of the request's body the rules want to see; known after [`Self::phase1`].
    #[must_use]
    pub fn interest(&self) -> Interest {
        let state = &self.state;
        if state.mode == super::Mode::Off || !state.request_body_access {
            return Interest::None;
        }
        match state.processor.is_some() || state.force_request_body {
            true => Interest::All,
            false if !self.sniffs() => Interest::None,
            false if self.is_opaque() => Interest::IfText,
            false => Interest::All,
        }
    }

    /// The bytes of a body that is packed, as they came; what was unpacked of them is what [`Self::request_body`] gets. A service that
    /// does not unpack reads these: what of them is text is looked at too.
    pub fn request_body_packed(&mut self, bytes: &[u8]) {
        for run in sniff::runs(bytes, PACKED_RUN, true) {
            let outcome = self.guess(run, false, false);
            self.state.arguments_full |= is_short(&outcome);
        }
    }

    pub(super) fn sniffs(&self) -> bool {
        self.rules.plan.settings.sniff
    }

    /// Whether all that is said of the body's type is that it is no text.
    pub(super) fn is_opaque(&self) -> bool {
        let headers = self.state.bag(Bag::RequestHeaders).iter();
        let mut types = headers
            .filter(|entry| self.state.values.get(entry.name).eq_ignore_ascii_case(b"content-type"))
            .map(|entry| sniff::is_opaque(self.state.values.get(entry.value)))
            .peekable();
        types.peek().is_some() && types.all(|opaque| opaque)
    }

    /// Reads a body as what it looks like. `claimed`: its type says that it is something else, and only what looks like JSON or XML is
    /// looked at. An error is only that there was no room.
    pub(super) fn guess(&mut self, text: &[u8], claimed: bool, cut: bool) -> body::Outcome {
        let narrowed = sniff::narrowed(text);
        let text = narrowed.as_deref().unwrap_or(text);
        let (kind, look) = match sniff::begins(text) {
            Some(Look::Json) => (Kind::Json, Look::Json),
            Some(Look::Xml) => (Kind::Xml, Look::Xml),
            _ if claimed => return body::Outcome::default(),
            _ => return self.text(text),
        };
        let outcome = self.parse(kind, b"", text);
        let understood = match outcome.error {
            None => true,
            Some(body::Error::Incomplete) => cut,
            Some(_) => false,
        };
        if understood || is_short(&outcome) {
            return body::Outcome { error: outcome.error.filter(|_| !understood), ..outcome };
        }
        let strings = if look == Look::Json { self.strings(text) } else { body::Outcome::default() };
        let is_text = !claimed || (look == Look::Xml && !sniff::is_page(text));
        if is_short(&strings) || !is_text { strings } else { self.text(text) }
    }

    /// Text that is no more than that, and what a form might be in it.
    fn text(&mut self, text: &[u8]) -> body::Outcome {
        if sniff::is_form(text) {
            return self.form(text, true);
        }
        if text.contains(&b'=') && memchr::memchr_iter(b'&', text).count() < PIECES {
            self.form(text, true);
        }
        self.with_filler(text, |filler| {
            if sniff::is_binary(text) {
                sniff::runs(text, RUN, false).try_for_each(|run| filler.pair(NAME, run))
            } else {
                filler.pair(NAME, text.trim_ascii())
            }
        })
    }

    fn strings(&mut self, text: &[u8]) -> body::Outcome {
        self.with_filler(text, |filler| {
            sniff::strings(text, &mut Vec::new(), |string| filler.pair(NAME, string))
        })
    }

    fn with_filler(
        &mut self,
        text: &[u8],
        fill: impl FnOnce(&mut super::request::Filler<'_>) -> ControlFlow<()>,
    ) -> body::Outcome {
        let room = self.room();
        let mut filler = super::request::Filler::new(&mut self.state, Bag::Args, true, room, text);
        let full = fill(&mut filler).is_break();
        body::Outcome { error: full.then_some(body::Error::TooMany), ..body::Outcome::default() }
    }
}
