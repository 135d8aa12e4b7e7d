//! The model: goes through all queues in each observation, and adds everything up again.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{model::QueueDemands, probe::combine};

/// See the [module](self).
pub(super) struct EveryQueue {
    rule: Combine,
    named: Vec<Arc<str>>,
    /// Demand of a queue that rests.
    empty: Demand,
    /// Keys that the directory knows.
    pub(super) present: BTreeSet<Arc<str>>,
    /// Keys that may have changed; `None`: any.
    dirty: Option<BTreeSet<Arc<str>>>,
    /// The queues as of the last observation, with the counters of those that rest.
    found: BTreeMap<Arc<str>, Option<Counters>>,
    foreign: BTreeSet<Arc<str>>,
    /// Finished jobs at the first observation, by both counters.
    baselines: BTreeMap<Arc<str>, (u64, Option<u64>)>,
}

impl EveryQueue {
    pub(super) fn new(rule: Combine, named: Vec<Arc<str>>, empty: Demand) -> Self {
        Self {
            rule,
            named,
            empty,
            present: BTreeSet::new(),
            dirty: None,
            found: BTreeMap::new(),
            foreign: BTreeSet::new(),
            baselines: BTreeMap::new(),
        }
    }

    pub(super) fn appears(&mut self, key: &Arc<str>) {
        self.present.insert(key.clone());
        self.changes(key);
    }

    pub(super) fn changes(&mut self, key: &Arc<str>) {
        if let (true, Some(dirty)) = (self.present.contains(key), &mut self.dirty) {
            dirty.insert(key.clone());
        }
    }

    pub(super) fn all_may_have_changed(&mut self) {
        self.dirty = None;
    }

    /// Returns the queues to read.
    pub(super) fn current(&mut self) -> Vec<Arc<str>> {
        let before = std::mem::take(&mut self.found);
        let dirty = self.dirty.replace(BTreeSet::new());
        let is_dirty = |key: &Arc<str>| dirty.as_ref().is_none_or(|dirty| dirty.contains(key));
        let rests = |key: &Arc<str>| before.get(key).copied().flatten().filter(|_| !is_dirty(key));
        self.found = self.present.iter().map(|key| (key.clone(), rests(key))).collect();
        let stays = |key: &Arc<str>| self.named.contains(key) || self.found.contains_key(key);
        self.baselines.retain(|key, _| stays(key));
        let unread = self.found.iter().filter(|(_, rests)| rests.is_none()).map(|(key, _)| key);
        self.named.iter().chain(unread).cloned().collect()
    }

    /// Notes what was read; the answer may come later.
    pub(super) fn reads(&mut self, contents: &BTreeMap<Arc<str>, Content>) {
        for (key, content) in contents {
            if content.is_foreign {
                self.foreign.insert(key.clone());
            } else {
                self.foreign.remove(key);
            }
        }
    }

    /// Returns what is known after an observation that has read `contents`.
    pub(super) fn answer(
        &mut self,
        contents: &BTreeMap<Arc<str>, Content>,
        all: &Reading<()>,
    ) -> (Demand, QueueDemands, Counters) {
        let mut queues = Vec::new();
        let mut sum = Counters { added: Some(0), read: Some(0), ..Counters::default() };
        let found: BTreeSet<Arc<str>> = self.found.keys().chain(contents.keys()).cloned().collect();
        let found = found.into_iter().filter(|key| !self.named.contains(key));
        let keys: Vec<Arc<str>> = self.named.iter().cloned().chain(found).collect();
        for (place, queue) in keys.into_iter().enumerate() {
            let is_named = place < self.named.len();
            let rests = self.found.get(&queue).copied().flatten();
            let (demand, counters) = match (contents.get(&queue), rests) {
                (Some(_), _) if !is_named && self.foreign.contains(&queue) => {
                    self.present.remove(&queue);
                    self.baselines.remove(&queue);
                    continue;
                }
                (Some(content), _) => (content.demand.clone(), content.counters),
                (None, Some(counters)) => (self.empty.clone(), counters),
                (None, None) => (Demand::failed("the queue was not read"), Counters::default()),
            };
            let is_there = self.found.get_mut(&queue).map(|rests| *rests = (demand == self.empty).then_some(counters));
            if is_named || is_there.is_some() {
                let counted = self.since_first(&queue, &demand, counters);
                let add = |one: Option<u64>, more: Option<u64>| Some(one?.saturating_add(more?));
                sum = Counters {
                    added: add(sum.added, counted.added),
                    read: add(sum.read, counted.read),
                    ..Counters::default()
                };
            }
            queues.push(QueueDemand { queue, demand });
        }
        let (demand, queues) = combine(self.rule, queues, self.named.len(), all);
        (demand, queues, sum)
    }

    fn since_first(&mut self, queue: &Arc<str>, demand: &Demand, counters: Counters) -> Counters {
        let (Some(added), Reading::Known(depth), Reading::Known(pending)) =
            (counters.added, demand.depth(), &demand.pending)
        else {
            return Counters::default();
        };
        let now = (added.saturating_sub(depth), counters.read.map(|read| read.saturating_sub(*pending)));
        let baseline = self.baselines.entry(queue.clone()).or_insert(now);
        if added < baseline.0 || counters.read.zip(baseline.1).is_some_and(|(read, before)| read < before) {
            *baseline = now;
        }
        baseline.1 = baseline.1.or(now.1);
        Counters {
            added: Some(added - baseline.0),
            read: counters.read.zip(baseline.1).map(|(read, before)| read - before),
            ..Counters::default()
        }
    }
}
