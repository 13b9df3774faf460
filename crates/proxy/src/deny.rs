//! What a request is refused with: everything for the operator's event, next to nothing for the caller.

use std::borrow::Cow;

use ringfence_event::{EventId, Verdict};

use crate::signin::Shown;

/// A refusal, or a failure further on.
#[derive(Clone, Debug)]
pub(crate) struct Deny {
    /// Status for the caller.
    pub(crate) status: u16,
    /// Pipeline stage.
    pub(crate) stage: &'static str,
    /// Stable name of the rule, or of the policy.
    pub(crate) rule: Cow<'static, str>,
    /// For the operator.
    pub(crate) reason: Box<str>,
    /// Where the rule stands.
    pub(crate) position: Option<Box<str>>,
    /// The line of the fence that would allow it.
    pub(crate) missing: Option<Box<str>>,
    /// What would do, for the caller.
    pub(crate) challenge: Option<Box<Challenge>>,
    /// What a browser is shown in place of a problem document.
    pub(crate) shown: Option<Box<Shown>>,
    /// What the caller is told beside the status.
    pub(crate) told: Option<Box<Told>>,
    /// Nobody forbade it: it went wrong.
    pub(crate) failed: bool,
    /// It had been let pass before.
    pub(crate) cut: bool,
}

/// What a caller is told beside the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Fields of the answer.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// JSON: which parts of the request are wrong, by which rule.
    pub(crate) violations: Option<String>,
}

/// Which credential would do.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    /// `WWW-Authenticate`.
    pub(crate) text: String,
    /// `DPoP-Nonce`: what the next proof must hold (RFC 9449, section 9).
    pub(crate) nonce: Option<String>,
}

impl Deny {
    pub(crate) fn new(
        status: u16,
        stage: &'static str,
        rule: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        let (rule, reason) = (rule.into(), reason.into().into());
        let (position, missing, challenge) = (None, None, None);
        Self {
            status,
            stage,
            rule,
            reason,
            position,
            missing,
            challenge,
            shown: None,
            told: None,
            failed: false,
            cut: false,
        }
    }

    /// Something went wrong after the request was allowed.
    pub(crate) fn failure(status: u16, rule: &'static str, reason: impl Into<String>) -> Self {
        Self { failed: true, ..Self::new(status, "forward", rule, reason) }
    }

    pub(crate) fn position(self, position: Option<String>) -> Self {
        Self { position: position.map(Into::into), ..self }
    }

    pub(crate) fn missing(self, missing: String) -> Self {
        Self { missing: Some(missing.into()), ..self }
    }

    pub(crate) fn challenge(self, challenge: String) -> Self {
        Self { challenge: Some(Box::new(Challenge { text: challenge, nonce: None })), ..self }
    }

    /// Hands out a nonce with the challenge, if there is one.
    pub(crate) fn nonce(mut self, nonce: String) -> Self {
        if let Some(challenge) = &mut self.challenge {
            challenge.nonce = Some(nonce);
        }
        self
    }

    /// Tells the caller more.
    pub(crate) fn told(self, told: Told) -> Self {
        Self { told: Some(Box::new(told)), ..self }
    }

    /// The body for the caller: a problem document (RFC 9457) with nothing in it but the event to ask the operator about, and what the
    /// caller itself can mend.
    pub(crate) fn problem(&self, event: EventId) -> String {
        match self.told.as_ref().and_then(|told| told.violations.as_deref()) {
            None => problem(self.status, event),
            Some(violations) => {
                let plain = problem(self.status, event);
                let open = plain.strip_suffix('}').unwrap_or(&plain);
                format!("{open},\"violations\":{violations}}}")
            }
        }
    }

    /// The same for something that had been let pass.
    pub(crate) fn cut(self) -> Self {
        Self { cut: true, ..self }
    }

    /// The same for a browser that wants a page.
    pub(crate) fn shown(self, shown: Shown) -> Self {
        Self { status: shown.status(), shown: Some(Box::new(shown)), ..self }
    }

    /// Whether somebody is only sent to sign in, as everybody is who comes for the first time.
    pub(crate) fn is_invitation(&self) -> bool {
        (self.status == 303 && self.rule == "session.none") || self.rule == crate::responses::PREFLIGHT
    }

    pub(crate) fn verdict(&self) -> Verdict<'_> {
        if self.is_invitation() {
            return Verdict::Allowed;
        }
        if self.failed {
            return Verdict::Failed { reason: &self.reason };
        }
        Verdict::Denied {
            stage: self.stage,
            rule: &self.rule,
            position: self.position.as_deref(),
            reason: &self.reason,
            missing: self.missing.as_deref(),
        }
    }

    /// The gRPC status code that says the same (gRPC, "HTTP to gRPC Status Code Mapping", and 413 and 504 by sense).
    pub(crate) fn grpc_status(&self) -> &'static str {
        match self.status {
            400 => "13",
            401 => "16",
            403 => "7",
            404 => "12",
            408 | 504 => "4",
            413 | 431 => "8",
            429 | 502 | 503 => "14",
            _ => "2",
        }
    }
}

/// The body for the caller: a problem document (RFC 9457) with nothing in it but the event to ask the operator about.
pub(crate) fn problem(status: u16, event: EventId) -> String {
    format!(
        r#"{{"type":"about:blank","title":"{}","status":{status},"instance":"urn:uuid:{event}"}}"#,
        reason_phrase(status)
    )
}

/// Media type of [`problem`].
pub(crate) const PROBLEM_TYPE: &str = "application/problem+json";

pub(crate) fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error")
}
