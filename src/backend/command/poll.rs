//! Keeps the registry of a worker type in step with its platform: runs `list` every few seconds and when somebody asks
//! for it, and keeps `watch` running. Changes nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    listing::parse,
    pool::{CommandShared, LIST, Lists, TypePool},
    retryable,
    run::Process,
    spec::filled,
};
use crate::backend::BackendError;

/// A list in which a worker is missing is followed by another one after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Shortest pause between two lists, however many lines `watch` prints.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// First and longest wait until a `watch` that ended is started again.
const WATCH_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Runs until the backend stops or the worker type is released.
pub(super) async fn keep_listing(shared: Arc<CommandShared>, pool: Arc<TypePool>) {
    loop {
        let doubtful = tokio::select! {
            looked = look(&shared, &pool) => looked.unwrap_or(false),
            () = over(&shared, &pool.released) => return,
        };
        let poll = pool.spec().settings.poll();
        let pause = if doubtful { SECOND_LOOK.min(poll) } else { poll };
        tokio::select! {
            () = sleep(pause) => {}
            () = async { sleep(SHORTEST_PAUSE).await; pool.look.notified().await } => {}
            () = over(&shared, &pool.released) => return,
        }
    }
}

/// Takes one list in. Returns whether a worker was missing in it that may come back.
pub(super) async fn look(shared: &CommandShared, pool: &TypePool) -> Result<bool, BackendError> {
    let _turn = pool.listing.lock().await;
    let spec = pool.spec();
    let begun = shared.clock.now();
    let listed = match pool.run(&spec, LIST, &spec.settings.list, &[]).await {
        Ok(printed) => parse(&printed)
            .map_err(|problem| retryable(format!("`worker_types.{}.command.list`: {problem}", pool.worker_type))),
        Err(failure) => Err(failure.error),
    };
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

/// Keeps `watch` running, if there is one. Runs until the backend stops or the worker type is released.
pub(super) async fn keep_watching(shared: Arc<CommandShared>, pool: Arc<TypePool>) {
    let mut specs = pool.specs();
    let mut wait = WATCH_AGAIN[0];
    loop {
        let spec = specs.borrow_and_update().clone();
        let watched = async {
            if spec.settings.watch.is_empty() {
                return std::future::pending().await;
            }
            let setting = format!("worker_types.{}.command.watch", pool.worker_type);
            let words = filled(&spec.settings.watch, &[("type", pool.worker_type.as_str())]);
            let begun = Instant::now();
            match Process::watch(&words, &spec.settings, &setting) {
                Ok(process) => process.lines(|| pool.look.notify_one()).await,
                Err(error) => tracing::warn!(worker_type = %pool.worker_type, %error, "watch command failed"),
            }
            begun.elapsed()
        };
        tokio::select! {
            lasted = watched => {
                wait = if lasted > WATCH_AGAIN[1] { WATCH_AGAIN[0] } else { (wait * 2).min(WATCH_AGAIN[1]) };
                tracing::info!(worker_type = %pool.worker_type, again_seconds = wait.as_secs(), "watch command ended");
                // Whatever happened meanwhile was not told.
                pool.look.notify_one();
                tokio::select! {
                    () = sleep(wait) => {}
                    () = over(&shared, &pool.released) => return,
                }
            }
            changed = specs.changed() => if changed.is_err() { return },
            () = over(&shared, &pool.released) => return,
        }
    }
}

async fn over(shared: &CommandShared, released: &CancellationToken) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = released.cancelled() => {}
    }
}
