//! Checks what keeps each pool at its size, and the health of its workers: from the autoscaler's state or, without an
//! autoscaler to ask, from what it stored in Redis.

use std::{collections::BTreeMap, time::Duration};

use redis::{FromRedisValue, RedisResult};

use super::{
    Area, Finding,
    finding::{bounded, some},
};
use crate::{
    config::{Settings, WorkerTypeSettings},
    connection::Connection,
    model::{
        Timestamp, WorkerState, WorkerType,
        control::Mode,
        keys,
        snapshot::{FleetSnapshot, TypeSnapshot, WorkerSnapshot, WorkerStatus},
    },
};

/// Jobs that wait longer than this while their pool has its maximum size deserve a finding.
const LONG: Duration = Duration::from_secs(60);

/// Worker types in one round trip.
const BATCH: usize = 200;

/// Returns the findings from the autoscaler's state.
pub(super) fn from_fleet(fleet: &FleetSnapshot, settings: &Settings) -> Vec<Finding> {
    let now = Timestamp::wall();
    let (mut scaling, mut workers) = (Vec::new(), Vec::new());
    for of in &fleet.worker_types {
        scaling.extend(held(of, now));
        let known = settings.worker_types.get(of.worker_type.as_str());
        workers.extend(health(of, known.is_none_or(WorkerTypeSettings::writes_heartbeats)));
        workers.extend(known.and_then(|known| unmatched(of, known, now)));
    }
    let (mut scaling, mut workers) = (bounded(scaling), bounded(workers));
    if workers.is_empty() {
        let count: usize = fleet.worker_types.iter().map(|of| of.workers.len()).sum();
        workers.push(Finding::ok(Area::Workers, format!("{}, all healthy", some(count as u64, "worker"))));
    }
    if scaling.is_empty() {
        let count = fleet.worker_types.len();
        scaling.push(Finding::ok(Area::Scaling, format!("{}, none held back", some(count as u64, "worker type"))));
    }
    workers.into_iter().chain(scaling).collect()
}

/// Reports what keeps a pool from the size that its queue needs.
fn held(of: &TypeSnapshot, now: Timestamp) -> Vec<Finding> {
    let name = &of.worker_type;
    let headline = of.reasons.first().map_or("", String::as_str);
    let mut findings = Vec::new();
    if let Some(control) = of.control.as_deref().filter(|control| control.holds_at(now)) {
        let until =
            control.until.map_or_else(String::new, |until| format!(" for {} s more", until.since(now).as_secs()));
        findings.push(controlled(name, control.mode, &control.by, &until));
    }
    if let Some(error) = &of.backend_error {
        findings.push(Finding::problem(Area::Scaling, format!("`{name}`: its workers are unknown: {error}")));
    }
    if let Some(error) = of.demand.lag.why_not() {
        findings.push(Finding::problem(Area::Scaling, format!("`{name}`: its queue is unknown: {error}")));
    }
    let waiting = of.demand.lag.known().copied().unwrap_or_default();
    let age = of.demand.oldest.known().copied().flatten().map(|oldest| now.since(oldest)).unwrap_or_default();
    match &*of.rule {
        "backend_backoff" => findings.push(
            Finding::problem(Area::Scaling, format!("`{name}`: {headline}"))
                .cure("fix what the message names; the autoscaler retries by itself"),
        ),
        "start_backoff" => findings.push(
            Finding::problem(Area::Workers, format!("`{name}`: {headline}"))
                .cure("look at the workers' last log lines: in the autoscaler's log, or in their container's"),
        ),
        _ if of.start_failures.is_some() => findings.extend(of.start_failures.iter().map(|failures| {
            let found = format!("`{name}`: {} workers in a row failed to start: {}", failures.count, failures.message);
            Finding::problem(Area::Workers, found).cure("look at what the workers logged last")
        })),
        _ if of.max_workers == 0 => findings.push(
            Finding::warning(Area::Scaling, format!("`{name}` gets no worker: its maximum is 0"))
                .cure("raise its max_workers above 0, or wait until the window of its schedule closes"),
        ),
        _ if waiting > 0 && of.allowance.is_some() && age > LONG => findings.extend(of.allowance.map(|allowance| {
            let age = age.as_secs();
            let found = format!("`{name}`: {waiting} jobs wait, the oldest for {age} s; the budget allows {allowance}");
            Finding::warning(Area::Scaling, found)
                .cure("raise scaler.max_total_workers, or this type's priority or min_workers")
        })),
        _ if waiting > 0 && of.desired >= of.max_workers && age > LONG => findings.push(
            Finding::warning(
                Area::Scaling,
                format!(
                    "`{name}` has {} workers, which is its maximum; {waiting} jobs wait, the oldest for {} s",
                    of.desired,
                    age.as_secs()
                ),
            )
            .cure("raise max_workers if the services they use can bear it, or wait until the burst, or the window of the schedule, is over"),
        ),
        "cooldown" => {
            findings.push(Finding::ok(Area::Scaling, format!("`{name}` lets no worker go yet: {headline}")));
        }
        _ => {}
    }
    findings
}

fn controlled(name: &WorkerType, mode: Mode, by: &str, until: &str) -> Finding {
    Finding::warning(Area::Scaling, format!("`{name}` is {} by {by}{until}", mode.in_words()))
        .cure(format!("`swarm resume {name}` ends it"))
}

/// Reports unhealthy workers.
fn health(of: &TypeSnapshot, heartbeats: bool) -> Vec<Finding> {
    let name = &of.worker_type;
    let mut findings = Vec::new();
    let broken: Vec<&str> = of
        .workers
        .iter()
        .filter(|worker| worker.state == Some(WorkerState::Error))
        .map(|worker| worker.id.as_str())
        .collect();
    if let Some(first) = broken.first() {
        let found = format!(
            "{} of `{name}` can't work by their own word, such as `{first}`",
            some(broken.len() as u64, "worker")
        );
        findings.push(Finding::problem(Area::Workers, found).cure("their logs say why"));
    }
    findings.extend(blocked(of));
    let stalled = of.pool.known().map_or(0, |pool| pool.stalled);
    if stalled > 0 {
        let cure = if heartbeats {
            "their log says why; a program that writes no heartbeat needs `worker.heartbeats = false`"
        } else {
            "the backend says that they do not work: look at their log"
        };
        let found = format!("{} of `{name}` not ready in time", some(stalled, "worker"));
        findings.push(Finding::problem(Area::Workers, found).cure(cure));
    }
    findings
}

/// Reports workers that their framework does not name as it was told to: whether they are idle remains unknown.
fn unmatched(of: &TypeSnapshot, settings: &WorkerTypeSettings, now: Timestamp) -> Option<Finding> {
    let framework = settings.framework?.profile();
    let (name, option, grace) = (framework.name(), framework.identity()?, settings.scaling.start_grace());
    // While the queues can't be read, nothing is known of any worker.
    of.demand.lag.known()?;
    let is_unknown =
        |worker: &&WorkerSnapshot| worker.status == WorkerStatus::PossiblyBusy && now.since(worker.started_at) > grace;
    let workers = some(of.workers.iter().filter(is_unknown).count() as u64, "worker");
    of.workers.iter().find(is_unknown).map(|first| {
        let found = format!(
            "{workers} of `{}` unknown to {name}, such as `{}`: nobody can tell whether they are idle, and none is let go",
            of.worker_type, first.id
        );
        let cure = format!("start them with {option} and $SWARM_WORKER_ID, on these queues (docs/frameworks.md#{name})");
        Finding::warning(Area::Workers, found).cure(cure)
    })
}

/// Reports workers that their platform can't start, by reason.
fn blocked(of: &TypeSnapshot) -> Vec<Finding> {
    let mut by_reason = BTreeMap::<&str, u64>::new();
    for worker in of.workers.iter().filter(|worker| worker.status == WorkerStatus::Blocked) {
        *by_reason.entry(worker.reason.as_deref().unwrap_or("the platform gives no reason")).or_default() += 1;
    }
    let finding = |(reason, count)| {
        let found = format!("{} of `{}` blocked: {reason}", some(count, "worker"), of.worker_type);
        Finding::problem(Area::Workers, found).cure("remove the cause; the platform then starts them by itself")
    };
    by_reason.into_iter().map(finding).collect()
}

/// Returns the findings from what the autoscaler stored in Redis.
pub(super) async fn from_redis(connection: &mut Connection, settings: &Settings) -> Vec<Finding> {
    let names: Vec<WorkerType> = settings
        .worker_types
        .iter()
        .filter(|(_, of)| of.enabled)
        .map(|(name, _)| WorkerType::new(name.as_str()))
        .collect();
    let mut findings = Vec::new();
    for batch in names.chunks(BATCH) {
        match reports(connection, batch).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                findings
                    .push(Finding::warning(Area::Scaling, format!("what holds worker types can't be read: {error}")));
                break;
            }
        }
    }
    bounded(findings)
}

async fn reports(connection: &mut Connection, names: &[WorkerType]) -> RedisResult<Vec<Finding>> {
    type Said = (Option<String>, Option<String>, Option<String>);
    type Report = (Option<String>, Option<String>);
    let layout = connection.layout();
    let mut pipeline = redis::pipe();
    for name in names {
        pipeline.cmd("HMGET").arg(layout.scaler_override(name)).arg(&["mode", "workers", "by"]);
        pipeline.cmd("HMGET").arg(keys::scaler_report(name)).arg(&["headline", "backend_error"]);
    }
    let replies = connection.each(&pipeline).await?;
    let mut findings = Vec::new();
    for (name, replies) in names.iter().zip(replies.chunks(2)) {
        let [said, report] = replies else { continue };
        let (mode, workers, by): Said = FromRedisValue::from_redis_value_ref(said)?;
        let (headline, backend_error): Report = FromRedisValue::from_redis_value_ref(report)?;
        let workers = workers.and_then(|workers| workers.parse().ok());
        if let Some(mode) = mode.and_then(|mode| Mode::parse(&mode, workers)) {
            findings.push(controlled(name, mode, &by.unwrap_or_default(), ""));
        }
        match (backend_error.filter(|error| !error.is_empty()), headline) {
            (Some(error), _) => {
                findings.push(Finding::problem(Area::Scaling, format!("`{name}`: its workers are unknown: {error}")));
            }
            (None, Some(headline)) => {
                findings.push(Finding::ok(Area::Scaling, format!("`{name}` has unfinished jobs: {headline}")));
            }
            (None, None) => {}
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Allowance, Reading};

    const NOW: Timestamp = Timestamp(1_000_000);
    const ALLOWANCE: Allowance = Allowance { workers: 3, total: 4, others: 1, reserved: 0, unusable: 0 };

    /// Returns a worker type at its maximum that the budget holds back. The oldest waiting job is `age` seconds old.
    fn held_back(jobs: u64, age: u64) -> TypeSnapshot {
        let mut of = TypeSnapshot { allowance: Some(ALLOWANCE), ..TypeSnapshot::at_rest("low") };
        (of.desired, of.max_workers) = (3, 3);
        of.demand.lag = Reading::Known(jobs);
        of.demand.oldest = Reading::Known(Some(Timestamp(NOW.0 - age * 1_000)));
        of
    }

    #[test]
    fn a_pool_that_the_budget_holds_back_is_a_finding_while_jobs_wait_for_long() {
        let found = "`low`: 5 jobs wait, the oldest for 61 s; the budget allows at most 3 (max_total_workers 4; other \
                     worker types have 1)";
        let cure = "raise scaler.max_total_workers, or this type's priority or min_workers";
        assert_eq!(held(&held_back(5, 61), NOW), [Finding::warning(Area::Scaling, found).cure(cure)]);
        for (jobs, age) in [(5, 60), (0, 61)] {
            assert_eq!(held(&held_back(jobs, age), NOW), [], "{jobs} jobs, {age} s");
        }
    }

    #[test]
    fn a_pool_at_its_maximum_that_the_budget_leaves_alone_is_told_to_raise_the_maximum() {
        let of = TypeSnapshot { allowance: None, ..held_back(5, 61) };
        let found = "`low` has 3 workers, which is its maximum; 5 jobs wait, the oldest for 61 s";
        let findings = held(&of, NOW);
        assert_eq!(findings.iter().map(|finding| &*finding.found).collect::<Vec<_>>(), [found]);
        assert!(findings[0].cure.as_deref().is_some_and(|cure| cure.starts_with("raise max_workers")), "{findings:?}");
    }
}
