//! Escapes with a backslash: JavaScript, CSS, C.

use super::{hex_pair, start};

fn is_octal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'7')
}

/// Up to three octal digits.
fn octal(text: &[u8]) -> (u32, usize) {
    let count = text.iter().take(3).take_while(|byte| is_octal(**byte)).count();
    (text[..count].iter().fold(0, |value, digit| value * 8 + u32::from(digit - b'0')), count)
}

/// The control character of a one-letter escape.
fn letter(byte: u8) -> Option<u8> {
    Some(match byte {
        b'a' => 7,
        b'b' => 8,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        _ => return None,
    })
}

/// Calls `decode` with what follows each backslash; it adds to the output and answers how much it took. Without
/// anything after the last backslash, `last` decides whether that stays.
fn unescape(
    input: &[u8],
    out: &mut Vec<u8>,
    last: bool,
    decode: impl Fn(&[u8], &mut Vec<u8>) -> usize,
) -> bool {
    let Some(first) = memchr::memchr(b'\\', input) else { return false };
    if last && first + 1 == input.len() {
        return false;
    }
    start(out, input, first);
    let mut rest = &input[first..];
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        if rest.is_empty() {
            if last {
                out.push(b'\\');
            }
            return true;
        }
        let taken = decode(rest, out);
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
    true
}

/// JavaScript: `\uXXXX` (the low byte; full width becomes ASCII), `\xXX`, octal, `\n` and its like.
pub(super) fn javascript(input: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(input, out, true, |text, out| match text {
        [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => {
            let low = hex_pair(*c, *d);
            let full_width = hex_pair(*a, *b) == 0xff && (1..0x5f).contains(&low);
            out.push(if full_width { low + 0x20 } else { low });
            5
        }
        [b'x', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
            out.push(hex_pair(*a, *b));
            3
        }
        [digit, ..] if is_octal(*digit) => {
            let (value, count) = octal(text);
            // Three digits only as far as they make a byte.
            let (value, count) = if value > 0xff { (value / 8, 2) } else { (value, count) };
            out.push(value as u8);
            count
        }
        [byte, ..] => {
            out.push(letter(*byte).unwrap_or(*byte));
            1
        }
        [] => 0,
    })
}

/// CSS: up to six hexadecimal digits are a code point (full width becomes ASCII), and a white space after them is part of
/// them. A line end after a backslash goes with it.
pub(super) fn css(input: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(input, out, false, |text, out| {
        let digits = text.iter().take(6).map_while(|byte| char::from(*byte).to_digit(16));
        let (count, code) = digits.fold((0, 0), |(count, code), digit| (count + 1, code << 4 | digit));
        match (count, text) {
            (0, [b'\r', b'\n', ..]) => 2,
            (0, [b'\n' | b'\r' | 0x0c, ..]) => 1,
            (0, [byte, ..]) => {
                out.push(*byte);
                1
            }
            _ => {
                let code = if (0xff01..=0xff5e).contains(&code) { code - 0xfee0 } else { code };
                let character = char::from_u32(code).filter(|character| *character != '\0');
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                count + usize::from(text.get(count).is_some_and(|byte| super::space::is_space(*byte)))
            }
        }
    })
}

/// C: `\xXX`, octal, `\n` and its like; of an escape without meaning the backslash goes.
pub(super) fn sequences(input: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(input, out, true, |text, out| match text {
        [b'x' | b'X', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
            out.push(hex_pair(*a, *b));
            3
        }
        [digit, ..] if is_octal(*digit) => {
            let (value, count) = octal(text);
            out.push((value & 0xff) as u8);
            count
        }
        [byte, ..] => {
            out.push(letter(*byte).unwrap_or(*byte));
            1
        }
        [] => 0,
    })
}
