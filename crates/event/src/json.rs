//! A JSON object writer that appends to a buffer: no tree, no allocation, only what events need.

use std::io::Write;

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

    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        write_text(self.out, value.as_bytes());
        self
    }

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

    pub(crate) fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        let _ = write!(self.out, "{value}");
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

    pub(crate) fn raw(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
        self
    }

    pub(crate) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        self.key(key);
        let mut inner = Object::begin(self.out);
        fill(&mut inner);
        inner.end();
        self
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

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

/// Writes a JSON string. What is not UTF-8 is replaced, what is too long is cut.
fn write_text(out: &mut Vec<u8>, value: &[u8]) {
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

    #[test]
    fn hostile_text_stays_one_valid_json_line() {
        for hostile in [&b"a\"b\\c\nd\0e\x7f"[..], b"\xff\xfe\xc3", &[b'x'; 5000], "\u{1b}[31mred\u{2028}".as_bytes()] {
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
