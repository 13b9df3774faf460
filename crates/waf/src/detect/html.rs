//! HTML's tokens, as old and new browsers would read them.

use memchr::{memchr, memmem};

/// Where in a page a value may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Between elements.
    Text,
    /// In an element, where an attribute may begin.
    Attributes,
    /// In an attribute's value with this quote.
    Value(u8),
}

/// A part of the markup with its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Text,
    /// The name of an element that begins.
    Element(&'a [u8]),
    /// The end of a tag.
    Close,
    Attribute(&'a [u8]),
    Value(&'a [u8]),
    Comment(&'a [u8]),
    Doctype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    TagOpen,
    EndTagOpen,
    TagName,
    BeforeAttribute,
    AttributeName,
    AfterAttribute,
    BeforeValue,
    QuotedValue(u8),
    AfterQuotedValue,
    BareValue,
    SelfClosing,
    Closing,
    MarkupDeclaration,
    BogusComment,
    End,
}

/// Reads markup token by token.
#[derive(Debug)]
pub(super) struct Markup<'a> {
    text: &'a [u8],
    at: usize,
    state: State,
    /// Within `</…`.
    is_end_tag: bool,
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0)
}

impl<'a> Markup<'a> {
    pub(super) fn new(text: &'a [u8], place: Place) -> Self {
        let state = match place {
            Place::Text => State::Text,
            Place::Attributes => State::BeforeAttribute,
            Place::Value(quote) => State::QuotedValue(quote),
        };
        Self { text, at: 0, state, is_end_tag: false }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_white(&mut self) -> Option<u8> {
        let rest = self.rest();
        self.at += rest.iter().position(|byte| !is_white(*byte)).unwrap_or(rest.len());
        self.text.get(self.at).copied()
    }

    /// Reads up to `end`, passes over `skip` more, and goes on in `state`.
    fn cut(&mut self, end: usize, skip: usize, state: State) -> &'a [u8] {
        let part = &self.text[self.at..end];
        self.at = end + skip;
        self.state = state;
        part
    }

    /// Reads to the end of the text.
    fn cut_all(&mut self) -> &'a [u8] {
        self.cut(self.text.len(), 0, State::End)
    }

    /// What comes up to the first `sign`, which is passed over; all if there is none.
    fn cut_before(&mut self, sign: &[u8]) -> &'a [u8] {
        match memmem::find(self.rest(), sign) {
            Some(found) => self.cut(self.at + found, sign.len(), State::Text),
            None => self.cut_all(),
        }
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        // Each turn either answers or moves on in the text.
        loop {
            match self.state {
                State::End => return None,
                State::Text => {
                    let found = memchr(b'<', self.rest());
                    let text = match found {
                        Some(found) => self.cut(self.at + found, 1, State::TagOpen),
                        None => self.cut_all(),
                    };
                    if !text.is_empty() {
                        return Some(Token::Text);
                    }
                }
                State::TagOpen => {
                    if let Some(token) = self.tag_open()? {
                        return Some(token);
                    }
                }
                State::EndTagOpen => match *self.rest().first()? {
                    b'>' => self.state = State::Text,
                    byte if byte.is_ascii_alphabetic() => self.state = State::TagName,
                    _ => {
                        self.is_end_tag = false;
                        self.state = State::BogusComment;
                    }
                },
                State::TagName => return Some(self.tag_name()),
                State::BeforeAttribute => match self.skip_white()? {
                    b'/' => {
                        self.at += 1;
                        self.state = State::SelfClosing;
                    }
                    b'>' => {
                        self.at += 1;
                        self.state = State::Text;
                        return Some(Token::Close);
                    }
                    _ => self.state = State::AttributeName,
                },
                State::AttributeName => return Some(self.attribute_name()),
                State::AfterAttribute => match self.skip_white()? {
                    b'/' => {
                        self.at += 1;
                        self.state = State::SelfClosing;
                    }
                    b'=' => {
                        self.at += 1;
                        self.state = State::BeforeValue;
                    }
                    b'>' => self.state = State::Closing,
                    _ => self.state = State::AttributeName,
                },
                State::BeforeValue => match self.skip_white()? {
                    quote @ (b'"' | b'\'' | b'`') => self.state = State::QuotedValue(quote),
                    _ => self.state = State::BareValue,
                },
                State::QuotedValue(quote) => {
                    // At the very beginning the quote lies before the text.
                    self.at += usize::from(self.at > 0);
                    let value = match memchr(quote, self.rest()) {
                        Some(found) => self.cut(self.at + found, 1, State::AfterQuotedValue),
                        None => self.cut_all(),
                    };
                    return Some(Token::Value(value));
                }
                State::AfterQuotedValue => match *self.rest().first()? {
                    b'/' => {
                        self.at += 1;
                        self.state = State::SelfClosing;
                    }
                    b'>' => {
                        self.at += 1;
                        self.state = State::Text;
                        return Some(Token::Close);
                    }
                    _ => self.state = State::BeforeAttribute,
                },
                State::BareValue => {
                    let end = self.rest().iter().position(|byte| is_white(*byte) || *byte == b'>');
                    let value = match end.map(|end| self.at + end) {
                        Some(end) if self.text[end] == b'>' => self.cut(end, 0, State::Closing),
                        Some(end) => self.cut(end, 1, State::BeforeAttribute),
                        None => self.cut_all(),
                    };
                    return Some(Token::Value(value));
                }
                State::SelfClosing => {
                    if *self.rest().first()? == b'>' {
                        self.at += 1;
                        self.state = State::Text;
                        return Some(Token::Close);
                    }
                    self.state = State::BeforeAttribute;
                }
                State::Closing => {
                    self.is_end_tag = false;
                    self.at += 1;
                    self.state = if self.at < self.text.len() { State::Text } else { State::End };
                    return Some(Token::Close);
                }
                State::MarkupDeclaration => return Some(self.markup_declaration()),
                State::BogusComment => return Some(Token::Comment(self.cut_before(b">"))),
            }
        }
    }

    /// After `<`. The outer `None` is the end of the text, the inner one: go on.
    fn tag_open(&mut self) -> Option<Option<Token<'a>>> {
        let (skip, state) = match *self.rest().first()? {
            b'!' => (1, State::MarkupDeclaration),
            b'/' => {
                self.is_end_tag = true;
                (1, State::EndTagOpen)
            }
            b'?' => (1, State::BogusComment),
            b'%' => {
                // A comment for Internet Explorer up to 9.
                self.at += 1;
                return Some(Some(Token::Comment(self.cut_before(b"%>"))));
            }
            // Internet Explorer reads over null bytes.
            0 => (0, State::TagName),
            byte if byte.is_ascii_alphabetic() => (0, State::TagName),
            _ => {
                self.state = State::Text;
                return Some(Some(Token::Text));
            }
        };
        self.at += skip;
        self.state = state;
        Some(None)
    }

    fn tag_name(&mut self) -> Token<'a> {
        let ends = |byte: &u8| (is_white(*byte) && *byte != 0) || matches!(byte, b'/' | b'>');
        let Some(end) = self.rest().iter().position(ends).map(|end| self.at + end) else {
            return Token::Element(self.cut_all());
        };
        match self.text[end] {
            b'/' => Token::Element(self.cut(end, 1, State::SelfClosing)),
            b'>' if self.is_end_tag => {
                self.is_end_tag = false;
                self.cut(end, 1, State::Text);
                Token::Close
            }
            b'>' => Token::Element(self.cut(end, 0, State::Closing)),
            _ => Token::Element(self.cut(end, 1, State::BeforeAttribute)),
        }
    }

    fn attribute_name(&mut self) -> Token<'a> {
        // Whatever it begins with is part of it.
        let ends = |byte: &u8| is_white(*byte) || matches!(byte, b'/' | b'=' | b'>');
        let tail = self.text.get(self.at + 1..).unwrap_or_default();
        let Some(end) = tail.iter().position(ends).map(|end| self.at + 1 + end) else {
            return Token::Attribute(self.cut_all());
        };
        Token::Attribute(match self.text[end] {
            b'/' => self.cut(end, 1, State::SelfClosing),
            b'=' => self.cut(end, 1, State::BeforeValue),
            b'>' => self.cut(end, 0, State::Closing),
            _ => self.cut(end, 1, State::AfterAttribute),
        })
    }

    /// After `<!`.
    fn markup_declaration(&mut self) -> Token<'a> {
        let rest = self.rest();
        if rest.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"doctype")) {
            self.cut_before(b">");
            Token::Doctype
        } else if rest.starts_with(b"[CDATA[") {
            self.at += 7;
            self.cut_before(b"]]>");
            Token::Text
        } else if rest.starts_with(b"--") {
            self.at += 2;
            Token::Comment(self.comment())
        } else {
            Token::Comment(self.cut_before(b">"))
        }
    }

    /// Up to `-->` or `-!>`, between whose first two bytes null bytes may stand.
    fn comment(&mut self) -> &'a [u8] {
        let rest = self.rest();
        for found in memchr::memchr_iter(b'-', rest) {
            let after = &rest[found + 1..];
            let nulls = after.iter().take_while(|byte| **byte == 0).count();
            match &after[nulls..] {
                [b'-' | b'!', b'>', ..] => return self.cut(self.at + found, nulls + 3, State::Text),
                // From here on only null bytes follow.
                [] => break,
                _ => {}
            }
        }
        self.cut_all()
    }
}
