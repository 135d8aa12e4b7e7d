//! One worker: takes jobs of its type, runs them through a handler, answers, says how it does. Sees Redis through the
//! broker only for jobs; owns its heartbeat. Must not decide how many workers there are.

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
mod queue_set;
mod runtime;
mod sessions;
mod status;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use builder::{WorkerConfigBuilder, WorkerConfigError};
pub use handlers::{Handler, JobError};
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

/// Heartbeats that may be missed before a worker counts as gone: its key's TTL in intervals.
const MISSED_HEARTBEATS: u32 = 3;
/// How often queues are looked for unless it is said.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What one worker needs to know.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its type.
    pub worker_type: WorkerType,
    /// Its name, unique within the type.
    pub id: WorkerId,
    /// The streams that it takes jobs from.
    pub queues: Queues,
    /// The consumer group on them.
    pub group: String,
    /// Jobs at the same time; at least 1.
    pub concurrency: usize,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long jobs may take to finish when asked to leave.
    pub drain_timeout: Duration,
    /// How long one job may take; then it has failed. `None`: as long as it likes.
    pub job_timeout: Option<Duration>,
    /// How long a session stays open that nothing is asked of.
    pub session_idle: Duration,
    /// Between two looks for queues, if there are patterns of them.
    pub sweep_interval: Duration,
    /// Where its metrics can be read, for its heartbeat; `None` if nowhere.
    pub metrics: Option<SocketAddr>,
    /// The rules for its jobs.
    pub policy: JobPolicy,
}

impl WorkerConfig {
    /// What `settings` say about a worker of this type.
    pub fn new(worker_type: WorkerType, id: WorkerId, settings: &WorkerTypeSettings) -> Self {
        let worker: &WorkerSettings = &settings.worker;
        Self {
            queues: settings.queues(worker_type.as_str()),
            group: settings.group(worker_type.as_str()),
            concurrency: usize::try_from(worker.concurrency).unwrap_or(usize::MAX).max(1),
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

    /// The time after which a silent worker counts as gone.
    fn lapse(&self) -> Duration {
        self.heartbeat_interval * MISSED_HEARTBEATS
    }

    /// How long after Redis was asked for a job nobody else can have it, with a margin.
    fn trusted_for(&self) -> Duration {
        self.lapse() * 3 / 4
    }

    /// On its own queue; on others it is a consumer of the same name.
    fn consumer(&self) -> Consumer {
        Consumer {
            stream: self.queues.own.clone(),
            group: self.group.clone(),
            name: self.id.to_string(),
            policy: self.policy.clone(),
        }
    }
}

/// One worker that has not begun. Made before its handler, which may want its [`Context`].
pub struct Worker {
    config: WorkerConfig,
    target: RedisTarget,
    commands: Arc<Commands>,
    queues: Arc<QueueSet>,
    status: watch::Sender<Status>,
    sessions: Sessions,
}

impl Worker {
    /// A worker that will take its jobs from the Redis at `target`. Connects to nothing yet.
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

    /// What its handler may use.
    pub fn context(&self, settings: Arc<WorkerTypeSettings>) -> Context {
        Context {
            worker_type: self.config.worker_type.clone(),
            worker_id: self.config.id.clone(),
            settings,
            sessions: self.sessions.clone(),
        }
    }

    /// Works until `stop`, then finishes its jobs and leaves.
    pub async fn run(self, handler: Arc<dyn Handler>, stop: CancellationToken) -> Result<WorkerReport, WorkerError> {
        Box::pin(runtime::run(self, handler, stop)).await
    }
}

/// Runs a worker whose handler needs nothing of it, as [`Worker::run`] does.
pub async fn run(
    config: WorkerConfig,
    target: RedisTarget,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
) -> Result<WorkerReport, WorkerError> {
    Worker::new(config, target).run(handler, stop).await
}
