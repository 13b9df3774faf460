//! Compressed bodies (RFC 9110, section 8.4.1), unpacked to be judged, under hard bounds.
//!
//! They are sent on as they came, so whatever two decoders may read differently is refused: a second member or bytes behind the end,
//! two codings on top of each other, a `deflate` that is one thing with its zlib head and another without. One that has no such head,
//! which is wrong and common, is unpacked too.

use std::io::{BufRead, ErrorKind, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

/// Bytes that may be unpacked from each that came, beyond [`FREE`].
const RATIO: usize = 200;
const FREE: usize = 64 << 10;
const STEP: usize = 16 << 10;

/// `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
    /// One that is not known here, or several.
    Unknown,
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(super) bytes: Bytes,
    /// Whether this is all of it.
    pub(super) whole: bool,
}

/// Why a body is not unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Malformed,
    /// It grows beyond all measure.
    Bomb,
    NoMemory,
}

impl Coding {
    pub(crate) fn of<'v>(fields: impl Iterator<Item = (&'v [u8], &'v [u8])>) -> Self {
        let values = fields.filter(|(name, _)| name.eq_ignore_ascii_case(b"content-encoding"));
        let codings = values.flat_map(|(_, value)| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
        let mut codings =
            codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Self::Identity,
            (Some(one), None) if is(one, &[b"gzip", b"x-gzip"]) => Self::Gzip,
            (Some(one), None) if is(one, &[b"deflate"]) => Self::Deflate,
            _ => Self::Unknown,
        }
    }
}

fn is(coding: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|name| coding.eq_ignore_ascii_case(name))
}

/// Unpacks `most` bytes at most. `ended`: `bytes` are all that there are.
pub(super) fn decode(coding: Coding, bytes: &[u8], ended: bool, most: usize) -> Result<Decoded, Unreadable> {
    match coding {
        Coding::Identity | Coding::Unknown => Err(Unreadable::Malformed),
        // Names, comments and extra fields are text that is not packed: whoever reads the body as it came sees what is in them.
        Coding::Gzip if bytes.get(3).is_some_and(|flags| flags & 0x1c != 0) => Err(Unreadable::Malformed),
        Coding::Gzip => unpack(GzDecoder::new(bytes), GzDecoder::into_inner, bytes.len(), ended, most),
        Coding::Deflate => inflate(bytes, ended, most),
    }
}

/// With its zlib head, or without.
fn inflate(bytes: &[u8], ended: bool, most: usize) -> Result<Decoded, Unreadable> {
    let raw = || unpack(DeflateDecoder::new(bytes), DeflateDecoder::into_inner, bytes.len(), ended, most);
    match bytes {
        [first, second, ..]
            if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31) => {}
        _ => return raw(),
    }
    let zlib = unpack(ZlibDecoder::new(bytes), ZlibDecoder::into_inner, bytes.len(), ended, most);
    // Without a head these bytes begin what is hardly ever one: a block that is not packed, of a fitting length.
    match (zlib, raw()) {
        (Ok(_), Ok(raw)) if !raw.bytes.is_empty() => Err(Unreadable::Malformed),
        (Err(Unreadable::Malformed), Ok(raw)) if !raw.bytes.is_empty() => Ok(raw),
        (zlib, _) => zlib,
    }
}

fn unpack<'b, R: Read>(
    mut from: R,
    rest: impl FnOnce(R) -> &'b [u8],
    came: usize,
    ended: bool,
    most: usize,
) -> Result<Decoded, Unreadable> {
    let mut all = Vec::new();
    loop {
        let at = all.len();
        if at > most {
            all.truncate(most);
            return Ok(Decoded { bytes: all.into(), whole: false });
        }
        if at > FREE && (at - FREE) / RATIO > came {
            return Err(Unreadable::Bomb);
        }
        all.resize(at + STEP.min(most + 1 - at), 0);
        match from.read(&mut all[at..]) {
            Ok(0) => {
                all.truncate(at);
                // What follows the end is somebody else's first member, or nothing that was meant to be read.
                let over = rest(from).fill_buf().is_ok_and(<[u8]>::is_empty);
                return if over {
                    Ok(Decoded { bytes: all.into(), whole: ended })
                } else {
                    Err(Unreadable::Malformed)
                };
            }
            Ok(n) => all.truncate(at + n),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof && !ended => {
                all.truncate(at);
                return Ok(Decoded { bytes: all.into(), whole: false });
            }
            Err(_) => return Err(Unreadable::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// A stream of blocks that are not packed, which are others with the zlib head than without.
    fn ambiguous() -> Vec<u8> {
        let mut inner = [&10_u16.to_le_bytes()[..], &(!10_u16).to_le_bytes(), b"0123456789", &[1]].concat();
        inner.extend([65524_u16.to_le_bytes(), (!65524_u16).to_le_bytes()].concat());
        inner.resize(65534, b'a');
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &inner {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        let sum = (b << 16 | a).to_be_bytes();
        [&[0x78, 0x01, 0, 0xfe, 0xff, 1, 0][..], &inner, &[1, 0, 0, 0xff, 0xff], &sum].concat()
    }

    fn coding(values: &[&str]) -> Coding {
        Coding::of(values.iter().map(|value| (&b"Content-Encoding"[..], value.as_bytes())))
    }

    #[test]
    fn text_that_is_not_packed_is_not_carried_past_the_judge() {
        let named = flate2::GzBuilder::new().comment("&id=1' union select 1--&");
        let mut encoder = named.write(Vec::new(), Compression::fast());
        encoder.write_all(b"a=1").unwrap();
        let bytes = encoder.finish().unwrap();
        assert!(matches!(decode(Coding::Gzip, &bytes, true, 100), Err(Unreadable::Malformed)));
        assert!(decode(Coding::Gzip, &gzip(b"a=1"), true, 100).is_ok());
    }

    #[test]
    fn only_one_known_coding_is_read() {
        assert_eq!(coding(&[]), Coding::Identity);
        assert_eq!(coding(&["identity"]), Coding::Identity);
        assert_eq!(coding(&["GZip"]), Coding::Gzip);
        assert_eq!(coding(&["x-gzip, identity"]), Coding::Gzip);
        assert_eq!(coding(&["deflate"]), Coding::Deflate);
        for other in [&["br"][..], &["gzip, gzip"], &["gzip", "deflate"], &["zstd"], &["gzip;q=1"]] {
            assert_eq!(coding(other), Coding::Unknown, "{other:?}");
        }
    }

    #[test]
    fn what_decoders_read_differently_is_refused() {
        let two = [gzip(b"harmless"), gzip(b"' or 1=1")].concat();
        let behind = [gzip(b"harmless"), b"' or 1=1".to_vec()].concat();
        let cut = gzip(b"the end is missing");
        let mut wrong = gzip(b"another sum");
        let sum = wrong.len() - 6;
        wrong[sum] ^= 1;
        for (coding, bytes) in [
            (Coding::Gzip, &two[..]),
            (Coding::Gzip, &behind),
            (Coding::Gzip, &wrong),
            (Coding::Gzip, b"no gzip at all"),
            (Coding::Gzip, &cut[..cut.len() - 3]),
            (Coding::Deflate, b"a=1&q=no deflate"),
            (Coding::Deflate, b"x^q=no zlib"),
            (Coding::Deflate, &[zlib(b"a"), vec![0]].concat()),
            (Coding::Deflate, &[deflate(b"a"), vec![0]].concat()),
        ] {
            assert_eq!(decode(coding, bytes, true, 1 << 20), Err(Unreadable::Malformed), "{bytes:?}");
        }
        assert!(!decode(Coding::Gzip, &cut[..cut.len() - 3], false, 1 << 20).unwrap().whole);
    }

    #[test]
    fn deflate_without_its_head_is_unpacked_unless_it_is_something_else_with_it() {
        let plain = b"without a head".to_vec();
        let decoded = decode(Coding::Deflate, &deflate(&plain), true, 100).unwrap();
        assert_eq!(decoded, Decoded { bytes: plain.into(), whole: true });
        let both = ambiguous();
        let alone = |mut reader: Box<dyn Read + '_>| reader.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(alone(Box::new(ZlibDecoder::new(&*both))), 65534);
        assert_eq!(alone(Box::new(DeflateDecoder::new(&*both))), 1 + 10 + 65524);
        assert_eq!(decode(Coding::Deflate, &both, true, 1 << 20), Err(Unreadable::Malformed));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 70_000);
        assert_eq!(decode(Coding::Gzip, &bomb, true, 128 << 20), Err(Unreadable::Bomb));
        // One that is cut short before it grows too large is like any other long body.
        let head = decode(Coding::Gzip, &bomb, true, 1000).unwrap();
        assert_eq!((head.bytes.len(), head.whole), (1000, false));
    }

    proptest! {
        #[test]
        fn what_was_packed_is_what_is_unpacked(plain in proptest::collection::vec(any::<u8>(), 0..5000), most in 0_usize..6000) {
            for (coding, packed) in
                [(Coding::Gzip, gzip(&plain)), (Coding::Deflate, zlib(&plain)), (Coding::Deflate, deflate(&plain))]
            {
                let decoded = decode(coding, &packed, true, most).unwrap();
                prop_assert_eq!(&decoded.bytes[..], &plain[..plain.len().min(most)]);
                prop_assert_eq!(decoded.whole, plain.len() <= most);
            }
        }

        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000), ended: bool, most in 0_usize..100_000) {
            for coding in [Coding::Gzip, Coding::Deflate] {
                if let Ok(decoded) = decode(coding, &bytes, ended, most) {
                    prop_assert!(decoded.bytes.len() <= most);
                }
            }
        }
    }
}
