//! Workers as machines of Fly.io, by its Machines API. Owns no machine: it counts and changes those of a process group,
//! whoever made them, and respects what others do to them. A worker's id is its machine's id, which the worker finds in
//! `FLY_MACHINE_ID` (`docs/adr/0014-fly-machines.md`, `docs/fly.md`).
//!
//! `watch` keeps the `registry` in step with one list for each app, so that observing reads what is known already;
//! `launch` starts and makes machines, `await_state` waits for them and tidies up; `api` is the wire, within the limits
//! of `rate_limit`.

mod api;
mod await_state;
mod check;
mod failure;
mod group;
mod launch;
mod machine;
mod rate_limit;
mod registry;
mod template;
mod volumes;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    api::Api,
    group::{App, ByName, FlyShared, Group, Groups, groups},
    watch::watch,
};
use super::{BackendError, MayAct, OnChange, Pool, ScaleReport, ScaleRequest, ScalingBackend};
use crate::{
    config::Settings,
    model::{Clock, WorkerId, WorkerType},
};

pub use self::{api::Access, group::FlySpec, rate_limit::RateLimit};

/// Longest wait for the first list of an app before its machines count as not known.
const FIRST_LIST: Duration = Duration::from_secs(10);
/// How often to look whether machines that drain at the end are gone.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The backend of `orchestrator = "fly"`. See the [module](self).
pub struct FlyBackend {
    groups: RwLock<Arc<Groups>>,
    /// Worker types that were released: if one comes back, it is remembered who was asked to leave.
    released: Mutex<Groups>,
    /// The app that the scaler itself runs in, if any: where nothing else is said, also that of the workers.
    own_app: Option<String>,
    shared: Arc<FlyShared>,
}

impl FlyBackend {
    /// Begins to watch the apps of `types`, every `poll`. Whether they can be reached shows when they are observed.
    ///
    /// `on_change` is called from tasks of this backend when machines changed; it must not block.
    ///
    /// # Errors
    /// No token, an address that is not a URL, or two worker types in one process group.
    pub fn start(
        types: &BTreeMap<WorkerType, FlySpec>,
        access: &Access,
        poll: Duration,
        on_change: OnChange,
        clock: Clock,
    ) -> Result<Self, BackendError> {
        let made = groups(types.clone(), &Groups::new())?;
        let shared = Arc::new(FlyShared {
            api: Api::new(access)?,
            on_change,
            clock,
            poll,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let backend = Self { groups: RwLock::default(), released: Mutex::default(), own_app: None, shared };
        backend.look_after(made);
        Ok(backend)
    }

    /// For worker types that come later and name no app.
    #[must_use]
    pub fn in_app(self, own_app: Option<String>) -> Self {
        Self { own_app, ..self }
    }

    /// From now on these are looked after, and no others. Each app is watched by one task.
    fn look_after(&self, groups: Groups) {
        let groups = Arc::new(groups);
        let before =
            std::mem::replace(&mut *self.groups.write().unwrap_or_else(PoisonError::into_inner), groups.clone());
        let mut apps: BTreeMap<String, (Arc<App>, ByName)> = BTreeMap::new();
        for group in groups.values() {
            let (_, of_app) =
                apps.entry(group.app.name.clone()).or_insert_with(|| (group.app.clone(), ByName::default()));
            of_app.insert(group.name.clone(), group.clone());
        }
        for group in before.values().filter(|group| !apps.contains_key(&group.app.name)) {
            group.app.left.cancel();
        }
        let is_watched = |app: &Arc<App>| before.values().any(|group| Arc::ptr_eq(&group.app, app));
        for (app, of_app) in apps.into_values() {
            app.look_after(of_app);
            if !is_watched(&app) {
                self.shared.tasks.spawn(watch(self.shared.clone(), app));
            }
        }
    }

    fn groups(&self) -> Arc<Groups> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn group(&self, worker_type: &WorkerType) -> Result<Arc<Group>, BackendError> {
        self.groups().get(worker_type).cloned().ok_or_else(|| {
            BackendError::permanent(format!(
                "worker type `{worker_type}` is unknown here; add `[worker_types.{worker_type}]`"
            ))
        })
    }

    /// Waits for the first list of the group's app; then says at once whether its registry can be relied on.
    async fn known(&self, group: &Group) -> Result<(), BackendError> {
        let mut listed = group.app.listed.subscribe();
        let first = listed.wait_for(|listed| group.registry.is_known() || listed.failure.is_some());
        let listed = match tokio::time::timeout(FIRST_LIST, first).await {
            Ok(Ok(listed)) => listed.clone(),
            _ => group.app.listed.borrow().clone(),
        };
        listed.verdict(&group.app.name, self.shared.poll, Instant::now())?;
        if group.registry.is_known() {
            return Ok(());
        }
        Err(BackendError::retryable(format!("the machines of process group `{}` are not listed yet", group.name)))
    }

    async fn drain(&self, group: &Arc<Group>) {
        let (up, _) = group.registry.status();
        let within = group.spec().drain_timeout;
        let (_, failed) = retire(&self.shared, group, &up, within).await;
        if let Some(error) = failed {
            tracing::warn!(worker_type = %group.worker_type, "not all machines could be drained: {error}");
        }
        let deadline = Instant::now() + within;
        while group.registry.status().1 > 0 && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

#[async_trait]
impl ScalingBackend for FlyBackend {
    fn name(&self) -> &'static str {
        "fly"
    }

    fn act_only_while(&self, may_act: MayAct) {
        self.shared.api.leader_guard.set(may_act);
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let group = self.group(worker_type)?;
        self.known(&group).await?;
        Ok(group.registry.pool())
    }

    /// The work is done in a task of its own: who loses patience leaves nothing half done.
    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let group = self.group(&request.worker_type)?;
        self.known(&group).await?;
        if self.shared.stop.is_cancelled() {
            return Err(BackendError::permanent(format!(
                "the scaler is stopping; `{}` is not scaled any more",
                request.worker_type
            )));
        }
        let work = scale(self.shared.clone(), group, request);
        match self.shared.tasks.spawn(work).await {
            Ok(outcome) => outcome,
            Err(error) => Err(BackendError::retryable(format!("the task that scales ended: {error}")).caused_by(error)),
        }
    }

    async fn reconfigure(&self, settings: &Settings) -> Result<(), BackendError> {
        let specs = FlySpec::all(settings, self.own_app.as_deref())?;
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.groups();
        let mut known = released.clone();
        known.extend(present.iter().map(|(worker_type, group)| (worker_type.clone(), group.clone())));
        let mut groups = groups(specs, &known)?;
        released.retain(|worker_type, _| !groups.contains_key(worker_type));
        for (worker_type, group) in &*present {
            // Until it is released.
            groups.entry(worker_type.clone()).or_insert_with(|| group.clone());
        }
        self.look_after(groups);
        Ok(())
    }

    /// Its machines are left alone.
    async fn release(&self, worker_type: &WorkerType) {
        // Held from the first look to the last change: several may be released at the same time.
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let mut groups = Groups::clone(&self.groups());
        let Some(group) = groups.remove(worker_type) else { return };
        self.look_after(groups);
        group.registry.lose_sight();
        released.insert(worker_type.clone(), group);
    }

    /// Machines go on without the scaler, unless they are to be drained.
    async fn shutdown(&self, drain: bool) {
        if drain {
            join_all(self.groups().values().map(|group| self.drain(group))).await;
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// Makes a request true, when those before it are done with.
async fn scale(shared: Arc<FlyShared>, group: Arc<Group>, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
    let _turn = group.turn.lock().await;
    let (retired, failed) = retire(&shared, &group, &request.retire, request.drain_timeout).await;
    let mut done = ScaleReport { started: Vec::new(), retired };
    let target = usize::try_from(request.target).unwrap_or(usize::MAX);
    let started = launch::start_more(&shared, &group, target, &mut done).await;
    group.app.look.notify_one();
    match failed.map_or(started, Err) {
        Ok(()) => Ok(done),
        Err(error) => Err(BackendError { done, ..error }),
    }
}

/// Asks machines to finish and leave. Returns those that were asked, and what went wrong with others.
async fn retire(
    shared: &Arc<FlyShared>,
    group: &Arc<Group>,
    ids: &[WorkerId],
    within: Duration,
) -> (Vec<WorkerId>, Option<BackendError>) {
    let app = group.app.name.as_str();
    let machines = group.registry.retire(ids, within, shared.clock.now());
    let signal = group.spec().signal;
    let stops = machines.iter().map(|machine| shared.api.stop(app, &machine.id, signal, within));
    let (mut retired, mut failed) = (Vec::new(), None);
    for (machine, outcome) in machines.iter().zip(join_all(stops).await) {
        match outcome {
            Ok(()) => {
                retired.push(WorkerId::new(machine.id.as_str()));
                await_state::await_stop(shared, group, machine, within);
            }
            Err(failure) if failure.is_gone() => group.registry.forget(&machine.id, shared.clock.now()),
            Err(failure) => {
                group.registry.stays(&machine.id);
                failed = Some(failure.into_error(&format!("stopping machine {}", machine.id), app));
            }
        }
    }
    (retired, failed)
}
