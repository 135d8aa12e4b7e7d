//! Nodes that reject pods (`OutOfcpu`, `UnexpectedAdmissionError`): their ReplicaSet makes another pod immediately, up
//! to 15 a second, each of which stays as a failed object. So the count is lowered to the pods that work, and raised
//! again after a pause that doubles.

use std::time::Duration;

use tokio::time::Instant;

use super::Reconciler;
use crate::backend::{
    BackendError,
    kubernetes::{cluster::FIELD_MANAGER, event_recorder::EventReason},
};

/// Rejected pods that end an attempt. One or two happen when a node has just filled up.
const MAX_REJECTED: u64 = 5;

/// Pause after the first attempt. It doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(10);

const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Attempts to have pods made that nodes reject. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct RejectionBackoff {
    attempts: u32,
    /// Rejected pods before the present attempt.
    seen: u64,
    until: Option<Instant>,
}

impl RejectionBackoff {
    /// Takes in the number of pods that were rejected so far. `true` if the present attempt has failed.
    fn fails(&mut self, rejected: u64, now: Instant) -> bool {
        if rejected < self.seen {
            // Another episode.
            *self = Self::default();
        }
        if rejected - self.seen < MAX_REJECTED {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.attempts)).min(MAX_PAUSE);
        self.attempts = self.attempts.saturating_add(1);
        self.seen = rejected;
        self.until = Some(now + pause);
        true
    }

    /// The rest of the pause.
    fn pause(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

impl Reconciler {
    /// Lowers the count to the pods that work if nodes reject the others.
    pub(super) async fn give_up_rejected(&mut self) -> Result<(), BackendError> {
        let Some((reason, pods)) = self.shared.store.rejections(&self.worker_type) else {
            self.rejected = RejectionBackoff::default();
            return Ok(());
        };
        let Ok(view) = self.view() else { return Ok(()) };
        // A count that somebody else set is theirs to change.
        let is_foreign = view.target.scaled_by.as_deref().is_some_and(|client| client != FIELD_MANAGER);
        if is_foreign || !self.shared.leader_guard.holds() || self.shared.conflicts.of(&self.spec)?.is_some() {
            return Ok(());
        }
        let works = view.pods.iter().filter(|pod| pod.ready || pod.started).count();
        let works = u32::try_from(works).unwrap_or(u32::MAX);
        if works >= view.target.replicas || !self.rejected.fails(pods, Instant::now()) {
            return Ok(());
        }
        self.record(EventReason::Failed, format!("nodes reject the pods of {}: {reason}", self.spec.shown()));
        self.write(&view, works).await
    }

    /// Counts rejected pods of Jobs. Nobody makes others in their place, so there is no count to lower.
    pub(super) fn note_rejected(&mut self) {
        match self.shared.store.rejections(&self.worker_type) {
            None => self.rejected = RejectionBackoff::default(),
            Some((_, pods)) => drop(self.rejected.fails(pods, Instant::now())),
        }
    }

    /// Refuses to ask for more pods while nodes have just rejected some.
    pub(super) fn wait_for_nodes(&self) -> Result<(), BackendError> {
        let pause = self.rejected.pause(Instant::now());
        match self.shared.store.rejections(&self.worker_type) {
            Some((reason, pods)) if !pause.is_zero() => Err(BackendError::retryable(format!(
                "nodes have rejected {pods} pods of {}, and more are requested only after a pause: {reason}",
                self.spec.shown()
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_ends_with_a_few_rejected_pods_and_the_pause_doubles() {
        let (mut backoff, start) = (RejectionBackoff::default(), Instant::now());
        assert!(!backoff.fails(4, start), "a node that has just filled up");
        assert!(backoff.fails(5, start));
        assert_eq!(backoff.pause(start), FIRST_PAUSE);
        assert!(!backoff.fails(9, start), "those that were on their way");
        assert!(backoff.fails(10, start + FIRST_PAUSE));
        assert_eq!(backoff.pause(start + FIRST_PAUSE), 2 * FIRST_PAUSE);
        for attempt in 3..20 {
            assert!(backoff.fails(5 * attempt, start));
        }
        assert_eq!(backoff.pause(start), MAX_PAUSE);
        assert!(backoff.fails(5, start), "another episode begins again");
        assert_eq!(backoff.pause(start), FIRST_PAUSE);
    }
}
