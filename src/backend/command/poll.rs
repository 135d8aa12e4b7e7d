//! Keeps the registry of a worker type in step with its platform: lists its workers at each poll and on request, and
//! keeps watching. Changes nothing on the platform.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    CommandSpec,
    pool::{CommandShared, Lists, TypePool},
};
use crate::{backend::BackendError, model::WorkerType};

/// Longest wait for the next list after one that lacked a worker.
const SECOND_LIST: Duration = Duration::from_secs(1);
/// Shortest pause between two lists, however many lines `watch` prints.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// First and longest wait before a `watch` that ended is started again.
const WATCH_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Begins to list the workers of a type, and to watch for changes.
pub(super) fn begin(shared: &Arc<CommandShared>, worker_type: WorkerType, spec: CommandSpec) -> Arc<TypePool> {
    let pool = Arc::new(TypePool::new(worker_type, spec, shared.client.clone()));
    shared.tasks.spawn(keep_listing(shared.clone(), pool.clone()));
    shared.tasks.spawn(keep_watching(shared.clone(), pool.clone()));
    pool
}

/// Runs until the backend stops or the worker type is released.
async fn keep_listing(shared: Arc<CommandShared>, pool: Arc<TypePool>) {
    loop {
        let doubtful = tokio::select! {
            refreshed = refresh(&shared, &pool) => refreshed.unwrap_or(false),
            () = stopped(&shared, &pool.released) => return,
        };
        let interval = pool.spec().settings.poll();
        let pause = if doubtful { SECOND_LIST.min(interval) } else { interval };
        tokio::select! {
            () = sleep(pause) => {}
            () = async { sleep(SHORTEST_PAUSE).await; pool.list_now.notified().await } => {}
            () = stopped(&shared, &pool.released) => return,
        }
    }
}

/// Lists the workers and merges the list into the registry. Returns whether a worker is missing that may come back.
pub(super) async fn refresh(shared: &CommandShared, pool: &TypePool) -> Result<bool, BackendError> {
    let _turn = pool.listing.lock().await;
    let spec = pool.spec();
    let begun = shared.clock.now();
    let listed = pool.platform(&spec).list().await;
    let before = pool.lists.borrow().clone();
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            pool.lists.send_replace(Lists { failure: Some(error.clone()), ..before });
            return Err(error);
        }
    };
    let merged = pool.registry.merge(listed, begun, shared.clock.now(), spec.by_number());
    pool.lists.send_replace(Lists { last: Some(Instant::now()), failure: None });
    if merged.changed || before.failure.is_some() {
        (shared.on_change)(&pool.worker_type);
    }
    Ok(merged.doubtful)
}

/// Keeps watching, if the platform can be watched. Runs until the backend stops or the worker type is released.
async fn keep_watching(shared: Arc<CommandShared>, pool: Arc<TypePool>) {
    let mut specs = pool.specs();
    let mut wait = WATCH_AGAIN[0];
    loop {
        let spec = specs.borrow_and_update().clone();
        let watched = async {
            if !spec.settings.watches() {
                return std::future::pending().await;
            }
            let begun = Instant::now();
            if let Err(error) = pool.platform(&spec).watch(|| pool.list_now.notify_one()).await {
                tracing::warn!(worker_type = %pool.worker_type, %error, "watch failed");
            }
            begun.elapsed()
        };
        tokio::select! {
            lasted = watched => {
                wait = if lasted > WATCH_AGAIN[1] { WATCH_AGAIN[0] } else { (wait * 2).min(WATCH_AGAIN[1]) };
                tracing::info!(worker_type = %pool.worker_type, again_seconds = wait.as_secs(), "watch ended");
                // Changes in the meantime were not reported.
                pool.list_now.notify_one();
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stopped(&shared, &pool.released) => return,
                }
            }
            changed = specs.changed() => if changed.is_err() { return },
            () = stopped(&shared, &pool.released) => return,
        }
    }
}

async fn stopped(shared: &CommandShared, released: &CancellationToken) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = released.cancelled() => {}
    }
}
