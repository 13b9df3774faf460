//! XML bodies as rules need them: the joined text of all elements (`XML:/*`) and the values of all attributes (`XML://@*`).
//!
//! An own reader, since it can be strict: a document type, an entity of its own, an encoding other than UTF-8, ASCII or Latin-1 are
//! errors, so nothing expands and nothing is read here otherwise than behind us. Nothing is built but the stack of open elements.

use std::ops::Range;

use memchr::{memchr, memchr3, memmem};

use super::{Counted, Error, Limits, Outcome, Scratch, Sink};

/// Hands on each attribute where it stands and the text at the end. Declarations of name spaces are no attributes.
pub fn parse<S: Sink + ?Sized>(body: &[u8], limits: &Limits, scratch: &mut Scratch, sink: &mut S) -> Outcome {
    if body.is_empty() {
        return Outcome::default();
    }
    scratch.text.clear();
    let latin = false;
    let mut reader = Reader { body, at: 0, latin, limits, scratch, sink: Counted::new(sink, limits) };
    let mut error = reader.document().err();
    let Reader { scratch, mut sink, .. } = reader;
    if !scratch.text.is_empty() {
        let given = sink.give(|sink| sink.xml_text(&scratch.text));
        error = error.or_else(|| given.err());
    }
    Outcome { error, ..Outcome::default() }
}

/// Attributes that one element may have.
const MAX_ATTRIBUTES: usize = 256;

struct Reader<'a, S: ?Sized> {
    body: &'a [u8],
    at: usize,
    /// The body is Latin-1 and has to become UTF-8.
    latin: bool,
    limits: &'a Limits,
    scratch: &'a mut Scratch,
    sink: Counted<'a, S>,
}

impl<S: Sink + ?Sized> Reader<'_, S> {
    fn document(&mut self) -> Result<(), Error> {
        self.encoding()?;
        self.misc()?;
        if !self.rest().starts_with(b"<") {
            return Err(self.here("something else where the first element has to begin"));
        }
        self.element()?;
        self.misc()?;
        match self.rest() {
            [] => Ok(()),
            _ => Err(self.here("text after the document")),
        }
    }

    /// Checks the encoding before anything is believed, and skips the declaration.
    fn encoding(&mut self) -> Result<(), Error> {
        if self.rest().starts_with(b"\xef\xbb\xbf") {
            self.at = 3;
        }
        if self.rest().starts_with(b"<?xml") && self.rest().get(5).is_some_and(|b| is_space(*b)) {
            let end = self.find(b"?>")?;
            let Some(declared) = encoding_of(&self.body[self.at + 5..end]) else {
                return Err(self.here("a declaration that is not one"));
            };
            self.latin = match declared {
                None => false,
                Some(name)
                    if name.eq_ignore_ascii_case(b"utf-8") || name.eq_ignore_ascii_case(b"us-ascii") =>
                {
                    false
                }
                Some(name) if name.eq_ignore_ascii_case(b"iso-8859-1") => true,
                Some(_) => return Err(self.here("an encoding that is not inspected")),
            };
            self.at = end + 2;
        }
        if self.latin {
            return Ok(());
        }
        match std::str::from_utf8(self.body) {
            Ok(_) => Ok(()),
            // The end of the body cuts a character.
            Err(error) if error.error_len().is_none() => Ok(()),
            Err(error) => Err(Error::Malformed { at: error.valid_up_to(), what: "bytes that are not UTF-8" }),
        }
    }

    /// White space, comments and instructions outside of the document's element.
    fn misc(&mut self) -> Result<(), Error> {
        loop {
            self.space();
            match self.rest() {
                [b'<', b'!', b'-', ..] => self.comment()?,
                [b'<', b'?', ..] => self.instruction()?,
                [b'<', b'!', ..] => return Err(self.here("a document type, which is not read")),
                _ => return Ok(()),
            }
        }
    }

    /// The document's element, with all it holds.
    fn element(&mut self) -> Result<(), Error> {
        let mut open = std::mem::take(&mut self.scratch.lines);
        open.clear();
        let result = self.content(&mut open);
        self.scratch.lines = open;
        result
    }

    fn content(&mut self, open: &mut Vec<Range<usize>>) -> Result<(), Error> {
        loop {
            match self.rest() {
                [b'<', b'/', ..] => {
                    self.at += 2;
                    let name = self.name()?;
                    let matching =
                        open.pop().is_some_and(|start| self.body[start] == self.body[name.clone()]);
                    if !matching {
                        return Err(self.here("an end tag that does not match"));
                    }
                    self.space();
                    self.expect(b">")?;
                }
                [b'<', b'!', b'-', ..] => self.comment()?,
                [b'<', b'!', ..] => self.cdata()?,
                [b'<', b'?', ..] => self.instruction()?,
                [b'<', ..] => {
                    self.at += 1;
                    let name = self.name()?;
                    let empty = self.attributes()?;
                    if !empty {
                        if open.len() >= self.limits.depth {
                            return Err(Error::TooDeep);
                        }
                        open.push(name);
                    }
                }
                [] => return Err(Error::Incomplete),
                _ => self.text()?,
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// The attributes of a start tag and its end: whether the element is empty.
    fn attributes(&mut self) -> Result<bool, Error> {
        let mut names: Vec<Range<usize>> = Vec::new();
        loop {
            let spaced = self.space() > 0;
            match self.rest() {
                [] => return Err(Error::Incomplete),
                [b'>', ..] => {
                    self.at += 1;
                    return Ok(false);
                }
                [b'/', ..] => {
                    self.at += 1;
                    self.expect(b">")?;
                    return Ok(true);
                }
                _ if !spaced => return Err(self.here("no space before an attribute")),
                _ => {}
            }
            let name = self.name()?;
            if names.iter().any(|known| self.body[known.clone()] == self.body[name.clone()]) {
                return Err(self.here("an attribute given twice"));
            }
            if names.len() >= MAX_ATTRIBUTES {
                return Err(Error::TooMany);
            }
            self.space();
            self.expect(b"=")?;
            self.space();
            let value = self.attribute_value();
            let name_space =
                matches!(&self.body[name.clone()], b"xmlns" | [b'x', b'm', b'l', b'n', b's', b':', ..]);
            names.push(name);
            // What the end of the body cuts is handed on as far as it goes.
            if !name_space && matches!(value, Ok(()) | Err(Error::Incomplete)) {
                let value = &self.scratch.value;
                self.sink.give(|sink| sink.xml_attribute(value))?;
            }
            value?;
        }
    }

    /// Reads a quoted value into `scratch.value`.
    fn attribute_value(&mut self) -> Result<(), Error> {
        self.scratch.value.clear();
        let quote = match self.rest() {
            [] => return Err(Error::Incomplete),
            [quote @ (b'"' | b'\''), ..] => *quote,
            _ => return Err(self.here("an attribute without quotes")),
        };
        self.at += 1;
        loop {
            let run = memchr3(quote, b'&', b'<', self.rest()).unwrap_or_else(|| self.rest().len());
            let start = self.scratch.value.len();
            self.copy(run, false)?;
            for byte in &mut self.scratch.value[start..] {
                if is_space(*byte) {
                    *byte = b' ';
                }
            }
            match self.rest() {
                [] => return Err(Error::Incomplete),
                [b'&', ..] => self.reference(false)?,
                [b'<', ..] => return Err(self.here("a `<` in an attribute")),
                _ => {
                    self.at += 1;
                    return Ok(());
                }
            }
        }
    }

    fn text(&mut self) -> Result<(), Error> {
        loop {
            let run = memchr::memchr2(b'<', b'&', self.rest()).unwrap_or_else(|| self.rest().len());
            if let Some(end) = memmem::find(&self.rest()[..run], b"]]>") {
                self.at += end;
                return Err(self.here("the end of a character section that never began"));
            }
            self.copy(run, true)?;
            match self.rest() {
                [b'&', ..] => self.reference(true)?,
                _ => return Ok(()),
            }
        }
    }

    fn cdata(&mut self) -> Result<(), Error> {
        self.expect(b"<![CDATA[")?;
        let end = memmem::find(self.rest(), b"]]>");
        self.copy(end.unwrap_or_else(|| self.rest().len()), true)?;
        self.expect(b"]]>")
    }

    fn comment(&mut self) -> Result<(), Error> {
        self.expect(b"<!--")?;
        self.at = self.find(b"--")?;
        self.expect(b"-->")
    }

    fn instruction(&mut self) -> Result<(), Error> {
        self.at += 2;
        let target = self.name()?;
        if self.body[target].eq_ignore_ascii_case(b"xml") {
            return Err(self.here("a declaration that is not at the beginning"));
        }
        if !matches!(self.rest(), [] | [b'?'] | [b'?', b'>', ..]) && self.space() == 0 {
            return Err(self.here("an instruction without a space"));
        }
        self.at = self.find(b"?>")? + 2;
        Ok(())
    }

    /// One of the five entities, or a character by number.
    fn reference(&mut self, to_text: bool) -> Result<(), Error> {
        let window = &self.rest()[..self.rest().len().min(12)];
        let Some(end) = memchr(b';', window) else {
            let cut =
                window.len() < 12 && window[1..].iter().all(|b| b.is_ascii_alphanumeric() || *b == b'#');
            return Err(if cut { Error::Incomplete } else { self.here("a reference that does not end") });
        };
        let character = match &window[1..end] {
            b"lt" => Some('<'),
            b"gt" => Some('>'),
            b"amp" => Some('&'),
            b"quot" => Some('"'),
            b"apos" => Some('\''),
            [b'#', b'x', digits @ ..] => number(digits, 16),
            [b'#', digits @ ..] => number(digits, 10),
            _ => None,
        };
        let Some(character) = character else {
            return Err(self.here("an unknown entity"));
        };
        self.at += end + 1;
        let out = if to_text { &mut self.scratch.text } else { &mut self.scratch.value };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// Copies `length` bytes: line breaks made one, characters that XML does not have refused.
    fn copy(&mut self, length: usize, to_text: bool) -> Result<(), Error> {
        let raw = &self.body[self.at..self.at + length];
        let wrong = raw.iter().position(|b| matches!(b, 0..=8 | 0xb | 0xc | 0xe..=0x1f));
        // U+FFFE and U+FFFF.
        let wrong = wrong.or_else(|| match self.latin {
            true => None,
            false => {
                memmem::find_iter(raw, b"\xef\xbf").find(|at| matches!(raw.get(at + 2), Some(0xbe | 0xbf)))
            }
        });
        if let Some(wrong) = wrong {
            return Err(Error::Malformed { at: self.at + wrong, what: "a character that XML does not have" });
        }
        let out = if to_text { &mut self.scratch.text } else { &mut self.scratch.value };
        if !self.latin && memchr(b'\r', raw).is_none() {
            out.extend_from_slice(raw);
        } else {
            for (nth, byte) in raw.iter().enumerate() {
                match byte {
                    b'\r' if raw.get(nth + 1) == Some(&b'\n') => {}
                    b'\r' => out.push(b'\n'),
                    0x80.. if self.latin => {
                        out.extend_from_slice(char::from(*byte).encode_utf8(&mut [0; 2]).as_bytes())
                    }
                    plain => out.push(*plain),
                }
            }
        }
        self.at += length;
        Ok(())
    }

    fn name(&mut self) -> Result<Range<usize>, Error> {
        let rest = self.rest();
        let starts = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b':' | 0x80..);
        match rest.first() {
            None => return Err(Error::Incomplete),
            Some(first) if !starts(first) => {
                return Err(self.here("something else where a name has to stand"));
            }
            Some(_) => {}
        }
        let part = |b: &&u8| starts(b) || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let length = rest.iter().take_while(part).count();
        if length > self.limits.line {
            return Err(Error::TooLong);
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), Error> {
        let rest = self.rest();
        if rest.starts_with(text) {
            self.at += text.len();
            Ok(())
        } else if text.starts_with(rest) {
            Err(Error::Incomplete)
        } else {
            Err(self.here("markup that is not XML"))
        }
    }

    fn find(&self, text: &[u8]) -> Result<usize, Error> {
        memmem::find(self.rest(), text).map(|found| self.at + found).ok_or(Error::Incomplete)
    }

    fn space(&mut self) -> usize {
        let length = self.rest().iter().take_while(|b| is_space(**b)).count();
        self.at += length;
        length
    }

    fn rest(&self) -> &[u8] {
        &self.body[self.at..]
    }

    fn here(&self, what: &'static str) -> Error {
        Error::Malformed { at: self.at, what }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What an XML declaration calls the encoding, if anything; `None` when it is not well-formed.
fn encoding_of(declaration: &[u8]) -> Option<Option<&[u8]>> {
    let (version, rest) = pseudo_attribute(declaration, b"version")??;
    if !version.starts_with(b"1.") || !version.get(2..)?.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (encoding, rest) = match pseudo_attribute(rest, b"encoding")? {
        Some((encoding, rest)) => (Some(encoding), rest),
        None => (None, rest),
    };
    let rest = match pseudo_attribute(rest, b"standalone")? {
        Some((b"yes" | b"no", rest)) => rest,
        Some(_) => return None,
        None => rest,
    };
    rest.iter().all(|b| is_space(*b)).then_some(encoding)
}

/// The value of the next word of a declaration when it is `name`, and what follows it; `None` when it is malformed.
fn pseudo_attribute<'a>(text: &'a [u8], name: &[u8]) -> Option<Option<(&'a [u8], &'a [u8])>> {
    let spaces = text.iter().take_while(|b| is_space(**b)).count();
    let Some(rest) = text[spaces..].strip_prefix(name).filter(|_| spaces > 0) else {
        return Some(None);
    };
    let (quote, rest) = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start().split_first()?;
    if !matches!(quote, b'"' | b'\'') {
        return None;
    }
    let end = memchr(*quote, rest)?;
    Some(Some((&rest[..end], &rest[end + 1..])))
}

fn number(digits: &[u8], radix: u32) -> Option<char> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    let allowed = matches!(number, 9 | 10 | 13 | 0x20..=0xd7ff | 0xe000..=0xfffd | 0x10000..);
    char::from_u32(number).filter(|_| allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Kept;
    use super::*;

    fn parsed(body: &[u8]) -> (Vec<String>, Option<Error>) {
        let mut kept = Kept::default();
        let limits = Limits { depth: 20, items: 100, ..Limits::default() };
        let outcome = parse(body, &limits, &mut Scratch::default(), &mut kept);
        (kept.0, outcome.error)
    }

    #[test]
    fn text_and_attributes() {
        let body = b"<?xml version='1.0'?>\n<!-- c -->\n<a xmlns=\"u\" x='1 &lt;\n&#x27;' xmlns:n=\"v\">t&amp;<n:b y=\"&quot;\"/><![CDATA[<i>&amp;]]><!--x--><?p q?>\r\n&#233;</a>\n<?end?>";
        let expected = ["attribute 1 < \\'", "attribute \\\"", "text t&<i>&amp;\\n\\xc3\\xa9"];
        assert_eq!(parsed(body), (expected.map(str::to_owned).to_vec(), None));
        assert_eq!(parsed(b"<a/>"), (vec![], None));
        assert_eq!(parsed(b""), (vec![], None));
    }

    #[test]
    fn latin_1_is_read_as_what_it_means() {
        let body = b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a b='\xe9'>\xff</a>";
        assert_eq!(parsed(body), (vec!["attribute \\xc3\\xa9".into(), "text \\xc3\\xbf".into()], None));
    }

    #[test]
    fn what_another_parser_might_read_otherwise_is_refused() {
        let cases: [&[u8]; 36] = [
            b"<?xm?xml version='1.0'?><a/>",
            b"<?xml?><a/>",
            b"<?xml versioN='1.0'?><a/>",
            b"<?xml version='1.0' encoding=utf-8?><a/>",
            b"<?xml version='1.0'encoding='utf-8'?><a/>",
            b"<?xml version='1.0' x='y'?><a/>",
            b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            b"<a>&b;</a>",
            b"<a>& </a>",
            b"<a>&#0;</a>",
            b"<a>&#xd800;</a>",
            b"<a>&#x+41;</a>",
            b"<a b=c/>",
            b"<a b='1' b='2'/>",
            b"<a b='1'c='2'/>",
            b"<a b='<'/>",
            b"<a></b>",
            b"<a/><b/>",
            b"<a/>x",
            b"x<a/>",
            b"<a>]]></a>",
            b"<a><!-- -- --></a>",
            b"<a><?xml version='1.0'?></a>",
            b"<1/>",
            b"<a>\x01</a>",
            b"<a>\xff</a>",
            b"<a>\xef\xbf\xbf</a>",
            b"<?xml version='1.0' encoding='utf-7'?><a/>",
            b"\xff\xfe<\0a\0/\0>\0",
            b"<a><!ELEMENT b></a>",
            b"< a/>",
            b"<a/ >",
            b"<a b/>",
            b"</a>",
            b"<a>&a very long one;</a>",
            b"{}",
        ];
        for body in cases {
            let (_, error) = parsed(body);
            assert!(matches!(error, Some(Error::Malformed { .. })), "{}: {error:?}", body.escape_ascii());
        }
    }

    #[test]
    fn the_head_of_a_cut_document_is_handed_on() {
        let body = b"<a b='union'>select<c/><!--d--><![CDATA[x]]>&lt;y\xc3\xa9<?z ?></a>";
        for end in 1..body.len() {
            let (items, error) = parsed(&body[..end]);
            assert_eq!(error, Some(Error::Incomplete), "{}", body[..end].escape_ascii());
            assert!(end < 12 || items[0].starts_with("attribute u"), "{end} {items:?}");
            assert!(end < 19 || items[1].starts_with("text select"), "{end} {items:?}");
        }
    }

    #[test]
    fn depth_and_counts_are_bounded() {
        assert_eq!(parsed("<a>".repeat(21).as_bytes()).1, Some(Error::TooDeep));
        assert_eq!(parsed(format!("<a>{}</a>", "<b c=''/>".repeat(101)).as_bytes()).1, Some(Error::TooMany));
        let attributes: String = (0..300).map(|n| format!(" xmlns:a{n}=''")).collect();
        assert_eq!(parsed(format!("<a{attributes}/>").as_bytes()).1, Some(Error::TooMany));
        assert_eq!(parsed(format!("<{}/>", "a".repeat(5_000)).as_bytes()).1, Some(Error::TooLong));
    }

    fn escaped(text: &str) -> String {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&#62;")
            .replace('"', "&quot;")
            .replace('\'', "&#x27;")
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(parts in prop::collection::vec(("[ -~\u{a0}-\u{fffd}]{0,9}", "[ -~\u{10000}-\u{10ffff}]{0,9}"), 0..9), nested: bool) {
            let mut body = String::from("<r>");
            for (attribute, text) in &parts {
                body += &format!("<e a=\"{}\">{}", escaped(attribute), escaped(text));
                if !nested {
                    body += "</e>";
                }
            }
            body += &"</e>".repeat(if nested { parts.len() } else { 0 });
            body += "</r>";
            let mut expected: Vec<_> = parts.iter().map(|(a, _)| format!("attribute {}", a.as_bytes().escape_ascii())).collect();
            let text: String = parts.iter().map(|(_, t)| t.as_str()).collect();
            if !text.is_empty() {
                expected.push(format!("text {}", text.as_bytes().escape_ascii()));
            }
            prop_assert_eq!(parsed(body.as_bytes()), (expected, None));
        }

        #[test]
        fn likely_markup_ends(pieces in prop::collection::vec("<a>|</a>|<b c='|'|/>|<!--|-->|<!\\[CDATA\\[|\\]\\]>|&lt;|&#|x|<\\?|\\?>| ", 0..20)) {
            parsed(pieces.concat().as_bytes());
        }

        #[test]
        fn any_bytes_end(body: Vec<u8>) {
            parsed(&body);
            parsed(&[b"<?xml version='1.0' encoding='iso-8859-1'?><a>", body.as_slice()].concat());
        }
    }
}
