//! What responses of the gateway say besides what services say: security headers, who of other origins may read them, and nothing of
//! what runs behind them.
//!
//! All of it is worked out with the table, one [`Dress`] per route, so that a response pays for a few comparisons of names. What the
//! fence says takes the place of what the service says; what it leaves to the defaults is added only where the service says nothing.

mod cors;
mod hygiene;
mod report;

use std::sync::Arc;

use ringfence_model::{Header, Headers, Responses};

pub(crate) use self::cors::Preflight;
use self::cors::SharedWith;
pub(crate) use self::hygiene::Hygiene;
pub(crate) use self::report::{Reports, is_report, serve as serve_report};
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::{DropList, Kind};
use crate::signin::Shown;
use crate::view::{HeadView, ResponseView};

/// What responses of a route, or of the gateway itself, look like.
#[derive(Debug)]
pub(crate) struct Dress {
    adds: Vec<Add>,
    drop: DropList,
    hygiene: Hygiene,
    cors: Option<SharedWith>,
}

/// A header field that is added.
#[derive(Debug)]
struct Add {
    name: &'static str,
    value: String,
    /// Only where the service says nothing of its own.
    default: bool,
}

impl Dress {
    /// As the fence says; `tls`: whether the gateway speaks it.
    pub(crate) fn new(said: &Responses, tls: bool) -> Self {
        let mut dress = Self {
            adds: Vec::new(),
            drop: DropList::default(),
            hygiene: Hygiene::new(said.hygiene.unwrap_or_default()),
            cors: said.cors.as_ref().map(SharedWith::new),
        };
        let mut drop: Vec<&str> = dress.hygiene.masked().to_vec();
        if dress.cors.is_some() {
            drop.push("access-control-*");
        }
        let headers = said.headers.as_ref();
        let part = |of: fn(&Headers) -> &Option<Header>| headers.and_then(|headers| of(headers).as_ref());
        let reports = headers.and_then(|headers| headers.csp_reports).unwrap_or(false);
        let defaults = if tls { DEFAULTS } else { [None; 4] };
        let fields = [
            ("strict-transport-security", part(|h| &h.hsts).filter(|_| tls), defaults[0]),
            ("x-content-type-options", part(|h| &h.nosniff), defaults[1]),
            ("x-frame-options", part(|h| &h.frame), defaults[2]),
            ("referrer-policy", part(|h| &h.referrer), defaults[3]),
            ("content-security-policy", part(|h| &h.csp), None),
            ("content-security-policy-report-only", part(|h| &h.csp_report_only), None),
        ];
        for (name, said, default) in fields {
            match (said, default) {
                (Some(Header::Is(value)), _) => {
                    let policy = name.starts_with("content-security-policy");
                    let report = if policy && reports { report::DIRECTIVE } else { "" };
                    drop.push(name);
                    dress.adds.push(Add { name, value: format!("{value}{report}"), default: false });
                }
                (None, Some(value)) => {
                    dress.adds.push(Add { name, value: value.to_owned(), default: true });
                }
                (Some(Header::Off), _) | (None, None) => {}
            }
        }
        dress.drop = DropList::new(drop);
        dress
    }

    /// What is dropped of what a service says.
    pub(crate) fn drops(&self) -> &DropList {
        &self.drop
    }

    /// Calls `put` with each field that is added to a response of a service.
    pub(crate) fn add(&self, response: ResponseView<'_>, put: impl FnMut(&'static str, &str)) {
        self.add_where(|name| response.field(name).is_some(), put);
    }

    /// The same for an answer of our own with these fields.
    pub(crate) fn add_own(&self, fields: &[(&'static str, &str)], put: impl FnMut(&'static str, &str)) {
        self.add_where(|name| fields.iter().any(|field| field.0 == name), put);
    }

    fn add_where(&self, said: impl Fn(&str) -> bool, mut put: impl FnMut(&'static str, &str)) {
        for add in &self.adds {
            if !(add.default && said(add.name)) {
                put(add.name, &add.value);
            }
        }
    }

    /// Who looks at responses for what they give away, if anybody does.
    pub(crate) fn hygiene(&self) -> Option<&Hygiene> {
        (!self.hygiene.is_off()).then_some(&self.hygiene)
    }

    /// Answers what a browser asks before a request of another origin, where the route says who may.
    pub(crate) fn preflight(&self, request: HeadView<'_>) -> Result<(), Deny> {
        let (Some(cors), "OPTIONS") = (&self.cors, request.method()) else { return Ok(()) };
        let (Some(origin), Some(method)) = (origin(request), request.field("access-control-request-method"))
        else {
            return Ok(());
        };
        let answer = cors.preflight(origin, method, request.field("access-control-request-headers"));
        match answer {
            Ok(preflight) => {
                Err(Deny::new(204, "respond", PREFLIGHT, "a preflight").shown(Shown::Preflight(preflight)))
            }
            Err(reason) => {
                let position = Some(cors.position().to_owned());
                Err(Deny::new(403, "respond", "cors.refused", reason).position(position))
            }
        }
    }
}

/// The rule of an answered preflight: nobody was refused.
pub(crate) const PREFLIGHT: &str = "cors.preflight";

/// What is added for clients over TLS where neither the fence nor the service says otherwise.
const DEFAULTS: [Option<&str>; 4] =
    [Some("max-age=31536000"), Some("nosniff"), Some("SAMEORIGIN"), Some("strict-origin-when-cross-origin")];

/// Has the response to this request look as its route says.
pub(crate) fn dress(dress: &Arc<Dress>, request: HeadView<'_>, front: &mut Front<'_>) {
    if let Some(cors) = &dress.cors {
        cors.tell(origin(request), front);
    }
    front.set_dress(dress.clone());
}

fn origin(request: HeadView<'_>) -> Option<&str> {
    std::str::from_utf8(request.known(Kind::Origin)?).ok()
}
