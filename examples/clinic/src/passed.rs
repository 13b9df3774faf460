//! What a service hands on, unread, from the request it serves to the calls it makes for it: the trace and the
//! transaction token. Everything else about the caller is for Ringfence to say anew at each hop.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

const NAMES: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("txn-token"),
];

/// The headers to hand on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed([Option<HeaderValue>; 3]);

impl Passed {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(NAMES.map(|name| headers.get(name).cloned()))
    }

    pub(crate) fn put_into(&self, headers: &mut HeaderMap) {
        for (name, value) in NAMES.into_iter().zip(&self.0) {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }

    /// The trace's id out of `traceparent`, for the log and for `ringfence why`; `-` without one.
    pub(crate) fn trace(&self) -> &str {
        let id = self.0[0].as_ref().and_then(|value| value.to_str().ok()).and_then(|v| v.split('-').nth(1));
        id.filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).unwrap_or("-")
    }
}

impl<S: Sync> FromRequestParts<S> for Passed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_and_the_token_go_on_and_nothing_else_does() {
        let mut received = HeaderMap::new();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        received.insert("traceparent", HeaderValue::from_static(trace));
        received.insert("txn-token", HeaderValue::from_static("abc"));
        received.insert("authorization", HeaderValue::from_static("Bearer secret"));
        received.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        let passed = Passed::of(&received);
        let mut sent = HeaderMap::new();
        passed.put_into(&mut sent);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent["traceparent"], trace);
        assert_eq!(sent["txn-token"], "abc");
        assert_eq!(passed.trace(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_trace_that_is_none_is_not_logged() {
        for value in ["", "00-short-1-01", "00-\"><script>aaaaaaaaaaaaaaaaaaaaaaaa-1-01"] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(value));
            assert_eq!(Passed::of(&headers).trace(), "-");
        }
    }
}
