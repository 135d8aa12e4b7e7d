//! Changes the Jobs of one worker type: creates them, and deletes those whose workers have drained. Called by the
//! type's reconciler and nobody else.
//!
//! A request to create a Job whose answer got lost is sent again under the same name, which the API server takes only
//! once. A worker that is to leave is asked to drain first, even before it has a pod: it then takes no job when it
//! starts. Its Job is deleted when it holds none, however long that takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::batch::v1::CronJob;
use tokio::time::Instant;

use super::{DRAIN_REQUEST_MARGIN, POLL_INTERVAL, drain::until_working};
use crate::{
    backend::{
        BackendError, DrainState, Phase, ScaleReport, ScaleRequest,
        kubernetes::{
            KubernetesShared,
            batch_job::{self, new_id},
            spec::TargetSpec,
        },
    },
    model::{WorkerId, WorkerType},
};

/// How long to poll at the usual interval. A worker that drains for longer has a job.
const IMPATIENT_FOR: Duration = Duration::from_secs(5);

/// How often to poll later.
const SLOW_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// A worker that was asked to drain.
#[derive(Clone, Copy, Debug)]
struct DrainingWorker {
    asked_at: Instant,
    /// When the request has to be repeated, because it lapses.
    ask_again_at: Instant,
    drain_timeout: Duration,
}

/// See the [module](self).
pub(super) struct JobScaler {
    worker_type: WorkerType,
    spec: TargetSpec,
    shared: Arc<KubernetesShared>,
    /// Asked to drain; their Jobs are there.
    draining: BTreeMap<WorkerId, DrainingWorker>,
    /// Their Jobs are deleted, and they are not gone yet.
    released: BTreeSet<WorkerId>,
    /// Their Jobs were requested, and no answer came.
    unanswered: BTreeSet<WorkerId>,
    /// Number of workers whose Jobs were deleted, until somebody asks.
    deleted: usize,
}

impl JobScaler {
    pub(super) fn new(worker_type: WorkerType, spec: TargetSpec, shared: Arc<KubernetesShared>) -> Self {
        let (draining, released, unanswered) = Default::default();
        Self { worker_type, spec, shared, draining, released, unanswered, deleted: 0 }
    }

    /// Whether workers drain.
    pub(super) fn drains_some(&self) -> bool {
        !self.draining.is_empty()
    }

    /// When to look at what is under way again.
    pub(super) fn poll_interval(&self) -> Duration {
        let is_new = |worker: &DrainingWorker| worker.asked_at.elapsed() < IMPATIENT_FOR;
        if self.draining.values().any(is_new) { POLL_INTERVAL } else { SLOW_POLL_INTERVAL }
    }

    /// Lets the named workers go as far as they hold no job, and starts what is missing, unless `may_start` is an
    /// error.
    pub(super) async fn scale(
        &mut self,
        request: &ScaleRequest,
        may_start: Result<(), BackendError>,
    ) -> Result<ScaleReport, BackendError> {
        let pool = self.shared.store.pool(&self.worker_type)?;
        let live = pool.instances.into_iter().filter(|instance| instance.phase != Phase::Draining);
        let mut live: BTreeSet<WorkerId> = live.map(|instance| instance.id).collect();
        let retired: Vec<WorkerId> = request.retire.iter().filter(|id| live.remove(*id)).cloned().collect();
        let mut done = ScaleReport::default();
        if !retired.is_empty() {
            self.ask(&retired, request.drain_timeout).await?;
            done.retired.clone_from(&retired);
            self.release().await.map_err(|error| BackendError { done: done.clone(), ..error })?;
        }
        let missing = (request.target as usize).saturating_sub(live.len());
        if missing == 0 {
            return Ok(done);
        }
        let back = self.let_back(missing, &retired).await;
        done.started = back.map_err(|error| BackendError { done: done.clone(), ..error })?;
        let missing = missing - done.started.len();
        if missing > 0 {
            let started = async {
                may_start?;
                self.start(missing, &mut done.started).await
            };
            started.await.map_err(|error| BackendError { done: done.clone(), ..error })?;
        }
        Ok(done)
    }

    /// Goes on with what is under way.
    pub(super) async fn go_on(&mut self) -> Result<(), BackendError> {
        if self.draining.is_empty() && self.released.is_empty() && self.unanswered.is_empty() {
            return Ok(());
        }
        if !self.shared.leader_guard.holds() {
            self.forget();
            return Ok(());
        }
        self.tidy();
        self.ask_again().await?;
        self.release().await?;
        self.repeat_requests().await
    }

    /// Returns how many workers had their Jobs deleted since the last call.
    pub(super) fn take_deleted(&mut self) -> usize {
        std::mem::take(&mut self.deleted)
    }

    /// Lets all workers that drain return to work.
    pub(super) async fn let_all_back(&mut self) -> Result<(), BackendError> {
        self.let_back(usize::MAX, &[]).await.map(drop)
    }

    /// Another autoscaler leads and decides from now on. Requests to drain expire.
    fn forget(&mut self) {
        self.draining.clear();
        self.released.clear();
        self.unanswered.clear();
        self.publish();
    }

    /// Forgets workers that are gone.
    fn tidy(&mut self) {
        let store = &self.shared.store;
        let (draining, released) = (self.draining.len(), self.released.len());
        self.unanswered.retain(|id| store.awaits_job(&self.worker_type, id));
        self.draining.retain(|id, _| store.has_unfinished_job(&self.worker_type, id));
        self.released.retain(|id| store.has_job_or_pod(&self.worker_type, id));
        if (draining, released) != (self.draining.len(), self.released.len()) {
            self.publish();
        }
    }

    async fn ask(&mut self, ids: &[WorkerId], drain_timeout: Duration) -> Result<(), BackendError> {
        self.shared.leader_guard.check()?;
        self.request(ids, drain_timeout).await?;
        let asked_at = Instant::now();
        let worker = DrainingWorker { asked_at, ask_again_at: asked_at + drain_timeout, drain_timeout };
        self.draining.extend(ids.iter().map(|id| (id.clone(), worker)));
        self.publish();
        Ok(())
    }

    /// Repeats the requests that are about to lapse: a worker with a job may drain for longer than any timeout.
    async fn ask_again(&mut self) -> Result<(), BackendError> {
        let now = Instant::now();
        let late: Vec<(WorkerId, DrainingWorker)> = self
            .draining
            .iter()
            .filter(|(_, worker)| worker.ask_again_at <= now)
            .map(|(id, w)| (id.clone(), *w))
            .collect();
        for (id, worker) in late {
            self.request(std::slice::from_ref(&id), worker.drain_timeout).await?;
            self.draining.insert(id, DrainingWorker { ask_again_at: now + worker.drain_timeout, ..worker });
        }
        Ok(())
    }

    async fn request(&self, ids: &[WorkerId], drain_timeout: Duration) -> Result<(), BackendError> {
        if !self.spec.drains {
            return Ok(());
        }
        let ttl = drain_timeout + DRAIN_REQUEST_MARGIN;
        let request = self.shared.drain_control.request(&self.worker_type, ids, ttl).await;
        request.map_err(|error| error.into_backend_error(&self.worker_type))
    }

    /// Deletes the Jobs of workers that have drained.
    async fn release(&mut self) -> Result<(), BackendError> {
        let ids: Vec<WorkerId> = self.draining.keys().cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut drained = ids.clone();
        if self.spec.drains {
            let states = self.shared.drain_control.states(&self.worker_type, &ids).await;
            let states = states.map_err(|error| error.into_backend_error(&self.worker_type))?;
            let is_drained = |(id, state)| (state == DrainState::Drained).then_some(id);
            drained = ids.into_iter().zip(states).filter_map(is_drained).collect();
        }
        for id in &drained {
            self.shared.leader_guard.check()?;
            let uid = self.shared.store.uid_of_job(&self.worker_type, id);
            let was_seen = uid.is_some();
            self.shared.cluster.delete_job(id.as_str(), uid).await?;
            if !was_seen {
                // No watch will tell that it is gone.
                self.shared.store.remove_job(&self.worker_type, id.as_str());
            }
            self.unanswered.remove(id);
            self.draining.remove(id);
            self.released.insert(id.clone());
            self.deleted += 1;
            self.publish();
        }
        Ok(())
    }

    /// Lets up to `count` of those that drain go on working, the last asked first, except for some. Returns them once
    /// they do, or should.
    async fn let_back(&mut self, count: usize, except: &[WorkerId]) -> Result<Vec<WorkerId>, BackendError> {
        let may_return = self.draining.iter().filter(|(id, _)| !except.contains(id));
        let mut latest: Vec<_> = may_return.map(|(id, worker)| (worker.asked_at, id.clone())).collect();
        latest.sort_by(|a, b| b.cmp(a));
        let back: Vec<WorkerId> = latest.into_iter().take(count).map(|(_, id)| id).collect();
        if back.is_empty() {
            return Ok(back);
        }
        if self.spec.drains {
            let cancelled = self.shared.drain_control.cancel(&self.worker_type, &back).await;
            cancelled.map_err(|error| error.into_backend_error(&self.worker_type))?;
        }
        self.draining.retain(|id, _| !back.contains(id));
        until_working(&self.shared, &self.worker_type, &back).await;
        self.publish();
        Ok(back)
    }

    /// Requests `count` Jobs, and adds their workers to `started`.
    async fn start(&mut self, count: usize, started: &mut Vec<WorkerId>) -> Result<(), BackendError> {
        let cron_job = self.cron_job().await?;
        for _ in 0..count {
            let id = new_id(&self.spec.name);
            self.shared.store.request_job(&self.worker_type, &id);
            self.create(&cron_job, &id).await?;
            started.push(id);
        }
        Ok(())
    }

    /// Sends the requests again that got no answer.
    async fn repeat_requests(&mut self) -> Result<(), BackendError> {
        if self.unanswered.is_empty() {
            return Ok(());
        }
        let cron_job = self.cron_job().await?;
        for id in self.unanswered.clone() {
            self.create(&cron_job, &id).await?;
        }
        Ok(())
    }

    /// Returns the template as it is now.
    async fn cron_job(&self) -> Result<CronJob, BackendError> {
        let found = self.shared.cluster.get_cron_job(&self.spec).await;
        let cron_job = found.map_err(|failed| if failed.not_found { self.spec.missing() } else { failed.error })?;
        batch_job::refusal(&self.spec, &cron_job).map_or(Ok(cron_job), Err)
    }

    /// Sends the request for a Job, which was recorded.
    async fn create(&mut self, cron_job: &CronJob, id: &WorkerId) -> Result<(), BackendError> {
        if let Err(error) = self.shared.leader_guard.check() {
            self.shared.store.remove_job(&self.worker_type, id.as_str());
            return Err(error);
        }
        let job = batch_job::job(cron_job, &self.worker_type, &self.shared.label, id);
        match self.shared.cluster.create_job(&job).await {
            Ok(job) => self.shared.store.created_job(&self.worker_type, (&job).into()),
            // By an earlier request of this name, whose answer got lost.
            Err(failed) if failed.exists => {}
            Err(failed) => {
                if failed.refused {
                    self.unanswered.remove(id);
                    self.shared.store.remove_job(&self.worker_type, id.as_str());
                } else {
                    self.unanswered.insert(id.clone());
                }
                return Err(failed.error);
            }
        }
        self.unanswered.remove(id);
        Ok(())
    }

    /// Publishes the leaving workers to the store.
    fn publish(&self) {
        let draining = self.draining.keys().cloned().collect();
        self.shared.store.set_draining(&self.worker_type, draining, self.released.clone());
    }
}
