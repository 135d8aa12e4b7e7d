//! Which exits of workers are failed starts.

use super::{Expected, status::Memory};
use crate::{
    backend::{Exit, Instance},
    model::{Timestamp, WorkerId},
};

/// A worker that did not become ready, or did not stay ready for a start grace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStart {
    /// Id of the worker.
    pub id: WorkerId,
    /// When the worker was started.
    pub started_at: Timestamp,
    /// When the start failed.
    pub at: Timestamp,
    /// How the worker ended; `None` if it runs and is not ready.
    pub detail: Option<String>,
}

impl FailedStart {
    /// Returns the failed start of a worker that runs and did not become ready within its grace.
    pub(super) fn stalled(instance: &Instance, now: Timestamp) -> Self {
        let Instance { id, started_at, reason, .. } = instance.clone();
        Self { id, started_at, at: now, detail: reason }
    }

    /// Returns the failed start that an exit is; `None` if it is not one. A worker that was ready for a start grace did
    /// start, however it ended, and a draining worker ended as planned. For a worker that was never seen ready, the
    /// first grace of its life counts as its start. A worker that was ready, and ends when its jobs are done, has done
    /// them if it reports success.
    pub(super) fn of_exit(exit: &Exit, memory: Option<&Memory>, expected: Expected) -> Option<Self> {
        let grace = expected.start_grace;
        let ready_for = match memory.and_then(|memory| memory.ready_since) {
            Some(since) => exit.at.since(since),
            None if expected.heartbeats => exit.lived.saturating_sub(grace),
            None => exit.lived,
        };
        let leaving = memory.is_some_and(|memory| memory.leaving);
        let was_ready = memory.is_some_and(|memory| memory.ready_since.is_some());
        let is_done = expected.ends_when_done && exit.success && was_ready;
        (!leaving && !is_done && ready_for < grace).then(|| Self {
            id: exit.id.clone(),
            started_at: before(exit.at, exit.lived),
            at: exit.at,
            detail: Some(exit.detail.clone()),
        })
    }
}

fn before(at: Timestamp, lived: std::time::Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(u64::try_from(lived.as_millis()).unwrap_or(u64::MAX)))
}
