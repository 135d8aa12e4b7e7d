//! Whom a platform removes when its number of workers falls. Pure.

use std::cmp::Reverse;

use crate::{
    backend::Removal,
    config::Removes,
    model::{Timestamp, WorkerId},
};

/// Returns the order of removal. Workers among which the platform may take any form one group.
pub(super) fn removal<'a>(removes: Removes, workers: impl Iterator<Item = (&'a WorkerId, Timestamp)>) -> Removal {
    let mut keyed: Vec<(Reverse<u64>, &WorkerId)> = workers
        .map(|(id, started_at)| {
            let first = match removes {
                Removes::Unknown => 0,
                Removes::Newest => started_at.0,
                Removes::Oldest => u64::MAX - started_at.0,
                Removes::Highest => ordinal(id),
            };
            (Reverse(first), id)
        })
        .collect();
    keyed.sort();
    let groups = keyed.chunk_by(|(a, _), (b, _)| a == b);
    Removal::ByOrder(groups.map(|group| group.iter().map(|(_, id)| (*id).clone()).collect()).collect())
}

/// The number at the end of an id; 0 without one.
fn ordinal(id: &WorkerId) -> u64 {
    let text = id.as_str();
    let digits = text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    text[text.len() - digits..].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(removes: Removes, workers: &[(&str, u64)]) -> Vec<Vec<String>> {
        let ids: Vec<_> = workers.iter().map(|(id, at)| (WorkerId::new(*id), Timestamp(*at))).collect();
        let Removal::ByOrder(groups) = removal(removes, ids.iter().map(|(id, at)| (id, *at))) else { panic!() };
        groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn the_declared_order_and_groups_of_those_that_can_not_be_told_apart() {
        let workers = [("w-2", 10), ("w-10", 30), ("w-9", 20), ("w-1", 20)];
        assert_eq!(groups(Removes::Newest, &workers), [vec!["w-10"], vec!["w-1", "w-9"], vec!["w-2"]]);
        assert_eq!(groups(Removes::Oldest, &workers), [vec!["w-2"], vec!["w-1", "w-9"], vec!["w-10"]]);
        assert_eq!(groups(Removes::Highest, &workers), [["w-10"], ["w-9"], ["w-2"], ["w-1"]]);
        assert_eq!(groups(Removes::Unknown, &workers), [["w-1", "w-10", "w-2", "w-9"]]);
        assert_eq!(groups(Removes::Newest, &[]), Vec::<Vec<String>>::new());
    }
}
