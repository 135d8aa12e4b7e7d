//! Workers as child processes of the scaler on this machine. Owns what it started and adopts nothing else; since a
//! process can't be handed over, all of them end with the scaler, however it ends (`docs/adr/0003-process-guard.md`).
//!
//! Each worker has a process group of its own, a supervisor task (`worker`) that alone signals and reaps it, and a line
//! in the registry of its type (`registry`), which is all that observing reads. Draining means SIGTERM to the worker
//! itself, or the steps of its framework (`departure`); when its time is up, SIGKILL to its whole group. When the
//! leader of a group ends, the rest of the group is killed.

mod check;
mod departure;
mod helpers;
mod output;
mod registry;
mod spec;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use self::{
    registry::{LeaveWithin, ProcessRegistry, Reservation},
    worker::{Started, Supervisor},
};
use super::{BackendError, OnChange, Pool, QuietWatch, ScaleReport, ScaleRequest, ScalingBackend, quiet::QuietWorkers};
use crate::{
    config::Settings,
    guard::Guard,
    model::{Clock, WorkerId, WorkerType},
};

pub use self::{
    check::check,
    spec::{ProcessSpec, Surroundings},
};

/// The backend of `orchestrator = "process"`. See the [module](self).
pub struct ProcessBackend {
    /// Those that were released stay: their workers may be leaving, and they may come back.
    pools: RwLock<BTreeMap<WorkerType, Arc<TypePool>>>,
    shared: Arc<ProcessShared>,
    /// The task that keeps the guard running.
    guard_task: TaskTracker,
}

/// One worker type.
struct TypePool {
    /// For workers that are started from now on.
    spec: RwLock<Arc<ProcessSpec>>,
    registry: ProcessRegistry,
}

impl TypePool {
    fn new(spec: ProcessSpec) -> Arc<Self> {
        Arc::new(Self { spec: RwLock::new(Arc::new(spec)), registry: ProcessRegistry::default() })
    }

    fn spec(&self) -> Arc<ProcessSpec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks everybody to finish and leave.
    fn empty(&self) {
        let all: Vec<WorkerId> = self.registry.pool().instances.into_iter().map(|instance| instance.id).collect();
        self.registry.retire(&all, self.spec().drain_timeout);
    }
}

/// State shared by all worker types.
struct ProcessShared {
    surroundings: Surroundings,
    guard: Guard,
    on_change: OnChange,
    quiet: QuietWorkers,
    clock: Clock,
    /// Supervisors, and those who read what workers print.
    workers: TaskTracker,
}

impl ProcessBackend {
    /// Starts the guard, and no worker yet. Must be called on a runtime with I/O and time enabled.
    ///
    /// `on_change` is called from a task of this backend for every worker that ends; it must not block.
    pub async fn start(
        types: &BTreeMap<WorkerType, ProcessSpec>,
        mut surroundings: Surroundings,
        on_change: OnChange,
        clock: Clock,
    ) -> Result<Self, BackendError> {
        // Workers may have another directory, and theirs is where a relative path would be looked up.
        surroundings.swarm = std::path::absolute(&surroundings.swarm).unwrap_or(surroundings.swarm);
        let guard_task = TaskTracker::new();
        let guard = Guard::start(surroundings.swarm.clone(), &guard_task).await.map_err(|error| {
            BackendError::permanent(format!(
                "no process guard, without which workers could outlive the scaler: {error}"
            ))
            .caused_by(error)
        })?;
        let pool =
            |(worker_type, spec): (&WorkerType, &ProcessSpec)| (worker_type.clone(), TypePool::new(spec.clone()));
        Ok(Self {
            pools: RwLock::new(types.iter().map(pool).collect()),
            shared: Arc::new(ProcessShared {
                surroundings,
                guard,
                on_change,
                quiet: QuietWorkers::default(),
                clock,
                workers: TaskTracker::new(),
            }),
            guard_task,
        })
    }

    fn pools(&self) -> Vec<Arc<TypePool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn pool(&self, worker_type: &WorkerType) -> Result<Arc<TypePool>, BackendError> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(worker_type).cloned().ok_or_else(|| {
            BackendError::permanent(format!(
                "worker type `{worker_type}` is unknown here; add `[worker_types.{worker_type}]`"
            ))
        })
    }

    /// Starts the worker that was reserved as `id`. The token keeps a shutdown waiting until its supervisor runs.
    fn launch(
        &self,
        worker_type: &WorkerType,
        pool: &Arc<TypePool>,
        id: &WorkerId,
        stop_requests: watch::Receiver<LeaveWithin>,
        _token: TaskTrackerToken,
    ) -> Result<(), BackendError> {
        let surroundings = &self.shared.surroundings;
        let spec = pool.spec();
        let command = surroundings.command(&spec, worker_type, id)?;
        let started =
            Started::spawn(command).map_err(|error| spec::spawn_error(&surroundings.swarm, worker_type, error))?;
        let supervisor = Supervisor {
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(pool),
            worker_type: worker_type.clone(),
            id: id.clone(),
            drain_timeout: spec.drain_timeout,
            stop: spec.stop,
            stop_requests,
        };
        self.shared.workers.spawn(supervisor.run(started));
        Ok(())
    }
}

#[async_trait]
impl ScalingBackend for ProcessBackend {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        Ok(self.pool(worker_type)?.registry.pool())
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let worker_type = &request.worker_type;
        let pool = self.pool(worker_type)?;
        let retired = pool.registry.retire(&request.retire, request.drain_timeout);
        let mut done = ScaleReport { started: Vec::new(), retired };
        loop {
            let token = self.shared.workers.token();
            let outcome = match pool.registry.reserve(worker_type, request.target, self.shared.clock.now()) {
                Reservation::Enough => return Ok(done),
                Reservation::Closed => Err(BackendError::permanent(format!(
                    "the scaler is stopping; no worker of `{worker_type}` is started any more"
                ))),
                Reservation::Start(id, stop_requests) => {
                    match self.launch(worker_type, &pool, &id, stop_requests, token) {
                        Ok(()) => Ok(id),
                        Err(error) => {
                            pool.registry.remove(&id);
                            Err(error)
                        }
                    }
                }
            };
            match outcome {
                Ok(id) => done.started.push(id),
                Err(error) => return Err(BackendError { done, ..error }),
            }
            // A start takes about a millisecond: let other tasks of this thread have a turn.
            tokio::task::yield_now().await;
        }
    }

    fn ask_again(&self, worker_type: &WorkerType, ids: &[WorkerId]) {
        if let Ok(pool) = self.pool(worker_type) {
            pool.registry.ask_again(ids);
        }
    }

    fn watch_quiet(&self, watch: Arc<dyn QuietWatch>) {
        self.shared.quiet.set(watch);
    }

    /// The leader starts processes of its own: these here finish their jobs and leave.
    async fn stand_down(&self) {
        self.pools().iter().for_each(|pool| pool.empty());
    }

    async fn reconfigure(&self, settings: &Settings) -> Result<(), BackendError> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        for (name, of) in settings.enabled() {
            let spec = ProcessSpec::from_settings(name, of);
            match pools.get(&WorkerType::new(name)) {
                Some(pool) => *pool.spec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spec),
                None => drop(pools.insert(WorkerType::new(name), TypePool::new(spec))),
            }
        }
        Ok(())
    }

    /// Nobody else could run these: they finish their jobs and leave.
    async fn release(&self, worker_type: &WorkerType) {
        if let Ok(pool) = self.pool(worker_type) {
            pool.empty();
        }
    }

    /// Always drains: no process may outlive the scaler. Takes as long as the slowest drain timeout at most.
    async fn shutdown(&self, _drain: bool) {
        for pool in self.pools() {
            pool.registry.close(pool.spec().drain_timeout);
        }
        self.shared.workers.close();
        self.shared.workers.wait().await;
        self.shared.guard.close();
        self.guard_task.close();
        self.guard_task.wait().await;
    }
}
