//! Changes that were not requested here, each shown to the scaler once.

use std::collections::VecDeque;

use crate::{
    backend::{Exit, ManualScale},
    model::{Timestamp, WorkerId},
};

/// Exits and manual changes kept: more than happen between two looks of the scaler.
const KEPT: usize = 16;

/// The most recent exits and manual changes.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    pub(super) exits: VecDeque<Exit>,
    last_exit: u64,
    pub(super) manual: VecDeque<ManualScale>,
    last_manual: u64,
}

impl ChangeLog {
    /// Records a worker that ended by itself.
    pub(super) fn exit(&mut self, id: &WorkerId, since: Timestamp, now: Timestamp, success: bool, detail: &str) {
        self.last_exit += 1;
        let (lived, detail) = (now.since(since), detail.to_owned());
        keep(&mut self.exits, Exit { seq: self.last_exit, id: id.clone(), at: now, lived, success, detail });
    }

    /// Records that `more` workers came, besides the `before` that were there.
    pub(super) fn manual(&mut self, before: usize, more: usize, now: Timestamp) {
        self.last_manual += 1;
        let count = |workers: usize| u32::try_from(workers).unwrap_or(u32::MAX);
        let (from, to) = (count(before), count(before.saturating_add(more)));
        let detail = format!("{more} workers were started by somebody else");
        keep(&mut self.manual, ManualScale { seq: self.last_manual, from, to, at: now, detail });
    }

    /// Returns how many were recorded.
    pub(super) fn count(&self) -> u64 {
        self.last_exit + self.last_manual
    }
}

fn keep<T>(log: &mut VecDeque<T>, one: T) {
    if log.len() == KEPT {
        log.pop_front();
    }
    log.push_back(one);
}
