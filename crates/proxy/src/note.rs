//! What stages find in a request or response, for the event that tells of it: few, short, and without secrets.

use std::cell::{Ref, RefCell};

use ringfence_event::Finding;

/// Findings that are kept of one request.
const MOST: usize = 32;
/// Bytes that are kept of each text.
const TEXT: usize = 200;
/// Parts of names whose values are nobody's business.
const SECRET: [&str; 11] = [
    "authorization",
    "cookie",
    "passw",
    "passphrase",
    "secret",
    "token",
    "api-key",
    "api_key",
    "apikey",
    "dpop",
    "credential",
];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    found: RefCell<Vec<Note>>,
    /// Rules that would have refused it, if they did not only watch.
    would_deny: RefCell<Vec<String>>,
    /// What it looks like, where somebody wants to know.
    shape: RefCell<String>,
}

/// One finding.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// Which stage: `validate`, `inspect`.
    pub(crate) stage: &'static str,
    /// Stable name of the rule.
    pub(crate) rule: String,
    /// What it is about.
    pub(crate) message: String,
    /// Where it was found, such as `ARGS:q` or a JSON pointer.
    pub(crate) target: String,
    /// What was found there.
    pub(crate) value: Vec<u8>,
    /// What was done to it before it was looked at, in order, separated by commas.
    pub(crate) transformations: String,
    pub(crate) score: u64,
    /// Nobody was refused for it, because the stage only watches.
    pub(crate) observed: bool,
}

impl Notes {
    /// Keeps one, if there are not too many.
    pub(crate) fn add(&self, mut note: Note) {
        let mut found = self.found.borrow_mut();
        if found.len() == MOST {
            return;
        }
        if is_secret(&note.target) {
            note.value = format!("({} bytes that are a secret)", note.value.len()).into();
        }
        note.value.truncate(TEXT);
        mask(&mut note.value);
        for text in [&mut note.message, &mut note.target, &mut note.transformations] {
            cut(text);
        }
        found.push(note);
    }

    /// Keeps the name of a rule that would have refused it.
    pub(crate) fn would_deny(&self, rule: String) {
        let mut rules = self.would_deny.borrow_mut();
        if rules.len() < MOST && !rules.contains(&rule) {
            rules.push(rule);
        }
    }

    /// Keeps what it looks like, as JSON without any value.
    pub(crate) fn set_shape(&self, shape: String) {
        *self.shape.borrow_mut() = shape;
    }

    /// What it looks like; empty where nobody wanted to know.
    pub(crate) fn shape(&self) -> Ref<'_, str> {
        Ref::map(self.shape.borrow(), String::as_str)
    }

    /// Takes what was found elsewhere.
    pub(crate) fn merge(&self, others: Self) {
        others.found.into_inner().into_iter().for_each(|note| self.add(note));
        others.would_deny.into_inner().into_iter().for_each(|rule| self.would_deny(rule));
        let shape = others.shape.into_inner();
        if !shape.is_empty() {
            self.set_shape(shape);
        }
    }

    pub(crate) fn clear(&mut self) {
        // Whoever is counted is so once.
        self.found.get_mut().retain(|note| note.stage == "limit");
        self.would_deny.get_mut().retain(|rule| rule.starts_with("limit."));
        self.shape.get_mut().clear();
    }

    /// The rules that would have refused it.
    pub(crate) fn denying(&self) -> Ref<'_, [String]> {
        Ref::map(self.would_deny.borrow(), Vec::as_slice)
    }

    /// Calls `tell` with all of them.
    pub(crate) fn with<R>(&self, tell: impl FnOnce(&[Finding<'_>]) -> R) -> R {
        let found = self.found.borrow();
        if found.is_empty() {
            return tell(&[]);
        }
        let findings: Vec<Finding<'_>> = found.iter().map(Note::finding).collect();
        tell(&findings)
    }
}

impl Note {
    fn finding(&self) -> Finding<'_> {
        Finding {
            stage: self.stage,
            rule: &self.rule,
            message: &self.message,
            target: &self.target,
            value: &self.value,
            transformations: &self.transformations,
            score: self.score,
            observed: self.observed,
        }
    }
}

/// Whether what a name stands for is a secret by its name.
fn is_secret(target: &str) -> bool {
    let lower = target.to_ascii_lowercase();
    SECRET.iter().any(|part| lower.contains(part))
}

/// Takes out what stands behind a name of a secret: `token=…`, `"password": "…"`.
fn mask(value: &mut [u8]) {
    let lower = value.to_ascii_lowercase();
    let is_name =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b']' | b'"' | b'\'' | b' ');
    let mut secrets = Vec::new();
    for word in SECRET.map(str::as_bytes) {
        for at in memchr::memmem::find_iter(&lower, word).map(|at| at + word.len()) {
            let rest = &lower[at..];
            let Some(sign) =
                rest.iter().position(|b| !is_name(b)).filter(|at| matches!(rest[*at], b'=' | b':'))
            else {
                continue;
            };
            let begin = at + sign + 1;
            let begin =
                begin + lower[begin..].iter().take_while(|b| matches!(b, b' ' | b'"' | b'\'')).count();
            let end = lower[begin..]
                .iter()
                .position(|b| matches!(b, b'&' | b';' | b',' | b'"' | b'\'' | b'}' | b'\n'));
            secrets.push(begin..end.map_or(lower.len(), |length| begin + length));
        }
    }
    for secret in secrets {
        value[secret].fill(b'*');
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT {
        let at = (0..=TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_few_short_and_without_secrets() {
        let notes = Notes::default();
        let note = |target: &str| Note { target: target.into(), value: vec![b'x'; 500], ..Note::default() };
        for target in [
            "ARGS:q",
            "REQUEST_HEADERS:Authorization",
            "REQUEST_COOKIES:sid",
            "ARGS:json.userPassword",
            "ARGS:access_token",
        ] {
            notes.add(note(target));
        }
        notes.add(Note { message: "é".repeat(300), ..note("b") });
        for _ in 0..100 {
            notes.add(note("ARGS:q"));
        }
        notes.with(|found| {
            assert_eq!((found.len(), found[0].value.len()), (MOST, TEXT));
            assert!(found[1..5].iter().all(|f| f.value == b"(500 bytes that are a secret)"));
            assert_eq!(found[5].message.len(), TEXT);
        });
    }

    #[test]
    fn secrets_inside_of_a_value_are_not_told() {
        for (value, told) in [
            ("/a?q=1&access_token=abc&b=2", "/a?q=1&access_token=***&b=2"),
            ("{\"userPassword\": \"hunter2\", \"a\": 1}", "{\"userPassword\": \"*******\", \"a\": 1}"),
            ("Cookie: sid=abc", "Cookie: *******"),
            ("1 union select password from users", "1 union select password from users"),
            ("token=", "token="),
        ] {
            let mut bytes = value.as_bytes().to_vec();
            mask(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), told);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_value_can_be_looked_through(mut value in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let length = value.len();
            value.extend_from_slice(b"token=x");
            mask(&mut value);
            proptest::prop_assert_eq!(value.len(), length + 7);
        }
    }
}
