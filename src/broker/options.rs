//! The options of one job, which take precedence over the settings of its worker type, and the rule for its next
//! attempt. Pure: neither reads a clock nor draws a random number.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::{EnvelopeError, Job, Retry};
use crate::{config::JobSettings, model::Timestamp};

/// Maximum attempts of a job, as for the setting `max_attempts`.
const MAX_ATTEMPTS: u32 = 1_000;
/// Longest time limit of a job: 30 days.
const MAX_TIMEOUT_SECONDS: f64 = 2_592_000.0;
/// Longest time for which a result is kept: a week, as for the setting `result_ttl_seconds`.
const MAX_RESULT_TTL_SECONDS: u64 = 604_800;

impl Job {
    /// Returns the same job with at most `attempts` attempts, instead of `max_attempts` of its worker type.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Returns the same job with a time limit for each attempt, instead of `job_timeout_seconds` of its worker.
    #[must_use]
    pub fn with_timeout(mut self, time: Duration) -> Self {
        self.timeout_seconds = Some(time.as_secs_f64());
        self
    }

    /// Returns the same job, whose result is kept for `time` (at least a second) instead of `result_ttl_seconds`.
    #[must_use]
    pub fn with_result_ttl(mut self, time: Duration) -> Self {
        self.result_ttl_seconds = Some(time.as_secs().max(1));
        self
    }

    /// Returns the same job, whose publisher waits for the result for `time` from now. A failed attempt is the last one
    /// if the next one would begin later: then the publisher gets the error while it still waits.
    #[must_use]
    pub fn with_reply_within(mut self, time: Duration) -> Self {
        self.reply_by_ts = Some(super::envelope::seconds(Timestamp::wall().after(time)));
        self
    }

    /// Returns the time limit of an attempt; `None` if the job does not set one.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// Returns how long the result is kept; `None` if the job does not say.
    pub(super) fn result_ttl(&self) -> Option<Duration> {
        self.result_ttl_seconds.map(Duration::from_secs)
    }

    /// Returns the maximum attempts of the job in a pool with these settings.
    pub(super) fn attempts_allowed(&self, settings: &JobSettings) -> u32 {
        self.max_attempts.unwrap_or(settings.max_attempts)
    }

    /// Returns the wait before the next attempt, after attempt number `attempts` failed at `now`; `None` if that was
    /// the last one.
    pub(super) fn wait_before_next(
        &self,
        settings: &JobSettings,
        attempts: u32,
        retry: Retry,
        now: Timestamp,
    ) -> Option<Duration> {
        if attempts >= self.attempts_allowed(settings) {
            return None;
        }
        let wait = match retry {
            Retry::Never => return None,
            Retry::Backoff => shortened(settings.retry_wait(attempts), &self.id, attempts),
            Retry::After(wait) => wait,
        };
        let reply_by = self.reply_by_ts.filter(|_| self.reply_to.is_some()).map(super::envelope::timestamp);
        let last_start = self.deadline().into_iter().chain(reply_by).min();
        last_start.is_none_or(|last| now.after(wait) < last).then_some(wait)
    }

    /// Checks that the options are within their limits.
    pub(super) fn check_options(&self) -> Result<(), EnvelopeError> {
        let out_of_range = |field, allowed: String| Err(EnvelopeError::OutOfRange { field, allowed });
        if self.max_attempts.is_some_and(|attempts| !(1..=MAX_ATTEMPTS).contains(&attempts)) {
            return out_of_range("max_attempts", format!("1 to {MAX_ATTEMPTS}"));
        }
        if self.timeout_seconds.is_some_and(|seconds| !(seconds > 0.0 && seconds <= MAX_TIMEOUT_SECONDS)) {
            return out_of_range("timeout_seconds", format!("above 0 and at most {MAX_TIMEOUT_SECONDS}"));
        }
        if self.result_ttl_seconds.is_some_and(|seconds| !(1..=MAX_RESULT_TTL_SECONDS).contains(&seconds)) {
            return out_of_range("result_ttl_seconds", format!("1 to {MAX_RESULT_TTL_SECONDS}"));
        }
        Ok(())
    }
}

/// Returns between half of `wait` and all of it, so that jobs that failed together are not retried together. The job
/// and its attempt determine the part.
fn shortened(wait: Duration, id: &str, attempts: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (id, attempts).hash(&mut hasher);
    let part = u32::try_from(hasher.finish() % 1_001).unwrap_or(1_000);
    wait / 2 + wait / 2 * part / 1_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    const NOW: Timestamp = Timestamp(1_763_896_658_250);

    fn job() -> Job {
        Job { id: "a".to_owned(), ..Job::new("a.b", Vec::new(), Map::new()) }
    }

    fn wait(job: &Job, attempts: u32, retry: Retry) -> Option<Duration> {
        job.wait_before_next(&JobSettings::default(), attempts, retry, NOW)
    }

    #[test]
    fn by_default_five_attempts_span_more_than_a_minute_and_less_than_three() {
        let waits: Vec<_> = (1..=5).map_while(|attempts| wait(&job(), attempts, Retry::Backoff)).collect();
        let all: Duration = waits.iter().sum();
        assert_eq!(waits.len(), 4);
        assert!((85..=170).contains(&all.as_secs()), "{waits:?}");
        assert_eq!(wait(&job(), 1, Retry::Never), None);
    }

    #[test]
    fn a_job_may_have_its_own_number_of_attempts() {
        assert_eq!(wait(&job().with_max_attempts(1), 1, Retry::Backoff), None);
        assert!(wait(&job().with_max_attempts(7), 6, Retry::Backoff).is_some());
    }

    #[test]
    fn no_attempt_begins_when_nobody_waits_any_more() {
        let second = Retry::After(Duration::from_secs(1));
        let until = |field: fn(&mut Job) -> &mut Option<f64>, ms: u64| {
            let mut job = job().with_reply();
            *field(&mut job) = Some(super::super::envelope::seconds(Timestamp(NOW.0 + ms)));
            wait(&job, 1, second).is_some()
        };
        for field in [(|job| &mut job.deadline_ts) as fn(&mut Job) -> &mut Option<f64>, |job| &mut job.reply_by_ts] {
            assert_eq!((until(field, 900), until(field, 1_100)), (false, true));
        }
        let nobody = Job { reply_by_ts: Some(1.0), ..job() };
        assert_eq!(wait(&nobody, 1, second), Some(Duration::from_secs(1)));
    }

    #[test]
    fn options_out_of_range_are_refused_and_named() {
        for (job, says) in [
            (job().with_max_attempts(0), "`max_attempts`"),
            (job().with_timeout(Duration::ZERO), "`timeout_seconds`"),
            (job().with_timeout(Duration::from_secs(2_592_001)), "`timeout_seconds`"),
            (job().with_result_ttl(Duration::from_secs(604_801)), "`result_ttl_seconds`"),
        ] {
            let error = job.encode(1 << 20).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(Job::parse(job.to_json().as_bytes(), 1 << 20).is_err());
        }
        let good = job().with_max_attempts(1_000).with_timeout(Duration::from_millis(1));
        let good = good.with_result_ttl(Duration::from_millis(1));
        assert_eq!(Job::parse(good.to_json().as_bytes(), 1 << 20), Ok(good));
    }

    proptest! {
        #[test]
        fn a_wait_is_shortened_by_at_most_half(ms in 0..10_000_000_u64, id in ".{0,40}", attempts in any::<u32>()) {
            let wait = Duration::from_millis(ms);
            let shortened = shortened(wait, &id, attempts);
            prop_assert!(shortened >= wait / 2 && shortened <= wait);
        }
    }

    #[test]
    fn jobs_that_failed_together_are_retried_apart() {
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|id| shortened(Duration::from_secs(100), &id.to_string(), 1)).collect();
        assert!(waits.len() > 80 && waits.last().unwrap().as_secs() - waits.first().unwrap().as_secs() > 40);
    }
}
