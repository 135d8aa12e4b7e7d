//! The actors, one for each worker type, across reloads. When the settings change, they continue under the new settings
//! with their memory and their work in progress. Actors of removed worker types finish first, and then their workers
//! are released.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::bail;
use futures_util::{FutureExt, future::join_all};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{app_shared::AppShared, queue_servers::SharedParts};
use crate::{
    backend::ScalingBackend,
    config::{Orchestrator, ScalingSettings, Settings, WorkerTypeSettings},
    model::{Source, WorkerType, snapshot::Change},
    scaler::{Actor, ActorContext, Consequence, Expected, Shared, SnapshotCell, SuspendedActor, Tuning, run_actor},
    signal::Signals,
};

/// Suspended actors of an earlier set.
pub(super) type Resting = BTreeMap<WorkerType, SuspendedActor>;

/// See the [module](self).
pub(super) struct ActorSet {
    /// A suspended actor is the task's result; an actor that has finished returns `None`.
    tasks: JoinSet<Option<SuspendedActor>>,
    rest: CancellationToken,
    shown: Vec<SnapshotCell>,
}

/// What a new set takes over from an earlier one.
#[derive(Default)]
pub(super) struct Past<'a> {
    /// Suspended actors of the earlier set.
    pub(super) resting: Resting,
    /// Stored last changes of worker types without a suspended actor.
    pub(super) remembered: HashMap<WorkerType, Change>,
    /// Whether a worker type is new, or its settings differ from before. `None` at the start of the autoscaler.
    pub(super) changed: Option<&'a (dyn Fn(&str) -> bool + Sync)>,
}

impl ActorSet {
    /// Starts one actor for each enabled worker type, in that order.
    pub(super) fn start(settings: &Settings, shared: &SharedParts, app_shared: &AppShared, past: Past<'_>) -> Self {
        let AppShared { backend, budget, .. } = app_shared;
        let Past { mut resting, remembered, changed } = past;
        budget.configure(settings);
        let mut actors = Self { tasks: JoinSet::new(), rest: CancellationToken::new(), shown: Vec::new() };
        let mut scaling = SharedScaling::default();
        let consequence = match settings.orchestrator {
            _ if settings.scaler.dry_run => Consequence::Show,
            Orchestrator::Keda => Consequence::Recommend,
            _ => Consequence::Scale,
        };
        for (name, of) in settings.enabled() {
            let worker_type = WorkerType::new(name);
            let (index, shared) = shared.of(&worker_type).expect("the directories are those of the settings");
            let parked = resting.remove(&worker_type);
            let context = context(index, &worker_type, of, shared);
            let tuning = Tuning {
                queue: of.queue_title(name),
                settings: scaling.of(&of.scaling),
                debounce: settings.scaler.debounce(),
                changed: changed.is_some_and(|changed| changed(name)),
            };
            match parked {
                Some(parked) => actors.resume(parked, context, tuning),
                None => actors.spawn(context, tuning, consequence, remembered.get(&worker_type).copied()),
            }
        }
        for parked in resting.into_values() {
            let (backend, rest) = (backend.clone(), actors.rest.clone());
            actors.tasks.spawn(leave(parked, backend, rest));
        }
        actors
    }

    fn resume(&mut self, parked: SuspendedActor, context: ActorContext, tuning: Tuning) {
        self.shown.push(parked.snapshot_cell());
        let run = parked.resume(context, tuning, self.rest.clone());
        self.tasks.spawn(run.map(Some));
    }

    fn spawn(&mut self, context: ActorContext, tuning: Tuning, consequence: Consequence, last: Option<Change>) {
        let (worker_type, now) = (context.worker_type.clone(), context.shared.clock.now());
        let Tuning { queue, settings, debounce, changed } = tuning;
        let mut actor = Actor::new(worker_type, &queue, settings, debounce, consequence, last, now);
        actor.share_budget(context.shared.budget.clone());
        if changed {
            actor.note(Signals::one(Source::Reload, Instant::now()));
        }
        let shown = SnapshotCell::new(actor.snapshot().clone());
        self.shown.push(shown.clone());
        let run = run_actor(context, actor, shown, self.rest.clone());
        self.tasks.spawn(run.map(Some));
    }

    /// Returns the actors' snapshot cells, in the order of the worker types.
    pub(super) fn shown(&self) -> Vec<SnapshotCell> {
        self.shown.clone()
    }

    /// Waits until an actor has ended by itself; `None` if there is no actor. Cancel safe.
    pub(super) async fn next_ended(&mut self) -> Option<Result<(), JoinError>> {
        loop {
            match self.tasks.join_next().await? {
                // An actor of a removed worker type ends as planned.
                Ok(None) => {}
                ended => return Some(ended.map(drop)),
            }
        }
    }

    /// Suspends all actors. Their work in progress is kept, and continues with them.
    ///
    /// # Errors
    /// If an actor has failed.
    pub(super) async fn rest(&mut self) -> anyhow::Result<Resting> {
        self.rest.cancel();
        let mut resting = Resting::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Some(parked)) => drop(resting.insert(parked.worker_type().clone(), parked)),
                Ok(None) => {}
                Err(error) => bail!("an actor failed: {error}"),
            }
        }
        Ok(resting)
    }

    /// Ends all actors, after they have finished their work in progress.
    pub(super) async fn finish(&mut self) {
        self.rest.cancel();
        let never = CancellationToken::new();
        let mut unfinished = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            unfinished.extend(ended.ok().flatten().filter(SuspendedActor::is_unfinished));
        }
        join_all(unfinished.into_iter().map(|parked| parked.finish(&never))).await;
    }
}

/// Shares one copy of equal settings between neighbours, as most of ten thousand worker types are scaled alike.
#[derive(Default)]
struct SharedScaling(Option<Arc<ScalingSettings>>);

impl SharedScaling {
    fn of(&mut self, scaling: &ScalingSettings) -> Arc<ScalingSettings> {
        let last = self.0.take().filter(|last| **last == *scaling);
        self.0.insert(last.unwrap_or_else(|| Arc::new(scaling.clone()))).clone()
    }
}

fn context(index: u32, worker_type: &WorkerType, of: &WorkerTypeSettings, shared: &Arc<Shared>) -> ActorContext {
    ActorContext {
        index,
        worker_type: worker_type.clone(),
        expected: Expected {
            start_grace: of.scaling.start_grace(),
            heartbeats: of.writes_heartbeats(),
            is_foreign: of.framework.is_some(),
            ends_when_done: of.ends_when_done(),
            may_miss_stop_signal: of.stop_policy().may_be_missed,
            heartbeat_lapse: 3 * of.worker.heartbeat_interval(),
            claim: of.jobs.claim(),
        },
        shared: shared.clone(),
    }
}

/// Finishes the actor of a removed worker type and releases its workers. If it is suspended before, it is returned,
/// because the worker type may be back.
async fn leave(
    parked: SuspendedActor,
    backend: Arc<dyn ScalingBackend>,
    rest: CancellationToken,
) -> Option<SuspendedActor> {
    let worker_type = parked.worker_type().clone();
    let left = parked.finish(&rest).await;
    if left.is_none() {
        backend.release(&worker_type).await;
    }
    left
}
