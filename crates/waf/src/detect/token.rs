//! SQL's tokens, as all databases at once would read them.

use memchr::{memchr, memmem};

use super::words::lookup;

/// What a token is. Its letter is what fingerprints are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// No token.
    #[default]
    None,
    Keyword,
    Union,
    Group,
    Expression,
    SqlType,
    Function,
    Bareword,
    Number,
    Variable,
    String,
    Operator,
    LogicOperator,
    Comment,
    Collate,
    LeftParenthesis,
    RightParenthesis,
    LeftBrace,
    RightBrace,
    Dot,
    Comma,
    Colon,
    Semicolon,
    /// Transact-SQL's statements.
    Tsql,
    Unknown,
    /// What cannot be read, and is an attack for that alone.
    Evil,
    Backslash,
}

const LETTERS: [(u8, Kind); 26] = [
    (b'k', Kind::Keyword),
    (b'U', Kind::Union),
    (b'B', Kind::Group),
    (b'E', Kind::Expression),
    (b't', Kind::SqlType),
    (b'f', Kind::Function),
    (b'n', Kind::Bareword),
    (b'1', Kind::Number),
    (b'v', Kind::Variable),
    (b's', Kind::String),
    (b'o', Kind::Operator),
    (b'&', Kind::LogicOperator),
    (b'c', Kind::Comment),
    (b'A', Kind::Collate),
    (b'(', Kind::LeftParenthesis),
    (b')', Kind::RightParenthesis),
    (b'{', Kind::LeftBrace),
    (b'}', Kind::RightBrace),
    (b'.', Kind::Dot),
    (b',', Kind::Comma),
    (b':', Kind::Colon),
    (b';', Kind::Semicolon),
    (b'T', Kind::Tsql),
    (b'?', Kind::Unknown),
    (b'X', Kind::Evil),
    (b'\\', Kind::Backslash),
];

impl Kind {
    pub(super) fn of(letter: u8) -> Self {
        LETTERS.iter().find(|(known, _)| *known == letter).map_or(Self::None, |(_, kind)| *kind)
    }

    pub(super) fn letter(self) -> u8 {
        LETTERS.iter().find(|(_, kind)| *kind == self).map_or(0, |(letter, _)| *letter)
    }
}

/// Bytes of a token's text that are kept.
pub(super) const MAX_TEXT: usize = 31;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Which quote a string began with; 0 if that lies before the value.
    pub(super) open: u8,
    /// Which quote it ended with; 0 if it did not.
    pub(super) close: u8,
    text: [u8; MAX_TEXT],
    len: u8,
}

impl Token {
    pub(super) fn new(kind: Kind, text: &[u8]) -> Self {
        let mut token = Self { kind, ..Self::default() };
        let len = text.len().min(MAX_TEXT);
        token.text[..len].copy_from_slice(&text[..len]);
        token.len = len as u8;
        token
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.text().eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn first(&self) -> u8 {
        self.text[0]
    }
}

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    /// The quote of the string that the value may stand in.
    pub(super) quote: Option<u8>,
    /// MySQL's comments, else those of standard SQL.
    pub(super) mysql: bool,
}

/// Reads a value token by token.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    context: Context,
    /// How many there were.
    pub(super) count: usize,
    /// Something was read that MySQL reads otherwise.
    pub(super) ambiguous: bool,
}

/// White space of databases: with the null byte, as Oracle has it, and the no-break space of Latin-1.
fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d | 0xa0 | 0)
}

fn ends_word(byte: u8) -> bool {
    is_white(byte)
        || matches!(
            byte,
            b'[' | b']'
                | b'{'
                | b'}'
                | b'<'
                | b'>'
                | b':'
                | b'\\'
                | b'?'
                | b'='
                | b'@'
                | b'!'
                | b'#'
                | b'~'
                | b'+'
                | b'-'
                | b'*'
                | b'/'
                | b'&'
                | b'|'
                | b'^'
                | b'%'
                | b'('
                | b')'
                | b','
                | b'\''
                | b';'
                | b'"'
        )
}

fn ends_variable(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | 0x09
            ..=0x0d
                | 0
                | b'<'
                | b'>'
                | b':'
                | b'\\'
                | b'?'
                | b'='
                | b'@'
                | b'!'
                | b'#'
                | b'~'
                | b'+'
                | b'-'
                | b'*'
                | b'/'
                | b'&'
                | b'|'
                | b'^'
                | b'%'
                | b'('
                | b')'
                | b','
                | b'\''
                | b';'
                | b'`'
                | b'"'
    )
}

/// How many bytes from the beginning are of a class; null bytes are of each.
fn span(text: &[u8], class: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| *byte != 0 && !class(*byte)).unwrap_or(text.len())
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8], context: Context) -> Self {
        Self { text, at: 0, context, count: 0, ambiguous: false }
    }

    /// The next token; its kind is `None` at the end.
    pub(super) fn next(&mut self) -> Token {
        let mut token = Token::default();
        if let (0, Some(quote), false) = (self.at, self.context.quote, self.text.is_empty()) {
            token = self.string(0, 0, quote);
        }
        while token.kind == Kind::None && self.at < self.text.len() {
            token = self.read();
        }
        self.count += usize::from(token.kind != Kind::None);
        token
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// A token of the next `len` bytes.
    fn take(&mut self, kind: Kind, len: usize) -> Token {
        let from = self.at;
        self.at = (from + len).min(self.text.len());
        Token::new(kind, &self.text[from..self.at])
    }

    /// Whatever begins here; none for white space and for what databases read over.
    fn read(&mut self) -> Token {
        let byte = self.text[self.at];
        match byte {
            0..=b' ' | 0x7f | 0xa0 => {
                self.at += 1;
                Token::default()
            }
            b'\'' | b'"' => self.string(self.at, 1, byte),
            b'#' => {
                self.ambiguous = true;
                if self.context.mysql { self.line_comment() } else { self.take(Kind::Operator, 1) }
            }
            b'$' => self.money(),
            b'%' | b'^' | b'+' | b'~' => self.take(Kind::Operator, 1),
            b'!' | b'&' | b'*' | b':' | b'<' | b'=' | b'>' | b'|' => self.operator(),
            b'(' | b')' | b',' | b';' | b'{' | b'}' => self.take(Kind::of(byte), 1),
            b'-' => self.dash(),
            b'.' | b'0'..=b'9' => self.number(),
            b'/' => self.slash(),
            b'?' | b']' => self.take(Kind::Unknown, 1),
            b'@' => self.variable(),
            b'[' => self.bracket(),
            b'\\' if self.peek(1) == Some(b'N') => self.take(Kind::Number, 2),
            b'\\' => self.take(Kind::Backslash, 1),
            b'`' => self.tick(),
            b'b' | b'B' => self.literal(|byte| matches!(byte, b'0' | b'1')),
            b'x' | b'X' => self.literal(|byte| byte.is_ascii_hexdigit()),
            b'e' | b'E' => self.prefixed_string(),
            b'n' | b'N' if self.peek(1) == Some(b'\'') && self.peek(2).is_some() => self.prefixed_string(),
            b'n' | b'N' => self.oracle_string(1),
            b'q' | b'Q' => self.oracle_string(0),
            b'u' | b'U' if self.peek(1) == Some(b'&') && self.peek(2) == Some(b'\'') => {
                let mut token = self.string(self.at + 2, 1, b'\'');
                token.open = b'u';
                if token.close == b'\'' {
                    token.close = b'u';
                }
                token
            }
            _ => self.word(),
        }
    }

    /// A string that begins at `from`, where `skip` bytes are its opening.
    fn string(&mut self, from: usize, skip: usize, quote: u8) -> Token {
        let start = from + skip;
        let rest = &self.text[start..];
        let mut at = 0;
        let end = loop {
            let Some(found) = rest.get(at..).and_then(|rest| memchr(quote, rest)) else { break None };
            at += found;
            let backslashes = rest[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
            if backslashes % 2 == 1 {
                at += 1;
            } else if rest.get(at + 1) == Some(&quote) {
                at += 2;
            } else {
                break Some(at);
            }
        };
        let mut token = Token::new(Kind::String, &rest[..end.unwrap_or(rest.len())]);
        token.open = if skip > 0 { quote } else { 0 };
        token.close = if end.is_some() { quote } else { 0 };
        self.at = end.map_or(self.text.len(), |end| start + end + 1);
        token
    }

    /// MySQL's `N'…'`, PostgreSQL's `E'…'`.
    fn prefixed_string(&mut self) -> Token {
        if self.peek(1) == Some(b'\'') && self.peek(2).is_some() {
            self.string(self.at, 2, b'\'')
        } else {
            self.word()
        }
    }

    /// Oracle's `q'[…]'`, after `skip` bytes.
    fn oracle_string(&mut self, skip: usize) -> Token {
        let (Some(b'q' | b'Q'), Some(b'\''), Some(opening)) =
            (self.peek(skip), self.peek(skip + 1), self.peek(skip + 2))
        else {
            return self.word();
        };
        let closing = match opening {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            33..=127 => opening,
            _ => return self.word(),
        };
        self.delimited(skip + 3, &[closing, b'\''], b'q')
    }

    /// A string that begins after `skip` bytes and ends with `end`.
    fn delimited(&mut self, skip: usize, end: &[u8], mark: u8) -> Token {
        let rest = &self.text[self.at + skip..];
        let found = memmem::find(rest, end);
        let mut token = Token::new(Kind::String, &rest[..found.unwrap_or(rest.len())]);
        token.open = mark;
        token.close = if found.is_some() { mark } else { 0 };
        self.at = found.map_or(self.text.len(), |found| self.at + skip + found + end.len());
        token
    }

    /// `b'01'` and `x'0f'`.
    fn literal(&mut self, class: impl Fn(u8) -> bool) -> Token {
        if self.peek(1) != Some(b'\'') || self.peek(2).is_none() {
            return self.word();
        }
        let len = span(&self.text[self.at + 2..], class);
        if self.peek(2 + len) == Some(b'\'') { self.take(Kind::Number, len + 3) } else { self.word() }
    }

    /// SQL Server's `[name]`.
    fn bracket(&mut self) -> Token {
        let rest = &self.text[self.at..];
        self.take(Kind::Bareword, memchr(b']', rest).map_or(rest.len(), |end| end + 1))
    }

    fn word(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|byte| ends_word(*byte)).unwrap_or(rest.len());
        let text = &rest[..len.min(MAX_TEXT)];
        // A keyword may end at a dot or a back tick: SELECT.1, SELECT`column`.
        for (at, byte) in text.iter().enumerate() {
            if matches!(byte, b'.' | b'`')
                && let Some(kind) = lookup(&text[..at])
                && kind != Kind::Bareword
            {
                return self.take(kind, at);
            }
        }
        let kind = if len <= MAX_TEXT { lookup(text) } else { None };
        self.take(kind.unwrap_or(Kind::Bareword), len)
    }

    /// MySQL's quoted names; one that is a function's is a function.
    fn tick(&mut self) -> Token {
        let mut token = self.string(self.at, 1, b'`');
        let function = lookup(token.text()) == Some(Kind::Function);
        token.kind = if function { Kind::Function } else { Kind::Bareword };
        token
    }

    fn variable(&mut self) -> Token {
        self.at += if self.peek(1) == Some(b'@') { 2 } else { 1 };
        let mut token = match self.peek(0) {
            Some(b'`') => self.tick(),
            Some(quote @ (b'\'' | b'"')) => self.string(self.at, 1, quote),
            _ => {
                let rest = &self.text[self.at..];
                let len = rest.iter().position(|byte| ends_variable(*byte)).unwrap_or(rest.len());
                self.take(Kind::Variable, len)
            }
        };
        token.kind = Kind::Variable;
        token
    }

    /// `$1,000.00`, `$$…$$`, `$tag$…$tag$`.
    fn money(&mut self) -> Token {
        let rest = &self.text[self.at + 1..];
        if rest.is_empty() {
            return self.take(Kind::Bareword, 1);
        }
        let digits = span(rest, |byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','));
        if digits == 1 && rest[0] == b'.' {
            return self.word();
        }
        if digits > 0 {
            return self.take(Kind::Number, digits + 1);
        }
        let tag = span(rest, |byte| byte.is_ascii_alphabetic());
        if rest[0] != b'$' && (tag == 0 || rest.get(tag) != Some(&b'$')) {
            return self.take(Kind::Bareword, 1);
        }
        let end = &self.text[self.at..self.at + tag + 2];
        self.delimited(tag + 2, end, b'$')
    }

    fn number(&mut self) -> Token {
        let rest = &self.text[self.at..];
        if rest[0] == b'0' {
            let digits = match rest.get(1) {
                Some(b'x' | b'X') => Some(span(&rest[2..], |byte| byte.is_ascii_hexdigit())),
                Some(b'b' | b'B') => Some(span(&rest[2..], |byte| matches!(byte, b'0' | b'1'))),
                _ => None,
            };
            match digits {
                Some(0) => return self.take(Kind::Bareword, 2),
                Some(digits) => return self.take(Kind::Number, digits + 2),
                None => {}
            }
        }
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut len = digits(0);
        if rest.get(len) == Some(&b'.') {
            len += 1;
            len += digits(len);
            if len == 1 {
                return self.take(Kind::Dot, 1);
            }
        }
        let mut without_exponent = false;
        if matches!(rest.get(len), Some(b'e' | b'E')) {
            len += 1;
            len += usize::from(matches!(rest.get(len), Some(b'+' | b'-')));
            let exponent = digits(len);
            without_exponent = exponent == 0;
            len += exponent;
        }
        // Oracle's suffixes.
        if matches!(rest.get(len), Some(b'd' | b'D' | b'f' | b'F'))
            && rest.get(len + 1).is_none_or(|next| is_white(*next) || matches!(next, b';' | b'u' | b'U'))
        {
            len += 1;
        }
        if without_exponent {
            // MySQL reads over `1.e`, so that `1.e(1)` is `(1)`.
            self.at += len;
            return Token::default();
        }
        self.take(Kind::Number, len)
    }

    fn line_comment(&mut self) -> Token {
        let rest = &self.text[self.at..];
        match memchr(b'\n', rest) {
            Some(end) => {
                let token = self.take(Kind::Comment, end);
                self.at += 1;
                token
            }
            None => self.take(Kind::Comment, rest.len()),
        }
    }

    /// `-- ` and `--` at the end are comments everywhere, `--x` where it is not MySQL.
    fn dash(&mut self) -> Token {
        if self.peek(1) != Some(b'-') {
            return self.take(Kind::Operator, 1);
        }
        match self.peek(2) {
            Some(next) if !is_white(next) => {
                if self.context.mysql {
                    return self.take(Kind::Operator, 1);
                }
                self.ambiguous = true;
                self.line_comment()
            }
            _ => self.line_comment(),
        }
    }

    /// A comment within a comment, which only PostgreSQL nests, and MySQL's `/*!…*/` cannot be read for all at once.
    fn slash(&mut self) -> Token {
        if self.peek(1) != Some(b'*') {
            return self.take(Kind::Operator, 1);
        }
        let inner = &self.text[self.at + 2..];
        let end = memmem::find(inner, b"*/");
        let nested = end.is_some_and(|end| memmem::find(&inner[..end + 1], b"/*").is_some());
        let kind = if nested || inner.first() == Some(&b'!') { Kind::Evil } else { Kind::Comment };
        self.take(kind, end.map_or(inner.len(), |end| end + 2) + 2)
    }

    fn operator(&mut self) -> Token {
        let rest = &self.text[self.at..];
        if rest.starts_with(b"<=>") {
            return self.take(Kind::Operator, 3);
        }
        if let Some(kind) = rest.get(..2).and_then(lookup) {
            return self.take(kind, 2);
        }
        // At the very end a colon is taken for an operator.
        let colon = rest[0] == b':' && rest.len() > 1;
        self.take(if colon { Kind::Colon } else { Kind::Operator }, 1)
    }
}
