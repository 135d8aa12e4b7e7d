//! What holds for the jobs of one worker type: how often they are tried, how large they and their results may be.

use std::time::Duration;

use crate::config::{BrokerSettings, JobSettings};

/// The rules for one stream's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPolicy {
    /// Limits for all jobs.
    pub broker: BrokerSettings,
    /// How often this worker type's jobs are tried.
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
    /// Most bytes of JSON that a job may have.
    pub fn job_max_bytes(&self) -> usize {
        usize::try_from(self.broker.job_max_bytes).unwrap_or(usize::MAX)
    }

    /// Most bytes of JSON that a result may have.
    pub fn result_max_bytes(&self) -> usize {
        usize::try_from(self.broker.result_max_bytes).unwrap_or(usize::MAX)
    }

    /// How long a result waits to be fetched.
    pub fn result_ttl(&self) -> Duration {
        self.broker.result_ttl()
    }
}
