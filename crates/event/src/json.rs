//! A JSON object writer that appends to a buffer: no tree, no allocation, only what events need.

use std::io::Write;
use std::net::IpAddr;

/// Longest string that an event carries; longer ones are cut and marked, so that one request cannot fill the log.
const MAX_TEXT: usize = 1024;

/// An object being written; the closing brace comes with [`Self::end`].
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    #[inline(always)]
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        write_text(self.out, value.as_bytes());
        self
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.key(key);
        write_text(self.out, value);
        self
    }

    pub(crate) fn some(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(key, value);
        }
        self
    }

    #[inline(always)]
    pub(crate) fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        write_number(self.out, value);
        self
    }

    /// A string that the program itself is sure of: no byte of it needs escaping.
    #[inline(always)]
    pub(crate) fn plain(&mut self, key: &str, value: &'static str) -> &mut Self {
        debug_assert!(is_plain(value.as_bytes()), "{value}");
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
        self
    }

    /// Something that holds; what does not is left out.
    pub(crate) fn holds(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(b"true");
        self
    }

    pub(crate) fn ip(&mut self, key: &str, ip: IpAddr) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        match ip {
            IpAddr::V4(v4) => {
                for (i, octet) in v4.octets().into_iter().enumerate() {
                    if i > 0 {
                        self.out.push(b'.');
                    }
                    write_number(self.out, u64::from(octet));
                }
            }
            IpAddr::V6(v6) => drop(write!(self.out, "{v6}")),
        }
        self.out.push(b'"');
        self
    }

    pub(crate) fn texts<'t>(&mut self, key: &str, values: impl IntoIterator<Item = &'t str>) -> &mut Self {
        self.key(key);
        self.out.push(b'[');
        for (i, value) in values.into_iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            write_text(self.out, value.as_bytes());
        }
        self.out.push(b']');
        self
    }

    #[inline(always)]
    pub(crate) fn raw(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
        self
    }

    #[inline(always)]
    pub(crate) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        self.key(key);
        let mut inner = Object::begin(self.out);
        fill(&mut inner);
        inner.end();
        self
    }

    pub(crate) fn objects<T>(
        &mut self,
        key: &str,
        items: &[T],
        fill: impl Fn(&T, &mut Object<'_>),
    ) -> &mut Self {
        self.key(key);
        self.out.push(b'[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            let mut inner = Object::begin(self.out);
            fill(item, &mut inner);
            inner.end();
        }
        self.out.push(b']');
        self
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

    // Keys are literals: inlined, each becomes a few moves.
    #[inline(always)]
    fn key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Whether every byte is printable ASCII that stands for itself in a JSON string; eight at a time.
fn is_plain(value: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let zeros = |x: u64| x.wrapping_sub(ONES) & !x;
    let odd = |bytes: [u8; 8]| {
        let x = u64::from_le_bytes(bytes);
        let control = x.wrapping_sub(ONES * 0x20);
        let same = |b: u8| zeros(x ^ (ONES * u64::from(b)));
        (x | control | same(b'"') | same(b'\\') | same(0x7f)) & HIGH
    };
    let mut chunks = value.chunks_exact(8);
    let found =
        chunks.by_ref().fold(0, |found, chunk| found | chunk.first_chunk().map_or(HIGH, |chunk| odd(*chunk)));
    let rest = chunks.remainder();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    found | odd(last) == 0
}

fn write_number(out: &mut Vec<u8>, value: u64) {
    const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    while rest >= 10 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    // What is left is a last single digit, or the leading zero of a pair that is to go.
    if rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a JSON string. What is not UTF-8 is replaced, what is too long is cut.
fn write_text(out: &mut Vec<u8>, value: &[u8]) {
    if value.len() <= MAX_TEXT && is_plain(value) {
        out.reserve(value.len() + 2);
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    let (value, cut) = if value.len() > MAX_TEXT { (&value[..MAX_TEXT], true) } else { (value, false) };
    out.push(b'"');
    for chunk in value.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        while let Some(i) = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\' || b == 0x7f) {
            out.extend_from_slice(&rest[..i]);
            match rest[i] {
                b @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', b]),
                b => drop(write!(out, "\\u{b:04x}")),
            }
            rest = &rest[i + 1..];
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_taken_for_plain_is_and_reads_back(bytes: Vec<u8>, number: u64) {
            let escaped = |b: &u8| *b < 0x20 || *b >= 0x7f || *b == b'"' || *b == b'\\';
            if is_plain(&bytes) {
                proptest::prop_assert!(!bytes.iter().any(escaped));
            }
            let printable: Vec<u8> = bytes.iter().copied().filter(|b| !escaped(b)).collect();
            proptest::prop_assert!(is_plain(&printable));
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.bytes("k", &bytes).number("n", number).ip("ip", IpAddr::from(number.to_be_bytes().first_chunk::<4>().copied().unwrap()));
            object.end();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            proptest::prop_assert_eq!(value["n"].as_u64(), Some(number));
            proptest::prop_assert!(value["ip"].as_str().unwrap().parse::<IpAddr>().is_ok());
        }
    }

    #[test]
    fn hostile_text_stays_one_valid_json_line() {
        for hostile in
            [&b"a\"b\\c\nd\0e\x7f"[..], b"\xff\xfe\xc3", &[b'x'; 5000], "\u{1b}[31mred\u{2028}".as_bytes()]
        {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.bytes("k", hostile);
            object.end();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert!(value["k"].as_str().unwrap().len() <= MAX_TEXT * 3 + 3);
            assert!(!out.contains(&b'\n') && !out.contains(&0x1b));
        }
    }
}
