//! Registry of one worker type's processes: those that run, that drain, and that ended. Starts and signals none of
//! them, and every method is a short critical section, so that observing never waits for the operating system.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    backend::{Exit, Instance, Phase, Pool, change_log::ChangeLog},
    model::{Timestamp, WorkerId, WorkerType},
};

/// Stop request to a worker's supervisor: `None`, or the drain timeout.
pub(super) type LeaveWithin = Option<Duration>;

/// One worker type's registry.
#[derive(Debug, Default)]
pub(super) struct ProcessRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    workers: Vec<Worker>,
    changes: ChangeLog,
    closed: bool,
}

#[derive(Debug)]
struct Worker {
    id: WorkerId,
    started_at: Timestamp,
    stop_request: watch::Sender<LeaveWithin>,
}

impl Worker {
    fn draining(&self) -> bool {
        self.stop_request.borrow().is_some()
    }
}

/// Result of [`ProcessRegistry::reserve`].
#[derive(Debug)]
pub(super) enum Reservation {
    /// The target is reached.
    Enough,
    /// One more is in the registry under this name, and must be started, or removed again.
    Start(WorkerId, watch::Receiver<LeaveWithin>),
    /// The backend has been shut down.
    Closed,
}

impl ProcessRegistry {
    /// Nothing panics halfway through a change, so the registry of a poisoned lock is right.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one more worker in the registry if fewer than `target` of them stay.
    pub(super) fn reserve(&self, worker_type: &WorkerType, target: u32, now: Timestamp) -> Reservation {
        let mut inner = self.lock();
        if inner.closed {
            return Reservation::Closed;
        }
        let live = inner.workers.iter().filter(|worker| !worker.draining()).count();
        if live >= usize::try_from(target).unwrap_or(usize::MAX) {
            return Reservation::Enough;
        }
        let id = loop {
            let id = new_id(worker_type);
            if inner.workers.iter().all(|worker| worker.id != id) {
                break id;
            }
        };
        let (stop_request, stop_requests) = watch::channel(None);
        inner.workers.push(Worker { id: id.clone(), started_at: now, stop_request });
        Reservation::Start(id, stop_requests)
    }

    /// Takes a worker that did not start or that left as asked out of the registry.
    pub(super) fn remove(&self, id: &WorkerId) {
        self.lock().workers.retain(|worker| worker.id != *id);
    }

    /// Takes a worker that ended out of the registry. It is an [`Exit`] unless it was asked to leave; says which.
    pub(super) fn ended(&self, id: &WorkerId, now: Timestamp, success: bool, detail: &str) -> Option<Exit> {
        let mut inner = self.lock();
        let index = inner.workers.iter().position(|worker| worker.id == *id)?;
        let worker = inner.workers.remove(index);
        if worker.draining() {
            return None;
        }
        Some(inner.changes.exit(worker.id, worker.started_at, now, success, detail.to_owned()))
    }

    /// Asks those of `ids` that live and were not asked before to leave; returns them, in the order of `ids`.
    pub(super) fn retire(&self, ids: &[WorkerId], within: Duration) -> Vec<WorkerId> {
        let inner = self.lock();
        let mut candidates: HashSet<&WorkerId> =
            inner.workers.iter().filter(|worker| !worker.draining()).map(|worker| &worker.id).collect();
        let retired: Vec<WorkerId> = ids.iter().filter(|id| candidates.remove(id)).cloned().collect();
        let leaving: HashSet<&WorkerId> = retired.iter().collect();
        for worker in inner.workers.iter().filter(|worker| leaving.contains(&worker.id)) {
            worker.stop_request.send_replace(Some(within));
        }
        retired
    }

    /// Asks those of `ids` that were asked before once more.
    pub(super) fn ask_again(&self, ids: &[WorkerId]) {
        let inner = self.lock();
        for worker in inner.workers.iter().filter(|worker| worker.draining() && ids.contains(&worker.id)) {
            worker.stop_request.send_modify(|_| {});
        }
    }

    /// Asks all workers to stop, and refuses reservations from now on.
    pub(super) fn close(&self, within: Duration) {
        let mut inner = self.lock();
        inner.closed = true;
        for worker in inner.workers.iter().filter(|worker| !worker.draining()) {
            worker.stop_request.send_replace(Some(within));
        }
    }

    /// Returns the pool as the scaler sees it.
    pub(super) fn pool(&self) -> Pool {
        let inner = self.lock();
        let instance = |worker: &Worker| {
            let phase = if worker.draining() { Phase::Draining } else { Phase::Running };
            Instance::new(worker.id.clone(), phase, worker.started_at)
        };
        Pool {
            instances: inner.workers.iter().map(instance).collect(),
            exits: inner.changes.exits(),
            ..Pool::default()
        }
    }
}

/// `{type}-{8 hex digits}`, from the bits of a version 7 UUID that are random.
fn new_id(worker_type: &WorkerType) -> WorkerId {
    let [.., a, b, c, d] = Uuid::now_v7().into_bytes();
    WorkerId::new(format!("{worker_type}-{:08x}", u32::from_be_bytes([a, b, c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(registry: &ProcessRegistry, target: u32) -> Vec<WorkerId> {
        let worker_type = WorkerType::new("browser");
        std::iter::from_fn(|| match registry.reserve(&worker_type, target, Timestamp(1_000)) {
            Reservation::Start(id, _) => Some(id),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn draining_workers_do_not_count_towards_the_target() {
        let registry = ProcessRegistry::default();
        let ids = started(&registry, 3);
        assert_eq!(ids.len(), 3);
        assert!(started(&registry, 3).is_empty());

        assert_eq!(registry.retire(&ids[..1], Duration::ZERO), ids[..1]);
        assert_eq!(registry.retire(&ids[..1], Duration::ZERO), [], "asked before");
        assert_eq!(started(&registry, 3).len(), 1);
        assert_eq!(registry.pool().instances[0].phase, Phase::Draining);
    }

    #[test]
    fn exits_are_those_that_were_not_asked_for_and_their_numbers_go_on() {
        let registry = ProcessRegistry::default();
        let ids = started(&registry, 20);
        registry.retire(&ids[..1], Duration::ZERO);
        for id in &ids {
            registry.ended(id, Timestamp(3_000), false, "exit code 1");
            registry.ended(id, Timestamp(3_000), false, "exit code 1");
        }
        let pool = registry.pool();
        assert!(pool.instances.is_empty());
        assert_eq!(pool.exits.iter().map(|exit| exit.seq).collect::<Vec<_>>(), (4..=19).collect::<Vec<_>>());
        assert_eq!(pool.exits[15].id, ids[19]);
        assert_eq!(pool.exits[15].lived, Duration::from_secs(2));
    }

    #[test]
    fn closed_books_ask_everyone_to_leave_and_take_nobody_on() {
        let registry = ProcessRegistry::default();
        started(&registry, 2);
        registry.close(Duration::ZERO);
        assert!(registry.pool().instances.iter().all(|worker| worker.phase == Phase::Draining));
        assert!(matches!(registry.reserve(&WorkerType::new("browser"), 9, Timestamp(0)), Reservation::Closed));
    }
}
