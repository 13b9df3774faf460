//! Which pages of other origins may read what a route answers (Fetch, section 3.3): the gateway says so, in place of the service.

use ringfence_model::Cors;

use crate::front::Front;

/// A route's `cors`, as response fields.
#[derive(Debug)]
pub(super) struct SharedWith {
    said: Cors,
    methods: String,
    headers: String,
    expose: String,
    position: String,
}

/// The answer to a preflight.
#[derive(Clone, Debug)]
pub(crate) struct Preflight(pub(crate) Vec<(&'static str, String)>);

/// Most bytes of a list of header fields that a browser may ask for.
const MAX_ASKED: usize = 4096;

impl SharedWith {
    pub(super) fn new(said: &Cors) -> Self {
        Self {
            methods: said.methods.join(", "),
            headers: said.headers.join(", "),
            expose: said.expose.join(", "),
            position: said.position.to_string(),
            said: said.clone(),
        }
    }

    pub(super) fn position(&self) -> &str {
        &self.position
    }

    pub(super) fn preflight(
        &self,
        origin: &str,
        method: &[u8],
        headers: Option<&[u8]>,
    ) -> Result<Preflight, String> {
        if !self.said.allows(origin) {
            return Err(format!("pages of {} may not read this route", shortened(origin)));
        }
        if !self.said.methods.iter().any(|allowed| allowed.as_bytes() == method) {
            let method = String::from_utf8_lossy(method);
            return Err(format!("pages of other origins may not use {} here", shortened(&method)));
        }
        let asked = headers.unwrap_or_default();
        let allowed = |name: &[u8]| {
            name.is_empty() || self.said.headers.iter().any(|h| h.as_bytes().eq_ignore_ascii_case(name))
        };
        if asked.len() > MAX_ASKED || !asked.split(|b| *b == b',').all(|name| allowed(name.trim_ascii())) {
            let asked = String::from_utf8_lossy(asked);
            return Err(format!("pages of other origins may not set all of: {}", shortened(&asked)));
        }
        let mut fields = vec![
            ("access-control-allow-origin", self.allowed(origin)),
            ("access-control-allow-methods", self.methods.clone()),
            ("access-control-max-age", self.said.max_age.as_secs().to_string()),
            ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers".to_owned()),
        ];
        if !self.headers.is_empty() {
            fields.push(("access-control-allow-headers", self.headers.clone()));
        }
        if self.said.credentials {
            fields.push(("access-control-allow-credentials", "true".to_owned()));
        }
        Ok(Preflight(fields))
    }

    /// Has the response to a request from a page of this origin say that it may be read.
    pub(super) fn tell(&self, origin: Option<&str>, front: &mut Front<'_>) {
        if !self.said.origins.is_empty() {
            // Whoever keeps the response must not show it to pages of another origin.
            front.tell("vary", "Origin".to_owned());
        }
        let Some(origin) = origin.filter(|origin| self.said.allows(origin)) else { return };
        front.tell("access-control-allow-origin", self.allowed(origin));
        if self.said.credentials {
            front.tell("access-control-allow-credentials", "true".to_owned());
        }
        if !self.expose.is_empty() {
            front.tell("access-control-expose-headers", self.expose.clone());
        }
    }

    fn allowed(&self, origin: &str) -> String {
        if self.said.origins.is_empty() { "*".to_owned() } else { origin.to_owned() }
    }
}

/// What a caller said, for an event.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(100).map_or(text.len(), |(at, _)| at);
    &text[..end]
}
