//! Why nobody answered, as far as Redis shows it. Only looks, and turns a failure to look into words.

use redis::{
    RedisResult,
    aio::MultiplexedConnection,
    streams::{StreamInfoConsumersReply, StreamInfoGroupsReply},
};

use super::Routes;
use crate::{
    config::Settings,
    model::{WorkerId, WorkerType, keys},
};

/// Where the unanswered jobs are.
#[derive(Debug)]
pub struct Place {
    /// `None`: no configured worker type does these jobs.
    worker_type: Option<String>,
    stream: String,
    group: String,
}

impl Place {
    /// The place of jobs of that type.
    pub fn of(settings: &Settings, routes: &Routes, job_type: &str, stream: &str) -> Self {
        let worker_type = routes.worker_type(job_type).map(str::to_owned);
        let configured = worker_type.as_ref().and_then(|name| Some(settings.worker_types.get(name)?.group(name)));
        let group = configured.unwrap_or_else(|| keys::DEFAULT_STREAM_GROUP.to_owned());
        Self { worker_type, stream: stream.to_owned(), group }
    }
}

/// What can be seen, a line for each finding.
pub async fn explain(connection: &mut MultiplexedConnection, place: &Place) -> String {
    let queue = match look_at_queue(connection, place).await {
        Ok(found) => found,
        Err(error) => vec![format!("can't look at `{}`: {error}", place.stream)],
    };
    let lines = unconfigured(place).into_iter().chain(queue);
    lines.map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}

fn unconfigured(place: &Place) -> Option<String> {
    let (stream, none) = (&place.stream, place.worker_type.is_none());
    none.then(|| format!("no configured worker type does such jobs: they are on `{stream}`; check the spelling, or add the type to the config"))
}

async fn look_at_queue(connection: &mut MultiplexedConnection, place: &Place) -> RedisResult<Vec<String>> {
    let Place { worker_type, stream, group } = place;
    let mut info = redis::cmd("XINFO");
    info.arg("GROUPS").arg(stream);
    let groups: StreamInfoGroupsReply = info.query_async(connection).await?;
    let Some(found) = groups.groups.into_iter().find(|found| found.name == *group) else {
        return Ok(vec![format!(
            "group `{group}` on `{stream}` does not exist: no worker has ever read it; is `swarm autoscaler` running?"
        )]);
    };
    let waiting = found.lag.map_or_else(|| "an unknown number of".to_owned(), |lag| lag.to_string());
    let mut lines =
        vec![format!("{waiting} jobs on `{stream}` wait for a worker, {} are being worked on", found.pending)];
    if let Some(worker_type) = worker_type {
        lines.push(look_at_workers(connection, place, worker_type).await?);
    }
    Ok(lines)
}

/// Which of the group's consumers have a heartbeat: what the group knows is enough, nothing scans the keyspace.
async fn look_at_workers(
    connection: &mut MultiplexedConnection,
    place: &Place,
    worker_type: &str,
) -> RedisResult<String> {
    let mut info = redis::cmd("XINFO");
    info.arg("CONSUMERS").arg(&place.stream).arg(&place.group);
    let consumers: StreamInfoConsumersReply = info.query_async(connection).await?;
    let worker_type = WorkerType::new(worker_type);
    let (mut states, mut gone) = (Vec::new(), 0);
    for consumer in consumers.consumers {
        let mut state = redis::cmd("HGET");
        state.arg(keys::heartbeat(&worker_type, &WorkerId::new(consumer.name.as_str()))).arg("state");
        match state.query_async::<Option<String>>(connection).await? {
            Some(state) => states.push(format!("{} is {state}", consumer.name)),
            None => gone += usize::from(consumer.pending > 0),
        }
    }
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
