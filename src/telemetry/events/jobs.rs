//! Events of jobs on their way.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::counter;
use tracing::{info, warn};

use super::milliseconds;
use crate::telemetry::metric;

/// Why a job became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The entry is no job.
    Malformed,
    /// It failed, and won't be tried again.
    Failed,
    /// Its deadline was over before anybody began it.
    Expired,
    /// Its workers died or lost their claims, as often as it may be tried.
    AttemptsExhausted,
    /// It was interrupted too often.
    InterruptionsExhausted,
}

impl DeadReason {
    /// The name in dead letters and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::InterruptionsExhausted => "interruptions_exhausted",
        }
    }
}

/// A job, or an entry that is none, went to the dead letters.
#[derive(Clone, Copy, Debug)]
pub struct JobBuried<'a> {
    /// The stream that it was on: in the log only.
    pub stream: &'a str,
    /// The entry's id.
    pub entry: &'a str,
    /// The job's id; empty if there is none.
    pub job: &'a str,
    /// A label value.
    pub reason: DeadReason,
    /// In words, for the log.
    pub error: &'a str,
}

impl JobBuried<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        let Self { stream, entry, job, reason, error } = self;
        counter!(metric::JOBS_DEAD, "reason" => reason.as_str()).increment(1);
        warn!(stream, entry, job, reason = reason.as_str(), "job is a dead letter now: {error}");
    }
}

/// A failed job will be tried again.
#[derive(Clone, Copy, Debug)]
pub struct JobRetried<'a> {
    /// Its stream: in the log only.
    pub stream: &'a str,
    /// Its id.
    pub job: &'a str,
    /// How often it has been begun.
    pub attempts: u32,
    /// Until it is tried again.
    pub wait: Duration,
}

impl JobRetried<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        let Self { stream, job, attempts, wait } = self;
        counter!(metric::JOBS_RETRIED).increment(1);
        info!(stream, job, attempts, wait_ms = milliseconds(wait), "job failed and is tried again");
    }
}

/// Delayed jobs were due and are on their stream now.
#[derive(Clone, Copy, Debug)]
pub struct DelayedMoved<'a> {
    /// The stream: in the log only.
    pub stream: &'a str,
    /// How many.
    pub jobs: u64,
}

impl DelayedMoved<'_> {
    /// Counts and logs them.
    pub fn emit(self) {
        let Self { stream, jobs } = self;
        counter!(metric::DELAYED_MOVED).increment(jobs);
        tracing::debug!(stream, jobs, "delayed jobs are due");
    }
}

/// Finished entries were trimmed off a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamTrimmed<'a> {
    /// Which: in the log only.
    pub stream: &'a str,
    /// How many.
    pub entries: u64,
}

impl StreamTrimmed<'_> {
    /// Counts and logs them.
    pub fn emit(self) {
        let Self { stream, entries } = self;
        counter!(metric::ENTRIES_TRIMMED).increment(entries);
        tracing::debug!(stream, entries, "finished entries trimmed");
    }
}
