//! Transformed values, each worked out once per transaction.

use std::collections::HashMap;

use super::values::{ValueId, Values};
use crate::plan::{ChainId, Plan};

/// What is remembered within a transaction.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    memo: HashMap<(ValueId, ChainId), ValueId>,
    out: Vec<u8>,
}

impl Buffers {
    pub(crate) fn reset(&mut self, _plan: &Plan) {
        self.memo.clear();
    }

    /// `value` after the transformations of `chain`.
    pub(crate) fn transform(
        &mut self,
        plan: &Plan,
        values: &mut Values,
        value: ValueId,
        chain: ChainId,
    ) -> ValueId {
        if chain == 0 {
            return value;
        }
        if let Some(known) = self.memo.get(&(value, chain)) {
            return *known;
        }
        let before = self.transform(plan, values, value, plan.chains.parent(chain));
        let changed = plan.chains.transformation(chain).apply(values.get(before), &mut self.out);
        let result = if changed { values.add(&self.out) } else { before };
        self.memo.insert((value, chain), result);
        result
    }
}
