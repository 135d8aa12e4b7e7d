//! The leader's canary: a key of its own, written in the same way as workers write heartbeats. While the canary can be
//! written, a heartbeat could be written too; [`evidence`](crate::evidence) draws the conclusions. On a cluster there
//! is one canary on each primary.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    evidence::{Canary, Channel},
    model::Timestamp,
};

/// What the canary has shown. Written with the [signs of life](super::SignsOfLife), read by all actors and by readers
/// of the state of Redis.
#[derive(Debug, Default)]
pub struct CanaryState(Mutex<CanaryFacts>);

#[derive(Debug, Default)]
struct CanaryFacts {
    canary: Canary,
    connected_since: Option<Timestamp>,
    refused: Option<String>,
}

impl CanaryState {
    /// Returns a canary that has always been written, for tests of unrelated parts.
    #[cfg(test)]
    pub(crate) fn flawless() -> std::sync::Arc<Self> {
        let shown = CanaryFacts { canary: Canary::flawless(), ..CanaryFacts::default() };
        std::sync::Arc::new(Self(Mutex::new(shown)))
    }

    /// Returns what is known at `now` about the path that heartbeats take.
    pub fn channel(&self, now: Timestamp) -> Channel {
        let shown = self.lock();
        Channel { writable_since: shown.canary.unbroken_since(now), connected_since: shown.connected_since }
    }

    /// Returns why Redis refuses writes while it answers; `None` if it accepts writes, or none was tried.
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    pub(super) fn connected(&self, now: Timestamp) {
        self.lock().connected_since = Some(now);
    }

    pub(super) fn written(&self, kept: bool, now: Timestamp) {
        let mut shown = self.lock();
        shown.refused = None;
        shown.canary.written(kept, now);
    }

    pub(super) fn failed(&self, refused: Option<String>) {
        let mut shown = self.lock();
        shown.canary.failed();
        shown.refused = refused;
    }

    fn lock(&self) -> MutexGuard<'_, CanaryFacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
