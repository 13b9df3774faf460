//! What an operator leaves in `TX:0` to `TX:9`.

use std::ops::Range;

/// Groups that are kept: `TX:0` (the whole match) to `TX:9`.
pub const GROUPS: usize = 10;

/// Parts of a value that an operator matched; after `@detectSQLi` the fingerprint, which is no part of the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    groups: [Option<Range<usize>>; GROUPS],
    len: usize,
    text: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    bytes: [u8; 8],
    len: u8,
}

impl Captures {
    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many of `TX:0` to `TX:9` were set, the last one included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was captured.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What group `index` captured in `value`, the value that was evaluated. None for a group that took no part.
    pub fn get<'a>(&'a self, index: usize, value: &'a [u8]) -> Option<&'a [u8]> {
        if let (0, Some(text)) = (index, &self.text) {
            return text.bytes.get(..usize::from(text.len));
        }
        value.get(self.groups.get(index)?.clone()?)
    }

    /// Where group `index` lies in the value; none for a fingerprint.
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        self.groups.get(index)?.clone()
    }

    pub(super) fn set(&mut self, index: usize, range: Range<usize>) {
        if let Some(group) = self.groups.get_mut(index) {
            *group = Some(range);
            self.len = self.len.max(index + 1);
        }
    }

    /// As many groups as a pattern has, whether or not they took part.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = self.len.max(len.min(GROUPS));
    }

    pub(super) fn set_text(&mut self, text: &[u8]) {
        let mut bytes = [0; 8];
        let len = text.len().min(bytes.len());
        bytes[..len].copy_from_slice(&text[..len]);
        self.text = Some(Text { bytes, len: len as u8 });
        self.len = 1;
    }
}
