//! An actor between two runs: its state and the effect under way, which goes on in whoever holds it. So a change of the
//! settings waits for nobody, and there is never more than one effect for a worker type.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ActorContext, Shell, next_outcome};
use crate::{
    model::WorkerType,
    scaler::{actor::Tuning, shown::Shown},
};

/// An actor that does not run: its state, and the scaling under way if there is one.
pub struct Parked {
    shell: Shell,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("actor", &self.shell.actor).finish_non_exhaustive()
    }
}

impl Parked {
    /// An observation changes nothing, so it is given up and made again; a scaling is kept.
    pub(super) fn new(mut shell: Shell) -> Self {
        if shell.actor.is_observing() {
            shell.under_way = None;
            shell.actor.abandon_observation();
        }
        Self { shell }
    }

    /// Whose actor it is.
    pub fn worker_type(&self) -> &WorkerType {
        &self.shell.context.worker_type
    }

    /// What it shows, now and when it runs again.
    pub fn shown(&self) -> Shown {
        self.shell.shown.clone()
    }

    /// Whether a scaling is under way.
    pub fn is_unfinished(&self) -> bool {
        self.shell.under_way.is_some()
    }

    /// Runs on in other surroundings and by other settings, until cancelled.
    pub fn resume(
        mut self,
        context: ActorContext,
        tuning: Tuning,
        cancel: CancellationToken,
    ) -> impl Future<Output = Self> + Send {
        self.shell.context = Arc::new(context);
        self.shell.actor.retune(tuning, Instant::now());
        self.shell.show(None);
        self.shell.until(cancel)
    }

    /// Waits for the scaling under way, if there is one, and records it. `None` when that is done; what is left if it was
    /// cancelled before.
    pub async fn finish(mut self, cancel: &CancellationToken) -> Option<Self> {
        if !self.is_unfinished() {
            return None;
        }
        let shell = &mut self.shell;
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => return Some(self),
            outcome = next_outcome(&mut shell.under_way) => outcome,
        };
        let input = self.shell.input_of(outcome);
        // An effect that would start something new is left: only the record of what was done is still written.
        self.shell.apply(input);
        self.shell.show(None);
        None
    }
}
