//! Names of TX members known at load get a slot, so that a request looks up none of them.

use std::collections::HashMap;

/// The slots of TX.
#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: HashMap<Box<[u8]>, u32>,
    names: Vec<Box<[u8]>>,
}

impl Names {
    /// Names with the slots of captures, 0 to 9, at their own numbers.
    pub(crate) fn new() -> Self {
        let mut names = Self::default();
        for digit in b'0'..=b'9' {
            names.slot(&[digit]);
        }
        names
    }

    /// The slot of a name, which counts in any case.
    pub(crate) fn slot(&mut self, name: &[u8]) -> u32 {
        let name = name.to_ascii_lowercase().into_boxed_slice();
        if let Some(slot) = self.slots.get(&name) {
            return *slot;
        }
        let slot = u32::try_from(self.names.len()).expect("invariant: fewer names than bytes of rules");
        self.names.push(name.clone());
        self.slots.insert(name, slot);
        slot
    }

    /// The slot of a name in lower case, if any rule names it.
    pub(crate) fn find(&self, name: &[u8]) -> Option<u32> {
        self.slots.get(name).copied()
    }

    pub(crate) fn name(&self, slot: u32) -> &[u8] {
        &self.names[slot as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}
