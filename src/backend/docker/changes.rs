//! How containers ended, and what somebody else did with them, in words.

/// Names that a manual change tells of; of more, only how many.
const NAMES_TOLD: usize = 3;

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerExit {
    /// Whether it reported success.
    pub(super) success: bool,
    /// For people.
    pub(super) detail: String,
}

impl ContainerExit {
    /// By its exit code.
    pub(super) fn of(exit_code: i64, out_of_memory: bool) -> Self {
        let cause = if out_of_memory { "out of memory, " } else { "" };
        Self { success: exit_code == 0, detail: format!("{cause}exit code {exit_code}") }
    }
}

/// Containers that somebody else started and stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ByHand {
    /// Their names.
    pub(super) made: Vec<String>,
    /// Their names.
    pub(super) ended: Vec<String>,
}

impl ByHand {
    /// Returns the number of workers before the changes; `after` is how many there are now.
    pub(super) fn before(&self, after: u32) -> u32 {
        let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
        after.saturating_add(count(&self.ended)).saturating_sub(count(&self.made))
    }
}

impl std::fmt::Display for ByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [("started", &self.made), ("stopped", &self.ended)];
        let told: Vec<String> =
            parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| told(what, names)).collect();
        write!(f, "somebody else {}", told.join(" and "))
    }
}

fn told(what: &str, names: &[String]) -> String {
    if names.len() > NAMES_TOLD {
        format!("{what} {} containers", names.len())
    } else {
        format!("{what} {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::change_log::ChangeLog, model::Timestamp};

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("shop-worker-{number}")).collect()
    }

    #[test]
    fn manual_changes_are_numbered_and_say_what_was_seen() {
        let mut change_log = ChangeLog::default();
        let mut note = |at: u64, to: u32, change: &ByHand| {
            change_log.manual(change.before(to), to, Timestamp(at), change.to_string());
        };
        note(1, 3, &ByHand { made: names(2), ended: Vec::new() });
        note(2, 1, &ByHand { made: names(2), ended: names(4) });
        note(3, 1, &ByHand { made: names(1), ended: names(1) });
        let changes = change_log.manual_changes();
        let seen: Vec<_> = changes.iter().map(|change| (change.seq, change.from, change.to)).collect();
        assert_eq!(seen, [(1, 1, 3), (2, 3, 1)], "one for one is no change of the number");
        assert_eq!(changes[0].detail, "somebody else started shop-worker-1, shop-worker-2");
        assert_eq!(changes[1].detail, "somebody else started shop-worker-1, shop-worker-2 and stopped 4 containers");
    }

    #[test]
    fn endings_are_told_in_words() {
        assert_eq!(ContainerExit::of(0, false), ContainerExit { success: true, detail: "exit code 0".to_owned() });
        assert_eq!(ContainerExit::of(137, true).detail, "out of memory, exit code 137");
    }
}
