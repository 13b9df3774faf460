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
        let Some(narrowed) = sniff::narrowed(text) else { return self.read(text, claimed, cut) };
        let outcome = self.read(&narrowed, claimed, cut);
        if is_short(&outcome) {
            return outcome;
        }
        // Who does not know of wide characters reads the bytes one by one.
        if sniff::is_nearly_text(text) {
            self.read(text, claimed, cut)
        } else if claimed {
            outcome
        } else {
            self.with_filler(text, |filler| {
                sniff::runs(text, PACKED_RUN, true).try_for_each(|run| filler.pair(NAME, run))
            })
        }
    }

    /// The same, of text with one byte a character or UTF-8.
    fn read(&mut self, text: &[u8], claimed: bool, cut: bool) -> body::Outcome {
        let Some(start) = sniff::start(text).filter(|start| start.look != Look::Other) else {
            return if claimed { body::Outcome::default() } else { self.text(text) };
        };
        let kind = if start.look == Look::Json { Kind::Json } else { Kind::Xml };
        let document = &text[start.at..];
        let outcome = self.parse(kind, b"", document);
        let understood = match outcome.error {
            None => true,
            Some(body::Error::Incomplete) => cut,
            Some(_) => false,
        };
        if understood && !claimed && start.after_comment {
            // Comments are text to those who do not skip them.
            return self.text(&text[..start.at]);
        }
        if understood || is_short(&outcome) {
            return body::Outcome { error: outcome.error.filter(|_| !understood), ..outcome };
        }
        // A script that is uploaded begins with a comment and `"use strict"`.
        let is_script = claimed && start.after_comment && document.starts_with(b"\"");
        let strings = match start.look {
            Look::Json if !is_script => self.strings(document),
            _ => body::Outcome::default(),
        };
        let is_text = !claimed || (start.look == Look::Xml && !sniff::is_page(text));
        if is_short(&strings) || !is_text {
            return strings;
        }
        if start.look == Look::Json
            && let Some(plain) = sniff::unescaped(text)
        {
            let outcome = self.text(&plain);
            if is_short(&outcome) {
                return outcome;
            }
        }
        self.text(text)
    }

    /// Text that is no more than that, and what a form might be in it.
    fn text(&mut self, text: &[u8]) -> body::Outcome {
        if sniff::is_form(text) {
            return self.form(text, true);
        }
        let is_binary = sniff::is_binary(text);
        let blanked = sniff::blanked(text);
        // A few bytes that are no text are blanks; among many there is no form.
        let plain = blanked.as_deref().or_else(|| (!is_binary).then_some(text));
        if let Some(plain) = plain
            && plain.contains(&b'=')
            && memchr::memchr_iter(b'&', plain).count() < PIECES
        {
            self.form(plain, true);
        }
        self.with_filler(text, |filler| {
            if let Some(plain) = plain {
                filler.pair(NAME, plain.trim_ascii())?;
            }
            if is_binary {
                sniff::runs(text, RUN, false).try_for_each(|run| filler.pair(NAME, run))?;
            }
            ControlFlow::Continue(())
        })
    }

    fn strings(&mut self, text: &[u8]) -> body::Outcome {
        // Between bytes that happen to be quotes, something else is no string.
        let is_text = sniff::is_nearly_text(text);
        let is_string =
            |string: &[u8]| is_text || (!sniff::is_binary(string) && str::from_utf8(string).is_ok());
        self.with_filler(text, |filler| {
            sniff::strings(text, &mut Vec::new(), |string| match is_string(string) {
                true => filler.pair(NAME, string),
                false => ControlFlow::Continue(()),
            })
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::Interest;
    use crate::{
        Rules, Scratch, Set, Transaction, Verdict,
        baseline::benign::{Chance, value},
        body::sniff::{self, Look},
    };

    const ALL: [&str; 4] = ["", "text/plain", "image/png", "application/octet-stream"];
    const TEXT: [&str; 2] = ["", "text/plain"];

    fn rules() -> &'static Arc<Rules> {
        static RULES: OnceLock<Arc<Rules>> = OnceLock::new();
        RULES.get_or_init(|| {
            let (setup, rules) = (Vec::new(), Vec::new());
            let (paranoia, inbound, outbound, inspect) = (1, 5, 4, 128 << 10);
            let set = Set { setup, rules, paranoia, inbound, outbound, inspect, file: &|_| None };
            Arc::new(set.load().unwrap())
        })
    }

    /// The rules that refuse a body, as the gateway has it judged.
    fn refused(kind: &str, body: &[u8]) -> Option<Vec<u64>> {
        let mut transaction = Transaction::new(rules(), Scratch::default());
        transaction.connection(([192, 0, 2, 7].into(), 4711), ([192, 0, 2, 1].into(), 443));
        transaction.request_line(b"POST", b"/", b"HTTP/1.1");
        transaction.request_header(b"Host", b"clinic.example");
        if !kind.is_empty() {
            transaction.request_header(b"Content-Type", kind.as_bytes());
        }
        assert_eq!(transaction.phase1(), Verdict::Pass);
        if transaction.interest() == Interest::All || sniff::begins(body) != Some(Look::Other) {
            transaction.request_body(body);
        }
        let verdict = transaction.phase2();
        let ids = transaction.matches().iter().map(|found| found.rule.id).collect();
        (verdict != Verdict::Pass).then_some(ids)
    }

    fn is_refused(kinds: &[&str], body: &[u8]) {
        for kind in kinds {
            assert!(refused(kind, body).is_some(), "{kind:?}: {}", String::from_utf8_lossy(body));
        }
    }

    fn passes(kinds: &[&str], body: &[u8]) {
        for kind in kinds {
            assert_eq!(refused(kind, body), None, "{kind:?}: {}", String::from_utf8_lossy(body));
        }
    }

    /// A text in every way in which wide characters are written.
    fn wide(text: &str) -> Vec<Vec<u8>> {
        let two = |turn: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(turn).collect::<Vec<_>>();
        let four = |turn: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| turn(c.into())).collect::<Vec<_>>();
        vec![two(u16::to_le_bytes), two(u16::to_be_bytes), four(u32::to_le_bytes), four(u32::to_be_bytes)]
    }

    #[test]
    fn wide_characters_hide_nothing_and_harm_nobody() {
        let many = "\u{4e8c}".repeat(200);
        let xml = format!("<!--{many}--><!DOCTYPE r [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><r>&x;</r>");
        let json = format!("{{\"{many}\":\"1' or 1=1--\"}}");
        let honest = format!("{{\"{many}\":\"\u{6771}\u{4eac}, O'Neill\",\"b\":[1,null]}}");
        for (plain, expected) in [(&xml, true), (&json, true), (&honest, false)] {
            for mark in ["", "\u{feff}"] {
                for body in wide(&format!("{mark}{plain}")) {
                    if expected { is_refused(&ALL, &body) } else { passes(&ALL, &body) }
                }
            }
        }
        for body in wide(&format!("\u{feff}{many} \u{2013} O'Neill's note")) {
            passes(&ALL, &body);
        }
        // A mark alone makes no wide characters.
        is_refused(&ALL, b"\xff\xfe{\"q\":\"1' or 1=1--\"}");
        is_refused(&TEXT, b"\xff\xfe1' or 1=1--");
    }

    #[test]
    fn what_lenient_readers_skip_is_skipped() {
        for before in
            ["/**/", "// a\n", "//\r/* \" */\n", "\x0b\x0c", "\u{a0}", ")]}'\n", ")]}',", "\u{2003}/*\n*/"]
        {
            is_refused(&ALL, format!("{before}{{\"q\":\"1' or 1=1--\"}}").as_bytes());
            passes(&ALL, format!("{before}{{\"q\":\"O'Neill or not\"}}").as_bytes());
        }
        is_refused(&TEXT, b"/*' or 1=1--*/{}");
        passes(&ALL, b"/* a */ \"use strict\";\nconst a = '<b>' + \"don't\" + '</b>'; // it's done\n");
    }

    #[test]
    fn either_quote_and_characters_by_number_are_read() {
        let escaped: String = "1' UNION SELECT password FROM users--"
            .chars()
            .map(|c| format!("\\u{:04x}", u32::from(c)))
            .collect();
        is_refused(&ALL, format!("{{'q':'{escaped}'}}").as_bytes());
        is_refused(&ALL, br"{'q':'1\' or 1=1--'}");
        is_refused(&ALL, b"{/*\"*/'q': /*'*/ '1\\x27 or 1=1--'}");
        // No string to anybody who knows comments, and whole to who does not.
        is_refused(&TEXT, format!("[{escaped}]").as_bytes());
        passes(&ALL, b"{'name': 'O\\'Neill', note: 'rock \\u0027n\\u0027 roll', }");
        passes(&ALL, br"{\rtf1\ansi l\'e9l\'e8ve don't select one of the union's \u8217? or not}");
    }

    #[test]
    fn one_byte_that_is_no_text_hides_nothing() {
        is_refused(&TEXT, b"1'\x0bUNION\x0bSELECT\x0bpassword\x0bFROM\x0busers--");
        is_refused(&TEXT, b"1'\x01UNION\x02SELECT\x03password\x04FROM\0users--");
        is_refused(&TEXT, b"1'\x0cor\x0b1=1--\0");
        passes(&TEXT, b"a page\x0cand O'Neill's next\x0b\x01or not");
        passes(&["", "application/x-own"], &noise(7, 20_000));
        for seed in 8..40 {
            passes(&ALL, &[b"{", &noise(seed, 5_000)[..]].concat());
            passes(&ALL, &[b"\xff\xfe", &noise(seed, 5_000)[..]].concat());
        }
        // Who shows what is no text as such reads the rest.
        let padded = [b"{\"a\":\"", &[0xff; 400][..], b"\",\"q\":\"1' or 1=1--\"}"].concat();
        is_refused(&ALL, &padded);
    }

    /// Bytes of something that is packed.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut chance = Chance::new(seed);
        (0..length).map(|_| chance.below(256) as u8).collect()
    }

    #[test]
    fn people_who_mean_no_harm_send_it_in_any_shape() {
        let mut chance = Chance::new(11);
        let mut wrong = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let text = value(&mut chance);
            let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
            let json = serde_json::json!({ "\u{4e8c}": text }).to_string();
            let mut bodies = wide(&format!("\u{feff}{json}"));
            bodies.extend(
                [format!("/* it's */ {json}"), format!("{{'a': '{quoted}',}}")].map(String::into_bytes),
            );
            bodies.push(format!("[note] {text}\x0c").into_bytes());
            for body in bodies {
                if let Some(ids) = refused("text/plain", &body) {
                    wrong.insert(format!("{ids:?} {}", String::from_utf8_lossy(&body)));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{}:\n{}",
            wrong.len(),
            wrong.into_iter().take(20).collect::<Vec<_>>().join("\n")
        );
    }
}
