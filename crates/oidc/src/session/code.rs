//! The compact form of what cookies hold: numbers in seven-bit groups, texts with their length before them. JSON was rejected:
//! names and quotes cost a third of what a cookie may hold.

/// Writes.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(bytes);
    }

    pub(crate) fn list(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        for text in texts {
            self.text(text);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads; each part is bounded, and has one spelling.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                // A last group of nothing would be a second spelling.
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    pub(crate) fn blob(&mut self, longest: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= longest)?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self, longest: usize) -> Option<String> {
        Some(std::str::from_utf8(self.blob(longest)?).ok()?.to_owned())
    }

    pub(crate) fn list(&mut self, most: usize, longest: usize) -> Option<Vec<String>> {
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= most)?;
        (0..count).map(|_| self.text(longest)).collect()
    }

    pub(crate) const fn at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for bad in [&[0x80, 0x00][..], &[0xff; 10], &[0x80; 11], &[0x80]] {
            assert_eq!(Reader::new(bad).number(), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_and_texts_come_back(number: u64, texts: Vec<String>) {
            let mut writer = Writer::new();
            writer.number(number);
            writer.list(&texts);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.number(), Some(number));
            prop_assert_eq!(reader.list(texts.len(), usize::MAX), Some(texts));
            prop_assert!(reader.at_end());
        }
    }
}
