//! The bytes of one request: every distinct value once, by number.

use std::sync::atomic::{AtomicU64, Ordering};

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
#[derive(Debug)]
pub(crate) struct Values {
    arena: Vec<u8>,
    list: Vec<Slot>,
    /// Open addressing: a number plus one, or zero.
    table: Vec<u32>,
    /// The value that is held for the moment only.
    passing: Vec<u8>,
    budget: usize,
}

/// Beyond so many bytes what transformations make is not kept.
const BUDGET: usize = 64 << 20;

/// A value that is gone with the next transformation: what comes after the budget.
pub(crate) const PASSING: ValueId = ValueId(u32::MAX - 1);

/// The empty value, always there.
pub(crate) const EMPTY: ValueId = ValueId(0);

impl Default for Values {
    fn default() -> Self {
        Self { arena: Vec::new(), list: Vec::new(), table: Vec::new(), passing: Vec::new(), budget: BUDGET }
    }
}

impl Values {
    /// Another budget: tests reach a small one.
    pub(crate) fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
    }

    pub(crate) fn clear(&mut self) {
        self.budget = BUDGET;
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
        self.passing.clear();
        self.passing.shrink_to(1 << 16);
        if self.arena.capacity() > 1 << 21 {
            self.arena.shrink_to(1 << 16);
        }
        self.add(b"");
    }

    pub(crate) fn get(&self, id: ValueId) -> &[u8] {
        if id == PASSING {
            return &self.passing;
        }
        // What was never set is empty.
        let Some(slot) = self.list.get(id.0 as usize) else { return b"" };
        &self.arena[slot.start as usize..(slot.start + slot.len) as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The number of what a transformation made: [`PASSING`] once there is too much of it.
    pub(crate) fn add_transformed(&mut self, bytes: &mut Vec<u8>) -> ValueId {
        if self.arena.len().saturating_add(bytes.len()) > self.budget {
            std::mem::swap(&mut self.passing, bytes);
            return PASSING;
        }
        self.add(bytes)
    }

    /// A number that holds, for a value that may be passing.
    pub(crate) fn keep(&mut self, id: ValueId) -> ValueId {
        if id != PASSING {
            return id;
        }
        let passing = std::mem::take(&mut self.passing);
        let kept = self.add(&passing);
        self.passing = passing;
        kept
    }

    /// The hash of a value that is kept.
    pub(crate) fn hash_of(&self, id: ValueId) -> u32 {
        self.list.get(id.0 as usize).map_or(0, |slot| slot.hash)
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

/// A number that no other transaction of this process gets but by chance.
pub(crate) fn random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    u64::from(hash(&count)) << 32 | u64::from(hash(&[&count[..], b"id"].concat()))
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
