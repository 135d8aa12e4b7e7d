//! One worker: takes jobs of its type, runs them through a handler, sends results, reports its state. Sees Redis only
//! through the broker for jobs; owns its heartbeat. Must not decide how many workers there are.

mod background;
mod builder;
mod by_stream;
mod complete;
mod connection;
mod evidence;
mod execute;
pub mod handlers;
mod in_flight;
mod intake;
mod progress;
mod queue_set;
mod runtime;
mod sessions;
mod status;
mod upkeep;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use builder::{WorkerConfigBuilder, WorkerConfigError};
pub use handlers::{Handler, JobError};
pub use progress::JobContext;
pub use runtime::{WorkerError, WorkerReport};
pub use sessions::{SessionError, Sessions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    connection::{Commands, Hints},
    evidence::OwnEvidence,
    handlers::Context,
    queue_set::QueueSet,
    status::Status,
};
use crate::{
    broker::{Consumer, JobPolicy, SessionClaims},
    config::{JobSettings, WorkerSettings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{Queues, WorkerId, WorkerType, keys},
};

pub use crate::model::progress::{Progress, ReportedProgress};

/// Heartbeats that may be missed before a worker counts as gone: the TTL of its key, in intervals.
const MISSED_HEARTBEATS: u32 = 3;
/// Default time between two searches for queues.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Configuration of one worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Type of the worker.
    pub worker_type: WorkerType,
    /// Id of the worker, unique within the type.
    pub id: WorkerId,
    /// Streams that the worker takes jobs from.
    pub queues: Queues,
    /// Consumer group on these streams.
    pub group: String,
    /// Maximum jobs at the same time; at least 1.
    pub concurrency: usize,
    /// Jobs after which the worker leaves by itself; at least 1. `None`: unlimited.
    pub max_jobs: Option<usize>,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How long jobs may take to finish when the worker is asked to leave.
    pub drain_timeout: Duration,
    /// Time limit of one job, after which it has failed. `None`: unlimited.
    pub job_timeout: Option<Duration>,
    /// How long a session without jobs stays open.
    pub session_idle: Duration,
    /// Time between two searches for queues, if there are patterns.
    pub sweep_interval: Duration,
    /// Address of the worker's metrics, for its heartbeat; `None` if they are not served.
    pub metrics: Option<SocketAddr>,
    /// Rules for the worker's jobs.
    pub policy: JobPolicy,
}

impl WorkerConfig {
    /// Returns the configuration that `settings` give a worker of this type.
    pub fn new(worker_type: WorkerType, id: WorkerId, settings: &WorkerTypeSettings) -> Self {
        let worker: &WorkerSettings = &settings.worker;
        Self {
            queues: settings.queues(worker_type.as_str()),
            group: settings.group(worker_type.as_str()),
            concurrency: usize::try_from(worker.concurrency).unwrap_or(usize::MAX).max(1),
            max_jobs: worker.max_jobs.map(|jobs| usize::try_from(jobs).unwrap_or(usize::MAX).max(1)),
            heartbeat_interval: worker.heartbeat_interval(),
            drain_timeout: settings.scaling.drain_timeout(),
            job_timeout: worker.job_timeout(),
            session_idle: worker.session_idle(),
            sweep_interval: SWEEP_INTERVAL,
            metrics: None,
            policy: JobPolicy { jobs: JobSettings::clone(&settings.jobs), ..JobPolicy::default() },
            worker_type,
            id,
        }
    }

    /// Returns the number of jobs that can be in progress at the same time.
    fn slots(&self) -> usize {
        self.concurrency.min(self.max_jobs.unwrap_or(usize::MAX))
    }

    /// Returns the time after which a silent worker counts as gone.
    fn lapse(&self) -> Duration {
        self.heartbeat_interval * MISSED_HEARTBEATS
    }

    /// Returns for how long after Redis was asked for a job no other worker can have claimed it, with a margin.
    fn trusted_for(&self) -> Duration {
        self.lapse() * 3 / 4
    }

    /// Returns the consumer on the own queue; on other queues it is a consumer of the same name.
    fn consumer(&self) -> Consumer {
        Consumer {
            stream: self.queues.own.clone(),
            group: self.group.clone(),
            name: self.id.to_string(),
            policy: self.policy.clone(),
        }
    }
}

/// A worker that has not started. It is made before its handler, which may need its [`Context`].
pub struct Worker {
    config: WorkerConfig,
    target: RedisTarget,
    commands: Arc<Commands>,
    queues: Arc<QueueSet>,
    status: watch::Sender<Status>,
    sessions: Sessions,
}

impl Worker {
    /// Returns a worker that takes its jobs from the Redis at `target`. Does not connect yet.
    pub fn new(config: WorkerConfig, target: RedisTarget) -> Self {
        let channel = keys::control(&config.worker_type, &config.id);
        let queues = Arc::new(QueueSet::new(config.queues.clone()));
        let hints = Hints::of(&queues, &config.policy.channel, target.layout());
        let evidence = OwnEvidence::new(config.heartbeat_interval, config.lapse(), target.response_timeout());
        let commands = Arc::new(Commands::new(target.clone(), channel, queues.clone(), hints, evidence));
        let status = watch::Sender::new(Status::default());
        let claims =
            SessionClaims::new(config.worker_type.clone(), config.id.clone(), config.session_idle + config.lapse());
        let claims = claims.with_own_queue(config.queues.own.as_str());
        let sessions = Sessions::new(claims, config.session_idle, Arc::clone(&commands), status.clone());
        Self { config, target, commands, queues, status, sessions }
    }

    /// Returns what its handler may use.
    pub fn context(&self, settings: Arc<WorkerTypeSettings>) -> Context {
        Context {
            worker_type: self.config.worker_type.clone(),
            worker_id: self.config.id.clone(),
            settings,
            sessions: self.sessions.clone(),
        }
    }

    /// Works until `stop`, or until it has taken as many jobs as it may take; then finishes its jobs and leaves.
    pub async fn run(self, handler: Arc<dyn Handler>, stop: CancellationToken) -> Result<WorkerReport, WorkerError> {
        Box::pin(runtime::run(self, handler, stop)).await
    }
}

/// Runs a worker whose handler needs nothing from it, as [`Worker::run`] does.
pub async fn run(
    config: WorkerConfig,
    target: RedisTarget,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
) -> Result<WorkerReport, WorkerError> {
    Worker::new(config, target).run(handler, stop).await
}
