//! An actor between two runs: its state and the effect in progress, which continues in the caller that holds it. So a
//! change of the settings waits for nothing, and there is never more than one effect for a worker type.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ActorContext, ActorTask, next_outcome};
use crate::{
    model::WorkerType,
    scaler::{actor::Tuning, snapshot_cell::SnapshotCell},
};

/// A suspended actor: its state, and the scaling in progress if there is one.
pub struct SuspendedActor {
    task: ActorTask,
}

impl std::fmt::Debug for SuspendedActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SuspendedActor").field("actor", &self.task.actor).finish_non_exhaustive()
    }
}

impl SuspendedActor {
    /// Suspends a task. An observation changes nothing, so it is dropped and made again later; a scaling is kept.
    pub(super) fn new(mut task: ActorTask) -> Self {
        if task.actor.is_observing() {
            task.under_way = None;
            task.actor.abandon_observation();
        }
        Self { task }
    }

    /// Returns the worker type of the actor.
    pub fn worker_type(&self) -> &WorkerType {
        &self.task.context.worker_type
    }

    /// Returns the cell of its snapshots, the same when it runs again.
    pub fn snapshot_cell(&self) -> SnapshotCell {
        self.task.snapshot_cell.clone()
    }

    /// Returns whether a scaling is in progress.
    pub fn is_unfinished(&self) -> bool {
        self.task.under_way.is_some()
    }

    /// Resumes with another context and other settings, until cancelled.
    pub fn resume(
        mut self,
        context: ActorContext,
        tuning: Tuning,
        cancel: CancellationToken,
    ) -> impl Future<Output = Self> + Send {
        self.task.context = Arc::new(context);
        // They may be on another server now.
        self.task.remembered.forget();
        self.task.actor.retune(tuning, Instant::now());
        self.task.show(None);
        self.task.until(cancel)
    }

    /// Waits for the scaling in progress, if there is one, and records it. Returns `None` when that is done; the actor
    /// if it was cancelled before.
    pub async fn finish(mut self, cancel: &CancellationToken) -> Option<Self> {
        if !self.is_unfinished() {
            return None;
        }
        let task = &mut self.task;
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Some(self),
            outcome = next_outcome(&mut task.under_way) => outcome,
        };
        let input = self.task.input_of(outcome);
        // An effect that would start something new is dropped; only the record of what was done is still written.
        self.task.apply(input);
        self.task.show(None);
        None
    }
}
