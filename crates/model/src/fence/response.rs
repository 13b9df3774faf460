//! What responses of the gateway say besides what services say: security headers, who elsewhere may ask (CORS), and what they must not
//! give away.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Mode;
use crate::position::Position;

/// What `headers`, `cors` and `hygiene` say at the gateway, a service or a route. What a narrower place does not say, the wider one says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responses {
    /// `headers:`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// `hygiene:`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hygiene: Option<Mode>,
    /// `cors:`, at routes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// `headers:`, the security headers of responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Strict-Transport-Security`; only where the gateway speaks TLS.
    pub hsts: Option<Header>,
    /// `Content-Security-Policy`
    pub csp: Option<Header>,
    /// `Content-Security-Policy-Report-Only`
    pub csp_report_only: Option<Header>,
    /// Whether browsers tell the gateway what the policies stopped.
    pub csp_reports: Option<bool>,
    /// `X-Frame-Options`
    pub frame: Option<Header>,
    /// `X-Content-Type-Options`
    pub nosniff: Option<Header>,
    /// `Referrer-Policy`
    pub referrer: Option<Header>,
    /// Where `headers:` stands.
    pub position: Position,
}

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Header {
    /// It is not added.
    Off,
    /// Its value.
    Is(String),
}

/// `cors:`, which pages of other origins may read what a route answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// Origins as browsers write them; any when empty.
    pub origins: Vec<String>,
    /// Methods that they may use, upper case.
    pub methods: Vec<String>,
    /// Request header fields that they may set, lower case.
    pub headers: Vec<String>,
    /// Response header fields that they may read, lower case.
    pub expose: Vec<String>,
    /// Whether their requests may bring cookies and the like.
    pub credentials: bool,
    /// How long browsers may remember this.
    pub max_age: Duration,
    /// Where `cors:` stands.
    pub position: Position,
}

impl Responses {
    /// The same, and what a wider place says of what is not said here.
    #[must_use]
    pub fn within(mut self, wider: &Self) -> Self {
        self.headers = match (self.headers, &wider.headers) {
            (Some(here), Some(wider)) => Some(here.within(wider)),
            (here, wider) => here.or_else(|| wider.clone()),
        };
        self.hygiene = self.hygiene.or(wider.hygiene);
        self.cors = self.cors.or_else(|| wider.cors.clone());
        self
    }
}

impl Headers {
    /// All of them off, or none said.
    pub(crate) fn all(header: Option<Header>, position: Position) -> Self {
        Self {
            hsts: header.clone(),
            csp: header.clone(),
            csp_report_only: header.clone(),
            csp_reports: header.as_ref().map(|_| false),
            frame: header.clone(),
            nosniff: header.clone(),
            referrer: header,
            position,
        }
    }

    fn within(self, wider: &Self) -> Self {
        let or = |here: Option<Header>, wider: &Option<Header>| here.or_else(|| wider.clone());
        Self {
            hsts: or(self.hsts, &wider.hsts),
            csp: or(self.csp, &wider.csp),
            csp_report_only: or(self.csp_report_only, &wider.csp_report_only),
            csp_reports: self.csp_reports.or(wider.csp_reports),
            frame: or(self.frame, &wider.frame),
            nosniff: or(self.nosniff, &wider.nosniff),
            referrer: or(self.referrer, &wider.referrer),
            position: self.position,
        }
    }
}

impl Header {
    /// Its value, unless it is not added.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Off => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl Cors {
    /// Whether pages of this origin may read.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|allowed| allowed == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrower_place_says_what_it_says_and_a_wider_one_the_rest() {
        let at = || Position::whole("t".into());
        let headers = |csp: Option<Header>, frame| {
            let headers = Headers { csp, frame, ..Headers::all(None, at()) };
            Responses { headers: Some(headers), ..Responses::default() }
        };
        let is = |value: &str| Some(Header::Is(value.to_owned()));
        let wider = Responses { hygiene: Some(Mode::Observe), ..headers(is("a"), is("DENY")) };
        let both = headers(Some(Header::Off), None).within(&wider);
        let said = both.headers.unwrap();
        assert_eq!((said.csp, said.frame), (Some(Header::Off), is("DENY")));
        assert_eq!(both.hygiene, Some(Mode::Observe));
        assert_eq!(Responses::default().within(&wider), wider);
        assert_eq!(wider.clone().within(&Responses::default()), wider);
    }
}
