//! A sealed stream: what a backup file is made of. Written and read in pieces, so a large state needs no large memory.
//!
//! A file is `magic (16) | format (1) | protection (1) | memory KiB, passes, lanes (4 each, big-endian) | salt (16) | chunks`.
//! Each chunk is AES-256-GCM over 64 KiB, the last one over what is left; its nonce says which chunk it is and whether it is the
//! last (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár). The key is derived from the master key and the whole
//! header, and the salt is random, so no two files share a key and a header that was touched opens nothing. One seal over
//! everything was rejected: nothing could be read before all of it lies in memory.

use std::io::{self, Read, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::master::{MasterError, MasterKind, MasterSource};

const MAGIC: &[u8; 16] = b"RINGFENCE BACKUP";
const FORMAT: u8 = 1;
const SALT: usize = 16;
const HEADER: usize = 16 + 1 + 1 + 3 * 4 + SALT;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// Why a sealed stream could not be started, written or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Does not begin as a backup does.
    #[error("this is no backup of ringfence")]
    Unknown,
    /// Of a format that this version does not know.
    #[error("this backup has format {0}, and this ringfence knows 1; was it written by a newer one?")]
    Newer(u8),
    /// The key it is sealed with.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// Below it, the file or the pipe.
    #[error("backup: {0}")]
    Io(#[from] io::Error),
}

/// Seals what is written to it. The file is whole only after [`Sealer::finish`]; without it, it does not open to its end.
pub struct Sealer<W> {
    out: W,
    stream: Stream,
    pending: Zeroizing<Vec<u8>>,
}

/// Opens a sealed stream. Each byte that it gives was verified, but only a read that returns 0 says that the stream is whole:
/// use nothing before that. Damage is an error of the kind [`io::ErrorKind::InvalidData`].
pub struct Opener<R> {
    from: R,
    stream: Stream,
    clear: Zeroizing<Vec<u8>>,
    taken: usize,
    /// The byte read to learn whether a full chunk is the last.
    ahead: Option<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Damaged,
}

/// The key of one file and the number of its next chunk.
struct Stream {
    key: LessSafeKey,
    number: u64,
}

impl<W: Write> Sealer<W> {
    /// Starts a stream into `out`, sealed with `source`.
    ///
    /// # Errors
    /// [`BackupError`]: no such key, a passphrase that is too short, or `out` does not take the header.
    pub fn start(mut out: W, source: &MasterSource) -> Result<Self, BackupError> {
        let kind = source.fresh_kind();
        let header = header(&kind)?;
        let stream = Stream::new(source, &kind, &header)?;
        out.write_all(&header)?;
        Ok(Self { out, stream, pending: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)) })
    }

    /// Seals the last chunk and gives back what was written to; whoever keeps it in a file must still sync it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        self.chunk(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.stream.next(last);
        let tag = self
            .stream
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut self.pending)
            .expect("invariant: a chunk is shorter than what AES-GCM may seal");
        self.out.write_all(&self.pending)?;
        self.out.write_all(tag.as_ref())?;
        self.pending.clear();
        Ok(())
    }
}

impl<R: Read> Opener<R> {
    /// Reads the header and derives the key.
    ///
    /// # Errors
    /// [`BackupError`]: not a backup, of another format, or sealed with another kind of key. That the key is the right one
    /// shows at the first read.
    pub fn start(mut from: R, source: &MasterSource) -> Result<Self, BackupError> {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Unknown,
            _ => BackupError::Io(e),
        })?;
        let stream = Stream::new(source, &kind(&header)?, &header)?;
        let clear = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
        Ok(Self { from, stream, clear, taken: 0, ahead: None, state: State::Open })
    }

    fn chunk(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.clear.clear();
        let ahead = self.ahead.take();
        self.clear.extend(ahead);
        let rest = (CHUNK + TAG + 1 - self.clear.len()) as u64;
        (&mut self.from).take(rest).read_to_end(&mut self.clear)?;
        let last = self.clear.len() <= CHUNK + TAG;
        if !last {
            self.ahead = self.clear.pop();
        }
        let first = self.stream.number == 0;
        let nonce = self.stream.next(last);
        let length = self
            .stream
            .key
            .open_in_place(nonce, Aad::empty(), &mut self.clear)
            .map_err(|_| damaged(first))?
            .len();
        // An empty chunk exists only as the whole of an empty stream: one content, one file.
        if length == 0 && !first {
            return Err(damaged(false));
        }
        self.clear.truncate(length);
        if last {
            self.state = State::Ended;
        }
        Ok(())
    }
}

impl Stream {
    fn new(source: &MasterSource, kind: &MasterKind, header: &[u8; HEADER]) -> Result<Self, MasterError> {
        let key = crate::seal::derive(source.load(kind)?.expose(), header, "ringfence backup v1");
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("invariant: the key has 32 bytes");
        Ok(Self { key: LessSafeKey::new(key), number: 0 })
    }

    /// The nonce of the next chunk; none is used twice, for no file has 2^64 chunks.
    fn next(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = u8::from(last);
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

fn header(kind: &MasterKind) -> Result<[u8; HEADER], MasterError> {
    let (protection, numbers, salt) = match kind {
        MasterKind::KeyFile => (1, [0; 3], crate::random::<SALT>()),
        MasterKind::Credential => (2, [0; 3], crate::random::<SALT>()),
        MasterKind::Passphrase { memory_kib, passes, lanes, salt } => {
            let salt = crate::from_hex(salt).and_then(|salt| salt.try_into().ok());
            let salt = salt.ok_or_else(|| MasterError::Parameters("salt".to_owned()))?;
            (3, [*memory_kib, *passes, *lanes], salt)
        }
    };
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(MAGIC);
    header[16] = FORMAT;
    header[17] = protection;
    for (place, number) in header[18..30].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    header[30..].copy_from_slice(&salt);
    Ok(header)
}

fn kind(header: &[u8; HEADER]) -> Result<MasterKind, BackupError> {
    if &header[..16] != MAGIC {
        return Err(BackupError::Unknown);
    }
    if header[16] != FORMAT {
        return Err(BackupError::Newer(header[16]));
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    match header[17] {
        1 => Ok(MasterKind::KeyFile),
        2 => Ok(MasterKind::Credential),
        // `MasterSource::load` bounds what a planted file may ask of this machine.
        3 => Ok(MasterKind::Passphrase {
            memory_kib: number(18),
            passes: number(22),
            lanes: number(26),
            salt: crate::to_hex(&header[30..]),
        }),
        _ => Err(BackupError::Unknown),
    }
}

fn damaged(first: bool) -> io::Error {
    let why = if first {
        "the backup does not open: wrong key or passphrase, or it was altered"
    } else {
        "the backup is damaged: it was altered or cut short; take another copy"
    };
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for one more byte: until then it may be the last.
        if self.pending.len() == CHUNK && !bytes.is_empty() {
            self.chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.pending.len());
        self.pending.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.taken == self.clear.len() {
            match self.state {
                State::Open => {}
                State::Ended => return Ok(0),
                State::Damaged => return Err(damaged(false)),
            }
            if let Err(e) = self.chunk() {
                self.state = State::Damaged;
                self.clear.clear();
                return Err(e);
            }
        }
        let taken = into.len().min(self.clear.len() - self.taken);
        into[..taken].copy_from_slice(&self.clear[self.taken..self.taken + taken]);
        self.taken += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
