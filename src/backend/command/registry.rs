//! Registry of one worker type's workers: those that were requested, those that the platform lists, those that drain,
//! and changes that were not requested here. Runs no command; every method is a short critical section.

mod order;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    CommandSpec,
    listing::{Listed, State},
};
use crate::{
    backend::{Instance, Phase, Pool, Removal, change_log::ChangeLog},
    model::{Timestamp, WorkerId, WorkerType},
};

/// How long lists may lack a worker that was requested, and may still have one that was stopped.
pub(super) const LIST_LAG: Duration = Duration::from_secs(60);

/// One worker type's registry.
#[derive(Debug, Default)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
}

/// A worker's id, phase, whether its process was seen to run, and the reason that is shown.
type SeenWorker = (WorkerId, Phase, bool, Option<String>);

#[derive(Debug, Default)]
struct Inner {
    workers: BTreeMap<WorkerId, Worker>,
    /// Whether at least one list was merged.
    known: bool,
    changes: ChangeLog,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Worker {
    /// The platform's name for it; `None` until it is listed.
    handle: Option<String>,
    state: State,
    reason: Option<String>,
    started_at: Timestamp,
    /// When its process was first seen to run.
    began_at: Option<Timestamp>,
    /// Whether the last list lacks it although earlier ones had it.
    missing: bool,
    /// Whether its id was made up, to be replaced by what the platform lists.
    anonymous: bool,
    leaving: Option<Leaving>,
}

/// A worker that was asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaving {
    /// When it was stopped, if it was.
    stopped_at: Option<Timestamp>,
}

impl Worker {
    fn asked(now: Timestamp, anonymous: bool) -> Self {
        Self {
            handle: None,
            state: State::Starting,
            reason: None,
            started_at: now,
            began_at: None,
            missing: false,
            anonymous,
            leaving: None,
        }
    }

    fn is_live(&self) -> bool {
        self.leaving.is_none() && self.state != State::Draining
    }
}

/// Effect of a list on the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Whether the scaler should evaluate.
    pub(super) changed: bool,
    /// Whether a worker is missing that may come back.
    pub(super) doubtful: bool,
}

/// A worker to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToStop {
    pub(super) id: WorkerId,
    /// The platform's name for it.
    pub(super) handle: String,
}

impl Registry {
    /// No change panics halfway, so the registry behind a poisoned lock is consistent.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses further workers.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Returns the workers that stay.
    pub(super) fn live(&self) -> Vec<WorkerId> {
        let inner = self.lock();
        inner.workers.iter().filter(|(_, worker)| worker.is_live()).map(|(id, _)| id.clone()).collect()
    }

    /// Returns how many workers were asked to leave and are still there.
    pub(super) fn count_leaving(&self) -> usize {
        self.lock().workers.values().filter(|worker| worker.leaving.is_some()).count()
    }

    /// Registers up to `most` further workers as requested if fewer than `target` stay. Returns their ids.
    /// `anonymous`: the platform chooses their ids.
    pub(super) fn reserve(
        &self,
        worker_type: &WorkerType,
        target: u32,
        most: usize,
        anonymous: bool,
        now: Timestamp,
    ) -> Vec<WorkerId> {
        let mut inner = self.lock();
        let live = inner.workers.values().filter(|worker| worker.is_live()).count();
        let missing = usize::try_from(target).unwrap_or(usize::MAX).saturating_sub(live);
        let ids: Vec<WorkerId> = (0..missing.min(most)).map(|_| WorkerId::random(worker_type)).collect();
        for id in &ids {
            inner.workers.insert(id.clone(), Worker::asked(now, anonymous));
        }
        ids
    }

    /// Removes workers that the platform refused to start, except for those that it lists nevertheless.
    pub(super) fn not_started(&self, ids: &[WorkerId]) {
        let mut inner = self.lock();
        for id in ids {
            if inner.workers.get(id).is_some_and(|worker| worker.handle.is_none()) {
                inner.workers.remove(id);
            }
        }
    }

    /// Marks those of `ids` that stay as leaving; returns them, in the order of `ids`.
    pub(super) fn retire(&self, ids: &[WorkerId]) -> Vec<WorkerId> {
        let mut inner = self.lock();
        let mut retired = Vec::new();
        for id in ids {
            if let Some(worker) = inner.workers.get_mut(id).filter(|worker| worker.is_live()) {
                worker.leaving = Some(Leaving { stopped_at: None });
                retired.push(id.clone());
            }
        }
        retired
    }

    /// Takes back that these workers leave.
    pub(super) fn stay(&self, ids: &[WorkerId]) {
        let mut inner = self.lock();
        for id in ids {
            if let Some(worker) = inner.workers.get_mut(id) {
                worker.leaving = None;
            }
        }
    }

    /// Of `ids` those that leave and are still there.
    pub(super) fn still_leaving(&self, ids: &[WorkerId]) -> Vec<WorkerId> {
        let inner = self.lock();
        let leaves = |id: &&WorkerId| inner.workers.get(*id).is_some_and(|worker| worker.leaving.is_some());
        ids.iter().filter(leaves).cloned().collect()
    }

    /// Of `ids` those that may hold a job: the platform has begun them, or nobody knows.
    pub(super) fn may_work(&self, ids: &[WorkerId]) -> Vec<WorkerId> {
        let inner = self.lock();
        let begun = |id: &&WorkerId| inner.workers.get(*id).is_some_and(|worker| worker.state != State::Blocked);
        ids.iter().filter(begun).cloned().collect()
    }

    /// Of `ids` those that can be stopped now: they leave, the platform has listed them, and they were not stopped less
    /// than [`LIST_LAG`] ago.
    pub(super) fn to_stop(&self, ids: &[WorkerId], now: Timestamp) -> Vec<ToStop> {
        let inner = self.lock();
        let due = |id: &WorkerId| {
            let worker = inner.workers.get(id)?;
            let Leaving { stopped_at } = worker.leaving?;
            let handle = worker.handle.clone()?;
            let again = stopped_at.is_none_or(|at| now.since(at) >= LIST_LAG);
            again.then(|| ToStop { id: id.clone(), handle })
        };
        ids.iter().filter_map(due).collect()
    }

    /// Records that the platform was told to remove these workers.
    pub(super) fn stopped(&self, ids: &[WorkerId], now: Timestamp) {
        let mut inner = self.lock();
        for id in ids {
            if let Some(worker) = inner.workers.get_mut(id) {
                worker.leaving = Some(Leaving { stopped_at: Some(now) });
            }
        }
    }

    /// Merges a list that began at `begun`. `by_number`: the platform itself replaces workers that end.
    pub(super) fn merge(&self, listed: Vec<Listed>, begun: Timestamp, now: Timestamp, by_number: bool) -> Merged {
        let mut inner = self.lock();
        let before = inner.seen();
        let live_before = inner.workers.values().filter(|worker| worker.is_live()).count();
        let mut found = BTreeMap::new();
        let mut ended = Vec::new();
        for one in listed {
            if one.state == State::Exited {
                ended.push(one);
            } else {
                found.insert(one.id.clone(), one);
            }
        }
        let mut merged = Merged::default();
        for one in ended {
            inner.ended(&one.id, now, one.success, one.reason.as_deref().unwrap_or("the platform says that it exited"));
        }
        merged.doubtful |= inner.note_missing(&found, begun, now, by_number);
        let more = inner.note_found(found, now);
        if inner.known && more > 0 && !by_number {
            let count = |workers: usize| u32::try_from(workers).unwrap_or(u32::MAX);
            let detail = format!("{more} workers were started by somebody else");
            inner.changes.manual(count(live_before), count(live_before.saturating_add(more)), now, detail);
        }
        inner.known = true;
        merged.changed = inner.seen() != before;
        merged
    }

    /// Returns the pool as the scaler sees it.
    pub(super) fn pool(&self, spec: &CommandSpec) -> Pool {
        let inner = self.lock();
        let instances = inner.workers.iter().map(|(id, worker)| Instance {
            began_at: worker.began_at,
            reason: worker.shown_reason(),
            ..Instance::new(id.clone(), worker.phase(), worker.started_at)
        });
        Pool {
            instances: instances.collect(),
            exits: inner.changes.exits(),
            manual: inner.changes.manual_changes(),
            removal: if spec.by_number() { inner.removal(spec) } else { Removal::Chosen },
            ..Pool::default()
        }
    }

    /// The order in which the platform removes workers, for `scale`.
    pub(super) fn removal(&self, spec: &CommandSpec) -> Removal {
        self.lock().removal(spec)
    }

    /// Returns the number of workers that the platform lists and that are not leaving.
    pub(super) fn listed(&self) -> usize {
        let inner = self.lock();
        inner.workers.values().filter(|worker| worker.handle.is_some() && worker.is_live()).count()
    }
}

impl Worker {
    fn phase(&self) -> Phase {
        match self.state {
            _ if self.leaving.is_some() => Phase::Draining,
            State::Draining => Phase::Draining,
            State::Blocked => Phase::Blocked,
            State::Starting | State::Running | State::Exited | State::Unknown(_) => Phase::Running,
        }
    }

    fn shown_reason(&self) -> Option<String> {
        match &self.state {
            _ if self.handle.is_none() => Some("asked for, and not listed yet".to_owned()),
            State::Unknown(word) => Some(self.reason.clone().unwrap_or_else(|| format!("the platform says `{word}`"))),
            State::Blocked => Some(self.reason.clone().unwrap_or_else(|| "the platform says `blocked`".to_owned())),
            _ => self.reason.clone(),
        }
    }
}

impl Inner {
    /// Returns what the scaler sees, for a comparison.
    fn seen(&self) -> (Vec<SeenWorker>, u64) {
        let one = |(id, worker): (&WorkerId, &Worker)| {
            (id.clone(), worker.phase(), worker.began_at.is_some(), worker.shown_reason())
        };
        (self.workers.iter().map(one).collect(), self.changes.count())
    }

    /// Removes a worker that ended. An end that was not requested is recorded.
    fn ended(&mut self, id: &WorkerId, now: Timestamp, success: bool, detail: &str) {
        let Some(worker) = self.workers.remove(id) else { return };
        if worker.is_live() {
            self.changes.exit(id.clone(), worker.started_at, now, success, detail.to_owned());
        }
    }

    /// Notes the workers that a list lacks. Returns whether one may come back.
    fn note_missing(
        &mut self,
        found: &BTreeMap<WorkerId, Listed>,
        begun: Timestamp,
        now: Timestamp,
        by_number: bool,
    ) -> bool {
        let mut doubtful = false;
        let mut over = Vec::new();
        for (id, worker) in &mut self.workers {
            if let Some(leaving) = worker.leaving.filter(|_| found.contains_key(id)) {
                // The platform kept another one than it said, or brought it back.
                let kept = by_number && leaving.stopped_at.is_some_and(|at| now.since(at) >= LIST_LAG);
                worker.leaving = (!kept).then_some(leaving);
            }
            if found.contains_key(id) {
                worker.missing = false;
            } else if worker.handle.is_none() {
                if begun.since(worker.started_at) >= LIST_LAG {
                    over.push((id.clone(), format!("not listed within {} s of its start", LIST_LAG.as_secs())));
                }
            } else if worker.missing || !worker.is_live() {
                over.push((id.clone(), "the platform no longer lists it".to_owned()));
            } else {
                worker.missing = true;
                doubtful = true;
            }
        }
        for (id, detail) in over {
            self.ended(&id, now, false, &detail);
        }
        doubtful
    }

    /// Notes the workers of a list. Returns how many of them were not requested here.
    fn note_found(&mut self, found: BTreeMap<WorkerId, Listed>, now: Timestamp) -> usize {
        let mut more = 0;
        for (id, listed) in found {
            let worker = match self.workers.remove(&id) {
                Some(worker) => worker,
                None => self.take_anonymous().unwrap_or_else(|| {
                    more += usize::from(listed.state != State::Draining);
                    Worker::asked(now, false)
                }),
            };
            let runs = !matches!(listed.state, State::Blocked | State::Starting);
            let began_at = worker.began_at.or_else(|| runs.then(|| listed.started_at.unwrap_or(now).min(now)));
            let worker = Worker {
                started_at: listed.started_at.unwrap_or(worker.started_at).min(now),
                began_at,
                handle: Some(listed.handle),
                state: listed.state,
                reason: listed.reason,
                anonymous: false,
                ..worker
            };
            self.workers.insert(id, worker);
        }
        more
    }

    /// Removes and returns the oldest worker that was requested without an id.
    fn take_anonymous(&mut self) -> Option<Worker> {
        let waiting = self.workers.iter().filter(|(_, worker)| worker.anonymous);
        let (id, _) = waiting.min_by_key(|(_, worker)| worker.started_at)?;
        let id = id.clone();
        self.workers.remove(&id)
    }

    fn removal(&self, spec: &CommandSpec) -> Removal {
        let live = self.workers.iter().filter(|(_, worker)| worker.is_live());
        order::removal(spec.settings.removes, live.map(|(id, worker)| (id, worker.started_at)))
    }
}

#[cfg(test)]
mod tests;
