//! Checks each named queue: the type of its key, its group, the holders of its jobs, and its dead letters.

use std::collections::HashMap;

use redis::{FromRedisValue, Pipeline, Value};

use super::{
    Area, Finding,
    finding::{bounded, some},
    groups,
};
use crate::{
    config::{Settings, WorkerTypeSettings},
    connection::Connection,
    model::{StreamId, Timestamp, WorkerId, WorkerType, keys},
    queue_kind::Delivery,
};

/// Worker types in one round trip.
const BATCH: usize = 100;

/// One queue to check.
struct Queue<'a> {
    name: &'a str,
    settings: &'a WorkerTypeSettings,
    key: String,
    group: String,
}

/// Jobs that consumers of a group hold.
struct Held {
    /// When the oldest of these jobs was published.
    oldest: Timestamp,
    /// Number of jobs by consumer.
    by: Vec<(String, u64)>,
}

/// Checks the queues. `doubt`: why a missing heartbeat proves nothing; `None` if it does.
pub(super) async fn look(connection: &mut Connection, settings: &Settings, doubt: Option<&str>) -> Vec<Finding> {
    let known: Vec<String> = settings.worker_types.iter().map(|(name, of)| of.group(name)).collect();
    let queues: Vec<Queue<'_>> = settings
        .worker_types
        .iter()
        .filter(|(_, of)| of.enabled)
        .flat_map(|(name, settings)| {
            let (queues, group) = (settings.queues(name), settings.group(name));
            let named: Vec<String> = queues.named().map(str::to_owned).collect();
            named.into_iter().map(move |key| Queue { name, settings, key, group: group.clone() })
        })
        .collect();
    let mut findings = Vec::new();
    for batch in queues.chunks(BATCH) {
        match look_at(connection, batch, &known, doubt).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                findings.push(Finding::problem(Area::Queues, format!("queues can't be read: {error}")));
                break;
            }
        }
    }
    let mut findings = bounded(findings);
    if findings.is_empty() {
        let found = format!("{} can be read, and nothing is stuck", some(queues.len() as u64, "queue"));
        findings.push(Finding::ok(Area::Queues, found));
    }
    findings
}

async fn look_at(
    connection: &mut Connection,
    queues: &[Queue<'_>],
    known: &[String],
    doubt: Option<&str>,
) -> redis::RedisResult<Vec<Finding>> {
    let layout = connection.layout();
    let mut pipeline = Pipeline::new();
    for queue in queues {
        pipeline.add_command(queue.settings.queue_kind().content(&queue.key));
        pipeline.cmd("XINFO").arg("GROUPS").arg(&queue.key);
        pipeline.cmd("XPENDING").arg(&queue.key).arg(&queue.group);
        pipeline.cmd("XLEN").arg(layout.dead_letters(&queue.key));
    }
    let replies = connection.each(&pipeline).await?;
    let mut findings = Vec::new();
    for (queue, replies) in queues.iter().zip(replies.chunks(4)) {
        let [content, groups, pending, dead] = replies else { continue };
        if let Some(finding) = unreadable(queue, content) {
            findings.push(finding);
            continue;
        }
        findings.extend(dead_letters(queue, dead));
        if queue.settings.queue_kind().delivery() == Delivery::ConsumerGroup {
            findings.extend(without_group(queue, content, groups));
            findings.extend(groups::look(connection, &queue.key, &queue.group, known, groups).await?);
            if let Some(held) = held(pending) {
                findings.extend(look_at_holders(connection, queue, held, doubt).await?);
            }
        }
    }
    Ok(findings)
}

fn refusal(reply: &Value) -> Option<String> {
    match reply {
        Value::ServerError(error) => Some(format!("{} {}", error.code(), error.details().unwrap_or_default())),
        _ => None,
    }
}

fn unreadable(queue: &Queue<'_>, content: &Value) -> Option<Finding> {
    let error = refusal(content).filter(|error| !error.contains("no such key"))?;
    let key = &queue.key;
    let kind = queue.settings.queue_kind().name();
    Some(if error.contains("WRONGTYPE") {
        Finding::problem(Area::Queues, format!("`{key}` of `{}` is not a {kind}", queue.name))
            .cure("set `kind` of the worker type to what it holds, or name another key in `job_queue`")
    } else if error.starts_with("NOPERM") {
        Finding::problem(Area::Queues, format!("`{key}` of `{}` may not be read", queue.name))
            .cure(format!("grant it: ACL SETUSER … %R~{key}"))
    } else {
        Finding::problem(Area::Queues, format!("`{key}` of `{}`: {error}", queue.name))
    })
}

/// Reports dead letters. A user without the right to see them, such as the autoscaler's, causes no finding.
fn dead_letters(queue: &Queue<'_>, dead: &Value) -> Option<Finding> {
    let dead = u64::from_redis_value_ref(dead).ok().filter(|dead| *dead > 0)?;
    let key = &queue.key;
    let cure =
        format!("`swarm dead list --stream {key}` says why; `swarm dead retry` or `drop` when the cause is gone");
    Some(Finding::warning(Area::Queues, format!("{} of `{key}` given up", some(dead, "job"))).cure(cure))
}

/// Reports a stream whose entries no consumer of the group has ever read.
fn without_group(queue: &Queue<'_>, content: &Value, groups: &Value) -> Option<Finding> {
    let content: HashMap<String, Value> = FromRedisValue::from_redis_value_ref(content).ok()?;
    let length = content.get("length").and_then(|length| u64::from_redis_value_ref(length).ok())?;
    let groups: Vec<HashMap<String, Value>> = FromRedisValue::from_redis_value_ref(groups).ok()?;
    let name = |group: &HashMap<String, Value>| String::from_redis_value_ref(group.get("name")?).ok();
    let names: Vec<String> = groups.iter().filter_map(name).collect();
    if length == 0 || names.contains(&queue.group) {
        return None;
    }
    let (key, group) = (&queue.key, &queue.group);
    let found = format!("`{key}` has entries ({length}), and nobody has ever read it as group `{group}`");
    let cure = if names.is_empty() {
        "workers make the group when they begin: if some run, they read another stream".to_owned()
    } else {
        format!("it is read as {}: set `group` of `{}` to the one its workers use", names.join(", "), queue.name)
    };
    Some(Finding::warning(Area::Queues, found).cure(cure))
}

/// Parses `XPENDING` without a range: the count, the first and the last id, and the counts by consumer.
fn held(pending: &Value) -> Option<Held> {
    type Summary = (u64, Option<String>, Option<String>, Option<Vec<(String, String)>>);
    let (count, oldest, _, by): Summary = FromRedisValue::from_redis_value_ref(pending).ok()?;
    if count == 0 {
        return None;
    }
    let oldest = StreamId::parse(&oldest?)?.ms();
    let by = by.unwrap_or_default().into_iter().filter_map(|(name, count)| Some((name, count.parse().ok()?))).collect();
    Some(Held { oldest: Timestamp(oldest), by })
}

/// Reports jobs of workers that are gone, and jobs that take very long.
async fn look_at_holders(
    connection: &mut Connection,
    queue: &Queue<'_>,
    held: Held,
    doubt: Option<&str>,
) -> redis::RedisResult<Vec<Finding>> {
    let worker = &queue.settings.worker;
    if !worker.heartbeats || held.by.is_empty() {
        return Ok(Vec::new());
    }
    let worker_type = WorkerType::new(queue.name);
    let mut pipeline = Pipeline::new();
    for (consumer, _) in &held.by {
        pipeline.cmd("HMGET").arg(keys::heartbeat(&worker_type, &WorkerId::new(consumer.as_str()))).arg("state");
    }
    let states: Vec<(Option<String>,)> = pipeline.query_async(connection).await?;
    let gone = held.by.iter().zip(states).filter(|(_, state)| state.0.is_none());
    let (workers, jobs) = gone.fold((0_u64, 0), |(workers, jobs), ((_, held), _)| (workers + 1, jobs + held));
    let mut findings = Vec::new();
    if let (Some(doubt), 1..) = (doubt, jobs) {
        let silent = some(workers, "worker");
        let found = format!("{} of `{}` held by {silent} without a heartbeat", some(jobs, "job"), queue.key);
        findings.push(Finding::warning(Area::Queues, format!("{found}, which says nothing of them: {doubt}")));
    } else if jobs > 0 {
        let found =
            format!("{} of `{}` held by {}", some(jobs, "job"), queue.key, some(workers, "worker") + " gone since");
        let cure = "another worker does them again within a minute; if none is running, the section on the autoscaler says why";
        findings.push(Finding::warning(Area::Queues, found).cure(cure));
    }
    let age = Timestamp::wall().since(held.oldest);
    let limit = worker.job_timeout_seconds;
    if limit > 0 && age.as_secs() > 2 * limit {
        let found = format!(
            "the oldest unfinished job of `{}` is {} s old, and a job may take {limit}",
            queue.key,
            age.as_secs()
        );
        let cure = format!("look at it: XPENDING {} {} - + 1", queue.key, queue.group);
        findings.push(Finding::warning(Area::Queues, found).cure(cure));
    }
    Ok(findings)
}
