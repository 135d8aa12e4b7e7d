//! Workers as child processes of the scaler on this machine. Owns what it started and adopts nothing else; since a
//! process can't be handed over, all of them end with the scaler, however it ends (`docs/adr/0003-process-guard.md`).
//!
//! Each worker has a process group of its own, a supervisor task (`worker`) that alone signals and reaps it, and a
//! line in the books of its type (`books`), which is all that observing reads. Draining means SIGTERM to the worker
//! itself; when its time is up, SIGKILL to its whole group. What is left of a group whose leader has ended is killed.

mod books;
mod check;
mod output;
mod spec;
mod worker;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use self::{
    books::{Books, LeaveWithin, Reservation},
    worker::{Started, Supervisor},
};
use super::{BackendError, ErrorKind, OnChange, Pool, ScaleReport, ScaleRequest, ScalingBackend};
use crate::{
    guard::Guard,
    model::{Clock, WorkerId, WorkerType},
};

pub use self::{
    check::check,
    spec::{ProcessSpec, Surroundings},
};

/// The backend of `orchestrator = "process"`. See the [module](self).
pub struct ProcessBackend {
    pools: BTreeMap<WorkerType, Arc<TypePool>>,
    shared: Arc<Shared>,
    /// The task that keeps the guard running.
    keeper: TaskTracker,
}

/// One worker type.
struct TypePool {
    spec: ProcessSpec,
    books: Books,
}

/// What all worker types share.
struct Shared {
    surroundings: Surroundings,
    guard: Guard,
    on_change: OnChange,
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
        let keeper = TaskTracker::new();
        let guard = Guard::start(surroundings.swarm.clone(), &keeper).await.map_err(|error| BackendError {
            kind: ErrorKind::Permanent,
            message: format!("no process guard, without which workers could outlive the scaler: {error}"),
            done: ScaleReport::default(),
        })?;
        let pool = |spec: &ProcessSpec| Arc::new(TypePool { spec: spec.clone(), books: Books::default() });
        Ok(Self {
            pools: types.iter().map(|(worker_type, spec)| (worker_type.clone(), pool(spec))).collect(),
            shared: Arc::new(Shared { surroundings, guard, on_change, clock, workers: TaskTracker::new() }),
            keeper,
        })
    }

    fn pool(&self, worker_type: &WorkerType) -> Result<&Arc<TypePool>, BackendError> {
        self.pools.get(worker_type).ok_or_else(|| {
            spec::permanent(format!("worker type `{worker_type}` is unknown here; add `[worker_types.{worker_type}]`"))
        })
    }

    /// Starts the worker that was reserved as `id`. The token keeps a shutdown waiting until its supervisor runs.
    fn launch(
        &self,
        worker_type: &WorkerType,
        pool: &Arc<TypePool>,
        id: &WorkerId,
        orders: watch::Receiver<LeaveWithin>,
        _token: TaskTrackerToken,
    ) -> Result<(), BackendError> {
        let surroundings = &self.shared.surroundings;
        let command = surroundings.command(&pool.spec, worker_type, id)?;
        let started =
            Started::spawn(command).map_err(|error| spec::spawn_error(&surroundings.swarm, worker_type, &error))?;
        let supervisor = Supervisor {
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(pool),
            worker_type: worker_type.clone(),
            id: id.clone(),
            orders,
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
        Ok(self.pool(worker_type)?.books.pool())
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let worker_type = &request.worker_type;
        let pool = self.pool(worker_type)?;
        let retired = pool.books.retire(&request.retire, request.drain_timeout);
        let mut done = ScaleReport { started: Vec::new(), retired };
        loop {
            let token = self.shared.workers.token();
            let outcome = match pool.books.reserve(worker_type, request.target, self.shared.clock.now()) {
                Reservation::Enough => return Ok(done),
                Reservation::Closed => Err(spec::permanent(format!(
                    "the scaler is stopping; no worker of `{worker_type}` is started any more"
                ))),
                Reservation::Start(id, orders) => match self.launch(worker_type, pool, &id, orders, token) {
                    Ok(()) => Ok(id),
                    Err(error) => {
                        pool.books.strike(&id);
                        Err(error)
                    }
                },
            };
            match outcome {
                Ok(id) => done.started.push(id),
                Err(error) => return Err(BackendError { done, ..error }),
            }
            // A start takes about a millisecond: let other tasks of this thread have a turn.
            tokio::task::yield_now().await;
        }
    }

    /// The leader starts processes of its own: these here finish their jobs and leave.
    async fn stand_down(&self) {
        for pool in self.pools.values() {
            let all: Vec<WorkerId> = pool.books.pool().instances.into_iter().map(|instance| instance.id).collect();
            pool.books.retire(&all, pool.spec.drain_timeout);
        }
    }

    /// Always drains: no process may outlive the scaler. Takes as long as the slowest drain timeout at most.
    async fn shutdown(&self, _drain: bool) {
        for pool in self.pools.values() {
            pool.books.close(pool.spec.drain_timeout);
        }
        self.shared.workers.close();
        self.shared.workers.wait().await;
        self.shared.guard.close();
        self.keeper.close();
        self.keeper.wait().await;
    }
}
