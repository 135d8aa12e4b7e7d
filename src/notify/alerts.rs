//! Derives the alerts from a snapshot. Pure.

use crate::{
    config::AlertKind,
    model::{
        WorkerType,
        snapshot::{FleetSnapshot, ReloadOutcome, Role, TypeSnapshot, WorkerStatus},
    },
};

/// Consecutive failed starts that count as a crash loop: one or two can be chance.
const CRASH_LOOP: u32 = 3;

/// Identity of an alert.
pub(super) type Key = (AlertKind, Option<WorkerType>);

/// A condition that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) key: Key,
    /// One line for people.
    pub(super) summary: String,
    /// Details, often in the words of the backend or Redis.
    pub(super) detail: String,
}

/// Returns the alerts that this autoscaler may send. `led` says whether it was the last one to lead: while nobody
/// leads, it still reports Redis, which is often the reason.
pub(super) fn active(fleet: &FleetSnapshot, led: bool) -> Vec<Alert> {
    let leads = fleet.leadership.role == Role::Leader;
    let nobody = nobody_leads(fleet);
    let mut alerts = Vec::new();
    if leads || (led && nobody.is_some()) {
        alerts.extend(of_redis(fleet));
    }
    alerts.extend(nobody);
    if leads {
        alerts.extend(config_refused(fleet));
        for of in &fleet.worker_types {
            let of_type = [pool_at_maximum(of), crash_loop(of), blocked_start(of), backend_failing(of), guard(of)];
            alerts.extend(of_type.into_iter().flatten());
        }
    }
    alerts
}

/// Returns the alerts about Redis, whoever leads.
pub(super) fn of_redis(fleet: &FleetSnapshot) -> impl Iterator<Item = Alert> {
    redis_unreachable(fleet).into_iter().chain(redis_refuses_writes(fleet))
}

/// Returns whether a kind is one of [`of_redis`].
pub(super) fn is_of_redis(kind: AlertKind) -> bool {
    matches!(kind, AlertKind::RedisUnreachable | AlertKind::RedisRefusesWrites)
}

fn of_fleet(kind: AlertKind, summary: &str, detail: &str) -> Alert {
    Alert { key: (kind, None), summary: summary.to_owned(), detail: detail.to_owned() }
}

fn of_type(kind: AlertKind, of: &TypeSnapshot, summary: String, detail: &str) -> Alert {
    Alert { key: (kind, Some(of.worker_type.clone())), summary, detail: detail.to_owned() }
}

fn redis_unreachable(fleet: &FleetSnapshot) -> Option<Alert> {
    if let Some(error) = &fleet.redis_error {
        return Some(of_fleet(AlertKind::RedisUnreachable, "Redis does not answer", error));
    }
    let (server, error) = fleet.queue_servers.iter().find_map(|server| Some((server, server.redis_error.as_ref()?)))?;
    let summary = format!("Redis of the worker types {} does not answer", server.type_names());
    Some(of_fleet(AlertKind::RedisUnreachable, &summary, error))
}

fn redis_refuses_writes(fleet: &FleetSnapshot) -> Option<Alert> {
    let error = fleet.redis_refuses_writes.as_ref()?;
    Some(of_fleet(AlertKind::RedisRefusesWrites, "Redis refuses writes; silent workers are not replaced", error))
}

/// An observer never leads, so it does not miss a leader.
fn nobody_leads(fleet: &FleetSnapshot) -> Option<Alert> {
    let leadership = &fleet.leadership;
    let missing = leadership.role == Role::Standby && leadership.leader.is_none();
    let detail = leadership.problem.as_deref().unwrap_or("no autoscaler holds the lease");
    missing.then(|| of_fleet(AlertKind::NobodyLeads, "no autoscaler leads; nothing is scaled", detail))
}

fn config_refused(fleet: &FleetSnapshot) -> Option<Alert> {
    let reload = fleet.reload.as_ref().filter(|reload| reload.outcome == ReloadOutcome::Refused)?;
    let summary = format!("new configuration was refused ({} errors); the previous one stays", reload.errors.len());
    Some(of_fleet(AlertKind::ConfigRefused, &summary, reload.errors.first().map_or("", String::as_str)))
}

fn pool_at_maximum(of: &TypeSnapshot) -> Option<Alert> {
    let waiting = *of.demand.lag.known()?;
    let counts = of.pool.known()?;
    let full = of.max_workers > 0 && counts.current() >= of.max_workers;
    let summary = match of.allowance {
        Some(allowance) => format!("the budget holds pool `{}` back while jobs wait: {allowance}", of.worker_type),
        None => format!("pool `{}` is at its maximum of {} workers while jobs wait", of.worker_type, of.max_workers),
    };
    (waiting > 0 && (full || of.allowance.is_some()))
        .then(|| of_type(AlertKind::PoolAtMaximum, of, summary, &format!("{waiting} jobs wait")))
}

fn crash_loop(of: &TypeSnapshot) -> Option<Alert> {
    let failures = of.start_failures.as_ref().filter(|failures| failures.count >= CRASH_LOOP)?;
    let summary = format!("workers of `{}` fail to start", of.worker_type);
    let detail = format!("{} consecutive failures; the last one: {}", failures.count, failures.message);
    Some(of_type(AlertKind::CrashLoop, of, summary, &detail))
}

fn blocked_start(of: &TypeSnapshot) -> Option<Alert> {
    let mut blocked = of.workers.iter().filter(|worker| worker.status == WorkerStatus::Blocked);
    let first = blocked.next()?;
    let count = 1 + blocked.count();
    let summary = format!("the platform does not start {count} requested workers of `{}`", of.worker_type);
    let detail = first.reason.as_deref().unwrap_or("the platform gives no reason");
    Some(of_type(AlertKind::BlockedStart, of, summary, detail))
}

fn backend_failing(of: &TypeSnapshot) -> Option<Alert> {
    let error = of.backend_error.as_ref()?;
    Some(of_type(AlertKind::BackendFailing, of, format!("the backend of `{}` fails", of.worker_type), error))
}

fn guard(of: &TypeSnapshot) -> Option<Alert> {
    let unheard = of.workers.iter().filter(|worker| worker.status == WorkerStatus::Unheard).count();
    let summary = format!("{unheard} workers of `{}` are silent and not replaced", of.worker_type);
    let detail = of.reasons.last().map_or("", String::as_str);
    (unheard > 0).then(|| of_type(AlertKind::GuardHolding, of, summary, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Demand, PoolCounts, Reading, Timestamp, snapshot::LeadershipSnapshot},
        notify::fixtures::{fleet, pool},
    };

    fn kinds(fleet: &FleetSnapshot, led: bool) -> Vec<&'static str> {
        active(fleet, led).iter().map(|alert| alert.key.0.as_str()).collect()
    }

    #[test]
    fn a_pool_has_alerts_for_its_trouble_and_a_healthy_pool_has_none() {
        let mut of = pool("mail");
        assert_eq!(kinds(&fleet(Role::Leader, Some("a"), vec![of.clone()]), true), [""; 0]);
        (of.max_workers, of.pool) = (2, Reading::Known(PoolCounts { ready: 2, busy: 2, ..PoolCounts::default() }));
        assert_eq!(kinds(&fleet(Role::Leader, Some("a"), vec![of.clone()]), true), [""; 0], "no job waits");
        of.demand = Demand { lag: Reading::Known(3), ..of.demand };
        of.backend_error = Some("no token".to_owned());
        let fleet = fleet(Role::Leader, Some("a"), vec![of]);
        assert_eq!(kinds(&fleet, true), ["pool_at_maximum", "backend_failing"]);
        assert_eq!(active(&fleet, true)[0].detail, "3 jobs wait");
    }

    #[test]
    fn a_pool_that_the_budget_holds_back_is_at_its_maximum() {
        let mut of = pool("mail");
        of.allowance = Some(crate::model::Allowance { workers: 1, total: 3, others: 2, ..Default::default() });
        assert_eq!(pool_at_maximum(&of), None, "no job waits");
        of.demand = Demand { lag: Reading::Known(3), ..of.demand };
        let summary = pool_at_maximum(&of).unwrap().summary;
        assert_eq!(
            summary,
            "the budget holds pool `mail` back while jobs wait: at most 1 (max_total_workers 3; other worker types \
             have 2)"
        );
    }

    #[test]
    fn one_failed_start_is_not_a_crash_loop() {
        let mut of = pool("mail");
        for (count, expected) in [(1, None), (2, None), (3, Some("3 consecutive failures; the last one: exit code 1"))]
        {
            let message = "exit code 1".to_owned();
            let failures = crate::model::snapshot::StartFailures { count, last_at: Timestamp(1), message };
            of.start_failures = Some(failures);
            assert_eq!(crash_loop(&of).map(|alert| alert.detail).as_deref(), expected);
        }
    }

    #[test]
    fn the_server_of_some_worker_types_is_named_with_them() {
        let mut seen = fleet(Role::Leader, Some("a"), vec![pool("mail")]);
        seen.queue_servers.push(crate::model::snapshot::QueueServerSnapshot {
            server: "cache:6379/1".to_owned(),
            worker_types: vec![WorkerType::new("mail")],
            redis_error: None,
            sources: Vec::new(),
        });
        assert_eq!(redis_unreachable(&seen), None);
        seen.queue_servers[0].redis_error = Some("redis at cache:6379/1: refused".to_owned());
        let alert = redis_unreachable(&seen).expect("one server is away");
        assert_eq!(alert.summary, "Redis of the worker types mail does not answer");
    }

    #[test]
    fn a_standby_reports_only_that_nobody_leads_and_the_last_leader_also_redis() {
        let mut of = pool("mail");
        of.backend_error = Some("no token".to_owned());
        let mut seen = fleet(Role::Standby, Some("b"), vec![of]);
        seen.redis_error = Some("connection refused".to_owned());
        seen.redis_refuses_writes = Some("MISCONF".to_owned());
        assert_eq!(kinds(&seen, true), [""; 0], "another one leads");
        seen.leadership = LeadershipSnapshot { leader: None, ..seen.leadership };
        assert_eq!(kinds(&seen, false), ["nobody_leads"]);
        assert_eq!(kinds(&seen, true), ["redis_unreachable", "redis_refuses_writes", "nobody_leads"]);
        seen.leadership.role = Role::Observer;
        assert_eq!(kinds(&seen, false), [""; 0], "it is not a candidate");
    }
}
