//! Expressions as SecLang writes them, which is PCRE's syntax over bytes, brought into the syntax of the engine.
//!
//! The two agree on nearly everything; where they do not, many differences go unnoticed: `\x{c2}` is a code point here and
//! a byte there, `\<` a word boundary here and a character there, `[a[b]` a set within a set.

use regex_syntax::hir::{Hir, HirKind};

use super::OperatorError;

/// No expression is longer; the longest of the Core Rule Set has 12 KiB.
const MAX_LENGTH: usize = 256 << 10;

/// The expression in the engine's syntax, in ASCII.
pub(super) fn rewrite(argument: &[u8]) -> Result<String, OperatorError> {
    if argument.len() > MAX_LENGTH {
        return Err(OperatorError::TooLarge { what: "expression" });
    }
    let mut out = String::with_capacity(argument.len() + 16);
    out.push_str("(?sm-u:");
    let mut rest = argument;
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'\\' => escape(tail, &mut out)?,
            b'[' => class(tail, &mut out)?,
            // Without backtracking an atomic group is a group: it matches what the atomic one does, and more.
            b'(' if tail.starts_with(b"?>") => {
                out.push_str("(?:");
                &tail[2..]
            }
            b'{' if !is_repetition(tail) => {
                out.push_str("\\{");
                tail
            }
            0x80.. => {
                hex(*byte, &mut out);
                tail
            }
            _ => {
                out.push(char::from(*byte));
                tail
            }
        };
    }
    out.push(')');
    Ok(out)
}

/// A byte that means itself.
fn hex(byte: u8, out: &mut String) {
    if byte.is_ascii_alphanumeric() || byte == b'_' {
        out.push(char::from(byte));
        return;
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn problem(text: impl Into<String>) -> OperatorError {
    OperatorError::Expression { problem: text.into() }
}

/// What follows a backslash outside of a class; answers what is left after it.
fn escape<'a>(text: &'a [u8], out: &mut String) -> Result<&'a [u8], OperatorError> {
    let [byte, rest @ ..] = text else { return Err(problem("ends with a backslash")) };
    match byte {
        b'1'..=b'9' => {
            return Err(problem("refers back to a group, for which time could grow without bound"));
        }
        b'h' => out.push_str("[\\t\\x20\\xa0]"),
        b'H' => out.push_str("[^\\t\\x20\\xa0]"),
        b'R' => out.push_str("(?:\\r\\n|[\\n\\x0b\\f\\r\\x85])"),
        b'N' => out.push_str("[^\\n]"),
        b'Q' => {
            let end = memchr::memmem::find(rest, b"\\E").unwrap_or(rest.len());
            rest[..end].iter().for_each(|byte| hex(*byte, out));
            return Ok(rest.get(end + 2..).unwrap_or_default());
        }
        b'E' => {}
        // Both engines mean the same.
        b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'b' | b'B' | b'A' | b'z' => {
            out.push('\\');
            out.push(char::from(*byte));
        }
        b'p' | b'P' | b'X' | b'C' | b'G' | b'K' | b'Z' | b'g' | b'k' | b'o' => {
            return Err(problem(format!("`\\{}` is not supported; write what it means", char::from(*byte))));
        }
        _ => {
            let (byte, rest) = character(text)?;
            hex(byte, out);
            return Ok(rest);
        }
    }
    Ok(rest)
}

/// A class, after its opening bracket. Brackets, `&&`, `--` and `~~` within it mean nothing special.
fn class<'a>(text: &'a [u8], out: &mut String) -> Result<&'a [u8], OperatorError> {
    const SETS: &[u8] = b"dDsSwWhH";
    let is_set = |text: &[u8]| match text {
        [b'\\', letter, ..] => SETS.contains(letter),
        [b'[', inner @ ..] => named_class(inner).is_some(),
        _ => false,
    };
    out.push('[');
    let mut rest = text;
    if let [b'^', tail @ ..] = rest {
        out.push('^');
        rest = tail;
    }
    let mut first = true;
    loop {
        match rest {
            [] => return Err(problem("a class `[` is not closed")),
            [b']', tail @ ..] if !first => {
                out.push(']');
                return Ok(tail);
            }
            [b'[', inner @ ..] if let Some((name, tail)) = named_class(inner) => {
                out.push_str(name);
                rest = tail;
            }
            [b'\\', b'h', tail @ ..] => {
                out.push_str("\\t\\x20\\xa0");
                rest = tail;
            }
            [b'\\', letter, tail @ ..] if SETS.contains(letter) => {
                if *letter == b'H' {
                    return Err(problem("`\\H` in a class is not supported; write what it means"));
                }
                out.push('\\');
                out.push(char::from(*letter));
                rest = tail;
            }
            [b'\\', b'E', tail @ ..] => rest = tail,
            _ => {
                let (from, tail) = member(rest)?;
                hex(from, out);
                rest = tail;
                // A hyphen between two characters makes a range of them.
                if let [b'-', after @ ..] = rest
                    && !matches!(after, [] | [b']', ..])
                    && !is_set(after)
                {
                    let (to, tail) = member(after)?;
                    out.push('-');
                    hex(to, out);
                    rest = tail;
                }
            }
        }
        first = false;
    }
}

/// One character of a class.
fn member(text: &[u8]) -> Result<(u8, &[u8]), OperatorError> {
    match text {
        [b'\\', b'b', tail @ ..] => Ok((8, tail)),
        [b'\\', tail @ ..] => character(tail),
        [byte, tail @ ..] => Ok((*byte, tail)),
        [] => Err(problem("a class `[` is not closed")),
    }
}

/// The character that an escape stands for, within a class or outside.
fn character(text: &[u8]) -> Result<(u8, &[u8]), OperatorError> {
    let [byte, rest @ ..] = text else { return Err(problem("ends with a backslash")) };
    let byte = match byte {
        b'x' => return hexadecimal(rest),
        b'0'..=b'7' => {
            let digits = text.iter().take(3).take_while(|digit| (b'0'..=b'7').contains(digit)).count();
            let value = text[..digits].iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            return Ok(((value & 0xff) as u8, &text[digits..]));
        }
        b'c' => {
            let [letter, rest @ ..] = rest else { return Err(problem("ends within `\\c`")) };
            return Ok((letter.to_ascii_uppercase() ^ 0x40, rest));
        }
        b'a' => 7,
        b'e' => 0x1b,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        // A letter without a meaning, or a sign: itself.
        byte => *byte,
    };
    Ok((byte, rest))
}

/// `\xHH`, `\xH`, `\x{HH}`, `\x`: a byte.
fn hexadecimal(text: &[u8]) -> Result<(u8, &[u8]), OperatorError> {
    let (digits, rest) = match text {
        [b'{', inner @ ..] => {
            let end = memchr::memchr(b'}', inner).ok_or_else(|| problem("`\\x{` has no closing brace"))?;
            (&inner[..end], &inner[end + 1..])
        }
        _ => text.split_at(text.iter().take(2).take_while(|digit| digit.is_ascii_hexdigit()).count()),
    };
    let mut value = 0u32;
    for digit in digits {
        let digit =
            char::from(*digit).to_digit(16).ok_or_else(|| problem("`\\x{…}` takes hexadecimal digits"))?;
        value = value.saturating_mul(16).saturating_add(digit);
    }
    let byte = u8::try_from(value).map_err(|_| {
        problem("`\\x{…}` above ff: values are bytes, so write the bytes of the character in UTF-8")
    })?;
    Ok((byte, rest))
}

/// `[:alpha:]` and its like, after the opening bracket.
fn named_class(text: &[u8]) -> Option<(&'static str, &[u8])> {
    const CLASSES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    const WRITTEN: [&str; 28] = [
        "[:alnum:]",
        "[:alpha:]",
        "[:ascii:]",
        "[:blank:]",
        "[:cntrl:]",
        "[:digit:]",
        "[:graph:]",
        "[:lower:]",
        "[:print:]",
        "[:punct:]",
        "[:space:]",
        "[:upper:]",
        "[:word:]",
        "[:xdigit:]",
        "[:^alnum:]",
        "[:^alpha:]",
        "[:^ascii:]",
        "[:^blank:]",
        "[:^cntrl:]",
        "[:^digit:]",
        "[:^graph:]",
        "[:^lower:]",
        "[:^print:]",
        "[:^punct:]",
        "[:^space:]",
        "[:^upper:]",
        "[:^word:]",
        "[:^xdigit:]",
    ];
    let text = text.strip_prefix(b":")?;
    let (negated, text) = match text.strip_prefix(b"^") {
        Some(rest) => (CLASSES.len(), rest),
        None => (0, text),
    };
    CLASSES.iter().enumerate().find_map(|(index, name)| {
        let rest = text.strip_prefix(name.as_bytes())?.strip_prefix(b":]")?;
        Some((WRITTEN[index + negated], rest))
    })
}

/// Whether what follows an opening brace makes it a count: `{2}`, `{2,}`, `{2,3}`.
fn is_repetition(text: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'}', text) else { return false };
    let (from, to) = match memchr::memchr(b',', &text[..end]) {
        Some(comma) => (&text[..comma], &text[comma + 1..end]),
        None => (&text[..end], &b""[..]),
    };
    !from.is_empty() && from.iter().chain(to).all(u8::is_ascii_digit)
}

/// States that an expression compiles to, about.
pub(super) fn size(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(_) => 2,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1) as usize;
            size(&repetition.sub).saturating_mul(times).saturating_add(1)
        }
        HirKind::Capture(capture) => size(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(1usize, |sum, part| sum.saturating_add(size(part)))
        }
    }
}
