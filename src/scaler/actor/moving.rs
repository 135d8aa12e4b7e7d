//! What happens to an actor when settings are loaded anew: it stops looking, and goes on by the new ones with its past.

use std::{sync::Arc, time::Duration};

use super::{Actor, Phase};
use crate::{
    config::ScalingSettings,
    model::{Source, Timestamp},
    policy::ByDirection,
    signal::Signals,
};

/// What an actor is told when settings were loaded anew.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The key of its queue.
    pub queue: String,
    /// How many workers there should be.
    pub settings: Arc<ScalingSettings>,
    /// Between two evaluations.
    pub debounce: Duration,
    /// Whether anything about the worker type is different from before.
    pub changed: bool,
}

impl Actor {
    /// Goes on under these settings, with its past and what is under way. `changed` says whether they are others than
    /// before: then it looks at once, and what failed under the old ones is no reason to wait.
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

    /// Whether an observation is under way.
    pub fn is_observing(&self) -> bool {
        matches!(self.phase, Phase::Observing(_))
    }

    /// The observation under way, if any, is not going to end: what led to it waits again.
    pub fn abandon_observation(&mut self) {
        if let Phase::Observing(signals) = self.phase {
            self.phase = Phase::Resting;
            self.note(signals);
            self.next_evaluation = Timestamp(0);
        }
    }

    /// Takes signals without looking.
    pub fn note(&mut self, signals: Signals) {
        self.waiting = Some(self.waiting.map_or(signals, |waiting| waiting.merge(signals)));
    }
}
