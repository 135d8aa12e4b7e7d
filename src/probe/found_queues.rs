//! The queues that the patterns of one worker type found: those that an observation must read, and those that rest.
//! Between sweeps, the work of an observation depends on the number of the former and of changes, not of all queues.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    combine::{MAX_SHOWN, Resting},
    part::Part,
};
use crate::model::Demand;

/// Queues, in the order of their keys.
type Parts = BTreeMap<Arc<str>, Arc<Part>>;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct FoundQueues {
    unread: Parts,
    /// Queues that were empty at their last reading, which is valid until a signal names them.
    resting: Parts,
    /// The demand that they all had at that reading. An empty queue with another demand does not rest. There are hardly
    /// any, because the queues of a worker type are of one kind.
    empty: Option<Demand>,
}

impl FoundQueues {
    /// Returns the queues that must be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.unread.values()
    }

    /// Returns the queues that rest; `None` if none does.
    pub(super) fn resting(&self) -> Option<Resting> {
        let demand = self.empty.clone().filter(|_| !self.resting.is_empty())?;
        let first = self.resting.keys().take(MAX_SHOWN).cloned().collect();
        Some(Resting { demand, count: self.resting.len(), first })
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.unread.contains_key(key) || self.resting.contains_key(key)
    }

    /// Adds a queue, unless it is there.
    pub(super) fn add(&mut self, part: Arc<Part>) {
        if !self.contains(&part.spec.key) {
            self.unread.insert(part.spec.key.clone(), part);
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.unread.remove(key);
        self.resting.remove(key);
    }

    /// Notes that a queue may have changed.
    pub(super) fn wake(&mut self, key: &str) {
        if let Some((key, part)) = self.resting.remove_entry(key) {
            self.unread.insert(key, part);
        }
    }

    /// Notes that any queue may have changed.
    pub(super) fn wake_all(&mut self) {
        self.unread.append(&mut self.resting);
    }

    /// Notes a reading. Returns whether the queue rests now.
    pub(super) fn rest_if_empty(&mut self, of: &Part, demand: &Demand) -> bool {
        let key = &*of.spec.key;
        if self.resting.is_empty() && of.rests_with(demand) {
            self.empty = Some(demand.clone());
        }
        if !of.rests_with(demand) || self.empty.as_ref() != Some(demand) {
            self.wake(key);
            return false;
        }
        if let Some((key, part)) = self.unread.remove_entry(key) {
            self.resting.insert(key, part);
        }
        self.resting.contains_key(key)
    }
}
