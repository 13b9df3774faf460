//! Percent encoding.

use std::sync::OnceLock;

use super::{hex_pair, hex_value, start};

/// Characters that IIS takes for an ASCII one when it is told `%uXXXX`: Microsoft's best fit for US-ASCII (20127).
const BEST_FIT: &str = include_str!("us_ascii.txt");

/// `%XX` and `+`. What is no valid encoding stays as it is.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> bool {
    decode_with(input, out, false)
}

/// `%XX`, `%uXXXX` and `+`.
pub(super) fn decode_uni(input: &[u8], out: &mut Vec<u8>) -> bool {
    decode_with(input, out, true)
}

fn decode_with(input: &[u8], out: &mut Vec<u8>, unicode: bool) -> bool {
    let Some(first) = memchr::memchr2(b'%', b'+', input) else { return false };
    start(out, input, first);
    let mut changed = false;
    let mut rest = &input[first..];
    while let [byte, tail @ ..] = rest {
        let (decoded, after) = match (byte, tail) {
            (b'+', _) => (b' ', tail),
            (b'%', [b'u' | b'U', a, b, c, d, after @ ..])
                if unicode && [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                (wide(*a, *b, *c, *d), after)
            }
            (b'%', [a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                (hex_pair(*a, *b), after)
            }
            _ => {
                // On to the next one at once.
                let same = memchr::memchr2(b'%', b'+', tail).unwrap_or(tail.len()) + 1;
                out.extend_from_slice(&rest[..same]);
                rest = &rest[same..];
                continue;
            }
        };
        out.push(decoded);
        rest = after;
        changed = true;
    }
    changed
}

/// The byte that stands for a code point: its best fit, else its low byte; ASCII of full width becomes ASCII.
fn wide(a: u8, b: u8, c: u8, d: u8) -> u8 {
    let (high, low) = (hex_pair(a, b), hex_pair(c, d));
    let code = u16::from_be_bytes([high, low]);
    if code < 0x80 {
        return low;
    }
    match best_fit().binary_search_by_key(&code, |(from, _)| *from) {
        Ok(at) => best_fit()[at].1,
        Err(_) if high == 0xff && (1..0x5f).contains(&low) => low + 0x20,
        Err(_) => low,
    }
}

fn best_fit() -> &'static [(u16, u8)] {
    static TABLE: OnceLock<Vec<(u16, u8)>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let pair = |entry: &str| {
            let (from, to) = entry.split_once(':')?;
            Some((u16::from_str_radix(from, 16).ok()?, u8::from_str_radix(to, 16).ok()?))
        };
        let mut table: Vec<(u16, u8)> = BEST_FIT.split_ascii_whitespace().filter_map(pair).collect();
        table.sort_unstable();
        table
    })
}

/// The reverse: all but letters, digits and `*` become `%xx`, a space becomes `+`.
pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'*';
    let Some(first) = input.iter().position(|byte| !plain(*byte)) else { return false };
    start(out, input, first);
    for &byte in &input[first..] {
        if plain(byte) {
            out.push(byte);
        } else if byte == b' ' {
            out.push(b'+');
        } else {
            out.extend_from_slice(&[b'%', hex_value(byte >> 4), hex_value(byte & 15)]);
        }
    }
    true
}
