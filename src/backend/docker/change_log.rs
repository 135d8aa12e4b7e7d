//! Changes to one worker type that were not requested here: workers that ended by themselves, and changes
//! of their number that somebody else made. Keeps the last few of each.

use std::{collections::VecDeque, time::Duration};

use crate::{
    backend::{Exit, ManualScale},
    model::{Timestamp, WorkerId},
};

/// Entries kept: more than a crash loop makes between two looks of the scaler.
const KEPT: usize = 16;

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

/// The change log of one worker type.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    exits: VecDeque<Exit>,
    last_exit: u64,
    manual: VecDeque<ManualScale>,
    last_manual: u64,
}

impl ChangeLog {
    /// A worker ended by itself.
    pub(super) fn note_exit(&mut self, id: WorkerId, at: Timestamp, lived: Duration, ending: ContainerExit) {
        self.last_exit += 1;
        let ContainerExit { success, detail } = ending;
        keep(&mut self.exits, Exit { seq: self.last_exit, id, at, lived, success, detail });
    }

    /// Somebody else started and stopped workers; `to` is how many there are now.
    pub(super) fn note_manual(&mut self, at: Timestamp, to: u32, change: &ByHand) {
        let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
        let (made, ended) = (count(&change.made), count(&change.ended));
        let from = to.saturating_add(ended).saturating_sub(made);
        if from == to {
            return;
        }
        self.last_manual += 1;
        keep(&mut self.manual, ManualScale { seq: self.last_manual, from, to, at, detail: change.to_string() });
    }

    pub(super) fn exits(&self) -> Vec<Exit> {
        self.exits.iter().cloned().collect()
    }

    pub(super) fn manual(&self) -> Vec<ManualScale> {
        self.manual.iter().cloned().collect()
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

fn keep<T>(entries: &mut VecDeque<T>, entry: T) {
    if entries.len() == KEPT {
        entries.pop_front();
    }
    entries.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("shop-worker-{number}")).collect()
    }

    #[test]
    fn manual_changes_are_numbered_and_say_what_was_seen() {
        let mut change_log = ChangeLog::default();
        change_log.note_manual(Timestamp(1), 3, &ByHand { made: names(2), ended: Vec::new() });
        change_log.note_manual(Timestamp(2), 1, &ByHand { made: names(2), ended: names(4) });
        change_log.note_manual(Timestamp(3), 1, &ByHand { made: names(1), ended: names(1) });
        let seen: Vec<_> = change_log.manual().iter().map(|change| (change.seq, change.from, change.to)).collect();
        assert_eq!(seen, [(1, 1, 3), (2, 3, 1)], "one for one is no change of the number");
        assert_eq!(change_log.manual()[0].detail, "somebody else started shop-worker-1, shop-worker-2");
        assert_eq!(
            change_log.manual()[1].detail,
            "somebody else started shop-worker-1, shop-worker-2 and stopped 4 containers"
        );
    }

    #[test]
    fn endings_are_told_in_words() {
        assert_eq!(ContainerExit::of(0, false), ContainerExit { success: true, detail: "exit code 0".to_owned() });
        assert_eq!(ContainerExit::of(137, true).detail, "out of memory, exit code 137");
    }
}
