//! Operators that compare with a text or a number.

use memchr::memmem;

/// How value and argument are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    StrEq,
    Contains,
    ContainsWord,
    BeginsWith,
    EndsWith,
    /// The other way round: the value lies in the argument.
    Within,
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Comparison {
    /// Whether the value compares so with the argument.
    pub(super) fn holds(self, value: &[u8], argument: &[u8]) -> bool {
        match self {
            Self::StrEq => value == argument,
            Self::Contains => memmem::find(value, argument).is_some(),
            Self::ContainsWord => contains_word(value, argument),
            Self::BeginsWith => value.starts_with(argument),
            Self::EndsWith => value.ends_with(argument),
            Self::Within => memmem::find(argument, value).is_some(),
            Self::Eq => number(value) == number(argument),
            Self::Ge => number(value) >= number(argument),
            Self::Gt => number(value) > number(argument),
            Self::Le => number(value) <= number(argument),
            Self::Lt => number(value) < number(argument),
        }
    }

    /// Whether the argument must occur in a value for it to match.
    pub(super) fn needs_argument(self) -> bool {
        matches!(self, Self::StrEq | Self::Contains | Self::ContainsWord | Self::BeginsWith | Self::EndsWith)
    }
}

/// A word ends where no letter follows; digits and underscores do not continue one.
fn contains_word(value: &[u8], word: &[u8]) -> bool {
    if word.is_empty() {
        return true;
    }
    let mut from = 0;
    // Occurrences may overlap, such as the second "aba" in "ababa".
    while let Some(at) = value.get(from..).and_then(|rest| memmem::find(rest, word)) {
        if ends_at(value, from + at, word.len()) {
            return true;
        }
        from += at + 1;
    }
    false
}

fn ends_at(value: &[u8], at: usize, len: usize) -> bool {
    let letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphabetic);
    let before = at.checked_sub(1).and_then(|before| value.get(before));
    !letter(before) && !letter(value.get(at + len))
}

/// The number that a text begins with, as C's `atoll` reads it: 0 where there is none, the nearest where it is too large.
pub(super) fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut number = 0i64;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        let digit = i64::from(digit - b'0');
        number = number.saturating_mul(10);
        number = if negative { number.saturating_sub(digit) } else { number.saturating_add(digit) };
    }
    number
}
