//! Asks the engine for what its list does not say: which worker is in a container that somebody else made, since when
//! it runs, and how a container ended that no event told of.

use bollard::models::ContainerInspectResponse;

use super::{
    DockerShared, TypePool,
    changes::ContainerExit,
    container_template::variable,
    error::EngineError,
    reconcile::{Facts, Known},
    view::Seen,
};
use crate::model::{Timestamp, WorkerId};

/// Longest part of a health check's output that is shown, in characters.
const MAX_HEALTH_OUTPUT: usize = 200;

/// Adds to `facts` what the registry needs to take over the list. A container that has gone meanwhile is left out.
pub(super) async fn complete(
    shared: &DockerShared,
    pool: &TypePool,
    list: u64,
    seen: &[Seen],
    facts: &mut Facts,
) -> Result<(), EngineError> {
    for container in pool.registry.strangers(list, seen) {
        if let Some(found) = inspect(shared, &container).await? {
            facts.strangers.extend(known(&found).map(|known| (container, known)));
        }
    }
    for container in pool.registry.newly_ended(seen) {
        if !facts.endings.contains_key(&container)
            && let Some(found) = inspect(shared, &container).await?
        {
            facts.endings.extend(ending(&found).map(|ending| (container, ending)));
        }
    }
    for container in pool.registry.newly_unhealthy(seen) {
        if let Some(found) = inspect(shared, &container).await? {
            facts.health_outputs.insert(container, health_output(&found));
        }
    }
    Ok(())
}

async fn inspect(shared: &DockerShared, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    match shared.engine.inspect(container).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The worker is the one that its environment names, else it is called after the container's host name, as
/// `swarm worker` calls itself.
fn known(found: &ContainerInspectResponse) -> Option<Known> {
    let config = found.config.as_ref()?;
    let environment = config.env.iter().flatten();
    let named =
        environment.filter(|entry| variable(entry) == "SWARM_WORKER_ID").find_map(|entry| entry.split_once('='));
    let name = named.map(|(_, id)| id).filter(|id| !id.is_empty()).or(config.hostname.as_deref())?;
    let started = found.state.as_ref().and_then(|state| state.started_at.as_deref())?;
    let started: jiff::Timestamp = started.parse().ok()?;
    let started_at = Timestamp(u64::try_from(started.as_millisecond()).unwrap_or_default());
    Some(Known { worker: WorkerId::new(name), started_at })
}

/// What the health check said last: its first line, or its exit code if it said nothing.
fn health_output(found: &ContainerInspectResponse) -> String {
    let health = found.state.as_ref().and_then(|state| state.health.as_ref());
    let Some(last) = health.and_then(|health| health.log.as_deref()?.last()) else { return "no output".to_owned() };
    let said = last.output.as_deref().unwrap_or_default().lines().map(str::trim).find(|line| !line.is_empty());
    match said {
        Some(line) => line.chars().take(MAX_HEALTH_OUTPUT).collect(),
        None => format!("exit code {}", last.exit_code.unwrap_or_default()),
    }
}

fn ending(found: &ContainerInspectResponse) -> Option<ContainerExit> {
    let state = found.state.as_ref()?;
    Some(ContainerExit::of(state.exit_code?, state.oom_killed.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_health_check_is_quoted_by_its_first_line() {
        let found = |log: serde_json::Value| {
            let answer = json!({ "State": { "Health": { "Status": "unhealthy", "FailingStreak": 3, "Log": log } } });
            health_output(&serde_json::from_value(answer).expect("an engine's answer"))
        };
        let said = |code: i64, output: &str| json!({ "Start": "2026-01-02T03:04:05.6Z", "End": "2026-01-02T03:04:05.7Z", "ExitCode": code, "Output": output });
        assert_eq!(found(json!([said(0, "ok"), said(1, "\nno heartbeat\nmore")])), "no heartbeat");
        assert_eq!(found(json!([said(7, " ")])), "exit code 7");
        assert_eq!(found(json!([])), "no output");
    }

    #[test]
    fn a_worker_is_called_by_its_environment_or_else_by_its_host_name() {
        let found = |environment: &[&str]| {
            let answer = json!({
                "Config": { "Hostname": "0123456789ab", "Env": environment },
                "State": { "StartedAt": "2026-01-02T03:04:05.678901234Z", "ExitCode": 3 },
            });
            serde_json::from_value::<ContainerInspectResponse>(answer).expect("an engine's answer")
        };
        let worker = |environment| known(&found(environment)).map(|known| known.worker);
        assert_eq!(worker(&["PATH=/bin"]), Some(WorkerId::new("0123456789ab")));
        assert_eq!(worker(&["SWARM_WORKER_ID="]), Some(WorkerId::new("0123456789ab")));
        assert_eq!(worker(&["SWARM_WORKER_ID=w-1"]), Some(WorkerId::new("w-1")));
        assert_eq!(known(&found(&[])).map(|known| known.started_at), Some(Timestamp(1_767_323_045_678)));
        assert_eq!(ending(&found(&[])), Some(ContainerExit::of(3, false)));
    }
}
