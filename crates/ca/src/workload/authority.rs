//! Makes `:authority` of HTTP/2 requests well-formed on its way in.
//!
//! Clients built on gRPC's C core (Python among them) and on Netty put the socket's path there, which our HTTP/2 library
//! refuses before any code of ours sees the request. Nothing uses the value on a Unix socket, so characters that do
//! not belong are replaced where they stand: lengths, frames and the header compression's state stay as they are. A server
//! with an HTTP/2 parser of its own was rejected: this looks at one field and passes everything else through.

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Largest frame before a server allows more, and we never do.
const MAX_FRAME: usize = 16 * 1024;
/// `:authority` in the static table.
const STATIC_AUTHORITY: u64 = 1;

/// Where in the stream the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes pass as they are.
    Pass(usize),
    /// A frame's header is collected.
    Header,
    /// A HEADERS frame's payload of that length and with those flags is collected.
    Payload { length: usize, flags: u8 },
}

/// Filters the bytes that a client sends.
#[derive(Debug)]
pub struct Filter {
    place: Place,
    /// Collected and not yet passed on: a frame header, or a HEADERS frame.
    held: Vec<u8>,
}

impl Filter {
    /// A filter at the start of a connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Pass(PREFACE), held: Vec::new() }
    }

    /// Takes the next bytes and appends to `out` what may pass.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            match self.place {
                Place::Pass(0) => self.place = Place::Header,
                Place::Pass(left) => {
                    let (now, rest) = input.split_at(left.min(input.len()));
                    out.extend_from_slice(now);
                    self.place = Place::Pass(left - now.len());
                    input = rest;
                }
                Place::Header => {
                    input = self.hold(input, FRAME_HEADER);
                    if let [a, b, c, kind, flags, ..] = self.held[..]
                        && self.held.len() == FRAME_HEADER
                    {
                        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                        if kind == HEADERS && length <= MAX_FRAME && length > 0 {
                            self.place = Place::Payload { length, flags };
                        } else {
                            out.append(&mut self.held);
                            self.place = Place::Pass(length);
                        }
                    }
                }
                Place::Payload { length, flags } => {
                    input = self.hold(input, FRAME_HEADER + length);
                    if self.held.len() == FRAME_HEADER + length {
                        clean(&mut self.held[FRAME_HEADER..], flags);
                        out.append(&mut self.held);
                        self.place = Place::Header;
                    }
                }
            }
        }
    }

    /// Collects up to `whole` bytes in all; answers what is left over.
    fn hold<'a>(&mut self, input: &'a [u8], whole: usize) -> &'a [u8] {
        let (now, rest) = input.split_at((whole - self.held.len()).min(input.len()));
        self.held.extend_from_slice(now);
        rest
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

/// Replaces what does not belong into the `:authority` of a HEADERS payload.
fn clean(payload: &mut [u8], flags: u8) {
    let start = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    if let Some(value) = authority(payload, start) {
        for byte in &mut payload[value] {
            if !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']') {
                *byte = b'-';
            }
        }
    }
}

/// Where the value of a literal, uncompressed `:authority` stands, if the block has one.
fn authority(block: &[u8], mut at: usize) -> Option<std::ops::Range<usize>> {
    while at < block.len() {
        let first = block[at];
        // RFC 7541, section 6: indexed, size update, and literals with a prefix of 6 or 4 bits for the name's index.
        let prefix = match first {
            0x80..=0xff => {
                (_, at) = integer(block, at, 7)?;
                continue;
            }
            0x20..=0x3f => {
                (_, at) = integer(block, at, 5)?;
                continue;
            }
            0x40..=0x7f => 6,
            0x00..=0x1f => 4,
        };
        let (index, after) = integer(block, at, prefix)?;
        at = after;
        let mut ours = index == STATIC_AUTHORITY;
        if index == 0 {
            let (name, plain, after) = string(block, at)?;
            ours = plain && &block[name] == b":authority";
            at = after;
        }
        let (value, plain, after) = string(block, at)?;
        if ours {
            return plain.then_some(value);
        }
        at = after;
    }
    None
}

/// A string's bytes, whether they are plain, and where it ends.
fn string(block: &[u8], at: usize) -> Option<(std::ops::Range<usize>, bool, usize)> {
    let plain = block.get(at)? & 0x80 == 0;
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= block.len()).then_some((start..end, plain, end))
}

/// An integer with a prefix of `bits` bits, and where it ends.
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(u64, usize)> {
    let mask = (1_u64 << bits) - 1;
    let mut value = u64::from(*block.get(at)?) & mask;
    if value < mask {
        return Some((value, at + 1));
    }
    for (i, byte) in block.get(at + 1..)?.iter().take(4).enumerate() {
        value += u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + i));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut filter, mut out) = (Filter::new(), Vec::new());
        for chunk in chunks {
            filter.push(chunk, &mut out);
        }
        out
    }

    fn stream(frames: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, flags, payload) in frames {
            bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
            bytes.extend_from_slice(&[*kind, *flags, 0, 0, 0, 1]);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    #[test]
    fn a_socket_path_becomes_an_authority_in_each_way_that_clients_write_it() {
        // As the C core does (literal name), as Netty does (name from the static table), and with padding and priority.
        let literal = b"\x83\x40\x0a:authority\x0etmp%2Fcap.sock\x86";
        let indexed = b"\x83\x41\x0d/tmp/cap.sock\x86";
        let padded = b"\x02\0\0\0\0\x10\x83\x41\x0d/tmp/cap.sock\x86\0\0";
        let input = stream(&[
            (4, 0, b"\0\0\0\0\0\0"),
            (1, 4, literal),
            (0, 1, b"%2F"),
            (1, 4, indexed),
            (1, 0x2c, padded),
        ]);
        let text = String::from_utf8_lossy(&run(&[&input])).into_owned();
        assert!(text.contains("tmp-2Fcap.sock") && text.contains("%2F"), "{text}");
        assert_eq!(text.matches("-tmp-cap.sock").count(), 2, "{text}");
    }

    #[test]
    fn other_fields_and_compressed_values_are_left_alone() {
        let other = b"\x83\x04\x05/a%2F\x00\x05:path\x03%2F";
        let huffman = b"\x41\x83%2F";
        let input = stream(&[(1, 4, other), (1, 4, huffman), (9, 4, b"\x41\x03%2F")]);
        assert_eq!(run(&[&input]), input);
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_nothing_but_the_authority_changes(
            payload: Vec<u8>, flags: u8, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6), tail: Vec<u8>,
        ) {
            let input = [stream(&[(1, flags, &payload), (0, 0, &payload)]), tail].concat();
            let whole = run(&[&input]);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&run(&chunks), &whole);
            prop_assert!(whole.len() <= input.len());
            prop_assert!(whole.iter().zip(&input).all(|(new, old)| new == old || *new == b'-'));
        }
    }
}
