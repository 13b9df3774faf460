//! How many tries a thread may add along an edge: so many percent of the requests, whatever happens.
//!
//! Counted in the requests themselves and not per time: when a callee browns out, the tries that are added stay the same part of what
//! it gets anyway. The first one is an advance, which the requests after it pay back, so that the sum holds from then on.

use std::cell::RefCell;

use crate::table::EdgeId;

/// What one more try costs.
const TRY: u32 = 100;
/// Most that is saved up: as many tries may follow each other at once, after calm.
const MOST: u32 = 10 * TRY;

/// What a thread may add, by edge.
#[derive(Debug, Default)]
pub(crate) struct Budgets(RefCell<Vec<Budget>>);

#[derive(Clone, Copy, Debug)]
struct Budget {
    credit: u32,
    advance: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { credit: TRY, advance: TRY }
    }
}

impl Budgets {
    /// A request came, which earns so many percent of a try.
    pub(crate) fn earn(&self, edge: EdgeId, percent: u32) {
        self.with(edge, |budget| {
            let back = percent.min(budget.advance);
            budget.advance -= back;
            budget.credit = (budget.credit + percent - back).min(MOST);
        });
    }

    /// Takes one more try; `false` if there is none.
    pub(crate) fn spend(&self, edge: EdgeId) -> bool {
        self.with(edge, |budget| {
            let left = budget.credit.checked_sub(TRY);
            budget.credit = left.unwrap_or(budget.credit);
            left.is_some()
        })
    }

    fn with<R>(&self, edge: EdgeId, work: impl FnOnce(&mut Budget) -> R) -> R {
        let mut all = self.0.borrow_mut();
        let at = edge as usize;
        if all.len() <= at {
            all.resize_with(at + 1, Budget::default);
        }
        work(&mut all[at])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_may_be_tried_again_and_calm_saves_up_a_few() {
        let budgets = Budgets::default();
        budgets.earn(3, 20);
        assert!(budgets.spend(3) && !budgets.spend(3), "an advance, once");
        (0..4).for_each(|_| budgets.earn(3, 20));
        assert!(!budgets.spend(3), "it is being paid back");
        (0..1_000).for_each(|_| budgets.earn(3, 20));
        let saved = (0..1_000).take_while(|_| budgets.spend(3)).count();
        assert_eq!(saved, 10);
        assert!(budgets.spend(7), "each edge has its own");
    }

    proptest! {
        #[test]
        fn tries_never_pass_their_part(percent in 1..=100_u32, wanted in proptest::collection::vec(0..6_u8, 1..400)) {
            let budgets = Budgets::default();
            let mut added = 0_usize;
            for (at, wanted) in wanted.iter().enumerate() {
                budgets.earn(0, percent);
                added += (0..*wanted).filter(|_| budgets.spend(0)).count();
                let requests = at + 1;
                let most = (requests * percent as usize / 100).max(1);
                prop_assert!(added <= most, "{added} of {requests} at {percent} %");
            }
        }
    }
}
