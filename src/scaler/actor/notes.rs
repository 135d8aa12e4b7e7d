//! Notes about the workers beside a decision: why some are blocked, and why silent ones are not replaced.

use std::collections::BTreeMap;

use crate::{
    config::ScalingSettings,
    model::{Timestamp, WorkerId, WorkerType, keys, snapshot::WorkerStatus},
    scaler::worker_tracker::{Held, PoolView},
};

/// Returns notes about a pool for people, one per line; none if all workers are well.
pub(super) fn of(view: &PoolView, settings: &ScalingSettings, now: Timestamp) -> Vec<String> {
    let mut notes: Vec<String> = blocked(view, settings, now);
    notes.extend(view.held.map(|held| match held {
        Held::Unwritable { silent } => {
            format!("{silent} not heard while no heartbeat can be written to redis: none of them is replaced")
        }
        Held::Mass { silent, of, until } => format!(
            "{silent} of {of} workers fell silent at once, which points to redis or the network: none of them is replaced \
             for {} s",
            until.since(now).as_millis().div_ceil(1_000)
        ),
    }));
    notes
}

/// Returns notes about blocked workers, grouped by the platform's reason.
fn blocked(view: &PoolView, settings: &ScalingSettings, now: Timestamp) -> Vec<String> {
    let mut by_reason: BTreeMap<(bool, &str), u32> = BTreeMap::new();
    for worker in view.workers.iter().filter(|worker| worker.status == WorkerStatus::Blocked) {
        let late = now.since(worker.started_at) >= settings.start_timeout();
        *by_reason.entry((late, worker.reason.as_deref().unwrap_or("the platform gives no reason"))).or_default() += 1;
    }
    let note = |((late, reason), count): ((bool, &str), u32)| {
        if late {
            format!("{count} not begun within {} s (start_timeout_seconds): {reason}", settings.start_timeout_seconds)
        } else {
            format!("{count} blocked: {reason}")
        }
    };
    by_reason.into_iter().map(note).collect()
}

/// Returns what a running worker lacks that did not become ready.
pub(super) fn no_heartbeat(worker_type: &WorkerType, id: &WorkerId) -> String {
    let key = keys::heartbeat(worker_type, id);
    format!(
        "not ready within start_grace_seconds: no heartbeat in `{key}`; if its program writes none, set \
         `heartbeats = false` in `[worker_types.{worker_type}.worker]`"
    )
}
