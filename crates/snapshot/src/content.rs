//! Files that enforcement points need besides the fence, such as rule sets: a snapshot names them by digest, and so they are part of what
//! is signed, while their bytes travel once, in bounded parts, to whoever lacks them. As part of the snapshot itself, like policies,
//! megabytes would be parsed by the keeper, stored and sent again with every revision.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ringfence_keys::digest::sha256;
use ringfence_model::content::{MAX_CONTENT_BYTES, MAX_CONTENT_FILE, MAX_CONTENT_FILES};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Der;

/// Bytes of one part.
const PART: usize = 256 << 10;
/// Most bytes that are held: what is in force, and what is to take its place.
const MAX_HELD: usize = 2 * MAX_CONTENT_BYTES;
/// Longest name.
const MAX_NAME: usize = 1024;

/// A file by name and digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its name, relative to the fence's folder.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of them.
    pub sha256: Digest,
}

/// SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A part of a file. The parts of a file come in order, and no part of another in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentPart {
    /// Of the whole.
    pub sha256: Digest,
    /// Bytes of the whole.
    pub size: u64,
    /// Where this begins.
    pub offset: u64,
    /// It.
    pub bytes: Der,
}

/// Files that came, by digest.
#[derive(Default)]
pub struct Held {
    files: HashMap<Digest, Arc<[u8]>>,
    bytes: usize,
    /// The one that is coming.
    coming: Option<(Digest, u64, Vec<u8>)>,
}

/// Why a part is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Parts are missing, or come twice.
    #[error("parts of a file do not follow each other")]
    Order,
    /// The file, or all of them.
    #[error("files are larger, or more, than may be held")]
    TooLarge,
    /// Other bytes than were named.
    #[error("a file does not have the digest that it was announced with")]
    Digest,
}

impl Content {
    /// What a snapshot says of a file.
    pub fn of(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self { name: name.into(), size: bytes.len() as u64, sha256: Digest::of(bytes) }
    }
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }
}

impl ContentPart {
    /// A file in parts.
    pub fn all(sha256: Digest, bytes: &[u8]) -> impl Iterator<Item = Self> {
        let part = move |offset: usize, part: &[u8]| Self {
            sha256,
            size: bytes.len() as u64,
            offset: offset as u64,
            bytes: Der(part.to_vec()),
        };
        let empty = bytes.is_empty().then(|| part(0, &[]));
        bytes.chunks(PART).enumerate().map(move |(at, chunk)| part(at * PART, chunk)).chain(empty)
    }
}

impl Held {
    /// Takes a part; the digest of the file, if it is whole with it and is what it was announced as.
    ///
    /// # Errors
    /// [`ContentError`]; what was there of the file is forgotten.
    pub fn take(&mut self, part: ContentPart) -> Result<Option<Digest>, ContentError> {
        let (sha256, size, mut bytes) = match self.coming.take() {
            Some(coming) if part.offset > 0 => coming,
            _ => (part.sha256, part.size, Vec::new()),
        };
        let length = bytes.len() + part.bytes.0.len();
        if (sha256, size, bytes.len() as u64) != (part.sha256, part.size, part.offset) || length as u64 > size
        {
            return Err(ContentError::Order);
        }
        let full = self.files.len() >= 2 * MAX_CONTENT_FILES || self.bytes + length > MAX_HELD;
        if size > MAX_CONTENT_FILE as u64 || full {
            return Err(ContentError::TooLarge);
        }
        bytes.extend_from_slice(&part.bytes.0);
        if (bytes.len() as u64) < size {
            // An empty part leads nowhere, and would for ever.
            if part.bytes.0.is_empty() {
                return Err(ContentError::Order);
            }
            self.coming = Some((sha256, size, bytes));
            return Ok(None);
        }
        if Digest::of(&bytes) != sha256 {
            return Err(ContentError::Digest);
        }
        self.put(sha256, bytes.into());
        Ok(Some(sha256))
    }

    /// Holds a file whose digest was looked at.
    fn put(&mut self, sha256: Digest, bytes: Arc<[u8]>) {
        let added = bytes.len();
        if self.files.insert(sha256, bytes).is_none() {
            self.bytes += added;
        }
    }

    /// The file with that digest.
    pub fn get(&self, sha256: &Digest) -> Option<&Arc<[u8]>> {
        self.files.get(sha256)
    }

    /// The digests of all files that are there.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.files.keys().copied()
    }

    /// Forgets the others.
    pub fn retain(&mut self, keep: impl Fn(&Digest) -> bool) {
        self.files.retain(|digest, _| keep(digest));
        self.bytes = self.files.values().map(|bytes| bytes.len()).sum();
    }
}

/// Whether a snapshot may carry these: in order of name, each once, inside the fence's folder, within bounds.
pub(crate) fn are_sound(all: &[Content]) -> bool {
    let inside = |name: &str| {
        (1..=MAX_NAME).contains(&name.len())
            && !name.starts_with('/')
            && !name.chars().any(char::is_control)
            && !name.split('/').any(|part| matches!(part, "" | "." | ".."))
    };
    let total = all.iter().try_fold(0_u64, |sum, content| sum.checked_add(content.size));
    all.len() <= MAX_CONTENT_FILES
        && all.iter().all(|content| inside(&content.name) && content.size <= MAX_CONTENT_FILE as u64)
        && total.is_some_and(|total| total <= MAX_CONTENT_BYTES as u64)
        && all.windows(2).all(|pair| pair[0].name < pair[1].name)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "a SHA-256 is 64 lower-case hexadecimal digits";
        let digit = |b: u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(SHAPE),
        };
        let mut digest = [0; 32];
        if text.len() != 64 {
            return Err(SHAPE);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("files", &self.files.len()).field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(
        held: &mut Held,
        parts: impl IntoIterator<Item = ContentPart>,
    ) -> Result<Option<Digest>, ContentError> {
        parts.into_iter().try_fold(None, |_, part| held.take(part))
    }

    #[test]
    fn a_file_in_parts_is_the_file() {
        let mut held = Held::default();
        for size in [0, 1, PART - 1, PART, PART + 1, 3 * PART + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let digest = Digest::of(&bytes);
            assert_eq!(take(&mut held, ContentPart::all(digest, &bytes)), Ok(Some(digest)), "{size}");
            assert_eq!(&**held.get(&digest).unwrap(), bytes.as_slice());
        }
        assert_eq!(held.digests().count(), 6);
        held.retain(|digest| *digest == Digest::of(&[]));
        assert_eq!((held.digests().count(), held.bytes), (1, 0));
    }

    #[test]
    fn parts_that_are_missing_twice_of_another_file_or_false_make_no_file() {
        let bytes = vec![7; 3 * PART];
        let digest = Digest::of(&bytes);
        let parts: Vec<ContentPart> = ContentPart::all(digest, &bytes).collect();
        let mut held = Held::default();
        for order in [&[0, 2][..], &[1], &[0, 1, 1], &[0, 1, 2, 2]] {
            let chosen = order.iter().map(|at| parts[*at].clone());
            assert_eq!(take(&mut held, chosen), Err(ContentError::Order), "{order:?}");
            held.retain(|_| false);
        }
        let mut altered = parts.clone();
        altered[1].bytes.0[5] = 8;
        assert_eq!(take(&mut held, altered), Err(ContentError::Digest));
        let mut longer = parts.clone();
        longer[2].bytes.0.push(7);
        assert_eq!(take(&mut held, longer), Err(ContentError::Order));
        let other = ContentPart { sha256: Digest::of(b"x"), ..parts[1].clone() };
        assert_eq!(take(&mut held, [parts[0].clone(), other]), Err(ContentError::Order));
        let nothing = ContentPart { bytes: Der(Vec::new()), ..parts[0].clone() };
        assert_eq!(take(&mut held, [nothing]), Err(ContentError::Order));
        // A file that is begun anew takes the place of one that is not whole.
        assert_eq!(take(&mut held, [parts[0].clone()].into_iter().chain(parts)), Ok(Some(digest)));
    }

    #[test]
    fn nobody_makes_others_hold_more_than_may_be() {
        let part = |size, bytes: &[u8]| ContentPart {
            sha256: Digest::of(bytes),
            size,
            offset: 0,
            bytes: Der(bytes.to_vec()),
        };
        let mut held = Held::default();
        assert_eq!(held.take(part(MAX_CONTENT_FILE as u64 + 1, b"x")), Err(ContentError::TooLarge));
        assert_eq!(held.take(part(u64::MAX, b"x")), Err(ContentError::TooLarge));
        let mut taken = 0;
        for number in 0..=2 * MAX_CONTENT_FILES {
            let bytes = number.to_le_bytes();
            match held.take(part(bytes.len() as u64, &bytes)) {
                Ok(Some(_)) => taken += 1,
                other => assert_eq!(other, Err(ContentError::TooLarge)),
            }
        }
        assert_eq!(taken, 2 * MAX_CONTENT_FILES);
    }

    #[test]
    fn names_stay_inside_and_in_order() {
        let named =
            |names: &[&str]| are_sound(&names.iter().map(|name| Content::of(*name, b"")).collect::<Vec<_>>());
        assert!(named(&[]) && named(&["a", "b/c", "b/d"]));
        for bad in [&["b", "a"][..], &["a", "a"], &["/a"], &["../a"], &["a/../b"], &["a//b"], &[""], &["a\n"]]
        {
            assert!(!named(bad), "{bad:?}");
        }
        let huge = |size| Content { size, ..Content::of("a", b"") };
        assert!(!are_sound(&[huge(u64::MAX)]) && !are_sound(&[huge(MAX_CONTENT_FILE as u64 + 1)]));
    }

    proptest! {
        #[test]
        fn a_digest_is_read_as_it_is_written(bytes: [u8; 32], text in "[0-9a-fA-F]{62,66}") {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            if let Ok(read) = text.parse::<Digest>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}
