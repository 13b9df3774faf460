//! Follows the frames of an HTTP/2 client before they reach the `h2` crate, and counts those that are work for us and bring nothing.
//!
//! `h2` bounds what it holds in memory, but it answers SETTINGS, PING and empty frames for as long as they come. What a client may send
//! of them is earned: by requests, by bytes that move, and by time. What a frame's head alone shows to be wrong, and `h2` takes or calls
//! by another name, ends the connection here.

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Bytes of the preface that every client begins with.
const PREFACE: usize = 24;

/// Frames that a client may send before it has earned any; more than this cannot be saved up.
const MOST: u32 = 2_048;
/// What a request earns.
const PER_REQUEST: u32 = 16;
/// Bytes that earn one frame, in either direction.
const PER_FRAME: usize = 256;
/// What a tenth of a second earns.
pub(crate) const PER_TICK: u32 = 16;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Why nothing more is read from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It sent more frames that bring nothing than it had earned.
    Worn,
    /// Its first frame is not SETTINGS (RFC 9113, section 3.4).
    Unsettled,
    /// A frame of a fixed length has another (RFC 9113, section 4.2).
    Length,
}

/// Where the reading of a connection is, and what is left to its client.
#[derive(Debug)]
pub(crate) struct Follow {
    /// A frame's head, and of a padded body the byte behind it, which says how much of it is padding.
    head: [u8; HEAD + 1],
    have: usize,
    /// Bytes of the preface, or of the frame's payload, that are still to come.
    left: usize,
    /// A header block has begun and not ended.
    in_block: bool,
    credit: u32,
    /// Bytes that moved since the last frame that they earned.
    moved: usize,
    settled: bool,
    fault: Option<Fault>,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            head: [0; HEAD + 1],
            have: 0,
            left: PREFACE,
            in_block: false,
            credit: MOST,
            moved: 0,
            settled: false,
            fault: None,
        }
    }
}

impl Follow {
    /// Bytes that came.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (self.wanted() - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == self.wanted() {
                self.frame();
                self.have = 0;
            }
        }
    }

    /// How many bytes tell what a frame is. How they were cut into reads changes nothing.
    fn wanted(&self) -> usize {
        let [a, b, c, kind, flags, ..] = self.head;
        let padded = self.have >= HEAD && kind == DATA && flags & PADDED != 0 && [a, b, c] != [0; 3];
        HEAD + usize::from(padded)
    }

    /// A frame begins.
    fn frame(&mut self) {
        let [a, b, c, kind, flags, .., pad] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.left = length - (self.have - HEAD);
        let wrong = match kind {
            PRIORITY => length != 5,
            RST_STREAM | WINDOW_UPDATE => length != 4,
            SETTINGS => length % 6 != 0 || (flags & ACK != 0 && length > 0),
            PING => length != 8,
            GOAWAY => length < 8,
            _ => false,
        };
        if !self.settled && kind != SETTINGS {
            self.fault.get_or_insert(Fault::Unsettled);
        } else if wrong && !self.in_block {
            self.fault.get_or_insert(Fault::Length);
        }
        self.settled = true;
        match kind {
            DATA => {
                let padding = if flags & PADDED == 0 { 0 } else { 1 + usize::from(pad) };
                let body = length.saturating_sub(padding);
                if body > 0 {
                    self.moved(body);
                } else if flags & END_STREAM == 0 {
                    self.spend();
                }
            }
            HEADERS => {
                self.in_block = flags & END_HEADERS == 0;
                self.earn(PER_REQUEST);
            }
            CONTINUATION => {
                self.in_block = flags & END_HEADERS == 0;
                self.spend();
            }
            _ => self.spend(),
        }
    }

    /// Bytes of bodies that came, or bytes that were sent.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved += bytes;
        if self.moved >= PER_FRAME {
            self.earn(u32::try_from(self.moved / PER_FRAME).unwrap_or(MOST));
            self.moved %= PER_FRAME;
        }
    }

    pub(crate) fn earn(&mut self, frames: u32) {
        self.credit = self.credit.saturating_add(frames).min(MOST);
    }

    fn spend(&mut self) {
        match self.credit.checked_sub(1) {
            Some(left) => self.credit = left,
            None => drop(self.fault.get_or_insert(Fault::Worn)),
        }
    }

    /// Why nothing more is to be read.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether something has begun that others have to wait for: a header block, or a frame.
    pub(crate) fn is_within(&self) -> bool {
        self.in_block || self.have > 0 || self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    fn begun() -> Follow {
        let mut follow = Follow::default();
        follow.read(&[b'x'; PREFACE]);
        follow.read(&frame(SETTINGS, 0, b""));
        follow
    }

    #[test]
    fn frames_that_bring_nothing_wear_out_and_others_do_not() {
        for (name, bytes) in [
            ("SETTINGS", frame(SETTINGS, 0, b"")),
            ("PING", frame(PING, 0, b"12345678")),
            ("PRIORITY", frame(PRIORITY, 0, b"12345")),
            ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, b"1234")),
            ("empty DATA", frame(DATA, 0, b"")),
            ("padding alone", frame(DATA, PADDED, &[3, 0, 0, 0])),
            ("empty CONTINUATION", frame(CONTINUATION, 0, b"")),
            ("unknown", frame(0xfa, 0, b"1234")),
        ] {
            let mut follow = begun();
            (1..MOST).for_each(|_| follow.read(&bytes));
            assert_eq!(follow.fault(), None, "{name}");
            follow.read(&bytes);
            assert_eq!(follow.fault(), Some(Fault::Worn), "{name}");
        }
        let mut follow = begun();
        for _ in 0..100_000 {
            follow.read(&frame(DATA, 0, b"one byte more"));
            follow.read(&frame(HEADERS, END_HEADERS | END_STREAM, b"x"));
            (0..PER_REQUEST).for_each(|_| follow.read(&frame(PRIORITY, 0, b"12345")));
        }
        assert_eq!(follow.fault(), None);
    }

    #[test]
    fn what_is_sent_and_time_earn_frames_too() {
        let mut follow = begun();
        for _ in 0..100_000 {
            follow.moved(PER_FRAME);
            follow.read(&frame(WINDOW_UPDATE, 0, b"1234"));
        }
        for _ in 0..1_000 {
            follow.earn(PER_TICK);
            (0..PER_TICK).for_each(|_| follow.read(&frame(PING, 0, b"12345678")));
        }
        assert_eq!(follow.fault(), None);
    }

    #[test]
    fn a_frame_s_head_shows_what_no_client_means() {
        for (kind, flags, length) in [
            (PRIORITY, 0, 4),
            (RST_STREAM, 0, 5),
            (WINDOW_UPDATE, 0, 3),
            (SETTINGS, 0, 5),
            (SETTINGS, ACK, 6),
            (PING, 0, 9),
            (GOAWAY, 0, 7),
        ] {
            let mut follow = begun();
            follow.read(&frame(kind, flags, &vec![0; length]));
            assert_eq!(follow.fault(), Some(Fault::Length), "{kind}");
        }
        let mut follow = Follow::default();
        follow.read(&[b'x'; PREFACE]);
        follow.read(&frame(PING, 0, b"12345678"));
        assert_eq!(follow.fault(), Some(Fault::Unsettled));
    }

    #[test]
    fn padding_earns_nothing_however_it_is_cut() {
        let bytes = frame(DATA, PADDED, &[&[255], &[0; 255][..]].concat());
        for cut in 1..=bytes.len() {
            let mut follow = begun();
            let mut send = || bytes.chunks(cut).for_each(|piece| follow.read(piece));
            (0..MOST).for_each(|_| send());
            assert_eq!(follow.fault(), Some(Fault::Worn), "in pieces of {cut}");
        }
    }

    #[test]
    fn what_has_begun_is_known_until_it_ends() {
        let mut follow = Follow::default();
        assert!(follow.is_within(), "the preface");
        follow.read(&[b'x'; PREFACE]);
        assert!(!follow.is_within());
        follow.read(&frame(HEADERS, 0, b"abc"));
        assert!(follow.is_within(), "its CONTINUATION");
        follow.read(&frame(CONTINUATION, END_HEADERS, b""));
        assert!(!follow.is_within());
        let ping = frame(PING, 0, b"12345678");
        follow.read(&ping[..12]);
        assert!(follow.is_within(), "a piece of a frame");
        follow.read(&ping[12..]);
        assert!(!follow.is_within());
    }

    proptest! {
        #[test]
        fn pieces_are_the_same_as_the_whole(
            frames in prop::collection::vec((0_u8..11, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..40),
            cuts in prop::collection::vec(1_usize..50, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
            let (mut whole, mut pieces) = (begun(), begun());
            whole.read(&bytes);
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let n = (*cuts.next().unwrap()).min(rest.len());
                pieces.read(&rest[..n]);
                rest = &rest[n..];
            }
            let state = |f: &Follow| (f.credit, f.is_within(), f.moved, f.fault());
            prop_assert_eq!(state(&whole), state(&pieces));
        }
    }
}
