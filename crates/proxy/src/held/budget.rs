//! What a thread may hold of bodies, all together.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes of bodies that a thread may hold.
const MOST: usize = 64 << 20;
/// From here on those that wait for the rest of theirs give way.
const SHORT: usize = MOST / 4 * 3;

/// What a thread holds.
#[derive(Debug, Default)]
pub(crate) struct Budget(Rc<Cell<usize>>);

/// What one body takes of it, as long as this is there.
#[derive(Debug)]
pub(crate) struct Share {
    all: Rc<Cell<usize>>,
    mine: usize,
}

impl Budget {
    pub(crate) fn share(&self) -> Share {
        Share { all: self.0.clone(), mine: 0 }
    }

    /// How many bytes too many are held for others to come.
    pub(crate) fn excess(&self) -> usize {
        self.0.get().saturating_sub(SHORT)
    }
}

impl Share {
    /// Takes more; `false` if there is none.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let all = self.all.get() + bytes;
        if all > MOST {
            return false;
        }
        self.all.set(all);
        self.mine += bytes;
        true
    }
}

impl Share {
    /// All of it, and nothing yet.
    pub(crate) fn split(self) -> (Self, Self) {
        let rest = Self { all: self.all.clone(), mine: 0 };
        (self, rest)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.mine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_never_passes_the_bound_and_is_given_back() {
        let budget = Budget::default();
        let (mut a, mut b) = (budget.share(), budget.share());
        assert!(a.grow(SHORT) && budget.excess() == 0);
        assert!(b.grow(MOST - SHORT) && budget.excess() == MOST - SHORT);
        assert!(!b.grow(1) && !a.grow(1));
        drop(a);
        assert!(budget.excess() == 0 && b.grow(1));
        drop(b);
        assert_eq!(budget.0.get(), 0);
    }
}
