//! HTML entities, UTF-8, base64, hexadecimal, parity bits and digests.

use sha1::Digest as _;

use super::{hex_pair, hex_value, start};

/// Decimal and hexadecimal character references (the low byte) and the five names that matter to markup. The closing
/// semicolon may be missing, as browsers have it: `&ltscript` is `<script`.
pub(super) fn html_entities(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = memchr::memchr(b'&', input) else { return false };
    start(out, input, first);
    let mut changed = false;
    let mut rest = &input[first..];
    while let Some(at) = memchr::memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match entity(rest) {
            Some((byte, taken)) => {
                changed = true;
                out.push(byte);
                rest = &rest[taken..];
                rest = rest.strip_prefix(b";").unwrap_or(rest);
            }
            None => out.push(b'&'),
        }
    }
    out.extend_from_slice(rest);
    changed
}

/// What comes after an ampersand: the byte it stands for and how long it is.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let (prefix, radix) = match text {
        [b'#', b'x' | b'X', ..] => (2, 16),
        [b'#', ..] => (1, 10),
        _ => {
            const NAMES: [(&[u8], u8); 5] =
                [(b"quot", b'"'), (b"amp", b'&'), (b"lt", b'<'), (b"gt", b'>'), (b"nbsp", 0xa0)];
            let begins =
                |name: &[u8]| text.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name));
            let (name, byte) = NAMES.iter().find(|(name, _)| begins(name))?;
            return Some((*byte, name.len()));
        }
    };
    let digits = text[prefix..].iter().map_while(|byte| char::from(*byte).to_digit(radix));
    let (mut count, mut value) = (0, 0u64);
    for digit in digits {
        count += 1;
        // As the C library reads a long: what is too large is the largest.
        value = value.saturating_mul(radix.into()).saturating_add(digit.into()).min(i64::MAX as u64);
    }
    (count > 0).then_some(((value & 0xff) as u8, prefix + count))
}

/// Characters beyond ASCII as `%uXXXX`. Null bytes but a last one, and the first byte of a sequence that is none, are left
/// out.
pub(super) fn utf8_to_unicode(input: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = input.iter().position(|byte| *byte >= 0x80 || *byte == 0) else { return false };
    start(out, input, first);
    let mut rest = &input[first..];
    while let [byte, tail @ ..] = rest {
        let more = match byte {
            0 if !tail.is_empty() => {
                rest = tail;
                continue;
            }
            0xc0..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf7 => 3,
            _ => {
                out.push(*byte);
                rest = tail;
                continue;
            }
        };
        if *byte >= 0xf5 {
            out.push(*byte);
        }
        let continued = tail.get(..more).filter(|bytes| bytes.iter().all(|next| next & 0xc0 == 0x80));
        let Some(continued) = continued else {
            rest = tail;
            continue;
        };
        let lead = u32::from(*byte) & (0x3f >> more);
        let code = continued.iter().fold(lead, |code, next| code << 6 | u32::from(next & 0x3f));
        out.extend_from_slice(b"%u");
        for shift in (0..6).rev().map(|digit| digit * 4) {
            if shift < 16 || code >> shift != 0 {
                out.push(hex_value((code >> shift & 15) as u8));
            }
        }
        // What could have been written shorter, or must not be written at all, leaves a trace.
        let overlong = code < [0x80, 0x800, 0x1_0000][more - 1];
        for _ in 0..usize::from(overlong) + usize::from((0xd800..=0xdfff).contains(&code)) {
            out.push(*byte);
        }
        rest = &tail[more..];
    }
    out != input
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Base64 up to the first byte that is none; line ends do not count. What is too short to be a byte is dropped.
pub(super) fn base64(input: &[u8], out: &mut Vec<u8>) -> bool {
    let text = input.iter().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    from_sextets(text.map_while(|byte| sextet(*byte)), input, out)
}

/// Base64 as lenient decoders read it: whatever is no digit is passed over, `-` and `_` are digits too.
pub(super) fn base64_lenient(input: &[u8], out: &mut Vec<u8>) -> bool {
    let digit = |byte: &u8| match byte {
        b'-' => Some(62),
        b'_' => Some(63),
        byte => sextet(*byte),
    };
    from_sextets(input.iter().filter_map(digit), input, out)
}

fn from_sextets(digits: impl Iterator<Item = u32>, input: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let (mut value, mut bits) = (0u32, 0);
    for digit in digits {
        value = value << 6 | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((value >> bits) as u8);
            value &= (1 << bits) - 1;
        }
    }
    out != input
}

pub(super) fn base64_encode(input: &[u8], out: &mut Vec<u8>) -> bool {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.clear();
    for group in input.chunks(3) {
        let at = |index: usize| group.get(index).copied().map_or(0, u32::from);
        let value = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let shift = 18 - 6 * digit;
            out.push(if digit <= group.len() { DIGITS[(value >> shift & 63) as usize] } else { b'=' });
        }
    }
    !input.is_empty()
}

pub(super) fn hex_encode(input: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    out.extend(input.iter().flat_map(|byte| [hex_value(byte >> 4), hex_value(byte & 15)]));
    !input.is_empty()
}

/// Pairs of hexadecimal digits; a text that is not made of them becomes empty.
pub(super) fn hex_decode(input: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    if input.len().is_multiple_of(2) && input.iter().all(u8::is_ascii_hexdigit) {
        out.extend(input.chunks_exact(2).map(|pair| hex_pair(pair[0], pair[1])));
    }
    !input.is_empty()
}

/// SQL's `0x414243`.
pub(super) fn sql_hex(input: &[u8], out: &mut Vec<u8>) -> bool {
    let number = |text: &[u8]| match text {
        [b'0', b'x' | b'X', a, b, ..] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
        _ => false,
    };
    let Some(first) = memchr::memchr_iter(b'0', input).find(|at| number(&input[*at..])) else { return false };
    start(out, input, first);
    let mut rest = &input[first..];
    while let [byte, tail @ ..] = rest {
        if !number(rest) {
            out.push(*byte);
            rest = tail;
            continue;
        }
        rest = &rest[2..];
        while let [a, b, tail @ ..] = rest
            && a.is_ascii_hexdigit()
            && b.is_ascii_hexdigit()
        {
            out.push(hex_pair(*a, *b));
            rest = tail;
        }
    }
    true
}

/// The eighth bit of each byte: `None` clears it, else it is set where the count of ones is not yet even or odd.
pub(super) fn parity(input: &[u8], out: &mut Vec<u8>, odd: Option<bool>) -> bool {
    let set = |byte: u8| {
        let wanted = odd.is_some_and(|odd| (byte.count_ones() % 2 == 1) != odd);
        byte & 0x7f | u8::from(wanted) << 7
    };
    let Some(first) = input.iter().position(|byte| set(*byte) != *byte) else { return false };
    start(out, input, first);
    out.extend(input[first..].iter().map(|byte| set(*byte)));
    true
}

/// The raw digest. Nothing relies on its strength: rules compare it with digests of known texts.
pub(super) fn sha1(input: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    out.extend_from_slice(&sha1::Sha1::digest(input));
    true
}

/// See [`sha1`].
pub(super) fn md5(input: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    out.extend_from_slice(&md5::Md5::digest(input));
    true
}
