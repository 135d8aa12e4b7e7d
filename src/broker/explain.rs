//! Explains why a job has no result, as far as Redis shows it. Only reads, and turns a failed read into words.

use redis::{
    RedisResult,
    streams::{StreamInfoConsumersReply, StreamInfoGroup, StreamInfoGroupsReply},
};

use super::{
    Published,
    locate::{self, Subject},
    place::Place,
};
use crate::{
    connection::Connection,
    model::{WorkerType, keys},
};

/// Returns the findings, one line for each: about the job, its queue, the workers and the autoscaler. Leaves out
/// findings that this user has no right to see.
pub async fn explain(connection: &mut Connection, place: &Place, subject: &Subject) -> String {
    let mut lines: Vec<String> = unconfigured(place).into_iter().collect();
    match groups(connection, place).await {
        Err(error) => lines.push(format!("can't look at `{}`: {error}", place.stream)),
        Ok(group) => {
            lines.extend(locate::of(connection, place, subject, group.as_ref()).await);
            lines.extend(look_at_queue(connection, place, group).await);
        }
    }
    lines.extend(look_at_scaler(connection, place).await);
    lines.into_iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}

fn unconfigured(place: &Place) -> Option<String> {
    let (stream, none) = (&place.stream, place.worker_type.is_none());
    if none && place.is_elsewhere {
        return Some(unread(stream));
    }
    none.then(|| format!("no configured worker type does such jobs: they are on `{stream}`; check the spelling, or add the type to the config"))
}

/// Returns the finding that no worker reads a stream, with the cure.
pub fn unread(stream: &str) -> String {
    format!("no configured worker type reads `{stream}`; check the spelling, or add it to the `extra_queues` of one")
}

pub(super) async fn groups(connection: &mut Connection, place: &Place) -> RedisResult<Option<StreamInfoGroup>> {
    let mut info = redis::cmd("XINFO");
    info.arg("GROUPS").arg(&place.stream);
    match info.query_async::<StreamInfoGroupsReply>(connection).await {
        Ok(reply) => Ok(reply.groups.into_iter().find(|found| found.name == place.group)),
        // A delayed job may be all there is.
        Err(error) if error.to_string().contains("no such key") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn look_at_queue(connection: &mut Connection, place: &Place, group: Option<StreamInfoGroup>) -> Vec<String> {
    let Place { worker_type, stream, group: name, .. } = place;
    let Some(group) = group else {
        return vec![format!(
            "group `{name}` on `{stream}` does not exist: no worker has ever read it; is `swarm autoscaler` running?"
        )];
    };
    let waiting = group.lag.map_or_else(|| "an unknown number of".to_owned(), |lag| lag.to_string());
    let mut lines =
        vec![format!("{waiting} jobs on `{stream}` wait for a worker, {} are being worked on", group.pending)];
    if let Some(worker_type) = worker_type {
        let found = look_at_workers(connection, place, worker_type).await;
        lines.push(found.unwrap_or_else(|error| format!("can't look at the workers: {error}")));
    }
    lines
}

/// Which workers could do jobs of one type, as far as Redis shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Living workers that have read the stream.
    pub workers: usize,
    /// What the autoscaler reports.
    pub scaler: ScalerWord,
}

/// What an autoscaler reports about a worker type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScalerWord {
    /// This user may not read the report, or no worker type does such jobs.
    Unknown,
    /// No autoscaler runs.
    Nobody,
    /// The autoscaler runs, and its backend fails.
    Failing {
        /// Instance of the autoscaler.
        instance: String,
        /// Error in the backend's words.
        error: String,
    },
    /// The autoscaler knows about unfinished jobs.
    Wants {
        /// Instance of the autoscaler.
        instance: String,
        /// Its target, in workers.
        desired: String,
        /// Its maximum, in workers.
        max: String,
        /// Headline of its decision.
        headline: String,
    },
    /// The autoscaler runs, and knows about no unfinished jobs.
    Quiet {
        /// Instance of the autoscaler.
        instance: String,
    },
}

/// Reads the state of workers and autoscaler.
///
/// # Errors
/// If the stream or the workers can't be read.
pub(super) async fn outlook(connection: &mut Connection, place: &Place) -> RedisResult<Outlook> {
    let workers = match groups(connection, place).await? {
        Some(_) => workers(connection, place).await?.states.len(),
        None => 0,
    };
    Ok(Outlook { workers, scaler: scaler_word(connection, place).await })
}

/// The consumers of a group.
struct Workers {
    /// Name and state of the consumers with a heartbeat.
    states: Vec<(String, String)>,
    /// Number of consumers without a heartbeat that hold jobs.
    gone: usize,
}

/// Returns which of the group's consumers have a heartbeat. The group lists its consumers, so no keys are scanned.
async fn workers(connection: &mut Connection, place: &Place) -> RedisResult<Workers> {
    let mut info = redis::cmd("XINFO");
    info.arg("CONSUMERS").arg(&place.stream).arg(&place.group);
    let consumers: StreamInfoConsumersReply = info.query_async(connection).await?;
    let (mut states, mut gone) = (Vec::new(), 0);
    for consumer in consumers.consumers {
        let mut state = redis::cmd("HGET");
        state.arg(place.heartbeat(&consumer.name)).arg("state");
        match state.query_async::<Option<String>>(connection).await? {
            Some(state) => states.push((consumer.name, state)),
            None => gone += usize::from(consumer.pending > 0),
        }
    }
    Ok(Workers { states, gone })
}

async fn look_at_workers(connection: &mut Connection, place: &Place, worker_type: &str) -> RedisResult<String> {
    let Workers { states, gone } = workers(connection, place).await?;
    let states: Vec<_> = states.iter().map(|(name, state)| format!("{name} is {state}")).collect();
    Ok(match (states.as_slice(), gone) {
        ([], 0) => format!(
            "no worker of type `{worker_type}` is running; start `swarm autoscaler`, or `swarm worker --type {worker_type}`"
        ),
        ([], gone) => format!(
            "no worker of type `{worker_type}` is running, and {gone} died with jobs: the next worker does them again"
        ),
        (states, 0) => format!("workers: {}", states.join(", ")),
        (states, gone) => format!("workers: {}; {gone} died with jobs, which others will do again", states.join(", ")),
    })
}

async fn scaler_word(connection: &mut Connection, place: &Place) -> ScalerWord {
    let Some(worker_type) = place.worker_type.as_deref().map(WorkerType::new) else { return ScalerWord::Unknown };
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(keys::SCALER_ALIVE);
    let report = ["headline", "desired", "max_workers", "backend_error"];
    pipeline.cmd("HMGET").arg(keys::scaler_report(&worker_type)).arg(&report);
    let seen: RedisResult<(Option<String>, [Option<String>; 4])> = pipeline.query_async(connection).await;
    let Ok((instance, [headline, desired, max, backend_error])) = seen else { return ScalerWord::Unknown };
    let Some(instance) = instance else { return ScalerWord::Nobody };
    match (backend_error.filter(|error| !error.is_empty()), headline, desired, max) {
        (Some(error), ..) => ScalerWord::Failing { instance, error },
        (None, Some(headline), Some(desired), Some(max)) => ScalerWord::Wants { instance, desired, max, headline },
        _ => ScalerWord::Quiet { instance },
    }
}

/// Returns the finding about the autoscaler's report; nothing if this user may not read it.
async fn look_at_scaler(connection: &mut Connection, place: &Place) -> Option<String> {
    let worker_type = place.worker_type.as_deref()?;
    Some(match scaler_word(connection, place).await {
        ScalerWord::Unknown => return None,
        ScalerWord::Nobody => "no autoscaler is running: nobody starts workers; start `swarm autoscaler`".to_owned(),
        ScalerWord::Failing { instance, error } => {
            format!("autoscaler {instance} runs, but its backend fails: {error}")
        }
        ScalerWord::Wants { instance, desired, max, headline } => {
            format!("autoscaler {instance} wants {desired} of at most {max} workers: {headline}")
        }
        ScalerWord::Quiet { instance } => format!(
            "autoscaler {instance} runs, and reports no unfinished jobs of type `{worker_type}`: is the type configured and enabled there?"
        ),
    })
}

impl Subject {
    /// Returns the subject for a job and the result of its publishing.
    pub fn new(id: &str, published: &Published) -> Self {
        let (entry, due) = match published {
            Published::Entry { entry } => (Some(entry.clone()), None),
            Published::Delayed { due } => (None, Some(*due)),
            Published::Duplicate { .. } => (None, None),
        };
        Self { id: id.to_owned(), entry, due }
    }
}
