//! Changes the number of workers where the platform has only a number. Lowers it only after all workers that the
//! platform may remove have drained; if one of them can't, all of them continue.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    CommandSpec,
    call::{CallError, Change},
    leave::{self, POLL_INTERVAL},
    poll,
    pool::{CommandShared, TypePool},
};
use crate::{
    backend::{BackendError, DrainState, Removal, ScaleReport, ScaleRequest},
    model::WorkerId,
};

/// Longest wait for idle workers to drain. Busy workers are not among those that are let go.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Sets the number of workers to the target, or returns why it stays.
pub(super) async fn scale(
    shared: &Arc<CommandShared>,
    pool: &Arc<TypePool>,
    spec: &CommandSpec,
    request: &ScaleRequest,
) -> Result<ScaleReport, BackendError> {
    shared.leader_guard.check()?;
    poll::refresh(shared, pool).await?;
    let target = usize::try_from(request.target).unwrap_or(usize::MAX);
    let surplus = pool.registry.listed().saturating_sub(target);
    let outcome = if surplus > 0 && !request.retire.is_empty() {
        shrink(shared, pool, spec, surplus).await
    } else {
        grow(shared, pool, spec, request.target).await
    };
    let refreshed = poll::refresh(shared, pool).await;
    let report = outcome?;
    refreshed?;
    Ok(report)
}

async fn grow(
    shared: &Arc<CommandShared>,
    pool: &Arc<TypePool>,
    spec: &CommandSpec,
    target: u32,
) -> Result<ScaleReport, BackendError> {
    let ids = pool.registry.reserve(&pool.worker_type, target, usize::MAX, true, shared.clock.now());
    if ids.is_empty() {
        return Ok(ScaleReport::default());
    }
    if let Err(failure) = set(shared, pool, spec, target).await {
        if !failure.ambiguous {
            pool.registry.not_started(&ids);
        }
        return Err(failure.error);
    }
    Ok(ScaleReport::default())
}

/// Lets the first `surplus` workers of the platform's order go.
async fn shrink(
    shared: &Arc<CommandShared>,
    pool: &Arc<TypePool>,
    spec: &CommandSpec,
    surplus: usize,
) -> Result<ScaleReport, BackendError> {
    let Removal::ByOrder(groups) = pool.registry.removal(spec) else { return Ok(ScaleReport::default()) };
    let (leaving, at_risk) = at_risk(&groups, surplus);
    let target = u32::try_from(pool.registry.listed() - surplus).unwrap_or(u32::MAX);
    let asked = if spec.drains { pool.registry.may_work(&at_risk) } else { Vec::new() };
    leave::request(shared, &pool.worker_type, &asked, DRAIN_WITHIN).await?;
    let outcome = match until_drained(shared, pool, &asked).await {
        Ok(()) => set(shared, pool, spec, target).await,
        Err(error) => Err(error.into()),
    };
    let stay: Vec<WorkerId> = match &outcome {
        Ok(()) => {
            pool.registry.stopped(&leaving, shared.clock.now());
            asked.into_iter().filter(|id| !leaving.contains(id)).collect()
        }
        // The number may have fallen, and a worker that takes a job now may be removed. The request to drain expires.
        Err(failure) if failure.ambiguous => Vec::new(),
        Err(_) => asked,
    };
    if !stay.is_empty() {
        let cancelled = shared.drain_control.cancel(&pool.worker_type, &stay).await;
        cancelled.map_err(|error| error.into_backend_error(&pool.worker_type))?;
    }
    outcome.map(|()| ScaleReport { started: Vec::new(), retired: leaving }).map_err(|failure| failure.error)
}

/// Returns the workers that are certain to go, and all workers among which the platform may choose `surplus`.
fn at_risk(groups: &[Vec<WorkerId>], surplus: usize) -> (Vec<WorkerId>, Vec<WorkerId>) {
    let (mut leaving, mut at_risk) = (Vec::new(), Vec::new());
    for group in groups {
        let room = surplus - at_risk.len().min(surplus);
        if room == 0 {
            break;
        }
        if group.len() <= room {
            leaving.extend(group.iter().cloned());
        }
        at_risk.extend(group.iter().cloned());
    }
    (leaving, at_risk)
}

async fn until_drained(shared: &CommandShared, pool: &TypePool, ids: &[WorkerId]) -> Result<(), BackendError> {
    let deadline = Instant::now() + DRAIN_WITHIN;
    while !ids.is_empty() {
        let states = shared.drain_control.states(&pool.worker_type, ids).await;
        let states = states.map_err(|error| error.into_backend_error(&pool.worker_type))?;
        let works = ids.iter().zip(states).find(|(_, state)| *state != DrainState::Drained);
        let Some((id, _)) = works else { break };
        if Instant::now() >= deadline {
            return Err(BackendError::retryable(format!(
                "worker `{id}` has not drained within {} s, and the platform may remove it: the number stays",
                DRAIN_WITHIN.as_secs()
            )));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn set(shared: &CommandShared, pool: &TypePool, spec: &CommandSpec, target: u32) -> Result<(), CallError> {
    shared.leader_guard.check()?;
    pool.change(spec, Change::Scale(target)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_be_taken_is_at_risk_and_only_whole_groups_leave_for_certain() {
        let groups = [vec!["a"], vec!["b", "c"], vec!["d"]];
        let groups: Vec<Vec<WorkerId>> =
            groups.iter().map(|group| group.iter().map(|id| WorkerId::new(*id)).collect()).collect();
        let shown = |surplus| {
            let (leaving, at_risk) = at_risk(&groups, surplus);
            let text = |ids: Vec<WorkerId>| ids.iter().map(WorkerId::as_str).collect::<String>();
            (text(leaving), text(at_risk))
        };
        let expected = [("", ""), ("a", "a"), ("a", "abc"), ("abc", "abc"), ("abcd", "abcd"), ("abcd", "abcd")];
        for (surplus, (leaving, at_risk)) in expected.into_iter().enumerate() {
            assert_eq!(shown(surplus), (leaving.to_owned(), at_risk.to_owned()), "{surplus}");
        }
    }
}
