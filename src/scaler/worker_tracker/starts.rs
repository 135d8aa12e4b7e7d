//! Which ends of workers are failed starts.

use super::{Expected, status::Memory};
use crate::{
    backend::{Exit, Instance},
    model::{Timestamp, WorkerId},
};

/// A worker that did not become ready, or did not stay so for a start grace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStart {
    /// Which worker.
    pub id: WorkerId,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it failed.
    pub at: Timestamp,
    /// How it ended; `None` if it runs and is not ready.
    pub detail: Option<String>,
}

impl FailedStart {
    /// A worker that runs and did not become ready within its grace.
    pub(super) fn stalled(instance: &Instance, now: Timestamp) -> Self {
        let Instance { id, started_at, reason, .. } = instance.clone();
        Self { id, started_at, at: now, detail: reason }
    }

    /// An end that counts as a failed start. A worker that was ready for a start grace did start, however it ended, and
    /// one that was leaving ended as it should. Of one that was never seen ready the first grace of its life counts as
    /// its start.
    pub(super) fn of_exit(exit: &Exit, memory: Option<&Memory>, expected: Expected) -> Option<Self> {
        let grace = expected.start_grace;
        let ready_for = match memory.and_then(|memory| memory.ready_since) {
            Some(since) => exit.at.since(since),
            None if expected.heartbeats => exit.lived.saturating_sub(grace),
            None => exit.lived,
        };
        let leaving = memory.is_some_and(|memory| memory.leaving);
        (!leaving && ready_for < grace).then(|| Self {
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
