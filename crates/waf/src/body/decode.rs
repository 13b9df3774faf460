//! Percent decoding as forms use it: `+` is a space, and a `%` without two digits stays as it is.

use memchr::memchr2;

/// The decoded form of `raw`, in `out` if anything had to change. Sets `error` when a `%` stayed.
pub(crate) fn plus_and_percent<'a>(raw: &'a [u8], out: &'a mut Vec<u8>, error: &mut bool) -> &'a [u8] {
    let Some(first) = memchr2(b'%', b'+', raw) else {
        return raw;
    };
    out.clear();
    out.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match tail {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    out.push(digit(*high) << 4 | digit(*low));
                    rest = after;
                }
                _ => {
                    *error = true;
                    out.push(b'%');
                }
            },
            plain => out.push(*plain),
        }
    }
    out
}

/// The value of a hexadecimal digit; 0 for any other byte.
pub(crate) fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => 0,
    }
}
