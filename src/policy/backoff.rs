//! Waits after consecutive failures. They have no jitter: worker types fail at different times anyway, and a decision
//! must be repeatable.

use std::time::Duration;

use crate::model::Timestamp;

/// A capped exponential schedule of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Consecutive failures without a wait.
    free: u32,
    /// Wait after the first failure that has one; each further failure doubles it.
    first: Duration,
    /// Longest wait.
    cap: Duration,
}

impl Backoff {
    /// For workers that end early. A single death may be chance, and its replacement does not wait. The cap is that of
    /// Kubernetes' `CrashLoopBackOff`, five minutes: a start that keeps failing needs a person, and costs little
    /// meanwhile.
    pub const START: Self = Self { free: 1, first: Duration::from_secs(1), cap: Duration::from_secs(300) };

    /// For failed calls to the backend. The cap is shorter: an outage ends without anyone touching the workers, and
    /// jobs wait meanwhile.
    pub const BACKEND: Self = Self { free: 0, first: Duration::from_secs(1), cap: Duration::from_secs(60) };

    /// For replacing workers without a heartbeat, one at a time: they may live, and whatever silenced the first may
    /// silence the next.
    pub const REPLACE: Self = Self { free: 0, first: Duration::from_secs(10), cap: Duration::from_secs(300) };

    /// Returns the wait after `count` consecutive failures.
    pub fn wait(self, count: u32) -> Duration {
        match count.saturating_sub(self.free) {
            0 => Duration::ZERO,
            paid => self.first.saturating_mul(2_u32.saturating_pow(paid - 1)).min(self.cap),
        }
    }
}

/// Consecutive failures, with no success between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Number of failures; at least 1.
    pub count: u32,
    /// When the last failure happened.
    pub last_at: Timestamp,
    /// Last failure in words, for people.
    pub message: String,
}

impl Failures {
    /// Returns when to try again.
    pub fn retry_at(&self, backoff: Backoff) -> Timestamp {
        self.last_at.after(backoff.wait(self.count))
    }

    /// Adds a failed start to `earlier` ones. Workers fail in rounds: a worker that was started before the last failure
    /// belongs to the same round, which counts once, however many of its workers fail.
    pub(super) fn one_more_round(
        earlier: Option<&Self>,
        started_at: Timestamp,
        at: Timestamp,
        message: String,
    ) -> Self {
        match earlier {
            Some(round) if started_at < round.last_at => Self { message, ..round.clone() },
            _ => Self::one_more(earlier, at, message),
        }
    }

    /// Adds a failure to `earlier` ones.
    pub(super) fn one_more(earlier: Option<&Self>, at: Timestamp, message: String) -> Self {
        let count = earlier.map_or(0, |failures| failures.count).saturating_add(1);
        Self { count, last_at: at, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: Backoff) -> Vec<u64> {
        (1..=11).map(|count| backoff.wait(count).as_secs()).collect()
    }

    #[test]
    fn a_first_early_exit_is_free_and_later_ones_double_up_to_five_minutes() {
        assert_eq!(waits(Backoff::START), [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    #[test]
    fn a_first_backend_failure_waits_a_second_and_later_ones_double_up_to_a_minute() {
        assert_eq!(waits(Backoff::BACKEND), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn any_count_has_a_wait() {
        assert_eq!(Backoff::START.wait(0), Duration::ZERO);
        assert_eq!(Backoff::START.wait(u32::MAX), Duration::from_secs(300));
    }
}
