//! The response, as it comes back.

use super::{
    Transaction,
    report::{Mode, Verdict},
    state::{Bag, NONE},
};
use crate::lang::Variable;

/// Header fields that are looked at.
const HEADERS: usize = 512;
/// What is inspected when the rules name no types, as the reference's example has it.
const TYPES: [&str; 3] = ["text/plain", "text/html", "text/xml"];

impl Transaction {
    /// The response's first line.
    pub fn response_head(&mut self, status: u16, protocol: &[u8]) {
        self.state.set_number(Variable::ResponseStatus, u64::from(status));
        self.state.set(Variable::ResponseProtocol, protocol);
        let line = [protocol, b" ", status.to_string().as_bytes()].concat();
        self.state.set(Variable::StatusLine, &line);
    }

    /// One header field of the response, in order.
    pub fn response_header(&mut self, name: &[u8], value: &[u8]) {
        if self.state.bag(Bag::ResponseHeaders).len() >= HEADERS {
            return;
        }
        self.state.push(Bag::ResponseHeaders, name, value, false);
        if name.eq_ignore_ascii_case(b"content-type") {
            self.state.set(Variable::ResponseContentType, value);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.state.set(Variable::ResponseContentLength, value);
        }
    }

    /// The rules about the response's head.
    pub fn phase3(&mut self) -> Verdict {
        self.phase(3)
    }

    /// A piece of the response's body. What goes beyond the limit is not inspected.
    pub fn response_body(&mut self, piece: &[u8]) {
        let limit = self.rules.plan.settings.response_body_limit;
        let room = limit.saturating_sub(self.state.response.len());
        self.state.response_cut |= piece.len() > room;
        self.state.response.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// The rules about the whole response.
    pub fn phase4(&mut self) -> Verdict {
        if self.state.mode == Mode::Off {
            return Verdict::Pass;
        }
        if self.wants_response_body() {
            let body = std::mem::take(&mut self.state.response);
            self.state.set(Variable::ResponseBody, &body);
            self.state.response = body;
            if self.state.response_cut {
                self.state.set_number(Variable::OutboundDataError, 1);
            }
        }
        self.phase(4)
    }

    /// Whether the rules inspect bodies of the response's type.
    pub(super) fn is_inspected_type(&self) -> bool {
        let id = self.state.scalars[Variable::ResponseContentType as usize];
        if id == NONE {
            return true;
        }
        let value = self.state.values.get(id);
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let settings = &self.rules.plan.settings;
        if settings.response_types.is_empty() {
            return TYPES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(kind));
        }
        settings.response_types.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(kind))
    }
}
