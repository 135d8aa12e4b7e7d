//! Workers as containers of a Docker engine, which behave as if Compose had made them: its names, its labels, and where
//! there is a Compose service, its configuration (`docs/docker.md`).
//!
//! One task watches the engine (`watch`): each event is a hint to list, and a list is the truth, which is brought into
//! the registry of each worker type (`worker_registry`, `reconcile`). Observing reads the registry; an engine that
//! can't be asked makes them unreadable, not empty. Starts (`launch`) and drains (`drain`) are tasks of their own,
//! which finish whether or not anybody waits for them.

mod changes;
mod check;
mod container_template;
mod credentials;
mod drain;
mod endpoint;
mod engine;
mod error;
mod housekeeping;
mod inspection;
mod labels;
mod launch;
mod overlay;
mod pool;
mod reconcile;
mod resync;
mod self_container;
mod spec;
mod view;
mod watch;
mod worker_registry;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use secrecy::SecretString;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    container_template::ContainerTemplate, drain::Leaving, engine::Engine, launch::Launch, pool::TypePool,
    resync::Resync, self_container::SelfContainer, watch::Watcher, worker_registry::Ticket,
};
use super::{
    BackendError, ErrorKind, MayAct, OnChange, Pool, QuietWatch, ScaleReport, ScaleRequest, ScalingBackend,
    quiet::QuietWorkers,
};
use crate::{
    config::Settings,
    model::{Clock, WorkerId, WorkerType},
};

pub use self::{
    check::check,
    endpoint::{Endpoint, UnknownEndpoint},
    engine::Limits,
    spec::DockerSpec,
};

/// Containers of one worker type that are being started at the same time. An engine starts a few at once no slower than
/// one; more of them only make each one slower.
const PARALLEL_STARTS: usize = 8;
/// Beyond the last drain timeout, for removals.
const LAST_REMOVALS: Duration = Duration::from_secs(10);

/// Configuration of the backend.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the engine is.
    pub endpoint: Endpoint,
    /// How long its answers may take.
    pub limits: Limits,
    /// For `REDIS_URL`, where neither template nor settings say it.
    pub redis_url: SecretString,
    /// Compose project; if none is said, that of the scaler's own container.
    pub project: Option<String>,
    /// How often to list, whatever events say.
    pub sweep_interval: Duration,
}

/// The backend of `orchestrator = "docker"`. See the [module](self).
pub struct DockerBackend {
    shared: Arc<DockerShared>,
    /// Worker types that were released: if one comes back, it is remembered who was asked to leave.
    released: Mutex<Pools>,
}

type Pools = BTreeMap<WorkerType, Arc<TypePool>>;

/// State shared by all worker types.
struct DockerShared {
    engine: Engine,
    redis_url: SecretString,
    on_change: OnChange,
    quiet: QuietWorkers,
    clock: Clock,
    pools: RwLock<Arc<Pools>>,
    /// Found out once, by the watcher.
    self_container: OnceLock<SelfContainer>,
    sweep_interval: Mutex<Duration>,
    resync: Resync,
    /// The watcher, starts, and what is made or removed on the side.
    tasks: TaskTracker,
    drains: TaskTracker,
    stop: CancellationToken,
}

impl DockerShared {
    fn pools(&self) -> Arc<Pools> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_pools(&self, pools: Pools) {
        *self.pools.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pools);
    }

    fn sweep_interval(&self) -> Duration {
        *self.sweep_interval.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a container go, in a task of its own.
    fn drain(self: &Arc<Self>, pool: &Arc<TypePool>, leaving: Leaving) {
        let (shared, pool, stop) = (self.clone(), pool.clone(), self.stop.clone());
        self.drains.spawn(async move { stop.run_until_cancelled(drain::drain(shared, pool, leaving)).await });
    }

    /// Sends a container its stop signal once more, in a task of its own.
    fn ask_again(self: &Arc<Self>, pool: &Arc<TypePool>, container: String) {
        let (shared, signal, stop) = (self.clone(), pool.spec().stop.signal, self.stop.clone());
        self.drains.spawn(async move {
            stop.run_until_cancelled(drain::ask_again(&shared.engine, &container, signal)).await;
        });
    }
}

impl DockerBackend {
    /// Starts watching the engine, which may be away. Must be called on a runtime with I/O and time enabled.
    ///
    /// `on_change` is called from tasks of this backend whenever a pool has changed by itself; it must not block.
    ///
    /// # Errors
    /// If two worker types have the same Compose service: nobody could tell their containers apart. If the engine does
    /// not know a name in `host_config` or `config`.
    pub fn start(
        types: &BTreeMap<WorkerType, DockerSpec>,
        surroundings: Surroundings,
        on_change: OnChange,
        clock: Clock,
    ) -> Result<Self, BackendError> {
        let Surroundings { endpoint, limits, redis_url, project, sweep_interval } = surroundings;
        let make = |(worker_type, spec): (&WorkerType, &DockerSpec)| {
            (worker_type.clone(), Arc::new(TypePool::new(worker_type.clone(), spec.clone())))
        };
        let pools: Pools = types.iter().map(make).collect();
        check_specs(types)?;
        let shared = Arc::new(DockerShared {
            engine: Engine::new(endpoint, limits),
            redis_url,
            on_change,
            quiet: QuietWorkers::default(),
            clock,
            pools: RwLock::new(Arc::new(pools)),
            self_container: OnceLock::new(),
            sweep_interval: Mutex::new(sweep_interval),
            resync: Resync::default(),
            tasks: TaskTracker::new(),
            drains: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        shared.tasks.spawn(Watcher::new(shared.clone(), project).run());
        Ok(Self { shared, released: Mutex::default() })
    }

    fn pool(&self, worker_type: &WorkerType) -> Result<Arc<TypePool>, BackendError> {
        self.shared.pools().get(worker_type).cloned().ok_or_else(|| {
            BackendError::permanent(format!(
                "worker type `{worker_type}` is unknown here; add `[worker_types.{worker_type}]`"
            ))
        })
    }

    /// The registry, as far as it can be trusted: after a failure it is compared with the engine first.
    async fn certain(&self, pool: &TypePool) -> Result<(), BackendError> {
        let now = || self.shared.clock.now();
        if pool.is_unsure() || pool.registry.pool(now()).is_err() {
            self.shared.resync.wait().await;
            pool.registry.pool(now())?;
            pool.sure();
        }
        Ok(())
    }

    /// Starts the reserved workers, a few at a time. The task goes on if nobody waits for it any more.
    async fn launch(
        &self,
        pool: &Arc<TypePool>,
        template: Arc<container_template::ContainerTemplate>,
        tickets: Vec<Ticket>,
    ) -> Vec<Result<WorkerId, BackendError>> {
        let (shared, pool) = (self.shared.clone(), pool.clone());
        let starts = async move {
            let start = |ticket| {
                let launch = Launch { shared: shared.clone(), pool: pool.clone(), template: template.clone() };
                launch.run(ticket)
            };
            stream::iter(tickets).map(start).buffer_unordered(PARALLEL_STARTS).collect::<Vec<_>>().await
        };
        let outcome = self.shared.tasks.spawn(starts).await;
        outcome.unwrap_or_else(|error| {
            let ended = format!("starting workers ended early: {error}; please report it");
            vec![Err(BackendError::permanent(ended).caused_by(error))]
        })
    }
}

#[async_trait]
impl ScalingBackend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn watch_quiet(&self, watch: Arc<dyn QuietWatch>) {
        self.shared.quiet.set(watch);
    }

    fn act_only_while(&self, may_act: MayAct) {
        self.shared.engine.leader_guard.set(may_act);
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let pool = self.pool(worker_type)?;
        if pool.registry.is_blank() {
            // The first observation comes before the first list: not a failure worth logging.
            self.shared.resync.wait().await;
        }
        pool.registry.pool(self.shared.clock.now())
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let pool = self.pool(&request.worker_type)?;
        self.certain(&pool).await?;
        let mut done = ScaleReport::default();
        for (id, container) in pool.registry.retire(&request.retire) {
            // One without a container is drained as soon as it has been started.
            if let Some(container) = container {
                self.shared.drain(&pool, Leaving { id: id.clone(), container, within: request.drain_timeout });
            }
            done.retired.push(id);
        }
        if pool.registry.live() >= request.target {
            return Ok(done);
        }
        let Some(template) = pool.template() else { return Err(BackendError { done, ..pool.no_template() }) };
        if template.misses_redis(pool.spec().redis_url.resolve(&self.shared.redis_url)) {
            return Err(BackendError { done, ..no_redis(&pool.worker_type) });
        }
        let Some(tickets) = pool.registry.reserve(&template, pool.owner(), request.target, self.shared.clock.now())
        else {
            let message = format!("the scaler is stopping; no worker of `{}` is started any more", pool.worker_type);
            return Err(BackendError { done, ..BackendError::permanent(message) });
        };
        let wanted = tickets.len();
        let mut failures = Vec::new();
        for outcome in self.launch(&pool, template, tickets).await {
            match outcome {
                Ok(id) => done.started.push(id),
                Err(error) => failures.push(error),
            }
        }
        match summary(failures, wanted) {
            None => Ok(done),
            Some(error) => Err(BackendError { done, ..error }),
        }
    }

    fn ask_again(&self, worker_type: &WorkerType, ids: &[WorkerId]) {
        let Ok(pool) = self.pool(worker_type) else { return };
        for container in pool.registry.draining(ids) {
            self.shared.ask_again(&pool, container);
        }
    }

    async fn reconfigure(&self, settings: &Settings) -> Result<(), BackendError> {
        let specs = DockerSpec::all(settings);
        check_specs(&specs)?;
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pools = Pools::clone(&self.shared.pools());
        for (worker_type, spec) in specs {
            let known = pools.get(&worker_type).cloned().or_else(|| released.remove(&worker_type));
            let pool = match known.filter(|pool| pool.is_of(&spec)) {
                Some(pool) => {
                    pool.respec(spec, self.shared.self_container.get());
                    pool
                }
                None => Arc::new(TypePool::new(worker_type.clone(), spec)),
            };
            pools.insert(worker_type, pool);
        }
        self.shared.set_pools(pools);
        *self.shared.sweep_interval.lock().unwrap_or_else(PoisonError::into_inner) = settings.scaler.sweep_interval();
        self.shared.resync.ask();
        Ok(())
    }

    /// Its containers are left alone.
    async fn release(&self, worker_type: &WorkerType) {
        // Held from the first look to the last change: several may be released at the same time.
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pools = Pools::clone(&self.shared.pools());
        let Some(pool) = pools.remove(worker_type) else { return };
        self.shared.set_pools(pools);
        let why = format!("worker type `{worker_type}` was not looked after; its containers are not listed yet");
        let why = BackendError::retryable(why);
        pool.registry.lose_sight(why);
        released.insert(worker_type.clone(), pool);
    }

    /// With `drain`, all workers finish their jobs and leave first, and what was made in advance is removed; that takes
    /// as long as the slowest drain timeout at most. Otherwise they stay for the next scaler; a worker that has its
    /// stop signal goes on to finish its jobs and leaves.
    async fn shutdown(&self, drain: bool) {
        let pools = self.shared.pools();
        let spares: Vec<_> = pools.values().flat_map(|pool| pool.registry.close()).collect();
        if drain {
            for pool in pools.values() {
                for (id, container) in pool.registry.retire(&pool.registry.everybody()) {
                    if let Some(container) = container {
                        self.shared.drain(pool, Leaving { id, container, within: pool.spec().drain_timeout });
                    }
                }
            }
            for spare in spares {
                if let Err(error) = self.shared.engine.remove(&spare.container, true).await {
                    tracing::warn!(spare.container, "a container made in advance is left behind: {error}");
                }
            }
            self.shared.drains.close();
            // A worker that is never killed leaves when it is done, also without a scaler.
            let drained = self.shared.drains.wait();
            if pools.values().all(|pool| pool.spec().stop.hard_kill) {
                drained.await;
            } else {
                let longest = pools.values().map(|pool| pool.spec().drain_timeout).max().unwrap_or_default();
                let _ = tokio::time::timeout(longest.saturating_add(LAST_REMOVALS), drained).await;
            }
        }
        self.shared.stop.cancel();
        for tasks in [&self.shared.tasks, &self.shared.drains] {
            tasks.close();
            tasks.wait().await;
        }
    }
}

/// Failures in one, which says how many they are; permanent only if all are.
fn summary(failures: Vec<BackendError>, wanted: usize) -> Option<BackendError> {
    let count = failures.len();
    let temporary = failures.iter().position(|error| error.kind == ErrorKind::Retryable);
    let mut error = failures.into_iter().nth(temporary.unwrap_or_default())?;
    if wanted > 1 {
        error.message = format!("{count} of {wanted} workers could not be started: {}", error.message);
    }
    Some(error)
}

/// Two worker types must not share a service, and the engine must know what their settings say by its own names.
fn check_specs(types: &BTreeMap<WorkerType, DockerSpec>) -> Result<(), BackendError> {
    let mut owners = BTreeMap::new();
    for (worker_type, spec) in types {
        ContainerTemplate::check(worker_type, spec)?;
        if let Some(other) = owners.insert((&spec.settings.project, &spec.service), worker_type) {
            return Err(BackendError::permanent(format!(
                "worker types `{other}` and `{worker_type}` both have the Compose service `{}`; give one another \
                 `docker.service`",
                spec.service
            )));
        }
    }
    Ok(())
}

/// Why no worker is started that would look for Redis in its own container.
fn no_redis(worker_type: &WorkerType) -> BackendError {
    BackendError::permanent(format!(
        "a worker of `{worker_type}` would look for Redis in its own container, because the Redis URL names this machine \
         itself; set `worker_redis_url` to an address that containers reach, or `worker_types.{worker_type}.docker.networks \
         = [\"host\"]`"
    ))
}
