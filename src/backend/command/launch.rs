//! Starts workers.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    CommandSpec,
    call::Change,
    pool::{CommandShared, TypePool},
};
use crate::{
    backend::{BackendError, ScaleReport},
    model::WorkerId,
};

/// Starts workers until `target` stay. `done` receives the started ones, on failure too. A start whose outcome is
/// unknown counts until the list shows the worker or its time is over.
pub(super) async fn start_more(
    shared: &Arc<CommandShared>,
    pool: &Arc<TypePool>,
    spec: &CommandSpec,
    target: u32,
    done: &mut ScaleReport,
) -> Result<(), BackendError> {
    if spec.settings.names_workers() {
        return one_by_one(shared, pool, spec, target, done).await;
    }
    let ids = pool.registry.reserve(&pool.worker_type, target, usize::MAX, true, shared.clock.now());
    if ids.is_empty() {
        return Ok(());
    }
    start(shared, pool, spec, &ids, Change::StartMany(ids.len())).await
}

/// Starts `max_concurrent` workers at a time, and no more after a failure.
async fn one_by_one(
    shared: &Arc<CommandShared>,
    pool: &Arc<TypePool>,
    spec: &CommandSpec,
    target: u32,
    done: &mut ScaleReport,
) -> Result<(), BackendError> {
    let at_once = usize::try_from(spec.settings.max_concurrent).unwrap_or(1);
    loop {
        let ids = pool.registry.reserve(&pool.worker_type, target, at_once, false, shared.clock.now());
        if ids.is_empty() {
            return Ok(());
        }
        let starts = ids.iter().map(|id| start(shared, pool, spec, std::slice::from_ref(id), Change::Start(id)));
        let mut failed = None;
        for (id, outcome) in ids.iter().zip(join_all(starts).await) {
            match outcome {
                Ok(()) => done.started.push(id.clone()),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
}

async fn start(
    shared: &CommandShared,
    pool: &TypePool,
    spec: &CommandSpec,
    ids: &[WorkerId],
    change: Change<'_>,
) -> Result<(), BackendError> {
    let outcome = match shared.leader_guard.check() {
        Ok(()) => pool.change(spec, change).await,
        Err(error) => Err(error.into()),
    };
    outcome.map_err(|failure| {
        if !failure.ambiguous {
            pool.registry.not_started(ids);
        }
        failure.error
    })
}
