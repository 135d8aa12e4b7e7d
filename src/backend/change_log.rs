//! Changes to one worker type that its backend did not request: workers that ended by themselves, and changes of their
//! number that somebody else made. Keeps the last few of each, numbered, so that the scaler sees each once.

use std::collections::VecDeque;

use super::{Exit, ManualScale};
use crate::model::{Timestamp, WorkerId};

/// Entries kept of each kind: more than a crash loop makes between two observations of the scaler.
const KEPT: usize = 16;

/// The change log of one worker type.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    exits: VecDeque<Exit>,
    last_exit: u64,
    manual: VecDeque<ManualScale>,
    last_manual: u64,
}

impl ChangeLog {
    /// Records a worker that ended by itself, and returns the record.
    pub(super) fn exit(
        &mut self,
        id: WorkerId,
        started_at: Timestamp,
        now: Timestamp,
        success: bool,
        detail: String,
    ) -> Exit {
        self.last_exit += 1;
        let exit = Exit { seq: self.last_exit, id, at: now, lived: now.since(started_at), success, detail };
        keep(&mut self.exits, exit.clone());
        exit
    }

    /// Records that somebody else changed the number of workers. One for one is no change of the number.
    pub(super) fn manual(&mut self, from: u32, to: u32, now: Timestamp, detail: String) {
        if from != to {
            self.last_manual += 1;
            keep(&mut self.manual, ManualScale { seq: self.last_manual, from, to, at: now, detail });
        }
    }

    /// Returns the latest exits, the oldest first.
    pub(super) fn exits(&self) -> Vec<Exit> {
        self.exits.iter().cloned().collect()
    }

    /// Returns the latest changes by somebody else, the oldest first.
    pub(super) fn manual_changes(&self) -> Vec<ManualScale> {
        self.manual.iter().cloned().collect()
    }

    /// Returns how many changes were recorded.
    pub(super) fn count(&self) -> u64 {
        self.last_exit + self.last_manual
    }
}

fn keep<T>(entries: &mut VecDeque<T>, entry: T) {
    if entries.len() == KEPT {
        entries.pop_front();
    }
    entries.push_back(entry);
}
