//! Workers on any platform, through its own command line or over HTTP: commands of the configuration, or a service,
//! list, start and stop them (`docs/command.md`, `docs/adr/0049-command-backend.md`,
//! `docs/adr/0068-command-over-http.md`). Owns no worker: it counts and changes those that the list names, whoever
//! started them.
//!
//! `poll` keeps the `registry` of each worker type in step with its list, so that observing reads what is known;
//! `launch` starts workers, `leave` drains and stops them, `by_number` does both where the platform has only a number.
//! `call` says what a `platform` is asked, in one of two forms: `programs` asks it through commands, of which `run` is
//! one, and `service` over HTTP. `listing` is what a platform says of its workers.

mod by_number;
mod call;
mod check;
mod launch;
mod leave;
mod listing;
#[cfg(not(feature = "command-url"))]
mod no_service;
mod platform;
mod poll;
mod pool;
mod programs;
mod registry;
mod run;
mod secret;
#[cfg(feature = "command-url")]
mod service;
mod spec;

#[cfg(not(feature = "command-url"))]
use no_service as service;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::pool::{CommandShared, TypePool};
use super::{
    BackendError, DrainControl, MayAct, OnChange, Pool, ScaleReport, ScaleRequest, ScalingBackend,
    leader_guard::LeaderGuard,
};
use crate::{
    config::Settings,
    model::{Clock, WorkerType},
};

pub use self::spec::CommandSpec;

/// Time between two checks, at the end, for workers that still drain.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Time after the drain timeout for the commands that stop the last workers.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// The backend of `orchestrator = "command"`. See the [module](self).
pub struct CommandBackend {
    pools: RwLock<BTreeMap<WorkerType, Arc<TypePool>>>,
    shared: Arc<CommandShared>,
}

impl CommandBackend {
    /// Begins to list the workers of `types`. Commands that fail are reported by the first `observe`.
    ///
    /// `on_change` is called from tasks of this backend when workers changed; it must not block.
    pub fn start(
        types: &BTreeMap<WorkerType, CommandSpec>,
        drain_control: Arc<dyn DrainControl>,
        on_change: OnChange,
        clock: Clock,
    ) -> Self {
        let shared = Arc::new(CommandShared {
            drain_control,
            on_change,
            clock,
            leader_guard: LeaderGuard::default(),
            client: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let pools = types.iter().map(|(name, spec)| (name.clone(), poll::begin(&shared, name.clone(), spec.clone())));
        Self { pools: RwLock::new(pools.collect()), shared }
    }

    fn pool(&self, worker_type: &WorkerType) -> Result<Arc<TypePool>, BackendError> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(worker_type).cloned().ok_or_else(|| {
            BackendError::permanent(format!(
                "worker type `{worker_type}` is unknown here; add `[worker_types.{worker_type}]`"
            ))
        })
    }

    fn all(&self) -> Vec<Arc<TypePool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    async fn drain(&self, pool: &Arc<TypePool>) {
        let within = pool.spec().drain_timeout;
        let request = ScaleRequest {
            worker_type: pool.worker_type.clone(),
            target: 0,
            retire: pool.registry.live(),
            drain_timeout: within,
        };
        if let Err(error) = scale(self.shared.clone(), pool.clone(), request).await {
            tracing::warn!(worker_type = %pool.worker_type, "workers could not be drained: {error}");
        }
        let deadline = Instant::now() + within + STOP_MARGIN;
        while pool.registry.count_leaving() > 0 && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

#[async_trait]
impl ScalingBackend for CommandBackend {
    fn name(&self) -> &'static str {
        "command"
    }

    fn act_only_while(&self, may_act: MayAct) {
        self.shared.leader_guard.set(may_act);
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let pool = self.pool(worker_type)?;
        pool.ensure_known().await?;
        Ok(pool.registry.pool(&pool.spec()))
    }

    /// Works in a task of its own, so that a caller that gives up leaves nothing half done.
    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let pool = self.pool(&request.worker_type)?;
        pool.ensure_known().await?;
        if self.shared.stop.is_cancelled() || pool.registry.is_closed() {
            return Err(BackendError::permanent(format!(
                "the scaler is stopping; `{}` is not scaled any more",
                request.worker_type
            )));
        }
        match self.shared.tasks.spawn(scale(self.shared.clone(), pool, request)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(BackendError::retryable(format!("the task that scales ended: {error}")).caused_by(error)),
        }
    }

    async fn reconfigure(&self, settings: &Settings) -> Result<(), BackendError> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        for (worker_type, spec) in CommandSpec::all(settings) {
            match pools.get(&worker_type) {
                Some(pool) => pool.set_spec(spec),
                None => drop(pools.insert(worker_type.clone(), poll::begin(&self.shared, worker_type, spec))),
            }
        }
        Ok(())
    }

    /// Leaves the workers running.
    async fn release(&self, worker_type: &WorkerType) {
        let released = self.pools.write().unwrap_or_else(PoisonError::into_inner).remove(worker_type);
        if let Some(pool) = released {
            pool.released.cancel();
        }
    }

    /// Leaves the workers running unless `drain` is set.
    async fn shutdown(&self, drain: bool) {
        if drain {
            join_all(self.all().iter().map(|pool| self.drain(pool))).await;
        }
        for pool in self.all() {
            pool.registry.close();
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// Carries out a request once the requests before it are done.
async fn scale(
    shared: Arc<CommandShared>,
    pool: Arc<TypePool>,
    request: ScaleRequest,
) -> Result<ScaleReport, BackendError> {
    let _turn = pool.turn.lock().await;
    let spec = pool.spec();
    if spec.by_number() {
        return by_number::scale(&shared, &pool, &spec, &request).await;
    }
    let left = leave::ask(&shared, &pool, &spec, &request.retire, request.drain_timeout).await;
    let (retired, failed) = match left {
        Ok(retired) => (retired, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut done = ScaleReport { started: Vec::new(), retired };
    let started = launch::start_more(&shared, &pool, &spec, request.target, &mut done).await;
    pool.list_now.notify_one();
    match failed.map_or(started, Err) {
        Ok(()) => Ok(done),
        Err(error) => Err(BackendError { done, ..error }),
    }
}
