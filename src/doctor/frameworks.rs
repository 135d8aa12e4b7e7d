//! Checks the queues of job frameworks: whether a queue was ever used, under which similar keys it may be instead,
//! whether a process moves the jobs that are due, and whether workers hold jobs until they are delivered a second time.

use std::{collections::BTreeSet, time::Duration};

use redis::{FromRedisValue, Pipeline, RedisResult, Value};

use super::{
    Area, Finding,
    finding::{bounded, some},
};
use crate::{
    config::Settings,
    connection::Connection,
    model::Timestamp,
    queue_kind::{DueJobs, FetchedJobs, FrameworkSpec, Trace},
};

/// Keys of each database among which similar ones are searched for.
const SCANNED: usize = 10_000;

/// Maximum similar keys that are named.
const NAMED: usize = 5;

/// Milliseconds for which a job may be due: a scheduler moves it within seconds.
const OVERDUE_MS: u64 = 60_000;

/// Maximum fetched jobs that are read, the oldest first.
const FETCHED_READ: usize = 100;

/// Checks the queues of all frameworks. `database` is the one that the settings name.
pub(super) async fn look(connection: &mut Connection, settings: &Settings, database: i64) -> Vec<Finding> {
    let now = Timestamp::wall();
    let mut findings = Vec::new();
    for (name, of) in settings.enabled() {
        let Some(spec) = of.framework_spec() else { continue };
        if let Some(fetched) = spec.framework.profile().fetched_jobs(&spec) {
            // The autoscaler needs no right to look, so a user may lack it.
            findings.extend(held_long(connection, name, &spec, &fetched, now).await.ok().flatten());
        }
        for queue in &spec.queues {
            match look_at(connection, name, &spec, queue, database, now).await {
                Ok(found) => findings.extend(found),
                // A user without a right to look has the finding about rights.
                Err(_) => return bounded(findings),
            }
        }
    }
    bounded(findings)
}

async fn look_at(
    connection: &mut Connection,
    name: &str,
    spec: &FrameworkSpec,
    queue: &str,
    database: i64,
    now: Timestamp,
) -> RedisResult<Vec<Finding>> {
    let profile = spec.framework.profile();
    let framework = profile.name();
    let mut findings = Vec::new();
    if let Some(due) = profile.due_jobs(spec, queue) {
        findings.extend(unmoved(connection, name, queue, &due, now).await?);
    }
    let trace = profile.trace(spec, queue);
    if is_used(connection, spec, queue, trace.as_ref()).await? {
        return Ok(findings);
    }
    let key = profile.key(spec, queue);
    let similar = similar_keys(connection, queue, database).await?;
    let found = format!("queue `{queue}` of `{name}` has never been used: {framework} has nothing at `{key}`");
    if !similar.is_empty() {
        let cure = format!(
            "similar keys exist: {}; if they are meant, set `key_prefix`, `queues` or the database in `redis_url`",
            similar.join(", ")
        );
        findings.push(Finding::warning(Area::Queues, found).cure(cure));
    } else if trace.is_some() {
        let cure = "if jobs have been enqueued, they are in another redis, or under another prefix (`key_prefix`)";
        findings.push(Finding::warning(Area::Queues, found).cure(cure));
    }
    Ok(findings)
}

/// Returns whether anything of the queue exists, or ever has as far as the framework records it.
async fn is_used(
    connection: &mut Connection,
    spec: &FrameworkSpec,
    queue: &str,
    trace: Option<&Trace>,
) -> RedisResult<bool> {
    let one = FrameworkSpec { queues: vec![queue.to_owned()], ..spec.clone() };
    let mut pipeline = Pipeline::new();
    pipeline.cmd("EXISTS").arg(spec.framework.profile().key(spec, queue));
    for key in one.signals().keys.iter().filter(|key| key.contains(queue)) {
        pipeline.cmd("EXISTS").arg(key);
    }
    match trace {
        Some(Trace::Key(key)) => pipeline.cmd("EXISTS").arg(key),
        Some(Trace::Member { set, member }) => pipeline.cmd("SISMEMBER").arg(set).arg(member),
        None => &mut pipeline,
    };
    let replies = connection.each(&pipeline).await?;
    Ok(replies.iter().any(|reply| u64::from_redis_value_ref(reply).is_ok_and(|found| found > 0)))
}

/// Returns keys of any database whose name contains that of the queue, for people. swarm's own keys are left out.
async fn similar_keys(connection: &mut Connection, queue: &str, database: i64) -> RedisResult<Vec<String>> {
    let told: String = redis::cmd("INFO").arg("keyspace").query_async(connection).await?;
    let number = |line: &str| line.strip_prefix("db")?.split(':').next()?.parse::<i64>().ok();
    let databases: BTreeSet<i64> = told.lines().filter_map(number).chain([database]).collect();
    let escaped: String = queue
        .chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '\\').then_some('\\').into_iter().chain([c]))
        .collect();
    let mut pipeline = Pipeline::new();
    for database in &databases {
        pipeline.cmd("SELECT").arg(*database);
        pipeline.cmd("SCAN").arg(0).arg("MATCH").arg(format!("*{escaped}*")).arg("COUNT").arg(SCANNED);
    }
    pipeline.cmd("SELECT").arg(database);
    let replies = connection.each(&pipeline).await?;
    let mut found = Vec::new();
    for (at, replies) in databases.iter().zip(replies.chunks_exact(2)) {
        let Ok((_, keys)) = <(String, Vec<String>)>::from_redis_value_ref(&replies[1]) else { continue };
        let is_others = |key: &String| !["scaler:", "worker:", "scaling:"].iter().any(|own| key.starts_with(own));
        let mut keys: Vec<String> = keys.into_iter().filter(is_others).collect();
        keys.sort_unstable();
        let place = if *at == database { String::new() } else { format!(" in database {at}") };
        found.extend(keys.into_iter().map(|key| format!("`{key}`{place}")));
    }
    found.truncate(NAMED);
    Ok(found)
}

/// Reports jobs that are due and that no process moves to the queue.
async fn unmoved(
    connection: &mut Connection,
    name: &str,
    queue: &str,
    due: &DueJobs,
    now: Timestamp,
) -> RedisResult<Option<Finding>> {
    let overdue = now.0.saturating_sub(OVERDUE_MS) / 1_000;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ZCOUNT").arg(&due.schedule).arg("-inf").arg(overdue);
    pipeline.cmd("EXISTS").arg(&due.mover);
    let replies: Vec<Value> = connection.each(&pipeline).await?;
    let counts: Vec<u64> = replies.iter().filter_map(|reply| u64::from_redis_value_ref(reply).ok()).collect();
    let [jobs @ 1..=u64::MAX, 0] = counts[..] else { return Ok(None) };
    let found = format!(
        "`{}` has {} due for a minute, and no process moves them to queue `{queue}` of `{name}`",
        due.schedule,
        some(jobs, "job")
    );
    Ok(Some(Finding::warning(Area::Queues, found).cure(due.cure)))
}

/// Reports jobs that the framework delivers a second time soon, or has begun to deliver, because workers have held them
/// for three quarters of its limit.
async fn held_long(
    connection: &mut Connection,
    name: &str,
    spec: &FrameworkSpec,
    fetched: &FetchedJobs,
    now: Timestamp,
) -> RedisResult<Option<Finding>> {
    let limit = fetched.redelivered_after.as_secs();
    let (now, near) = (now.0 / 1_000, limit.saturating_mul(3) / 4);
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ZRANGEBYSCORE").arg(&fetched.fetched).arg("-inf").arg(now.saturating_sub(near));
    pipeline.arg("WITHSCORES").arg("LIMIT").arg(0).arg(FETCHED_READ);
    let replies: Vec<Value> = connection.each(&pipeline).await?;
    let held: Vec<(String, f64)> = replies.first().map_or(Ok(Vec::new()), FromRedisValue::from_redis_value_ref)?;
    if held.is_empty() {
        return Ok(None);
    }
    let mut pipeline = Pipeline::new();
    pipeline.cmd("HMGET").arg(&fetched.jobs).arg(held.iter().map(|(member, _)| member).collect::<Vec<_>>());
    let replies: Vec<Value> = connection.each(&pipeline).await?;
    let jobs: Vec<Option<String>> = replies.first().map_or(Ok(Vec::new()), FromRedisValue::from_redis_value_ref)?;
    let is_ours = |job: &Option<String>| job.as_deref().is_some_and(|job| (fetched.is_of)(job, &spec.queues));
    let ours: Vec<f64> = held.iter().zip(&jobs).filter(|(_, job)| is_ours(job)).map(|((_, at), _)| *at).collect();
    let Some(oldest) = ours.first().and_then(|at| Duration::try_from_secs_f64(*at).ok()) else { return Ok(None) };
    let framework = spec.framework.profile().name();
    let found = format!(
        "`{name}` has {} that a worker fetched up to {} s ago and has not acknowledged: {framework} delivers a job a \
         second time {limit} s after it was fetched, while the first worker still has it",
        some(ours.len() as u64, "job"),
        now.saturating_sub(oldest.as_secs()),
    );
    Ok(Some(Finding::warning(Area::Queues, found).cure(fetched.cure)))
}
