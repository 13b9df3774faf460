//! SVIDs that are not believed any more, though they have not ended.
//!
//! By serial number, or all of one identity up to a moment: whoever stole a key may hold certificates that nobody listed. A list
//! that has not arrived is not an empty one; until it has, nobody is believed.

use std::collections::{HashMap, HashSet};

use crate::id::SpiffeId;
use crate::svid::SvidError;

/// Which SVIDs were revoked. The default is that none were.
#[derive(Clone, Debug, Default)]
pub struct RevokedSvids {
    unknown: bool,
    serials: HashSet<String>,
    ids: HashMap<SpiffeId, u64>,
}

impl RevokedSvids {
    /// It is not known yet which: none is believed.
    #[must_use]
    pub fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    /// The SVID of this serial number, in lower-case hexadecimal.
    pub fn add_serial(&mut self, serial: impl Into<String>) {
        self.serials.insert(serial.into());
    }

    /// All SVIDs of an identity whose validity begins no later than this, in Unix seconds.
    pub fn add_id(&mut self, id: SpiffeId, begun_until: u64) {
        let until = self.ids.entry(id).or_default();
        *until = begun_until.max(*until);
    }

    /// Whether an SVID is among them: whose it is, its serial number, and when its validity begins.
    ///
    /// # Errors
    /// [`SvidError::Revoked`], or [`SvidError::RevocationsUnknown`].
    pub fn check(&self, id: &SpiffeId, serial: &str, not_before: u64) -> Result<(), SvidError> {
        if self.unknown {
            return Err(SvidError::RevocationsUnknown);
        }
        let of_id = self.ids.get(id).is_some_and(|until| not_before <= *until);
        if of_id || self.serials.contains(serial) { Err(SvidError::Revoked) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_revoked_by_its_number_or_with_all_that_began_before_a_moment() {
        let (a, b) = (SpiffeId::parse("spiffe://x/service/a"), SpiffeId::parse("spiffe://x/service/b"));
        let (a, b) = (a.unwrap(), b.unwrap());
        let mut list = RevokedSvids::default();
        list.check(&a, "01", 5).unwrap();
        list.add_serial("01");
        list.add_id(b.clone(), 10);
        list.add_id(b.clone(), 7);
        assert_eq!(list.check(&a, "01", 99), Err(SvidError::Revoked));
        list.check(&a, "02", 1).unwrap();
        assert_eq!(list.check(&b, "03", 10), Err(SvidError::Revoked));
        list.check(&b, "03", 11).unwrap();
        assert_eq!(RevokedSvids::unknown().check(&a, "02", 1), Err(SvidError::RevocationsUnknown));
    }
}
