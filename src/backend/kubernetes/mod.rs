//! Workers as pods: scales a Deployment or StatefulSet through its `scale` subresource, or makes a Job for each worker,
//! and knows the pools from watches, so that observing costs no request.
//!
//! Two watches for all worker types together (targets, pods) fill the `store`, and a third one for Jobs; they are also
//! signals. One `reconciler` task for each worker type writes. Owns the count, the deletion costs of pods, and the Jobs
//! that it made; must not touch a target in any other way, nor scale one that another autoscaler scales too. See
//! `docs/kubernetes.md`.

mod batch_job;
mod check;
mod cluster;
mod conflicts;
mod deletion_order;
mod event_recorder;
mod failure;
mod job_pool;
mod lease;
mod pod_status;
mod pool;
mod reconciler;
mod rejections;
mod rights;
mod rollout;
mod spec;
mod store;
mod strategy;
mod throttle;
mod type_state;
mod units;
mod view;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    check::check,
    failure::Right,
    lease::KubernetesLease,
    rights::needed,
    spec::{KubernetesSpec, TargetSpec},
};
use self::{
    cluster::{CALL_TIMEOUT, Cluster},
    conflicts::Conflicts,
    event_recorder::EventRecorder,
    reconciler::{ReconcileCommand, Reconciler},
    store::{Store, Watched},
};
use super::{
    BackendError, DrainControl, ErrorKind, MayAct, OnChange, Pool, ScaleReport, ScaleRequest, ScalingBackend,
    leader_guard::LeaderGuard,
};
use crate::{
    config::Settings,
    model::{Clock, WorkerType},
};

/// Commands that wait for a reconciler. Its actor gives one at a time, and the shutdown one more.
const COMMANDS: usize = 2;

/// How much longer than the slowest worker's drain timeout a draining shutdown waits.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);

/// What the tasks of this backend share.
struct KubernetesShared {
    cluster: Cluster,
    store: Store,
    conflicts: Conflicts,
    event_recorder: EventRecorder,
    drain_control: Arc<dyn DrainControl>,
    leader_guard: LeaderGuard,
    /// Label of targets, Jobs and pods whose value is the worker type.
    label: String,
}

/// The backend of `orchestrator = "kubernetes"`. See the [module](self).
pub struct KubernetesBackend {
    shared: Arc<KubernetesShared>,
    reconcilers: Mutex<BTreeMap<WorkerType, ReconcilerHandle>>,
    keeping: TaskSet,
    watching: TaskSet,
}

/// A reconciler at work.
struct ReconcilerHandle {
    target: TargetSpec,
    commands: mpsc::Sender<ReconcileCommand>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Tasks that end together.
#[derive(Default)]
struct TaskSet {
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl TaskSet {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            cancel.run_until_cancelled(task).await;
        });
    }

    async fn stop(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl KubernetesBackend {
    /// Connects, by the kubeconfig or as the pod that this runs in, and waits until the pools are known; but no longer
    /// than a server that works takes to say so. Must be called on a runtime with I/O and time enabled.
    ///
    /// `on_change` is called from tasks of this backend; it must not block.
    ///
    /// # Errors
    /// If the configuration can't be used, or rights are lacking: then all of them are named. An API server that can't
    /// be reached is no error: it may come back, and until then nothing is known.
    pub async fn start(
        spec: &KubernetesSpec,
        drain_control: Arc<dyn DrainControl>,
        on_change: OnChange,
        clock: Clock,
    ) -> Result<Self, BackendError> {
        let cluster = Cluster::configure(&spec.cluster).await?;
        check_rights(&cluster, spec).await?;
        let (event_recorder, to_write) = EventRecorder::new();
        let store = Store::new(spec, on_change, clock);
        let shared = Arc::new(KubernetesShared {
            cluster,
            store,
            conflicts: Conflicts::new(),
            event_recorder,
            drain_control,
            leader_guard: LeaderGuard::default(),
            label: spec.cluster.label.clone(),
        });

        let (keeping, watching) = (TaskSet::default(), TaskSet::default());
        shared.conflicts.look(&shared.cluster).await;
        watching.spawn(check_for_conflicts(shared.clone()));
        watching.spawn(event_recorder::write(shared.cluster.clone(), to_write));
        let backend = Self { shared: shared.clone(), reconcilers: Mutex::default(), keeping, watching };
        shared.store.watched().into_iter().for_each(|watched| backend.watch(watched));
        spec.types.iter().for_each(|(worker_type, target)| backend.keep(worker_type, target));
        if tokio::time::timeout(CALL_TIMEOUT, shared.store.until_complete()).await.is_err() {
            tracing::warn!("the pools are not known yet: the API server does not tell; going on without");
        }
        Ok(backend)
    }

    fn watch(&self, watched: Watched) {
        let shared = self.shared.clone();
        let follow = async move { watch::follow(shared.cluster.clone(), &shared.store, &shared.label, watched).await };
        self.watching.spawn(follow);
    }

    /// Has a reconciler look after a target. One that keeps another target of the same type ends first.
    fn keep(&self, worker_type: &WorkerType, target: &TargetSpec) {
        let mut reconcilers = self.reconcilers();
        let before = reconcilers.remove(worker_type);
        if let Some(handle) = before.as_ref().filter(|handle| handle.target.is_kept_like(target)) {
            let (commands, stop) = (handle.commands.clone(), handle.stop.clone());
            let task = before.expect("it was found just above").task;
            reconcilers.insert(worker_type.clone(), ReconcilerHandle { target: target.clone(), commands, stop, task });
            return;
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let stop = self.keeping.cancel.child_token();
        let (shared, cancel) = (self.shared.clone(), stop.clone());
        let (name, spec) = (worker_type.clone(), target.clone());
        // It ends by itself when it is cancelled: there may be something to take back.
        let task = self.keeping.tasks.spawn(async move {
            if let Some(before) = before {
                before.end().await;
            }
            Reconciler::new(name, spec, shared).run(receiver, cancel).await;
        });
        reconcilers.insert(worker_type.clone(), ReconcilerHandle { target: target.clone(), commands, stop, task });
    }

    fn reconcilers(&self) -> MutexGuard<'_, BTreeMap<WorkerType, ReconcilerHandle>> {
        self.reconcilers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all workers go that can be let go in time.
    async fn empty(&self) {
        let reconcilers: Vec<_> =
            self.reconcilers().values().map(|handle| (handle.commands.clone(), handle.target.drain_timeout)).collect();
        let slowest = reconcilers.iter().map(|(_, within)| *within).max().unwrap_or_default();
        let mut emptied = Vec::new();
        for (reconciler, within) in reconcilers {
            let (reply, answer) = oneshot::channel();
            if reconciler.send(ReconcileCommand::DrainAll(within, reply)).await.is_ok() {
                emptied.push(answer);
            }
        }
        let all = futures_util::future::join_all(emptied);
        if tokio::time::timeout(slowest + SHUTDOWN_MARGIN, all).await.is_err() {
            tracing::warn!("some workers have not finished in time; they go on");
        }
    }
}

#[async_trait]
impl ScalingBackend for KubernetesBackend {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn act_only_while(&self, may_act: MayAct) {
        self.shared.leader_guard.set(may_act);
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        self.shared.store.pool(worker_type)
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let reconciler = self.reconcilers().get(&request.worker_type).map(|handle| handle.commands.clone());
        reconciler::send(reconciler, request).await
    }

    async fn reconfigure(&self, settings: &Settings) -> Result<(), BackendError> {
        let spec = KubernetesSpec::from_settings(settings);
        let watched = self.shared.store.watched();
        if spec.types.values().any(|target| !watched.contains(&Watched::Targets(target.kind))) {
            check_rights(&self.shared.cluster, &spec).await?;
        }
        for watched in self.shared.store.look_after(&spec.types) {
            self.watch(watched);
        }
        spec.types.iter().for_each(|(worker_type, target)| self.keep(worker_type, target));
        Ok(())
    }

    /// Its pods are left alone; those that drain are let back to work.
    async fn release(&self, worker_type: &WorkerType) {
        let handle = self.reconcilers().remove(worker_type);
        if let Some(handle) = handle {
            handle.end().await;
            self.shared.store.release(worker_type);
        }
    }

    /// With `drain`, scales everything to zero, as far as workers finish in time; else the pods go on, and requests to
    /// drain that are under way are taken back.
    async fn shutdown(&self, drain: bool) {
        if drain {
            self.empty().await;
        }
        self.keeping.stop().await;
        self.watching.stop().await;
    }
}

impl ReconcilerHandle {
    /// Ends the reconciler.
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("the reconciler of {} failed: {error}", self.target.shown());
        }
    }
}

/// A lack of rights ends the start; a server that can't be asked does not.
async fn check_rights(cluster: &Cluster, spec: &KubernetesSpec) -> Result<(), BackendError> {
    let kinds: BTreeSet<_> = spec.types.values().map(|target| target.kind).collect();
    match rights::check(cluster, &kinds, spec.cluster.lease.as_deref()).await {
        Err(error) if error.kind == ErrorKind::Retryable => {
            tracing::warn!("{}; going on without knowing our rights", error.message);
            Ok(())
        }
        outcome => outcome,
    }
}

async fn check_for_conflicts(shared: Arc<KubernetesShared>) {
    loop {
        tokio::time::sleep(conflicts::CHECK_INTERVAL).await;
        shared.conflicts.look(&shared.cluster).await;
    }
}
