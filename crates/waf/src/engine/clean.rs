//! Values that were looked at before and that no rule may match: field names, header values, what forms send again and again.
//!
//! A table of fixed size that outlives transactions. An entry holds the whole value, so that no two values are taken for one
//! another; a newer value takes the place of an older one. What a rule may match is never in it.

/// Entries.
const ENTRIES: usize = 512;
/// The longest value that is remembered.
const LONGEST: usize = 56;

#[derive(Clone, Copy, Debug)]
struct Entry {
    profile: u32,
    len: u8,
    bytes: [u8; LONGEST],
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Clean {
    /// The plan that it holds for.
    plan: u64,
    entries: Vec<Entry>,
}

/// No profile has this number.
const NOBODY: u32 = u32::MAX;

impl Clean {
    /// Forgets everything that was found out under another plan.
    pub(crate) fn belongs_to(&mut self, plan: u64) {
        if self.plan != plan {
            self.plan = plan;
            self.entries.clear();
        }
    }

    fn place(profile: u32, hash: u32) -> usize {
        (hash ^ profile.wrapping_mul(0x9E37_79B1)) as usize % ENTRIES
    }

    /// Whether no rule of the profile may match the value.
    pub(crate) fn has(&self, profile: u32, hash: u32, value: &[u8]) -> bool {
        let Some(entry) = self.entries.get(Self::place(profile, hash)) else { return false };
        entry.profile == profile && entry.bytes.get(..usize::from(entry.len)) == Some(value)
    }

    /// Remembers that no rule of the profile may match the value.
    pub(crate) fn add(&mut self, profile: u32, hash: u32, value: &[u8]) {
        if value.len() > LONGEST {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES, Entry { profile: NOBODY, len: 0, bytes: [0; LONGEST] });
        }
        let entry = &mut self.entries[Self::place(profile, hash)];
        entry.profile = profile;
        entry.len = value.len() as u8;
        entry.bytes[..value.len()].copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_value_under_the_same_profile_and_plan_is_known() {
        let mut clean = Clean::default();
        clean.belongs_to(1);
        assert!(!clean.has(1, 7, b""));
        clean.add(1, 7, b"name");
        assert!(clean.has(1, 7, b"name"));
        for (profile, value) in [(2, &b"name"[..]), (1, b"nam"), (1, b"names"), (1, b"")] {
            assert!(!clean.has(profile, 7, value));
        }
        // The same place, another value.
        clean.add(1, 7, b"other");
        assert!(!clean.has(1, 7, b"name"));
        clean.belongs_to(2);
        assert!(!clean.has(1, 7, b"other"));
        clean.add(1, 7, &[b'x'; LONGEST + 1]);
        assert!(clean.entries.is_empty());
    }
}
