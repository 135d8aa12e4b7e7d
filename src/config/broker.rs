//! Settings of jobs: maximum sizes, attempts, and lifetimes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest wait before another attempt: an hour.
const RETRY_MAX: Duration = Duration::from_secs(3_600);

/// Growth of the wait with each attempt: the first retry repairs a hiccup, and the last one of the default outlasts an
/// outage of two minutes.
const RETRY_GROWTH: u32 = 4;

/// `[broker]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// Maximum job size in bytes of JSON. A larger job is refused when published, and becomes a dead letter when read.
    #[schemars(range(min = 1_024, max = 268_435_456))]
    pub job_max_bytes: u32,
    /// Maximum result size in bytes of JSON. In place of a larger result, the waiter gets an error.
    #[schemars(range(min = 1_024, max = 268_435_456))]
    pub result_max_bytes: u32,
    /// Seconds for which a result is kept.
    #[schemars(range(min = 1, max = 604_800))]
    pub result_ttl_seconds: u64,
    /// Seconds for which jobs with the same idempotency key count as one job.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub idempotency_window_seconds: u64,
    /// Maximum dead letters of a queue; workers drop the oldest ones beyond it. 0: unlimited.
    pub dead_letters_max: u64,
    /// Seconds after which workers drop a dead letter. 0: never.
    #[schemars(range(max = 315_360_000))]
    pub dead_letters_max_age_seconds: u64,
    /// Whether workers trim their stream of entries that every consumer group has finished.
    pub trim: bool,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            job_max_bytes: 1_048_576,
            result_max_bytes: 8_388_608,
            result_ttl_seconds: 3_600,
            idempotency_window_seconds: 3_600,
            dead_letters_max: 0,
            dead_letters_max_age_seconds: 0,
            trim: true,
        }
    }
}

impl BrokerSettings {
    /// Returns `job_max_bytes` as a length.
    pub fn job_max_bytes(&self) -> usize {
        usize::try_from(self.job_max_bytes).unwrap_or(usize::MAX)
    }

    /// Returns `result_max_bytes` as a length.
    pub fn result_max_bytes(&self) -> usize {
        usize::try_from(self.result_max_bytes).unwrap_or(usize::MAX)
    }

    /// Returns `result_ttl_seconds` as a duration.
    pub fn result_ttl(&self) -> Duration {
        Duration::from_secs(self.result_ttl_seconds)
    }

    /// Returns `idempotency_window_seconds` as a duration.
    pub fn idempotency_window(&self) -> Duration {
        Duration::from_secs(self.idempotency_window_seconds)
    }
}

/// `[worker_types.NAME.jobs]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// Attempts before a job becomes a dead letter. The first death of its worker makes a job suspect; a further death
    /// is an attempt.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_attempts: u32,
    /// Interruptions before a job becomes a dead letter: drains that ended before it did, and first deaths of its
    /// worker.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_interruptions: u32,
    /// Milliseconds before a failed job is retried. The wait quadruples with each attempt, to at most an hour; each job
    /// waits for between half of that and all of it.
    #[schemars(range(max = 3_600_000))]
    pub retry_backoff_ms: u64,
    /// Seconds after which another worker may take a job that its worker neither finished nor claimed again. `swarm
    /// worker` renews its claims three times in this period.
    #[schemars(range(min = 1, max = 86_400))]
    pub claim_seconds: u64,
    /// Arguments whose values workers mask as `***` in a job's errors, and so in logs, dead letters and answers: names
    /// of named arguments, positions of positional ones, from 0 on, or `"*"` for all.
    pub masked_arguments: Vec<String>,
}

super::section::defaults!(JobSettings);

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            max_interruptions: 20,
            retry_backoff_ms: 2_000,
            claim_seconds: 60,
            masked_arguments: Vec::new(),
        }
    }
}

impl JobSettings {
    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let is_empty = self.masked_arguments.iter().any(|name| name.trim().is_empty());
        let cure = "an empty name; name an argument, write the position of one, from \"0\" on, or \"*\" for all";
        is_empty.then(|| ("masked_arguments", cure.to_owned())).into_iter().collect()
    }

    /// Returns `claim_seconds` as a duration.
    pub fn claim(&self) -> Duration {
        Duration::from_secs(self.claim_seconds)
    }

    /// Returns the longest wait after attempt N, counted from 1.
    pub fn retry_wait(&self, attempts: u32) -> Duration {
        let times = RETRY_GROWTH.saturating_pow(attempts.saturating_sub(1));
        Duration::from_millis(self.retry_backoff_ms).saturating_mul(times).min(RETRY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_up_to_an_hour() {
        let settings = JobSettings::default();
        let waits = [0, 1, 2, 3, 4, 6, 7, u32::MAX].map(|attempts| settings.retry_wait(attempts).as_secs());
        assert_eq!(waits, [2, 2, 8, 32, 128, 2_048, 3_600, 3_600]);
    }
}
