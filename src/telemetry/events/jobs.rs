//! Events of jobs between publisher and result.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::counter;
use tracing::{info, warn};

use super::milliseconds;
use crate::telemetry::metric;

/// Why a job became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The entry does not hold a job.
    Malformed,
    /// The job failed, and is not retried.
    Failed,
    /// The job's deadline had passed before a worker began it.
    Expired,
    /// Its workers died or lost their claims, and no attempt is left.
    AttemptsExhausted,
    /// The job was interrupted too many times.
    InterruptionsExhausted,
}

impl DeadReason {
    /// Returns the name in dead letters and metric labels.
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

/// A job, or a malformed entry, became a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct JobBuried<'a> {
    /// Stream of the entry: in the log only.
    pub stream: &'a str,
    /// Id of the entry.
    pub entry: &'a str,
    /// Id of the job; empty if the entry has none.
    pub job: &'a str,
    /// Why the job was given up; a label value.
    pub reason: DeadReason,
    /// Error in words, for the log.
    pub error: &'a str,
}

impl JobBuried<'_> {
    /// Counts and logs the dead letter.
    pub fn emit(self) {
        let Self { stream, entry, job, reason, error } = self;
        counter!(metric::JOBS_DEAD, "reason" => reason.as_str()).increment(1);
        warn!(stream, entry, job, reason = reason.as_str(), "job buried: {error}");
    }
}

/// A job failed and is going to be retried.
#[derive(Clone, Copy, Debug)]
pub struct JobRetried<'a> {
    /// Stream of the job: in the log only.
    pub stream: &'a str,
    /// Id of the job.
    pub job: &'a str,
    /// Attempts that were started so far.
    pub attempts: u32,
    /// Time until the next attempt.
    pub wait: Duration,
}

impl JobRetried<'_> {
    /// Counts and logs the retry.
    pub fn emit(self) {
        let Self { stream, job, attempts, wait } = self;
        counter!(metric::JOBS_RETRIED).increment(1);
        info!(stream, job, attempts, wait_ms = milliseconds(wait), "job failed, retry scheduled");
    }
}

/// Dead letters were dropped because of a limit in the settings.
#[derive(Clone, Copy, Debug)]
pub struct DeadLettersDropped<'a> {
    /// Stream of the jobs: in the log only.
    pub stream: &'a str,
    /// Number of dead letters.
    pub letters: u64,
}

impl DeadLettersDropped<'_> {
    /// Counts and logs the dead letters.
    pub fn emit(self) {
        let Self { stream, letters } = self;
        counter!(metric::DEAD_LETTERS_DROPPED).increment(letters);
        tracing::warn!(stream, letters, "dead letters dropped: more or older than the settings allow");
    }
}

/// Delayed jobs were due and moved to their stream.
#[derive(Clone, Copy, Debug)]
pub struct DelayedMoved<'a> {
    /// Stream that received the jobs: in the log only.
    pub stream: &'a str,
    /// Number of jobs.
    pub jobs: u64,
}

impl DelayedMoved<'_> {
    /// Counts and logs the jobs.
    pub fn emit(self) {
        let Self { stream, jobs } = self;
        counter!(metric::DELAYED_MOVED).increment(jobs);
        tracing::debug!(stream, jobs, "delayed jobs are due");
    }
}

/// Finished entries were trimmed from a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamTrimmed<'a> {
    /// Stream that was trimmed: in the log only.
    pub stream: &'a str,
    /// Number of entries.
    pub entries: u64,
}

impl StreamTrimmed<'_> {
    /// Counts and logs the entries.
    pub fn emit(self) {
        let Self { stream, entries } = self;
        counter!(metric::ENTRIES_TRIMMED).increment(entries);
        tracing::debug!(stream, entries, "finished entries trimmed");
    }
}
