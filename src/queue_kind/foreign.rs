//! What is known of the queues and workers of a job framework, as data: for the readers, the prober and the scaler
//! alike.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Timestamp, Work};

/// A job framework that swarm knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Framework {
    /// RQ (Python).
    Rq,
    /// Celery (Python).
    Celery,
    /// Sidekiq (Ruby).
    Sidekiq,
    /// BullMQ (JavaScript).
    #[serde(rename = "bullmq")]
    BullMq,
    /// Bull (JavaScript), also of n8n.
    Bull,
    /// asynq (Go).
    Asynq,
    /// Dramatiq (Python).
    Dramatiq,
    /// arq (Python).
    Arq,
    /// Laravel queues (PHP).
    Laravel,
}

impl Framework {
    /// Every framework.
    pub const ALL: [Self; 9] = [
        Self::Rq,
        Self::Celery,
        Self::Sidekiq,
        Self::BullMq,
        Self::Bull,
        Self::Asynq,
        Self::Dramatiq,
        Self::Arq,
        Self::Laravel,
    ];
}

/// The queues of one worker type, in the words of its framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkSpec {
    /// Whose.
    pub framework: Framework,
    /// Names of the queues, never empty.
    pub queues: Vec<String>,
    /// What the framework puts before its keys.
    pub prefix: String,
    /// Celery: whether a task is acknowledged after it has run.
    pub late_acknowledgement: bool,
}

/// Keys whose changes are news of a worker type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalKeys {
    /// Whole names.
    pub keys: Vec<String>,
    /// Beginnings of names.
    pub prefixes: Vec<String>,
    /// Patterns of channels on which workers say what they do. `{db}` stands for the number of the database.
    pub channels: Vec<String>,
}

/// What a worker of a framework says on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatement {
    /// Its name in the framework.
    pub name: String,
    /// Jobs that it runs.
    pub active: u64,
    /// It leaves.
    pub is_leaving: bool,
}

/// What was heard last of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardWorker {
    /// Its name in the framework.
    pub name: String,
    /// Jobs that it ran.
    pub active: u64,
    /// How long ago that was.
    pub age: Duration,
    /// Whether nothing has happened in the queues since.
    pub is_since_news: bool,
}

/// What was heard of a worker type besides its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What its workers last said on their channels.
    pub workers: Vec<HeardWorker>,
    /// How long ago something happened in the queues; `None` if nothing was heard to.
    pub news_age: Option<Duration>,
}

/// What one worker of a framework says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkWorker {
    /// Its name in the framework: the worker's id, if it was started with it.
    pub name: String,
    /// Whether it may hold a job.
    pub is_busy: bool,
}

/// Which workers are busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupation {
    /// Those that are named say so of themselves. Any other may be busy.
    Stated(Vec<FrameworkWorker>),
    /// No worker holds a job.
    AllIdle,
    /// Any of them may hold a job.
    Unknown,
}

impl Occupation {
    /// Returns whether a worker holds a job; `None` if that is not known.
    pub fn is_busy(&self, name: &str) -> Option<bool> {
        match self {
            Self::Stated(workers) => workers.iter().find(|worker| worker.name == name).map(|worker| worker.is_busy),
            Self::AllIdle => Some(false),
            Self::Unknown => None,
        }
    }
}

/// What one reading of a framework's queues says besides the demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkReading {
    /// The jobs.
    pub work: Work,
    /// The workers.
    pub occupation: Occupation,
    /// When to read again, whatever is heard: a job is due then.
    pub look_at: Option<Timestamp>,
}
