//! The actor during a reload of the settings: it stops observing, and continues with its history under the new
//! settings.

use std::{sync::Arc, time::Duration};

use super::{Actor, Phase};
use crate::{
    config::ScalingSettings,
    model::{Source, Timestamp},
    policy::ByDirection,
    signal::Signals,
};

/// Settings of an actor that a reload can change.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Key of the worker type's own queue.
    pub queue: String,
    /// Settings that decide the number of workers.
    pub settings: Arc<ScalingSettings>,
    /// Minimum time between two evaluations.
    pub debounce: Duration,
    /// Whether any setting of the worker type has changed.
    pub changed: bool,
}

impl Actor {
    /// Continues under these settings, with the history and the effect in progress. If settings have `changed`, the
    /// actor evaluates immediately, and failures under the old settings no longer delay it.
    pub fn retune(&mut self, tuning: Tuning, now: tokio::time::Instant) {
        let Tuning { queue, settings, debounce, changed } = tuning;
        let snapshot = Arc::make_mut(&mut self.snapshot);
        (snapshot.min_workers, snapshot.max_workers) = (settings.min_workers, settings.max_workers);
        snapshot.queue = queue;
        (self.settings, self.debounce) = (settings, debounce);
        if changed {
            self.history.note_start_success();
            self.history.backend_failures = ByDirection::default();
            self.next_evaluation = Timestamp(0);
            self.note(Signals::one(Source::Reload, now));
        }
    }

    /// Returns whether an observation is in progress.
    pub fn is_observing(&self) -> bool {
        matches!(self.phase, Phase::Observing(_))
    }

    /// Gives up the observation in progress, if any. The signals that led to it wait again.
    pub fn abandon_observation(&mut self) {
        if let Phase::Observing(signals) = self.phase {
            self.phase = Phase::Resting;
            self.note(signals);
            self.next_evaluation = Timestamp(0);
        }
    }

    /// Keeps signals without starting an observation.
    pub fn note(&mut self, signals: Signals) {
        self.waiting = Some(self.waiting.map_or(signals, |waiting| waiting.merge(signals)));
    }
}
