//! Made-up decisions for the tests of the budget.

use crate::{
    model::{Allowance, snapshot::Action},
    policy::{Decision, Reason},
};

/// Returns the decision that changes a pool from `current` to `target` workers, as the budget has lowered it if it has.
pub(super) fn decision(current: u32, target: u32, lowered: Option<Allowance>) -> Decision {
    Decision {
        target,
        current,
        floor: 0,
        ceiling: 10,
        action: match target.cmp(&current) {
            std::cmp::Ordering::Less => Action::ScaleDown,
            std::cmp::Ordering::Equal => Action::Hold,
            std::cmp::Ordering::Greater => Action::ScaleUp,
        },
        reasons: lowered.map(Reason::Budget).into_iter().collect(),
        recheck_at: None,
        recommendation: None,
    }
}
