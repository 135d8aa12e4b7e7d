//! Changes that were not requested here, each shown to the scaler once.

use std::collections::VecDeque;

use crate::{
    backend::{Exit, ManualScale},
    model::{Timestamp, WorkerId},
};

/// Exits and manual changes kept: more than happen between two looks of the scaler.
const NEWS_KEPT: usize = 16;
/// The most recent exits and manual changes.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    pub(super) exits: VecDeque<Exit>,
    last_exit: u64,
    pub(super) manual: VecDeque<ManualScale>,
    last_manual: u64,
}

/// Changes that were not asked for here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Machines that run now.
    pub(super) more: u32,
    /// Machines that don't any more.
    pub(super) fewer: u32,
}

impl ChangeLog {
    /// Records a worker that ended by itself.
    pub(super) fn exit(&mut self, id: &str, since: Timestamp, now: Timestamp, success: bool, detail: String) {
        self.last_exit += 1;
        let (seq, id) = (self.last_exit, WorkerId::new(id));
        keep(&mut self.exits, Exit { seq, id, at: now, lived: now.since(since), success, detail });
    }

    /// Records the changes of one list; `before` is the number of workers before it.
    pub(super) fn manual(&mut self, before: usize, changes: Changes, now: Timestamp) {
        let from = u32::try_from(before).unwrap_or(u32::MAX);
        let to = from.saturating_add(changes.more).saturating_sub(changes.fewer);
        if from == to {
            return;
        }
        self.last_manual += 1;
        let detail = match changes {
            Changes { more, fewer: 0 } => format!("{more} machines of fly.io were started by somebody else"),
            Changes { more: 0, fewer } => {
                format!("{fewer} machines of fly.io were stopped or destroyed by somebody else")
            }
            Changes { more, fewer } => {
                format!("{more} machines of fly.io were started and {fewer} stopped or destroyed by somebody else")
            }
        };
        keep(&mut self.manual, ManualScale { seq: self.last_manual, from, to, at: now, detail });
    }
}

fn keep<T>(change_log: &mut VecDeque<T>, one: T) {
    if change_log.len() == NEWS_KEPT {
        change_log.pop_front();
    }
    change_log.push_back(one);
}
