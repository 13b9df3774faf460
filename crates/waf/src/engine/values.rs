//! The bytes of one request: every distinct value once, by number.

/// A value by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ValueId(pub(crate) u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    len: u32,
    hash: u32,
}

/// All values of a transaction. Numbers hold until [`Values::clear`].
#[derive(Debug, Default)]
pub(crate) struct Values {
    arena: Vec<u8>,
    list: Vec<Slot>,
    /// Open addressing: a number plus one, or zero.
    table: Vec<u32>,
}

/// The empty value, always there.
pub(crate) const EMPTY: ValueId = ValueId(0);

impl Values {
    pub(crate) fn clear(&mut self) {
        self.arena.clear();
        self.list.clear();
        if self.table.len() > 1 << 14 {
            self.table.truncate(1 << 10);
            self.table.shrink_to_fit();
        }
        if self.table.is_empty() {
            self.table.resize(1 << 8, 0);
        }
        self.table.fill(0);
        if self.arena.capacity() > 1 << 21 {
            self.arena.shrink_to(1 << 16);
        }
        self.add(b"");
    }

    pub(crate) fn get(&self, id: ValueId) -> &[u8] {
        let slot = self.list[id.0 as usize];
        &self.arena[slot.start as usize..(slot.start + slot.len) as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        self.arena.len()
    }

    /// The number of a value, new or known. What would not fit into 4 GiB is cut, which callers' limits rule out.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> ValueId {
        let room = (u32::MAX as usize).saturating_sub(self.arena.len());
        let bytes = &bytes[..bytes.len().min(room)];
        let hash = hash(bytes);
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.table[at] {
                0 => break,
                number => {
                    let slot = self.list[number as usize - 1];
                    if slot.hash == hash
                        && &self.arena[slot.start as usize..(slot.start + slot.len) as usize] == bytes
                    {
                        return ValueId(number - 1);
                    }
                }
            }
            at = (at + 1) & mask;
        }
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        self.list.push(Slot { start, len: bytes.len() as u32, hash });
        self.table[at] = self.list.len() as u32;
        let id = ValueId(self.list.len() as u32 - 1);
        if self.list.len() * 2 > self.table.len() {
            self.grow();
        }
        id
    }

    fn grow(&mut self) {
        let size = self.table.len() * 4;
        self.table.clear();
        self.table.resize(size, 0);
        for (index, slot) in self.list.iter().enumerate() {
            let mut at = slot.hash as usize & (size - 1);
            while self.table[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            self.table[at] = index as u32 + 1;
        }
    }
}

/// A fast hash whose seed is chosen once per process, so that a client cannot aim at one bucket.
pub(crate) fn hash(bytes: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let (first, second) = *seed();
    let mut state = first ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(second | 1);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        state = fold(state, u64::from_le_bytes(chunk.try_into().expect("invariant: eight bytes")));
    }
    let mut tail = [0; 8];
    tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    state = fold(state, u64::from_le_bytes(tail));
    let state = fold(state, MULTIPLIER);
    (state ^ (state >> 32)) as u32
}

fn seed() -> &'static (u64, u64) {
    use std::{
        collections::hash_map::RandomState,
        hash::{BuildHasher, Hasher},
        sync::OnceLock,
    };
    static SEED: OnceLock<(u64, u64)> = OnceLock::new();
    SEED.get_or_init(|| {
        let random = || RandomState::new().build_hasher().finish();
        (random(), random())
    })
}
