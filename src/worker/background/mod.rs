//! What a worker does beside its jobs: heartbeats, renewal of claims, writing progress, the search for cancelled jobs
//! and for queues, maintenance of its streams. Also closes sessions that idled out, and shows the load in metrics.
//! Stops with the worker.

mod cancellation;
mod claim_renewal;
mod heartbeat;
mod heartbeat_script;
mod maintenance;
mod progress_writer;
mod queue_finder;
mod resources;

use tokio_util::sync::CancellationToken;

pub(super) use self::heartbeat::Heartbeat;
use super::execute::Executor;
use crate::telemetry::WorkerLoad;

/// Runs all background work until `stop`.
pub(super) async fn run(executor: &Executor, stop: &CancellationToken) {
    let keeping = async {
        tokio::join!(
            cancellation::watch(executor),
            claim_renewal::renew(executor),
            close_idle(executor),
            show_load(executor),
            maintenance::move_due(executor),
            maintenance::trim(executor),
            queue_finder::find(executor),
            progress_writer::write(executor),
        )
    };
    stop.run_until_cancelled(Box::pin(keeping)).await;
}

async fn close_idle(executor: &Executor) {
    loop {
        let name = executor.sessions.idled_out().await;
        tracing::info!(session = name, "session idled out");
        executor.handler.session_ended(&name).await;
    }
}

async fn show_load(executor: &Executor) {
    let mut watching = executor.status.subscribe();
    loop {
        let status = *watching.borrow_and_update();
        let (worker_type, jobs, sessions) = (&executor.config.worker_type, status.busy, status.sessions);
        WorkerLoad { worker_type, jobs, sessions }.emit();
        if watching.changed().await.is_err() {
            return;
        }
    }
}
