//! The rules for the jobs of one worker type: how many times they are tried, and how large they and their results may
//! be.

use std::time::Duration;

use super::Job;
use crate::config::{BrokerSettings, JobSettings};

/// The rules for one stream's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPolicy {
    /// Limits for all jobs.
    pub broker: BrokerSettings,
    /// Attempts of this worker type's jobs.
    pub jobs: JobSettings,
    /// Channel on which streams that were written to are named; none if empty.
    pub channel: String,
}

impl Default for JobPolicy {
    fn default() -> Self {
        let channel = crate::model::keys::PUBLISHED_CHANNEL.to_owned();
        Self { broker: BrokerSettings::default(), jobs: JobSettings::default(), channel }
    }
}

impl JobPolicy {
    /// Returns the maximum bytes of a job's JSON.
    pub fn job_max_bytes(&self) -> usize {
        self.broker.job_max_bytes()
    }

    /// Returns the maximum bytes of a result's JSON.
    pub fn result_max_bytes(&self) -> usize {
        self.broker.result_max_bytes()
    }

    /// Returns how long the result of a job waits to be fetched.
    pub fn result_ttl_of(&self, job: Option<&Job>) -> Duration {
        job.and_then(Job::result_ttl).unwrap_or_else(|| self.broker.result_ttl())
    }
}
