//! Configures a worker from code, for programs that have no configuration file.

use std::time::Duration;

use super::{Sessions, Worker, WorkerConfig};
use crate::{
    config::{ScalerSettings, WorkerTypeSettings},
    connection::{ConnectionError, RedisTarget},
    model::{QueuePattern, WorkerId, WorkerType},
};

/// Variable in which an autoscaler passes a worker its id.
const ID_VARIABLE: &str = "SWARM_WORKER_ID";

/// Builds a [`WorkerConfig`]; made by [`WorkerConfig::builder`].
#[derive(Clone, Debug)]
pub struct WorkerConfigBuilder {
    worker_type: String,
    id: Option<String>,
    heartbeat_interval: Option<Duration>,
    drain_timeout: Option<Duration>,
    job_timeout: Option<Duration>,
    settings: WorkerTypeSettings,
}

/// Why a [`WorkerConfig`] can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerConfigError {
    /// The name is not a valid name of a worker type.
    #[error(
        "`{0}` can't name a worker type; use 1 to 63 lower-case letters, digits, `-`, `_` and `.`, beginning with a \
         letter or digit"
    )]
    WorkerType(String),
    /// The id is empty.
    #[error("the worker's id is empty; leave it out, or give one that is unique within the worker type")]
    EmptyId,
    /// A duration or number that must be at least 1 is 0.
    #[error("`{0}` is 0; it must be greater")]
    Zero(&'static str),
    /// An extra queue is not a valid pattern.
    #[error("`{queue}` is not a pattern of queues: {problem}")]
    Queue {
        /// The queue as given.
        queue: String,
        /// What is wrong with the pattern.
        problem: String,
    },
}

impl WorkerConfig {
    /// Starts the configuration of a worker of `worker_type`, with the defaults of `swarm worker`: it takes jobs from
    /// the stream `TYPE:jobs` as a consumer of the group `TYPE`, one at a time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use swarm::WorkerConfig;
    ///
    /// let config = WorkerConfig::builder("mail").concurrency(8).job_timeout(Duration::from_secs(30)).build()?;
    /// assert_eq!(config.queues.own, "mail:jobs");
    /// # Ok::<(), swarm::WorkerConfigError>(())
    /// ```
    pub fn builder(worker_type: impl Into<String>) -> WorkerConfigBuilder {
        WorkerConfigBuilder {
            worker_type: worker_type.into(),
            id: None,
            heartbeat_interval: None,
            drain_timeout: None,
            job_timeout: None,
            settings: WorkerTypeSettings::default(),
        }
    }
}

impl WorkerConfigBuilder {
    /// Names the worker. Default: `SWARM_WORKER_ID` of the environment, which an autoscaler sets, else the type and a
    /// random suffix.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Takes jobs from the stream `key` instead of `TYPE:jobs`.
    #[must_use]
    pub fn queue(mut self, key: impl Into<String>) -> Self {
        self.settings.job_queue = Some(key.into());
        self
    }

    /// Also takes jobs from the stream `key`, or from all streams that match if `key` is a pattern (`tenant-*:jobs`).
    #[must_use]
    pub fn extra_queue(mut self, key: impl Into<String>) -> Self {
        self.settings.extra_queues.push(key.into());
        self
    }

    /// Joins this consumer group instead of the one named after the type.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.settings.group = Some(name.into());
        self
    }

    /// Runs at most `jobs` jobs at the same time. Default: 1.
    #[must_use]
    pub fn concurrency(mut self, jobs: u32) -> Self {
        self.settings.worker.concurrency = jobs;
        self
    }

    /// Takes at most `jobs` jobs, finishes them, and leaves: [`Worker::run`] returns then. A job counts whatever
    /// becomes of it; jobs of sessions that are open here do not count. Default: unlimited.
    #[must_use]
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.settings.worker.max_jobs = Some(jobs);
        self
    }

    /// Sets the time between two heartbeats. Default: 5 s.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = Some(interval);
        self
    }

    /// Sets how long jobs may take to finish when the worker is asked to stop. Default: 300 s.
    #[must_use]
    pub fn drain_timeout(mut self, time: Duration) -> Self {
        self.drain_timeout = Some(time);
        self
    }

    /// Fails a job that runs longer. Default: 1 h.
    #[must_use]
    pub fn job_timeout(mut self, time: Duration) -> Self {
        self.job_timeout = Some(time);
        self
    }

    /// Runs a job at most `attempts` times before it becomes a dead letter. Default: 3.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.jobs.max_attempts = attempts;
        self
    }

    /// Masks the values of these arguments as `***` in the errors of jobs: names of named arguments, positions of
    /// positional ones, from 0 on, or `*` for all. Default: none.
    #[must_use]
    pub fn masked_arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.settings.jobs.masked_arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Validates everything and returns the configuration.
    ///
    /// # Errors
    /// If a name is invalid or a number is 0.
    pub fn build(self) -> Result<WorkerConfig, WorkerConfigError> {
        let Self { worker_type: name, id, heartbeat_interval, drain_timeout, job_timeout, settings } = self;
        if !WorkerType::is_valid(&name) {
            return Err(WorkerConfigError::WorkerType(name));
        }
        let worker_type = WorkerType::new(name);
        let id = match id.or_else(|| std::env::var(ID_VARIABLE).ok()) {
            Some(id) if id.is_empty() => return Err(WorkerConfigError::EmptyId),
            Some(id) => WorkerId::new(id),
            None => WorkerId::random(&worker_type),
        };
        let zeros = [
            ("concurrency", settings.worker.concurrency == 0),
            ("max_jobs", settings.worker.max_jobs == Some(0)),
            ("max_attempts", settings.jobs.max_attempts == 0),
            ("heartbeat_interval", heartbeat_interval == Some(Duration::ZERO)),
            ("job_timeout", job_timeout == Some(Duration::ZERO)),
        ];
        if let Some((setting, _)) = zeros.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(WorkerConfigError::Zero(setting));
        }
        for queue in settings.extra_queues.iter().filter(|queue| QueuePattern::is_pattern(queue)) {
            if let Err(problem) = QueuePattern::parse(queue) {
                return Err(WorkerConfigError::Queue { queue: queue.clone(), problem: problem.to_string() });
            }
        }
        let config = WorkerConfig::new(worker_type, id, &settings);
        Ok(WorkerConfig {
            heartbeat_interval: heartbeat_interval.unwrap_or(config.heartbeat_interval),
            drain_timeout: drain_timeout.unwrap_or(config.drain_timeout),
            job_timeout: job_timeout.or(config.job_timeout),
            ..config
        })
    }
}

impl Worker {
    /// Returns a worker that takes its jobs from the Redis at `redis_url`. Does not connect yet.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub fn open(redis_url: &str, config: WorkerConfig) -> Result<Self, ConnectionError> {
        Ok(Self::new(config, RedisTarget::new(&redis_url.into(), ScalerSettings::default().redis_timeout())?))
    }

    /// Returns the sessions that are open here: a handler that keeps sessions opens and closes them.
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_swarm_worker() {
        let built = WorkerConfig::builder("mail").id("w1").build().unwrap();
        let settings = WorkerTypeSettings::default();
        let configured = WorkerConfig::new(WorkerType::new("mail"), WorkerId::new("w1"), &settings);
        assert_eq!(format!("{built:?}"), format!("{configured:?}"));
    }

    #[test]
    fn every_setting_reaches_the_configuration() {
        let seconds = Duration::from_secs;
        let built = WorkerConfig::builder("mail")
            .id("w1")
            .queue("outbox")
            .extra_queue("urgent")
            .extra_queue("tenant-*:jobs")
            .group("senders")
            .concurrency(8)
            .max_jobs(100)
            .heartbeat_interval(Duration::from_millis(100))
            .drain_timeout(seconds(7))
            .job_timeout(seconds(9))
            .max_attempts(5)
            .build()
            .unwrap();
        assert_eq!((built.queues.own.as_str(), built.group.as_str(), built.concurrency), ("outbox", "senders", 8));
        assert_eq!((built.queues.others.len(), built.queues.patterns.len()), (1, 1));
        assert_eq!((built.max_jobs, built.heartbeat_interval), (Some(100), Duration::from_millis(100)));
        assert_eq!((built.drain_timeout, built.job_timeout), (seconds(7), Some(seconds(9))));
        assert_eq!(built.policy.jobs.max_attempts, 5);
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let builder = || WorkerConfig::builder("mail").id("w1");
        let errors = [
            WorkerConfig::builder("Mail").build(),
            builder().id("").build(),
            builder().concurrency(0).build(),
            builder().max_jobs(0).build(),
            builder().max_attempts(0).build(),
            builder().job_timeout(Duration::ZERO).build(),
        ];
        let words = errors.map(|built| built.unwrap_err().to_string());
        for (text, word) in words.iter().zip([
            "`Mail`",
            "id is empty",
            "`concurrency`",
            "`max_jobs`",
            "`max_attempts`",
            "`job_timeout`",
        ]) {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn a_worker_without_an_id_gets_one_of_its_type() {
        let [one, other] = [(); 2].map(|()| WorkerConfig::builder("mail").build().unwrap().id);
        assert!(one.as_str().starts_with("mail-") && one != other, "{one} {other}");
    }
}
