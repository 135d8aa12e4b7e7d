//! The effects of an actor: one observation, or one change of the pool.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ActorContext, Looked, Outcome, RememberedHeartbeats};
use crate::{
    backend::{BackendError, ErrorKind, Instance, ScaleRequest},
    model::keys,
    probe::{Answer, Request, WorkerKeys},
    scaler::remembered_heartbeats::Recalled,
    signal::Signals,
    telemetry::{BackendCall, BackendCalled, BackendFailure, FailureKind},
};

/// Observes the pool and the queue once, and reads the heartbeats that are not `remembered`. The subscription comes
/// first, the probe second.
pub(super) async fn observe(context: Arc<ActorContext>, mut remembered: RememberedHeartbeats) -> Outcome {
    context.shared.listener.unmute(context.index, context.shared.patience).await;
    let pool = called(&context, BackendCall::Observe, || context.shared.backend.observe(&context.worker_type)).await;
    if pool.is_ok()
        && let Some(lasted) = context.shared.outages.answered(&context.worker_type)
    {
        tracing::info!(
            backend = context.shared.backend.name(),
            lasted_seconds = lasted.as_secs(),
            "backend answers again"
        );
    }
    let instances = pool.as_ref().map_or(&[][..], |pool| pool.instances.as_slice());
    // The workers of a framework write none, and its server is not asked for keys that are not its own.
    let without_heartbeats = context.expected.is_foreign || context.shared.is_own_server;
    let heard = if without_heartbeats { &[][..] } else { instances };
    let mut asked_at = Instant::now();
    let mut recalled = remembered.recall(heard, context.expected.heartbeat_lifetime(), asked_at);
    let mut answer = ask(&context, heard, &recalled).await;
    let is_doubtful = recalled.iter().any(|recalled| matches!(recalled, Recalled::IfItExists(_)));
    if is_doubtful && !answer.all_exist && answer.heartbeats.known().is_some() {
        // Which one is gone only a reading of each tells.
        for recalled in &mut recalled {
            *recalled = recalled.without_existence();
        }
        asked_at = Instant::now();
        answer = ask(&context, heard, &recalled).await;
    }
    let is_partial = remembered.complete(&mut answer, heard, recalled, asked_at);
    Outcome::Observed(Box::new(Looked { pool, answer, is_partial, remembered }))
}

/// Asks for the queue, and for the heartbeats of these workers that are not remembered.
async fn ask(context: &ActorContext, workers: &[Instance], recalled: &[Recalled]) -> Answer {
    let mut keys = WorkerKeys::default();
    for (instance, recalled) in workers.iter().zip(recalled) {
        let keys = match recalled {
            Recalled::All(_) => continue,
            Recalled::IfItExists(_) => &mut keys.existing,
            Recalled::Nothing => &mut keys.heartbeats,
        };
        keys.push(keys::heartbeat(&context.worker_type, &instance.id));
    }
    context.shared.prober.ask(Request { index: context.index, workers: keys }).await
}

/// Makes one write. Checks here whether the write is allowed, with nothing in between that takes time.
pub(super) async fn scale(context: Arc<ActorContext>, request: ScaleRequest, signals: Signals) -> Outcome {
    let Some(permit) = context.shared.leadership.permit() else { return Outcome::NotScaled };
    let outcome = called(&context, BackendCall::Scale, || context.shared.backend.scale(request)).await;
    Outcome::Scaled { outcome, signals, token: permit.token }
}

/// Calls the backend and reports the result.
async fn called<T, F: Future<Output = Result<T, BackendError>>>(
    context: &ActorContext,
    call: BackendCall,
    make: impl FnOnce() -> F,
) -> Result<T, BackendError> {
    let ActorContext { worker_type, shared, .. } = context;
    let started = Instant::now();
    let result = make().await;
    let failure = result.as_ref().err().map(|error| BackendFailure {
        kind: match error.kind {
            ErrorKind::Retryable => FailureKind::Retryable,
            ErrorKind::Permanent => FailureKind::Permanent,
        },
        error: &error.message,
    });
    // Every failed change is news; failed observations are news once per outage.
    let news = match &result {
        Err(error) if call == BackendCall::Observe => shared.outages.failed(worker_type, &error.message),
        _ => true,
    };
    let (backend, elapsed) = (shared.backend.name(), started.elapsed());
    BackendCalled { backend, call, worker_type, elapsed, failure, news }.emit();
    result
}
