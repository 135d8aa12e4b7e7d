//! Checks whether an autoscaler runs, which one leads, and what it reports about itself.

use redis::RedisResult;

use super::{Area, Finding, Seen};
use crate::{
    config::Settings,
    connection::Connection,
    model::{
        keys,
        snapshot::{FleetSnapshot, Role, SourceState},
    },
};

/// Checks the autoscaler. `doubt`: why a missing sign of life proves nothing; `None` if it does.
pub(super) async fn look(
    connection: Option<&mut Connection>,
    settings: &Settings,
    seen: &Seen,
    doubt: Option<&str>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(connection) = connection {
        findings.extend(signs_of_life(connection, settings, seen, doubt).await);
    }
    match seen {
        Seen::Not(why) => findings.push(
            Finding::warning(Area::Autoscaler, format!("the autoscaler could not be asked over HTTP: {why}"))
                .cure("fewer checks are possible without it: name the leader with --url"),
        ),
        Seen::Fleet(fleet) => findings.extend(of_fleet(fleet, settings)),
    }
    findings
}

async fn signs_of_life(
    connection: &mut Connection,
    settings: &Settings,
    seen: &Seen,
    doubt: Option<&str>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let alive: RedisResult<Option<String>> = redis::cmd("GET").arg(keys::SCALER_ALIVE).query_async(connection).await;
    let cure = "start `swarm autoscaler` with this Redis, or find out why it exits: its last log lines say so";
    match alive {
        Ok(Some(instance)) => findings.push(Finding::ok(Area::Autoscaler, format!("{instance} runs on this redis"))),
        // An observer writes no sign of life.
        Ok(None) if seen.fleet().is_some_and(|fleet| fleet.dry_run) => {}
        Ok(None) if doubt.is_some() => findings.push(untold("whether an autoscaler runs", doubt)),
        Ok(None) => findings
            .push(Finding::problem(Area::Autoscaler, "none runs on this redis: nobody starts workers").cure(cure)),
        Err(error) => {
            findings.push(Finding::warning(Area::Autoscaler, format!("whether one runs can't be read: {error}")));
        }
    }
    if settings.scaler.leader_lease_seconds > 0 && settings.lease_object().is_none() {
        let mut holder = redis::cmd("HGET");
        let holder: RedisResult<Option<String>> =
            holder.arg(connection.layout().leader()).arg("instance").query_async(connection).await;
        match holder {
            Ok(Some(instance)) => findings.push(Finding::ok(Area::Autoscaler, format!("{instance} leads"))),
            Ok(None) if doubt.is_some() => findings.push(untold("which autoscaler leads", doubt)),
            Ok(None) => findings.push(
                Finding::problem(Area::Autoscaler, "no autoscaler leads, so none starts workers or lets them go")
                    .cure("wait some seconds if one has just ended; one with dry_run never leads"),
            ),
            Err(error) => {
                findings.push(Finding::warning(Area::Autoscaler, format!("who leads can't be read: {error}")));
            }
        }
    }
    findings
}

/// Returns the finding for a key that has expired although its owner may have been unable to write it.
fn untold(what: &str, doubt: Option<&str>) -> Finding {
    let found = format!("{what} can't be told: {}, and the key that says so has expired", doubt.unwrap_or_default());
    Finding::warning(Area::Autoscaler, found)
}

fn of_fleet(fleet: &FleetSnapshot, settings: &Settings) -> Vec<Finding> {
    let area = Area::Autoscaler;
    let role = fleet.leadership.role;
    let mut findings = vec![Finding::ok(
        area,
        format!("{} answers over http: version {}, {}", fleet.instance, fleet.version, role.as_str()),
    )];
    if fleet.version != env!("CARGO_PKG_VERSION") {
        let found = format!("it is version {}, and this program is {}", fleet.version, env!("CARGO_PKG_VERSION"));
        findings.push(Finding::warning(area, found).cure("restart it with this version, or use that one"));
    }
    if fleet.dry_run || role == Role::Observer {
        let found = "it only decides and changes nothing (dry_run)";
        findings.push(Finding::warning(area, found).cure("start it without --dry-run and `scaler.dry_run`"));
    }
    if let Some(why) = &fleet.leadership.problem {
        findings.push(Finding::problem(area, format!("it does not know who leads: {why}")));
    }
    if let Some(why) = &fleet.redis_error {
        findings.push(Finding::problem(area, format!("it does not reach redis: {why}")));
    }
    for server in &fleet.queue_servers {
        if let Some(why) = &server.redis_error {
            let found = format!("it does not reach the redis of the worker types {}: {why}", server.type_names());
            findings.push(Finding::problem(area, found));
        }
    }
    if let Some(why) = &fleet.redis_refuses_writes {
        findings.push(Finding::problem(area, format!("redis refuses its writes: {why}")));
    }
    let of_servers = fleet.queue_servers.iter().flat_map(|server| &server.sources);
    for source in fleet.sources.iter().chain(of_servers).filter(|source| source.state == SourceState::Down) {
        let found = format!("its source {} is down: {}", source.source.as_str(), source.detail);
        findings.push(Finding::warning(Area::Signals, found));
    }
    findings.extend(other_types(fleet, settings));
    findings
}

/// Compares the autoscaler's worker types with those configured here.
fn other_types(fleet: &FleetSnapshot, settings: &Settings) -> Vec<Finding> {
    let has = |name: &str| fleet.worker_types.iter().any(|of| of.worker_type.as_str() == name);
    let enabled = settings.worker_types.iter().filter(|(_, of)| of.enabled);
    let lacks: Vec<&str> = enabled.map(|(name, _)| name.as_str()).filter(|name| !has(name)).collect();
    let known = |name: &str| settings.worker_types.get(name).is_some_and(|of| of.enabled);
    let more = fleet.worker_types.iter().map(|of| of.worker_type.as_str()).filter(|name| !known(name));
    let more: Vec<&str> = more.collect();
    let cure = "is this its configuration (--config)? Then restart it, so that it reads it again";
    let told = |found: String| Finding::warning(Area::Autoscaler, found).cure(cure);
    let lacks = (!lacks.is_empty()).then(|| told(format!("it does not know of {}", named(&lacks))));
    let more =
        (!more.is_empty()).then(|| told(format!("it has worker types that are not enabled here: {}", named(&more))));
    lacks.into_iter().chain(more).collect()
}

fn named(names: &[&str]) -> String {
    const NAMED: usize = 5;
    let more = names.len().saturating_sub(NAMED);
    let first = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}
