//! The bytes of a question, and of an answer.

use std::net::Ipv4Addr;

/// Header of a message.
const HEADER: usize = 12;
/// Most bytes of a name on the wire (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// Bytes of an answer over UDP that everybody takes (RFC 1035, 2.3.4), and most that are sent whatever is asked for, so that nothing
/// is fragmented (RFC 9715).
const UDP_LEAST: u16 = 512;
const UDP_MOST: u16 = 1232;

pub(super) const A: u16 = 1;
pub(super) const SRV: u16 = 33;
pub(super) const ANY: u16 = 255;
const OPT: u16 = 41;
pub(super) const INTERNET: u16 = 1;

pub(super) const NO_ERROR: u8 = 0;
pub(super) const FORMAT_ERROR: u8 = 1;
pub(super) const SERVER_FAILURE: u8 = 2;
pub(super) const NO_NAME: u8 = 3;
pub(super) const NOT_IMPLEMENTED: u8 = 4;
pub(super) const REFUSED: u8 = 5;
const BAD_VERSION: u8 = 16;

/// How a message came and how its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// Behind a length of two bytes, which is not part of the message.
    Tcp,
}

/// A question that was read.
#[derive(Debug)]
pub struct Question<'a> {
    /// Its bytes, as they are sent back.
    wire: &'a [u8],
    /// Name in lower case, without the last dot; a byte that no host name has is `?`.
    pub name: String,
    /// Type of record.
    pub kind: u16,
    /// Class of record.
    pub(super) class: u16,
}

/// A message that was read, or what is wrong with it.
pub(super) struct Read<'a> {
    pub(super) id: [u8; 2],
    /// The bits of the request that an answer repeats: operation and recursion desired.
    flags: u8,
    pub(super) question: Option<Question<'a>>,
    /// An OPT record came, so one is sent back.
    edns: bool,
    limit: u16,
    pub(super) wrong: Option<u8>,
}

/// Reads a message; none if it is nothing that may be answered at all.
pub(super) fn read(message: &[u8], transport: Transport) -> Option<Read<'_>> {
    let (header, rest) = message.split_at_checked(HEADER)?;
    if header[2] & 0x80 != 0 {
        // An answer is never answered: two servers would never stop.
        return None;
    }
    let limit = if transport == Transport::Udp { UDP_LEAST } else { u16::MAX };
    let mut read = Read {
        id: [header[0], header[1]],
        flags: header[2] & 0x79,
        question: None,
        edns: false,
        limit,
        wrong: None,
    };
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if header[2] & 0x78 != 0 {
        read.wrong = Some(NOT_IMPLEMENTED);
        return Some(read);
    }
    if (count(4), count(6), count(8)) != (1, 0, 0) || count(10) > 1 {
        read.wrong = Some(FORMAT_ERROR);
        return Some(read);
    }
    let Some((question, rest)) = question(rest) else {
        read.wrong = Some(FORMAT_ERROR);
        return Some(read);
    };
    read.question = Some(question);
    if count(10) == 0 {
        read.wrong = (!rest.is_empty()).then_some(FORMAT_ERROR);
        return Some(read);
    }
    // The one record that may follow: root, OPT, size, extended code, version, flags, length, options.
    let opt = rest.split_at_checked(11).filter(|(fixed, options)| {
        fixed[0] == 0
            && u16::from_be_bytes([fixed[1], fixed[2]]) == OPT
            && usize::from(u16::from_be_bytes([fixed[9], fixed[10]])) == options.len()
    });
    let Some((fixed, _)) = opt else {
        read.wrong = Some(FORMAT_ERROR);
        return Some(read);
    };
    read.edns = true;
    if transport == Transport::Udp {
        read.limit = u16::from_be_bytes([fixed[3], fixed[4]]).clamp(UDP_LEAST, UDP_MOST);
    }
    read.wrong = (fixed[6] != 0).then_some(BAD_VERSION);
    Some(read)
}

fn question(bytes: &[u8]) -> Option<(Question<'_>, &[u8])> {
    let mut rest = bytes;
    let mut name = String::with_capacity(64);
    loop {
        let (length, after) = rest.split_first()?;
        let (label, after) = match length {
            0 => {
                rest = after;
                break;
            }
            // A pointer (over 63) has nothing to point to: this is the first name.
            1..=63 => after.split_at_checked(usize::from(*length))?,
            _ => return None,
        };
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| match byte {
            b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' => char::from(*byte),
            b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
            _ => '?',
        }));
        rest = after;
        if bytes.len() - rest.len() >= MAX_NAME {
            return None;
        }
    }
    let (fixed, after) = rest.split_at_checked(4)?;
    let wire = &bytes[..bytes.len() - after.len()];
    let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
    Some((Question { wire, name, kind, class: u16::from_be_bytes([fixed[2], fixed[3]]) }, after))
}

/// Writes an answer; records beyond what the asker takes are left out, all of them, and it is told to ask over TCP.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    counts: [u16; 2],
    start: usize,
    limit: usize,
    edns: bool,
    full: bool,
}

/// Where the name of the question stands.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
const OPT_LENGTH: usize = 11;

impl<'a> Writer<'a> {
    /// Begins an answer in `out`, which is emptied.
    pub(super) fn new(out: &'a mut Vec<u8>, read: &Read<'_>, code: u8) -> Self {
        out.clear();
        out.extend(read.id);
        // Response, authoritative; recursion is offered, or some resolvers take no answer, but there is nothing to recurse to.
        out.extend([0x84 | read.flags, 0x80 | (code & 0x0f)]);
        out.extend(u16::from(read.question.is_some()).to_be_bytes());
        out.extend([0; 4]);
        out.extend(u16::from(read.edns).to_be_bytes());
        if let Some(question) = &read.question {
            out.extend(question.wire);
        }
        let start = out.len();
        let limit = usize::from(read.limit).saturating_sub(if read.edns { OPT_LENGTH } else { 0 });
        let mut writer = Self { out, counts: [0; 2], start, limit, edns: read.edns, full: false };
        if code > 0x0f {
            writer.full = true;
        }
        writer
    }

    pub(super) fn address(&mut self, ttl: u32, address: Ipv4Addr) {
        self.record(&QUESTION_NAME, A, ttl, &address.octets(), 0);
    }

    pub(super) fn service(&mut self, ttl: u32, port: u16, target: &[u8]) {
        let mut data = vec![0, 1, 0, 1];
        data.extend(port.to_be_bytes());
        data.extend(target);
        self.record(&QUESTION_NAME, SRV, ttl, &data, 0);
    }

    pub(super) fn additional(&mut self, name: &[u8], ttl: u32, address: Ipv4Addr) {
        self.record(name, A, ttl, &address.octets(), 1);
    }

    fn record(&mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8], section: usize) {
        if self.full || self.out.len() + name.len() + 10 + data.len() > self.limit {
            self.full = true;
            return;
        }
        self.out.extend(name);
        self.out.extend(kind.to_be_bytes());
        self.out.extend(INTERNET.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend((data.len() as u16).to_be_bytes());
        self.out.extend(data);
        self.counts[section] += 1;
    }

    /// Ends it; `code` may be an extended one.
    pub(super) fn end(mut self, code: u8) {
        if self.full {
            self.out.truncate(self.start);
            self.counts = [0; 2];
            // An extended code has no records to leave out.
            self.out[2] |= if code > 0x0f { 0 } else { 0x02 };
        }
        self.out[6..8].copy_from_slice(&self.counts[0].to_be_bytes());
        self.out[10..12].copy_from_slice(&(self.counts[1] + u16::from(self.edns)).to_be_bytes());
        if self.edns {
            self.out.push(0);
            self.out.extend(OPT.to_be_bytes());
            self.out.extend(UDP_MOST.to_be_bytes());
            self.out.extend([code >> 4, 0, 0, 0, 0, 0]);
        }
    }
}
