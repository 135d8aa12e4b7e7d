//! What the budget `max_total_workers` leaves to one pool.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the budget leaves to a pool that it holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Allowance {
    /// Workers that the pool may have.
    pub workers: u32,
    /// `max_total_workers`.
    pub total: u32,
    /// Workers that the other worker types have.
    pub others: u32,
    /// Free places that are kept for other worker types: for a minimum, a higher priority or an equal share.
    pub reserved: u32,
    /// Workers of the pool itself that leave or never became ready.
    pub unusable: u32,
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, total, others, reserved, unusable } = self;
        write!(f, "at most {workers} (max_total_workers {total}; other worker types have {others}")?;
        if *reserved > 0 {
            write!(f, " and come first for {reserved} more")?;
        }
        if *unusable > 0 {
            write!(f, "; {unusable} leave or never became ready")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_count_are_told() {
        let taken = Allowance { workers: 3, total: 10, others: 7, ..Allowance::default() };
        assert_eq!(taken.to_string(), "at most 3 (max_total_workers 10; other worker types have 7)");
        let reserved = Allowance { workers: 2, others: 2, reserved: 5, unusable: 1, ..taken };
        assert_eq!(
            reserved.to_string(),
            "at most 2 (max_total_workers 10; other worker types have 2 and come first for 5 more; 1 leave or never \
             became ready)"
        );
    }
}
