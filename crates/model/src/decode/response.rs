//! `headers`, `cors` and `hygiene`: what responses of the gateway say and do not say.

use std::time::Duration;

use super::{Decoder, Fields, spec};
use crate::fence::{Cors, Header, Headers, Protocol, Responses};
use crate::scalar::duration;
use crate::suggest::quote;
use crate::yaml::{Entry, Node, Value};

/// Longest policy: browsers take more, proxies on the way may not.
const MAX_POLICY: usize = 4096;
/// Most origins, methods or fields of a `cors`.
const MAX_LIST: usize = 64;
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// What `max_age` of a `cors` is if nothing is said, and at most: no browser remembers longer.
const REMEMBER: Duration = Duration::from_secs(600);
const REMEMBER_MOST: Duration = Duration::from_secs(86_400);

const REFERRER: [&str; 8] = [
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
];

impl Decoder<'_> {
    /// What the gateway, a service or a route says of its responses.
    pub(super) fn responses(&mut self, fields: Fields<'_>, protocol: Protocol) -> Responses {
        for key in ["headers", "hygiene"] {
            if let (Some(entry), Protocol::Tcp) = (fields.entry(key), protocol) {
                let help = Some(format!("leave `{key}` out"));
                self.error("conflict", entry.mark, "tcp has no responses that could be looked at", help);
            }
        }
        Responses {
            headers: fields.entry("headers").and_then(|entry| self.headers(entry)),
            hygiene: fields.get("hygiene").and_then(|node| self.mode(node)),
            cors: None,
        }
    }

    fn headers(&mut self, entry: &Entry) -> Option<Headers> {
        let position = self.at(entry.mark);
        if let Value::Scalar { .. } = entry.value.value {
            self.choice(&entry.value, &[("off", ())])?;
            return Some(Headers::all(Some(Header::Off), position));
        }
        let fields = self.fields(&entry.value, &spec::HEADERS)?;
        let mut headers = Headers::all(None, position);
        headers.hsts = fields.get("hsts").and_then(|node| self.hsts(node));
        headers.csp = fields.get("csp").and_then(|node| self.policy(node));
        headers.csp_report_only = fields.get("csp_report_only").and_then(|node| self.policy(node));
        headers.csp_reports = fields.get("csp_reports").and_then(|node| self.truth(node));
        let frames = [
            ("deny", Header::Is("DENY".to_owned())),
            ("sameorigin", Header::Is("SAMEORIGIN".to_owned())),
            ("off", Header::Off),
        ];
        headers.frame = fields.get("frame").and_then(|node| self.one_of(node, &frames));
        headers.nosniff = fields.get("nosniff").and_then(|node| self.truth(node)).map(|on| match on {
            true => Header::Is("nosniff".to_owned()),
            false => Header::Off,
        });
        let referrers: Vec<_> = REFERRER
            .iter()
            .map(|word| (*word, Header::Is((*word).to_owned())))
            .chain([("off", Header::Off)])
            .collect();
        headers.referrer = fields.get("referrer").and_then(|node| self.one_of(node, &referrers));
        Some(headers)
    }

    fn one_of(&mut self, node: &Node, choices: &[(&'static str, Header)]) -> Option<Header> {
        let words: Vec<(&'static str, usize)> =
            choices.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
        self.choice(node, &words).map(|at| choices[at].1.clone())
    }

    /// `365d`, `off`, or a mapping.
    fn hsts(&mut self, node: &Node) -> Option<Header> {
        if node.text() == Some("off") {
            return Some(Header::Off);
        }
        let (age, more) = if let Value::Map(_) = node.value {
            let fields = self.fields(node, &spec::HSTS)?;
            let mut more = String::new();
            if fields.get("subdomains").and_then(|n| self.truth(n)).unwrap_or(false) {
                more += "; includeSubDomains";
            }
            if let Some(entry) = fields.entry("preload")
                && self.truth(&entry.value).unwrap_or(false)
            {
                if more.is_empty() {
                    let help = Some("add `subdomains: true`".to_owned());
                    self.error("conflict", entry.mark, "lists of browsers take all subdomains or none", help);
                }
                more += "; preload";
            }
            (fields.get("max_age").map_or(Some(YEAR), |n| self.age(n, 2 * YEAR))?, more)
        } else {
            (self.age(node, 2 * YEAR)?, String::new())
        };
        Some(Header::Is(format!("max-age={}{more}", age.as_secs())))
    }

    fn age(&mut self, node: &Node, most: Duration) -> Option<Duration> {
        let age = self.parsed(node, "a duration", duration)?;
        if age <= most {
            return Some(age);
        }
        let message =
            format!("{} is longer than {} s", quote(node.text().unwrap_or_default()), most.as_secs());
        self.error("out-of-range", node.mark, message, None);
        None
    }

    fn policy(&mut self, node: &Node) -> Option<Header> {
        if node.text() == Some("off") {
            return Some(Header::Off);
        }
        self.parsed(node, "a policy", policy).map(Header::Is)
    }

    pub(super) fn cors(&mut self, entry: &Entry, protocol: Protocol) -> Option<Cors> {
        if protocol != Protocol::Http {
            let help = Some("leave `cors` out".to_owned());
            self.error("conflict", entry.mark, "only browsers ask for `cors`, and they speak http", help);
        }
        let fields = self.fields(&entry.value, &spec::CORS)?;
        let mut cors = Cors {
            origins: Vec::new(),
            methods: ["GET", "HEAD", "POST"].map(str::to_owned).into(),
            headers: vec!["content-type".to_owned()],
            expose: Vec::new(),
            credentials: fields.get("credentials").and_then(|n| self.truth(n)).unwrap_or(false),
            max_age: fields.get("max_age").map_or(Some(REMEMBER), |n| self.age(n, REMEMBER_MOST))?,
            position: self.at(entry.mark),
        };
        let Some(origins) = fields.get("origins") else {
            let help = "name them: `origins: [https://app.example]`, or `origins: any`";
            self.missing(entry.mark, "origins", "this cors", help);
            return None;
        };
        if origins.text() == Some("any") {
            if let (true, Some(credentials)) = (cors.credentials, fields.entry("credentials")) {
                let help = Some("name the origins that may".to_owned());
                let message = "any page of the web could act as whoever looks at it";
                self.error("conflict", credentials.mark, message, help);
            }
        } else {
            cors.origins = self.several(origins, "origins", "[https://app.example]", origin)?;
            if cors.origins.is_empty() {
                self.error(
                    "empty",
                    origins.mark,
                    "this lets in no origin",
                    Some("leave `cors` out".to_owned()),
                );
            }
        }
        if let Some(node) = fields.get("methods") {
            cors.methods = self.several(node, "methods", "[GET]", method)?;
        }
        if let Some(node) = fields.get("headers") {
            cors.headers = self.several(node, "header fields", "[content-type]", field_name)?;
        }
        if let Some(node) = fields.get("expose") {
            cors.expose = self.several(node, "header fields", "[etag]", field_name)?;
        }
        Some(cors)
    }

    fn several(
        &mut self,
        node: &Node,
        of: &str,
        example: &str,
        parse: fn(&str) -> Result<String, String>,
    ) -> Option<Vec<String>> {
        let items = self.list(node, of, example);
        if items.len() > MAX_LIST {
            self.error("too-many", node.mark, format!("there are more than {MAX_LIST} of them"), None);
            return None;
        }
        let what = of.strip_suffix('s').unwrap_or(of);
        Some(
            items
                .iter()
                .filter_map(|item| self.parsed(item, &format!("one of the {what}s"), parse))
                .collect(),
        )
    }
}

/// What may stand in a header field: one line of printable ASCII.
fn policy(text: &str) -> Result<String, String> {
    if text.len() > MAX_POLICY {
        return Err(format!("it is longer than {MAX_POLICY} bytes"));
    }
    if text.trim().is_empty() || !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err("it is one line of ASCII, such as `default-src 'self'`".to_owned());
    }
    if text.contains("report-uri") || text.contains("report-to") {
        return Err("say `csp_reports: true` to have reports, or leave them to the service".to_owned());
    }
    Ok(text.trim().to_owned())
}

/// `https://app.example` or with a port, as browsers write it.
fn origin(text: &str) -> Result<String, String> {
    const SHAPE: &str =
        "write it as browsers do: scheme, host in lower case, port unless it is the usual one";
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(SHAPE)?;
    let usual = (text.starts_with("https:") && rest.ends_with(":443"))
        || (text.starts_with("http:") && rest.ends_with(":80"));
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    if rest.is_empty() || rest.len() > 260 || usual || !rest.bytes().all(plain) {
        return Err(SHAPE.to_owned());
    }
    Ok(text.to_owned())
}

fn method(text: &str) -> Result<String, String> {
    let ok = text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'));
    if ok { Ok(text.to_owned()) } else { Err("methods are upper case".to_owned()) }
}

fn field_name(text: &str) -> Result<String, String> {
    let ok = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if ok { Ok(text.to_ascii_lowercase()) } else { Err("it has letters, digits, `-` and `_`".to_owned()) }
}
