//! JSON bodies, flattened to one argument per leaf while they are read: no tree is built.
//!
//! Names are those of ModSecurity, so that exclusions written for it hold: members are joined with dots below `json`, the elements
//! of an array add `.array_0`, a member without a name is `empty-key`. Beyond it, a member that holds an array or an empty object is an
//! argument without a value, so that rules on names see every name whole. The grammar is RFC 8259 without leniency: what another parser
//! might read otherwise (comments, trailing commas, bytes that are not UTF-8, a second document) is an error.

use std::ops::Range;

use super::decode::digit;
use super::{Counted, Error, Limits, Outcome, Scratch, Sink};

/// Hands on every leaf of the document: strings decoded, numbers, `true` and `false` as written, `null` as nothing.
pub fn parse<S: Sink + ?Sized>(body: &[u8], limits: &Limits, scratch: &mut Scratch, sink: &mut S) -> Outcome {
    if body.is_empty() {
        return Outcome::default();
    }
    scratch.name.clear();
    scratch.name.extend_from_slice(b"json");
    scratch.levels.clear();
    let mut reader = Reader { body, at: 0, limits, scratch, sink: Counted::new(sink, limits) };
    Outcome { error: reader.document().err(), ..Outcome::default() }
}

/// One open container.
#[derive(Debug)]
pub(super) struct Level {
    /// How long the path is without what this container adds for a child.
    path: usize,
    /// The next element of an array; `None` for an object.
    element: Option<usize>,
}

struct Reader<'a, S: ?Sized> {
    body: &'a [u8],
    at: usize,
    limits: &'a Limits,
    scratch: &'a mut Scratch,
    sink: Counted<'a, S>,
}

impl<S: Sink + ?Sized> Reader<'_, S> {
    fn document(&mut self) -> Result<(), Error> {
        loop {
            // Here a value begins, and `scratch.name` is its path.
            self.space();
            match self.peek()? {
                b'{' => {
                    let member = self.is_member();
                    self.open(None)?;
                    self.space();
                    if self.peek()? != b'}' {
                        self.key()?;
                        continue;
                    }
                    if member {
                        self.sink.pair(&self.scratch.name, &[])?;
                    }
                }
                b'[' => {
                    if self.is_member() {
                        self.sink.pair(&self.scratch.name, &[])?;
                    }
                    self.open(Some(0))?;
                    self.space();
                    if self.peek()? != b']' {
                        self.element()?;
                        continue;
                    }
                }
                b'"' => {
                    let value = self.string()?;
                    let value = slice(self.body, &self.scratch.value, &value);
                    self.sink.pair(&self.scratch.name, value)?;
                }
                _ => self.bare()?,
            }
            if !self.next()? {
                break;
            }
        }
        self.space();
        match self.body.get(self.at) {
            Some(_) => Err(self.malformed("text after the document")),
            None => Ok(()),
        }
    }

    /// Closes containers until one has a further child, whose path is made. `false` at the end of the document.
    fn next(&mut self) -> Result<bool, Error> {
        loop {
            let Some(level) = self.scratch.levels.last() else {
                return Ok(false);
            };
            let in_array = level.element.is_some();
            self.scratch.name.truncate(level.path);
            self.space();
            match self.peek()? {
                b',' => {
                    self.at += 1;
                    self.space();
                    if in_array {
                        self.element()?;
                    } else {
                        self.key()?;
                    }
                    return Ok(true);
                }
                b']' if in_array => {}
                b'}' if !in_array => {}
                _ => return Err(self.malformed("neither a comma nor the end of the container")),
            }
            self.at += 1;
            self.scratch.levels.pop();
        }
    }

    /// Whether the value that begins here has a name of its own.
    fn is_member(&self) -> bool {
        self.scratch.levels.last().is_some_and(|level| level.element.is_none())
    }

    fn open(&mut self, element: Option<usize>) -> Result<(), Error> {
        if self.scratch.levels.len() >= self.limits.depth {
            return Err(Error::TooDeep);
        }
        self.at += 1;
        self.scratch.levels.push(Level { path: self.scratch.name.len(), element });
        Ok(())
    }

    /// Adds the name of the next element to the path.
    fn element(&mut self) -> Result<(), Error> {
        if let Some(Level { element: Some(element), .. }) = self.scratch.levels.last_mut() {
            self.scratch.name.extend_from_slice(b".array_");
            decimal(*element, &mut self.scratch.name);
            *element += 1;
        }
        self.name_fits()
    }

    /// Reads the name of a member and adds it to the path.
    fn key(&mut self) -> Result<(), Error> {
        if self.peek()? != b'"' {
            return Err(self.malformed("the name of a member is missing"));
        }
        let key = self.string()?;
        let key = slice(self.body, &self.scratch.value, &key);
        self.scratch.name.push(b'.');
        self.scratch.name.extend_from_slice(if key.is_empty() { b"empty-key" } else { key });
        self.name_fits()?;
        self.space();
        if self.peek()? != b':' {
            return Err(self.malformed("the colon after a name is missing"));
        }
        self.at += 1;
        Ok(())
    }

    fn name_fits(&self) -> Result<(), Error> {
        if self.scratch.name.len() > self.limits.line { Err(Error::TooLong) } else { Ok(()) }
    }

    /// A number or one of the three words.
    fn bare(&mut self) -> Result<(), Error> {
        let rest = &self.body[self.at..];
        let end = rest
            .iter()
            .position(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'));
        let token = &rest[..end.unwrap_or(rest.len())];
        let value = match token {
            b"null" => &[][..],
            b"true" | b"false" => token,
            _ if is_number(token) => token,
            // A word that the end of the body cuts is judged as far as it goes.
            _ if end.is_none() && !token.is_empty() => {
                self.sink.pair(&self.scratch.name, token)?;
                return Err(Error::Incomplete);
            }
            _ => return Err(self.malformed("not a value")),
        };
        self.at += token.len();
        self.sink.pair(&self.scratch.name, value)
    }

    /// Reads a string: where its value lies in the body, or that it has been decoded into `scratch.value`.
    fn string(&mut self) -> Result<Text, Error> {
        self.at += 1;
        let start = self.at;
        let mut plain = true;
        loop {
            let rest = &self.body[self.at..];
            let run = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            if !plain {
                self.scratch.value.extend_from_slice(&rest[..run]);
            }
            self.at += run;
            match self.body.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    if plain {
                        plain = false;
                        self.scratch.value.clear();
                        self.scratch.value.extend_from_slice(&self.body[start..self.at]);
                    }
                    if let Err(error) = self.escape() {
                        return Err(self.cut(error));
                    }
                }
                Some(_) => return Err(self.malformed("a control character in a string")),
                None => {
                    if plain {
                        self.scratch.value.clear();
                        self.scratch.value.extend_from_slice(&self.body[start..]);
                    }
                    return Err(self.cut(Error::Incomplete));
                }
            }
        }
        let text = if plain { Text::Body(start..self.at) } else { Text::Decoded };
        if std::str::from_utf8(slice(self.body, &self.scratch.value, &text)).is_err() {
            return Err(self.malformed("a string that is not UTF-8"));
        }
        self.at += 1;
        Ok(text)
    }

    /// Hands on the beginning of a string that the end of the body cuts.
    fn cut(&mut self, error: Error) -> Error {
        if error != Error::Incomplete {
            return error;
        }
        match self.sink.pair(&self.scratch.name, &self.scratch.value) {
            Ok(()) => error,
            Err(full) => full,
        }
    }

    fn escape(&mut self) -> Result<(), Error> {
        let escaped = *self.body.get(self.at + 1).ok_or(Error::Incomplete)?;
        let byte = match escaped {
            b'"' | b'\\' | b'/' => escaped,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode(),
            _ => return Err(self.malformed("an unknown escape in a string")),
        };
        self.at += 2;
        self.scratch.value.push(byte);
        Ok(())
    }

    /// `\uXXXX`, or two of them for one character. Half a pair becomes `?`, which every back end shows in its own way.
    fn unicode(&mut self) -> Result<(), Error> {
        let first = self.code_unit(self.at)?;
        self.at += 6;
        let mut character = char::from_u32(first);
        if (0xd800..0xdc00).contains(&first) && self.body[self.at..].starts_with(b"\\u") {
            let second = self.code_unit(self.at)?;
            if (0xdc00..0xe000).contains(&second) {
                self.at += 6;
                character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
        }
        let mut bytes = [0; 4];
        let text = character.unwrap_or('?').encode_utf8(&mut bytes);
        self.scratch.value.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn code_unit(&self, at: usize) -> Result<u32, Error> {
        let digits = self.body.get(at + 2..at + 6).ok_or(Error::Incomplete)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.malformed("an unknown escape in a string"));
        }
        Ok(digits.iter().fold(0, |unit, d| unit << 4 | u32::from(digit(*d))))
    }

    fn space(&mut self) {
        let rest = &self.body[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn peek(&self) -> Result<u8, Error> {
        self.body.get(self.at).copied().ok_or(Error::Incomplete)
    }

    fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed { at: self.at, what }
    }
}

/// Where a string's value is.
enum Text {
    Body(Range<usize>),
    Decoded,
}

fn slice<'a>(body: &'a [u8], decoded: &'a [u8], text: &Text) -> &'a [u8] {
    match text {
        Text::Body(range) => &body[range.clone()],
        Text::Decoded => decoded,
    }
}

fn decimal(mut number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        // The rest of a division by ten fits.
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn is_number(token: &[u8]) -> bool {
    let rest = token.strip_prefix(b"-").unwrap_or(token);
    let (whole, mut rest) = digits(rest);
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return false;
    }
    if let [b'.', tail @ ..] = rest {
        let (fraction, after) = digits(tail);
        if fraction.is_empty() {
            return false;
        }
        rest = after;
    }
    if let [b'e' | b'E', tail @ ..] = rest {
        let tail = match tail {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            unsigned => unsigned,
        };
        let (exponent, after) = digits(tail);
        return !exponent.is_empty() && after.is_empty();
    }
    rest.is_empty()
}

fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|b| b.is_ascii_digit()).count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::tests::Kept;
    use super::*;

    fn parsed(body: &[u8]) -> (Vec<String>, Option<Error>) {
        let mut kept = Kept::default();
        let limits = Limits { depth: 20, ..Limits::default() };
        let outcome = parse(body, &limits, &mut Scratch::default(), &mut kept);
        (kept.0, outcome.error)
    }

    #[test]
    fn leaves_are_named_by_their_path() {
        let body =
            br#" {"a":{"b":[1,{"c":"x\ty"},[true,null]],"":-2.50e+1},"d\u0041":[], "e":{} ,"f":false} "#;
        let expected = [
            "json.a.b=",
            "json.a.b.array_0=1",
            "json.a.b.array_1.c=x\\ty",
            "json.a.b.array_2.array_0=true",
            "json.a.b.array_2.array_1=",
            "json.a.empty-key=-2.50e+1",
            "json.dA=",
            "json.e=",
            "json.f=false",
        ];
        assert_eq!(parsed(body), (expected.map(str::to_owned).to_vec(), None));
        assert_eq!(parsed(b"\"x\""), (vec!["json=x".to_owned()], None));
        assert_eq!(parsed(b"[[0]]"), (vec!["json.array_0.array_0=0".to_owned()], None));
        assert_eq!(parsed(b""), (vec![], None));
    }

    #[test]
    fn escapes_are_decoded_and_half_pairs_shown() {
        let (pairs, error) = parsed(br#"["\u00e9\ud83d\ude00\"\/\b","\ud83dx","\ud83d\u0041","\ude00"]"#);
        let text = pairs.join(" ");
        assert_eq!(error, None);
        assert_eq!(
            text,
            "json.array_0=\\xc3\\xa9\\xf0\\x9f\\x98\\x80\\\"/\\x08 json.array_1=?x json.array_2=?A json.array_3=?"
        );
    }

    #[test]
    fn what_another_parser_might_read_otherwise_is_refused() {
        let cases: [&[u8]; 21] = [
            b"{\"a\":1,}",
            b"[1,]",
            b"[1 2]",
            b"{\"a\" 1}",
            b"{a:1}",
            b"{'a':1}",
            b"[01]",
            b"[1.]",
            b"[.5]",
            b"[+1]",
            b"[1e]",
            b"[NaN]",
            b"[\"\\x41\"]",
            b"[\"\\u12g4\"]",
            b"[\"a\tb\"]",
            b"[\"\xff\"]",
            b"[1] 2",
            b"[1]]",
            b"/**/[1]",
            b"\xef\xbb\xbf[1]",
            b"[1}",
        ];
        for body in cases {
            let (_, error) = parsed(body);
            assert!(matches!(error, Some(Error::Malformed { .. })), "{}: {error:?}", body.escape_ascii());
        }
    }

    #[test]
    fn the_head_of_a_cut_document_is_handed_on() {
        let (pairs, error) = parsed(b"{\"a\":\"x\",\"b\":\"un'ion");
        assert_eq!(
            (pairs.join(" "), error),
            ("json.a=x json.b=un\\'ion".to_owned(), Some(Error::Incomplete))
        );
        let (pairs, error) = parsed(b"[1,2");
        assert_eq!((pairs.len(), error), (2, Some(Error::Incomplete)));
    }

    #[test]
    fn depth_count_and_names_are_bounded() {
        assert_eq!(parsed("[".repeat(21).as_bytes()).1, Some(Error::TooDeep));
        assert_eq!(parsed("[".repeat(20).as_bytes()).1, Some(Error::Incomplete));
        let (pairs, error) = parsed(format!("[{}1]", "1,".repeat(6_000)).as_bytes());
        assert_eq!((pairs.len(), error), (5_000, Some(Error::TooMany)));
        assert_eq!(parsed(format!("{{\"{}\":1}}", "n".repeat(5_000)).as_bytes()).1, Some(Error::TooLong));
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|f| json!(f)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    fn flatten(name: &str, value: &Value, member: bool, out: &mut Vec<String>) {
        let mut leaf = |text: &str| {
            out.push(format!("{}={}", name.as_bytes().escape_ascii(), text.as_bytes().escape_ascii()))
        };
        match value {
            Value::Null => leaf(""),
            Value::Bool(b) => leaf(&b.to_string()),
            Value::Number(n) => leaf(&n.to_string()),
            Value::String(s) => leaf(s),
            Value::Array(items) => {
                if member {
                    leaf("");
                }
                for (at, item) in items.iter().enumerate() {
                    flatten(&format!("{name}.array_{at}"), item, false, out);
                }
            }
            Value::Object(members) => {
                if member && members.is_empty() {
                    leaf("");
                }
                for (key, item) in members {
                    let key = if key.is_empty() { "empty-key" } else { key };
                    flatten(&format!("{name}.{key}"), item, true, out);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_leaf_of_a_document_is_found(document in document(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let mut expected = Vec::new();
            flatten("json", &document, false, &mut expected);
            prop_assert_eq!(parsed(text.unwrap().as_bytes()), (expected, None));
        }

        #[test]
        fn nothing_is_accepted_that_the_reference_refuses(text in r#"[\[\]{}",:0-9a-e.\\u \-]{0,24}"#) {
            let (_, error) = parsed(text.as_bytes());
            if error.is_none() && !text.is_empty() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok() || text.contains("\\u"), "{}", text);
            }
        }

        #[test]
        fn any_bytes_end(body: Vec<u8>) {
            parsed(&body);
        }
    }
}
