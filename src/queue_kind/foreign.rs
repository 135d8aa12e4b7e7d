//! The queues and workers of a job framework as data, for the readers, the prober and the scaler.

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
    /// Resque (Ruby).
    Resque,
    /// Laravel queues (PHP).
    Laravel,
    /// Huey (Python).
    Huey,
    /// Taskiq (Python) with the list broker of taskiq-redis.
    Taskiq,
    /// Taskiq (Python) with the stream broker of taskiq-redis.
    TaskiqStream,
}

impl Framework {
    /// Every framework.
    pub const ALL: [Self; 13] = [
        Self::Rq,
        Self::Celery,
        Self::Sidekiq,
        Self::BullMq,
        Self::Bull,
        Self::Asynq,
        Self::Dramatiq,
        Self::Arq,
        Self::Resque,
        Self::Laravel,
        Self::Huey,
        Self::Taskiq,
        Self::TaskiqStream,
    ];
}

/// The queues of one worker type, in the terms of its framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkSpec {
    /// The framework.
    pub framework: Framework,
    /// Names of the queues; never empty.
    pub queues: Vec<String>,
    /// Prefix of the framework's keys.
    pub prefix: String,
    /// Celery: whether a task is acknowledged after it has run.
    pub late_acknowledgement: bool,
    /// Celery: time after which a task that was fetched and not acknowledged is delivered again.
    pub visibility_timeout: Duration,
    /// Upper bound of the time of a job, for frameworks that do not show running jobs; `None` if it is unknown.
    pub longest_job: Option<Duration>,
}

/// Keys whose changes are signals for a worker type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalKeys {
    /// Complete keys.
    pub keys: Vec<String>,
    /// Prefixes of keys.
    pub prefixes: Vec<String>,
    /// Patterns of channels on which workers report their state. `{db}` stands for the number of the database.
    pub channels: Vec<String>,
}

/// Report of a framework's worker on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatement {
    /// Name of the worker in the framework.
    pub name: String,
    /// Jobs that the worker runs.
    pub active: u64,
    /// Whether the worker is leaving.
    pub is_leaving: bool,
}

/// Last report of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardWorker {
    /// Name of the worker in the framework.
    pub name: String,
    /// Jobs that the worker ran.
    pub active: u64,
    /// Age of the report.
    pub age: Duration,
    /// Whether nothing has happened in the queues since the report.
    pub is_since_news: bool,
}

/// Reports and signals of a worker type, beside its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Last reports of its workers on their channels.
    pub workers: Vec<HeardWorker>,
    /// Time since something happened in the queues; `None` without any signal.
    pub news_age: Option<Duration>,
    /// Whether every change of the queues is a signal now.
    pub is_hearing: bool,
}

/// State of one worker, as its framework reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkWorker {
    /// Name of the worker in the framework: the worker's id, if it was started with it.
    pub name: String,
    /// Whether the worker may hold a job.
    pub is_busy: bool,
    /// Age of the report, if the worker says in it that it takes no more jobs.
    pub quiet_age: Option<Duration>,
}

/// Minimum time between the signal after which a worker takes no more jobs and a report that counts: a worker may count
/// its jobs, take one more, and then report both.
const SETTLED: Duration = Duration::from_millis(500);

/// Which workers are busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupation {
    /// The listed workers report their state. Any other worker may be busy.
    Stated(Vec<FrameworkWorker>),
    /// No worker holds a job.
    AllIdle,
    /// Any worker may hold a job.
    Unknown,
}

impl Occupation {
    /// Returns whether a worker that was asked to take no more jobs, this long before the reading, has none left.
    pub fn is_done(&self, name: &str, asked_for: Duration) -> bool {
        let settled = |age: Duration| age.saturating_add(SETTLED) <= asked_for;
        match self {
            Self::Stated(workers) => {
                let mut own = workers.iter().filter(|worker| worker.name == name).peekable();
                own.peek().is_some() && own.all(|worker| !worker.is_busy && worker.quiet_age.is_some_and(settled))
            }
            Self::AllIdle => settled(Duration::ZERO),
            Self::Unknown => false,
        }
    }
}

#[cfg(test)]
impl Occupation {
    /// Returns whether a worker holds a job; `None` if that is unknown.
    pub(crate) fn is_busy(&self, name: &str) -> Option<bool> {
        match self {
            Self::Stated(workers) => workers.iter().find(|worker| worker.name == name).map(|worker| worker.is_busy),
            Self::AllIdle => Some(false),
            Self::Unknown => None,
        }
    }
}

/// The part of a reading of a framework's queues beyond the demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkReading {
    /// The jobs.
    pub work: Work,
    /// The workers.
    pub occupation: Occupation,
    /// When to read again, whatever the signals: a job is due then.
    pub look_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_done_by_a_report_of_its_own_that_is_younger_than_its_signal() {
        let second = Duration::from_secs(1);
        let worker = |name: &str, is_busy, quiet_age| FrameworkWorker { name: name.to_owned(), is_busy, quiet_age };
        let stated = Occupation::Stated(vec![
            worker("done", false, Some(second)),
            worker("busy", true, Some(second)),
            worker("idle", false, None),
        ]);
        let done = |asked_for| ["done", "busy", "idle", "other"].map(|name| stated.is_done(name, asked_for));
        assert_eq!(done(2 * second), [true, false, false, false]);
        assert_eq!(done(second), [false; 4], "it may have counted its jobs before");
        assert_eq!([second / 4, second].map(|asked_for| Occupation::AllIdle.is_done("any", asked_for)), [false, true]);
        assert!(!Occupation::Unknown.is_done("any", 9 * second));
    }
}
