//! Stops workers: asks them to drain, and stops each one once it has drained or its time is up.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    CommandSpec,
    call::Change,
    pool::{CommandShared, TypePool},
    registry::ToStop,
};
use crate::{
    backend::{BackendError, DrainState},
    model::{WorkerId, WorkerType},
};

/// Time between two checks of workers that drain.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A drain request outlives the drain timeout by this, so that no worker takes jobs while it is being stopped.
pub(super) const DRAIN_REQUEST_MARGIN: Duration = Duration::from_secs(60);
/// First and longest wait before a stop that failed is repeated.
const STOP_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Asks those of `ids` that are not leaving yet to drain and leave. Returns them.
pub(super) async fn ask(
    shared: &Arc<CommandShared>,
    pool: &Arc<TypePool>,
    spec: &CommandSpec,
    ids: &[WorkerId],
    within: Duration,
) -> Result<Vec<WorkerId>, BackendError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    shared.leader_guard.check()?;
    let retired = pool.registry.retire(ids);
    let asked = if spec.drains { pool.registry.may_work(&retired) } else { Vec::new() };
    if let Err(error) = request(shared, &pool.worker_type, &asked, within).await {
        pool.registry.stay(&retired);
        return Err(error);
    }
    if !retired.is_empty() {
        let (shared, pool, leaving) = (shared.clone(), pool.clone(), retired.clone());
        let deadline = Instant::now() + within;
        let stop = shared.stop.clone();
        shared.tasks.clone().spawn(async move {
            let all_gone = drain_and_stop(&shared, &pool, leaving, asked, deadline);
            tokio::select! {
                () = all_gone => {}
                () = stop.cancelled() => {}
                () = pool.released.cancelled() => {}
            }
        });
    }
    Ok(retired)
}

pub(super) async fn request(
    shared: &CommandShared,
    worker_type: &WorkerType,
    ids: &[WorkerId],
    within: Duration,
) -> Result<(), BackendError> {
    if ids.is_empty() {
        return Ok(());
    }
    let ttl = within + DRAIN_REQUEST_MARGIN;
    shared.drain_control.request(worker_type, ids, ttl).await.map_err(|error| error.into_backend_error(worker_type))
}

/// Stops each worker of `leaving` once it has drained, or at `deadline`; ends when all of them are gone. `draining`
/// were asked to drain.
async fn drain_and_stop(
    shared: &CommandShared,
    pool: &TypePool,
    leaving: Vec<WorkerId>,
    draining: Vec<WorkerId>,
    deadline: Instant,
) {
    let mut leaving = leaving;
    let mut wait = STOP_AGAIN[0];
    loop {
        leaving = pool.registry.still_leaving(&leaving);
        if leaving.is_empty() {
            return;
        }
        let ready = finished(shared, pool, &leaving, &draining, deadline).await;
        let due = pool.registry.to_stop(&ready, shared.clock.now());
        if due.is_empty() {
            sleep(POLL_INTERVAL).await;
            continue;
        }
        if !shared.leader_guard.holds() {
            // Another autoscaler decides from now on. The requests to drain lapse.
            pool.registry.stay(&leaving);
            return;
        }
        let failed = stop(shared, pool, &due).await;
        pool.list_now.notify_one();
        if failed {
            sleep(wait).await;
            wait = (wait * 2).min(STOP_AGAIN[1]);
        }
    }
}

/// Of `leaving` those that hold no job, or whose time is up.
async fn finished(
    shared: &CommandShared,
    pool: &TypePool,
    leaving: &[WorkerId],
    draining: &[WorkerId],
    deadline: Instant,
) -> Vec<WorkerId> {
    if Instant::now() >= deadline {
        return leaving.to_vec();
    }
    let (waited_for, free): (Vec<_>, Vec<_>) = leaving.iter().cloned().partition(|id| draining.contains(id));
    let mut finished = free;
    if !waited_for.is_empty() {
        match shared.drain_control.states(&pool.worker_type, &waited_for).await {
            Ok(states) => {
                let drained = waited_for.into_iter().zip(states).filter(|(_, state)| *state == DrainState::Drained);
                finished.extend(drained.map(|(id, _)| id));
            }
            Err(error) => tracing::debug!(worker_type = %pool.worker_type, %error, "drain state unknown"),
        }
    }
    finished
}

/// Stops workers, by one call for each. Returns whether one failed.
async fn stop(shared: &CommandShared, pool: &TypePool, due: &[ToStop]) -> bool {
    let spec = pool.spec();
    let stops = due.iter().map(|one| {
        let spec = spec.clone();
        async move { pool.change(&spec, Change::Stop { handle: &one.handle, id: &one.id }).await }
    });
    let mut failed = false;
    for (one, outcome) in due.iter().zip(futures_util::future::join_all(stops).await) {
        match outcome {
            Ok(()) => pool.registry.stopped(std::slice::from_ref(&one.id), shared.clock.now()),
            Err(failure) => {
                failed = true;
                let error = failure.error;
                tracing::warn!(worker_type = %pool.worker_type, worker_id = %one.id, %error, "stop failed");
            }
        }
    }
    failed
}
