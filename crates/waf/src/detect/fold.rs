//! Tokens that mean nothing for what a value does are merged or dropped, until at most five are left.

use super::token::{Context, Kind, MAX_TEXT, Token, Tokens};
use super::words::lookup;

/// Tokens of a fingerprint.
pub(super) const MAX_TOKENS: usize = 5;

/// A value's folded tokens, and what was seen on the way.
#[derive(Debug)]
pub(super) struct Folded {
    tokens: [Token; MAX_TOKENS + 3],
    len: usize,
    /// Tokens before folding.
    pub(super) read: usize,
    /// MySQL would read it otherwise.
    pub(super) ambiguous: bool,
}

impl Folded {
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens[..self.len]
    }
}

fn is_unary(token: &Token) -> bool {
    token.kind == Kind::Operator
        && (matches!(token.text(), b"+" | b"-" | b"!" | b"~" | b"!!") || token.is_word("not"))
}

fn is_arithmetic(token: &Token) -> bool {
    token.kind == Kind::Operator && matches!(token.text(), b"*" | b"/" | b"-" | b"+" | b"%")
}

/// Two words that are one phrase, such as `UNION ALL`.
fn merged(left: &Token, right: &Token) -> Option<Token> {
    let may_begin = |kind| {
        matches!(
            kind,
            Kind::Keyword
                | Kind::Bareword
                | Kind::Operator
                | Kind::Union
                | Kind::Function
                | Kind::Expression
                | Kind::Tsql
                | Kind::SqlType
        )
    };
    if !may_begin(left.kind) || !(may_begin(right.kind) || right.kind == Kind::LogicOperator) {
        return None;
    }
    let (first, second) = (left.text(), right.text());
    let len = first.len() + 1 + second.len();
    if len > MAX_TEXT {
        return None;
    }
    let mut phrase = [b' '; MAX_TEXT];
    phrase[..first.len()].copy_from_slice(first);
    phrase[first.len() + 1..len].copy_from_slice(second);
    let kind = lookup(&phrase[..len])?;
    let mut token = Token::new(kind, &phrase[..len]);
    (token.open, token.close) = (left.open, left.close);
    Some(token)
}

/// Names that are functions when a parenthesis follows.
const CALLED: [&str; 11] = [
    "user_id",
    "user_name",
    "database",
    "password",
    "user",
    "current_user",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

/// What to do after a rule applied.
enum Step {
    /// Look again, from `left`.
    Again(usize),
    /// No rule applied.
    On,
    /// Stop with so many tokens.
    Stop(usize),
}

struct Folder<'a> {
    tokens: [Token; MAX_TOKENS + 3],
    source: Tokens<'a>,
    /// Where the next token goes.
    end: usize,
    more: bool,
    last_comment: Token,
}

/// Reads and folds a value.
pub(super) fn fold(text: &[u8], context: Context) -> Folded {
    let mut folder = Folder {
        tokens: [Token::default(); MAX_TOKENS + 3],
        source: Tokens::new(text, context),
        end: 0,
        more: true,
        last_comment: Token::default(),
    };
    let len = folder.run();
    Folded { tokens: folder.tokens, len, read: folder.source.count, ambiguous: folder.source.ambiguous }
}

impl Folder<'_> {
    fn run(&mut self) -> usize {
        // Comments, parentheses, types and unary operators at the beginning mean nothing.
        loop {
            let token = self.source.next();
            let skipped = matches!(token.kind, Kind::Comment | Kind::LeftParenthesis | Kind::SqlType)
                || is_unary(&token);
            if !skipped {
                if token.kind == Kind::None {
                    return 0;
                }
                self.tokens[0] = token;
                self.end = 1;
                break;
            }
        }
        let mut left = 0;
        loop {
            if self.end >= MAX_TOKENS && self.is_closed() {
                if self.end > MAX_TOKENS {
                    self.tokens[1] = self.tokens[MAX_TOKENS];
                    self.end = 2;
                } else {
                    self.end = 1;
                }
                left = 0;
            }
            if !self.more || left >= MAX_TOKENS {
                left = self.end;
                break;
            }
            self.fill(left, 2);
            if self.end - left < 2 {
                left = self.end;
                continue;
            }
            match self.pair(left) {
                Step::Again(from) => {
                    left = from;
                    continue;
                }
                Step::Stop(len) => return len,
                Step::On => {}
            }
            // A rule that only changed a kind may have gone back.
            let from = if self.collation(left) { 0 } else { left };
            left = from;
            self.fill(left, 3);
            if self.end - left < 3 {
                left = self.end;
                continue;
            }
            left = match self.triple(left) {
                Step::Again(from) => from,
                _ => left + 1,
            };
        }
        if left < MAX_TOKENS && self.last_comment.kind == Kind::Comment {
            self.tokens[left] = self.last_comment;
            left += 1;
        }
        left.min(MAX_TOKENS)
    }

    /// Reads on until there are `wanted` tokens from `left`. Comments only count at the end.
    fn fill(&mut self, left: usize, wanted: usize) {
        while self.more && self.end <= MAX_TOKENS && self.end - left < wanted {
            let token = self.source.next();
            self.tokens[self.end] = token;
            match token.kind {
                Kind::None => self.more = false,
                Kind::Comment => self.last_comment = token,
                _ => {
                    self.last_comment.kind = Kind::None;
                    self.end += 1;
                }
            }
        }
    }

    /// Five tokens that are a whole, and therefore count as their first.
    fn is_closed(&self) -> bool {
        use Kind::{Bareword, Comma, LeftParenthesis as Left, Number, Operator, RightParenthesis as Right};
        let kinds: [Kind; MAX_TOKENS] = std::array::from_fn(|at| self.tokens[at].kind);
        matches!(
            kinds,
            [Number, Operator | Comma, Left, Number, Right]
                | [Bareword, Operator, Left, Bareword | Number, Right]
                | [Number, Right, Comma, Left, Number]
                | [Bareword, Right, Operator, Left, Bareword]
        )
    }

    /// Drops `count` tokens from the end.
    fn drop(&mut self, count: usize) {
        self.end -= count;
    }

    /// Rules for two tokens.
    fn pair(&mut self, left: usize) -> Step {
        let (a, b) = (self.tokens[left], self.tokens[left + 1]);
        match (a.kind, b.kind) {
            (Kind::String, Kind::String) | (Kind::Semicolon, Kind::Semicolon) => {
                self.drop(1);
                return Step::Again(left);
            }
            (Kind::Operator | Kind::LogicOperator, kind) if is_unary(&b) || kind == Kind::SqlType => {
                self.drop(1);
                return Step::Again(0);
            }
            (Kind::LeftParenthesis, _) if is_unary(&b) => {
                self.drop(1);
                return Step::Again(left.saturating_sub(1));
            }
            _ => {}
        }
        if let Some(token) = merged(&a, &b) {
            self.tokens[left] = token;
            self.drop(1);
            return Step::Again(left.saturating_sub(1));
        }
        match (a.kind, b.kind) {
            // Transact-SQL's statement, a function elsewhere.
            (Kind::Semicolon, Kind::Function)
                if b.text().get(..2).is_some_and(|name| name.eq_ignore_ascii_case(b"if")) =>
            {
                self.tokens[left + 1].kind = Kind::Tsql;
                Step::Again(left)
            }
            (Kind::Bareword | Kind::Variable, Kind::LeftParenthesis)
                if CALLED.iter().any(|name| a.is_word(name)) =>
            {
                self.tokens[left].kind = Kind::Function;
                Step::Again(left)
            }
            (Kind::Keyword, kind) if a.is_word("in") || a.is_word("not in") => {
                let operator = kind == Kind::LeftParenthesis;
                self.tokens[left].kind = if operator { Kind::Operator } else { Kind::Bareword };
                Step::Again(left)
            }
            (Kind::Operator, kind) if a.is_word("like") || a.is_word("not like") => {
                if kind == Kind::LeftParenthesis {
                    self.tokens[left].kind = Kind::Function;
                }
                Step::On
            }
            (
                Kind::SqlType,
                Kind::Bareword
                | Kind::Number
                | Kind::SqlType
                | Kind::LeftParenthesis
                | Kind::Function
                | Kind::Variable
                | Kind::String,
            ) => {
                self.tokens[left] = b;
                self.drop(1);
                Step::Again(0)
            }
            (Kind::Collate, Kind::Bareword) => Step::On,
            (Kind::Backslash, _) => {
                if is_arithmetic(&b) {
                    // Transact-SQL reads `\%1` as `0 % 1`.
                    self.tokens[left].kind = Kind::Number;
                } else {
                    self.tokens[left] = b;
                    self.drop(1);
                }
                Step::Again(0)
            }
            (Kind::LeftParenthesis, Kind::LeftParenthesis)
            | (Kind::RightParenthesis, Kind::RightParenthesis) => {
                self.drop(1);
                Step::Again(0)
            }
            (Kind::LeftBrace, Kind::Bareword) => {
                if b.text().is_empty() {
                    // MySQL accepts {``.``.id}, which nobody writes who means well.
                    self.tokens[left + 1].kind = Kind::Evil;
                    return Step::Stop(left + 2);
                }
                self.drop(2);
                Step::Again(0)
            }
            (_, Kind::RightBrace) => {
                self.drop(1);
                Step::Again(0)
            }
            _ => Step::On,
        }
    }

    /// Names of collations are too many for a table: after COLLATE, whatever has an underscore is one.
    fn collation(&mut self, left: usize) -> bool {
        let name = self.tokens[left + 1];
        let found = self.tokens[left].kind == Kind::Collate
            && name.kind == Kind::Bareword
            && name.text().split(|byte| *byte == 0).next().is_some_and(|text| text.contains(&b'_'));
        if found {
            self.tokens[left + 1].kind = Kind::SqlType;
        }
        found
    }

    /// Rules for three tokens.
    fn triple(&mut self, left: usize) -> Step {
        use Kind::{
            Bareword, Comma, Dot, Expression, Function, Group, Keyword, Number, Operator, String, Variable,
        };
        let (a, b, c) = (self.tokens[left], self.tokens[left + 1], self.tokens[left + 2]);
        match (a.kind, b.kind, c.kind) {
            (Number, Operator, Number)
            | (Kind::LogicOperator, _, Kind::LogicOperator)
            | (Variable, Operator, Variable | Number | Bareword)
            | (Bareword | Number, Operator, Number | Bareword) => {
                self.drop(2);
                Step::Again(0)
            }
            (Operator, middle, Operator) if middle != Kind::LeftParenthesis => {
                self.drop(2);
                Step::Again(0)
            }
            (Bareword | Number | Variable | String, Operator, Kind::SqlType) if b.text() == b"::" => {
                self.drop(2);
                Step::Again(0)
            }
            (Bareword | Number | String | Variable, Comma, Number | Bareword | String | Variable) => {
                self.drop(2);
                Step::Again(0)
            }
            (Expression | Group | Comma, _, Kind::LeftParenthesis) if is_unary(&b) => {
                self.without_middle(left)
            }
            (Keyword | Expression | Group, _, Number | Bareword | Variable | String | Function)
                if is_unary(&b) =>
            {
                self.without_middle(left)
            }
            (Comma, _, Number | Bareword | Variable | String) if is_unary(&b) => {
                self.tokens[left + 1] = c;
                // One token back, so that "1,-1" becomes "1,1" and then "1".
                self.drop(3);
                Step::Again(0)
            }
            (Comma, _, Function) if is_unary(&b) => self.without_middle(left),
            (Bareword, Dot, Bareword) => {
                self.drop(2);
                Step::Again(0)
            }
            (Expression, Dot, Bareword) => self.without_middle(left),
            (Function, Kind::LeftParenthesis, last)
                if last != Kind::RightParenthesis && a.is_word("user") =>
            {
                // USER() takes no argument: with one it is somebody's own.
                self.tokens[left].kind = Bareword;
                Step::On
            }
            _ => Step::On,
        }
    }

    fn without_middle(&mut self, left: usize) -> Step {
        self.tokens[left + 1] = self.tokens[left + 2];
        self.drop(1);
        Step::Again(0)
    }
}
