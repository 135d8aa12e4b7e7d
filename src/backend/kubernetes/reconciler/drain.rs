//! Drains workers: which ones, and how far each is. Asks workers and marks pods; never changes a count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{DRAIN_REQUEST_MARGIN, POLL_INTERVAL};
use crate::{
    backend::{
        BackendError, DrainState,
        kubernetes::{
            KubernetesShared,
            deletion_order::deletion_order,
            spec::TargetSpec,
            store::View,
            view::{DELETION_COST, Pod},
        },
    },
    config::TargetKind,
    model::{WorkerId, WorkerType},
};

/// How long to wait until workers that return to work say so in their heartbeat.
const RESUME_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker that was asked to drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainingWorker {
    asked_at: Instant,
    /// When its drain timeout ends.
    deadline: Instant,
}

/// Workers that can go.
pub(super) struct Done {
    /// Pods to mark for removal.
    pub(super) marked: Vec<WorkerId>,
    /// Workers by whose number the count can be lowered.
    pub(super) released: Vec<WorkerId>,
}

/// See the [module](self).
pub(super) struct Drain {
    worker_type: WorkerType,
    spec: TargetSpec,
    shared: Arc<KubernetesShared>,
    /// Still counted by `spec.replicas`.
    pub(super) draining: BTreeMap<WorkerId, DrainingWorker>,
    /// Counted no more, and not gone yet, or their requests to drain have not been taken back yet.
    released: BTreeSet<WorkerId>,
    /// Every pod is to leave: also those that a rollout adds meanwhile.
    pub(super) everybody: bool,
    /// Pods may carry marks that an earlier scaler left behind.
    pub(super) may_have_strays: bool,
}

impl Drain {
    pub(super) fn new(worker_type: WorkerType, spec: TargetSpec, shared: Arc<KubernetesShared>) -> Self {
        let (draining, released) = Default::default();
        Self { worker_type, spec, shared, draining, released, everybody: false, may_have_strays: true }
    }

    pub(super) fn is_nobody(&self) -> bool {
        self.draining.is_empty() && self.released.is_empty()
    }

    /// How many of the replicas drain.
    pub(super) fn counted(&self, view: &View) -> usize {
        view.pods.iter().filter(|pod| self.drains(pod)).count()
    }

    /// How many of the replicas have a pod that has not been asked to leave; pods of a surge are no replicas.
    pub(super) fn undecided(&self, view: &View) -> usize {
        let pods = self.counted_pods(view).count().min(view.target.replicas as usize);
        pods.saturating_sub(self.counted(view))
    }

    /// Asks all workers to drain. Returns those that were not asked before.
    pub(super) async fn ask_everybody(
        &mut self,
        view: &View,
        drain_timeout: Duration,
    ) -> Result<Vec<WorkerId>, BackendError> {
        let all: Vec<&Pod> = self.counted_pods(view).collect();
        let asked = self.choose(&all, drain_timeout).await?;
        self.everybody = true;
        Ok(asked)
    }

    /// Whether this worker counts, and has not been asked to leave yet.
    pub(super) fn may_leave(&self, view: &View, worker: &WorkerId) -> bool {
        self.counted_pods(view).any(|pod| id(pod) == *worker && !self.drains(pod))
    }

    /// The pods that `spec.replicas` counts. Those that were released may be there for a while: they are nobody's
    /// choice.
    pub(super) fn counted_pods<'a>(&self, view: &'a View) -> impl Iterator<Item = &'a Pod> {
        view.pods.iter().filter(|pod| !self.released.contains(&id(pod)))
    }

    /// Asks `more` workers to drain: those whom the controller will remove, with the proposed ones preferred. Returns
    /// them.
    pub(super) async fn ask(
        &mut self,
        view: &View,
        more: usize,
        proposed: &[WorkerId],
        drain_timeout: Duration,
    ) -> Result<Vec<WorkerId>, BackendError> {
        self.everybody = false;
        let total = self.counted(view) + more;
        let order = deletion_order(self.spec.kind, self.counted_pods(view), |pod| {
            self.drains(pod) || proposed.iter().any(|id| id.as_str() == pod.name)
        });
        let chosen: Vec<&Pod> = order.into_iter().take(total).collect();
        self.choose(&chosen, drain_timeout).await
    }

    /// Asks `more` of the proposed workers to drain, in the order in which a controller gives pods up.
    pub(super) async fn ask_proposed(
        &mut self,
        view: &View,
        more: usize,
        proposed: &[WorkerId],
        drain_timeout: Duration,
    ) -> Result<Vec<WorkerId>, BackendError> {
        self.everybody = false;
        let order = deletion_order(self.spec.kind, self.counted_pods(view), |_| false);
        let new = order.iter().filter(|pod| !self.drains(pod) && proposed.contains(&id(pod))).take(more);
        let chosen: Vec<&Pod> = new.chain(order.iter().filter(|pod| self.drains(pod))).copied().collect();
        self.choose(&chosen, drain_timeout).await
    }

    /// How many replicas have no pod that the controller would have to remove if their number fell.
    pub(super) fn without_pod(&self, view: &View) -> usize {
        let replicas = view.target.replicas as usize;
        if self.spec.kind == TargetKind::Deployment {
            return replicas.saturating_sub(self.counted_pods(view).count());
        }
        // A gap below the highest ordinal does not help: the highest goes first.
        let highest = self.counted_pods(view).filter_map(Pod::ordinal).max();
        let up_to = highest.map_or(0, |highest| (highest + 1).saturating_sub(view.target.first_ordinal));
        replicas.saturating_sub(usize::try_from(up_to).unwrap_or(usize::MAX))
    }

    /// Keeps to whom the controller will remove: that changes when a pod becomes ready or ceases to be.
    pub(super) async fn follow_order(&mut self, view: &View) -> Result<(), BackendError> {
        let order = deletion_order(self.spec.kind, self.counted_pods(view), |pod| self.drains(pod));
        let count = if self.everybody { order.len() } else { self.counted(view) };
        let chosen: Vec<&Pod> = order.into_iter().take(count).collect();
        let left = self.draining.values().map(|draining| draining.deadline.saturating_duration_since(Instant::now()));
        let left = left.max().unwrap_or_default();
        self.choose(&chosen, left).await.map(drop)
    }

    /// Makes these, and no others, the ones that drain. Returns those who are new among them.
    async fn choose(&mut self, chosen: &[&Pod], drain_timeout: Duration) -> Result<Vec<WorkerId>, BackendError> {
        let ids: BTreeSet<WorkerId> = chosen.iter().map(|pod| id(pod)).collect();
        let spared: Vec<WorkerId> = self.draining.keys().filter(|id| !ids.contains(*id)).cloned().collect();
        let new: Vec<&Pod> = chosen.iter().copied().filter(|pod| !self.drains(pod)).collect();
        if spared.is_empty() && new.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.leader_guard.check()?;
        self.cancel(&spared).await?;
        self.may_have_strays |= !spared.is_empty();
        self.draining.retain(|id, _| ids.contains(id));
        let asked: Vec<WorkerId> = new.iter().filter(|pod| self.must_finish(pod)).map(|pod| id(pod)).collect();
        if !asked.is_empty() {
            let ttl = drain_timeout + DRAIN_REQUEST_MARGIN;
            let request = self.shared.drain_control.request(&self.worker_type, &asked, ttl).await;
            request.map_err(|error| error.into_backend_error(&self.worker_type))?;
        }
        let asked_at = Instant::now();
        let new: Vec<WorkerId> = new.into_iter().map(id).collect();
        let draining = DrainingWorker { asked_at, deadline: asked_at + drain_timeout };
        self.draining.extend(new.iter().map(|id| (id.clone(), draining)));
        self.publish();
        Ok(new)
    }

    /// Lets up to `count` of those that drain go on working, the last asked first. Returns them once they do, or
    /// should.
    pub(super) async fn let_back(&mut self, count: usize) -> Result<Vec<WorkerId>, BackendError> {
        let mut latest: Vec<_> = self.draining.iter().map(|(id, draining)| (draining.asked_at, id.clone())).collect();
        latest.sort_by(|a, b| b.cmp(a));
        let back: Vec<WorkerId> = latest.into_iter().take(count).map(|(_, id)| id).collect();
        if back.is_empty() {
            return Ok(back);
        }
        self.cancel(&back).await?;
        self.everybody = false;
        self.may_have_strays = true;
        self.draining.retain(|id, _| !back.contains(id));
        until_working(&self.shared, &self.worker_type, &back).await;
        self.publish();
        Ok(back)
    }

    /// Returns the workers that have drained or timed out, and that the controller will remove before all others.
    pub(super) async fn done(&self, view: &View) -> Result<Done, BackendError> {
        let finished = self.finished(view).await?;
        let order = deletion_order(self.spec.kind, self.counted_pods(view), |pod| finished.contains(&id(pod)));
        let released: Vec<_> = order.into_iter().map(id).take_while(|id| finished.contains(id)).collect();
        Ok(Done { marked: released.clone(), released })
    }

    /// Returns the workers that have drained or timed out, and those of them that can be removed during a rollout:
    /// whichever of its ReplicaSets the controller takes them from, it finds only pods that have finished or never
    /// started.
    pub(super) async fn done_in_rollout(&self, view: &View) -> Result<Done, BackendError> {
        let finished = self.finished(view).await?;
        let goes = |pod: &Pod| finished.contains(&id(pod)) || self.released.contains(&id(pod));
        let is_free = |pod: &Pod| goes(pod) || !pod.started;
        let replicas = view.target.replicas as usize;
        let most = view.target.rollout.releasable(&view.pods, replicas, finished.len(), is_free);
        let marked: Vec<_> = finished.into_iter().collect();
        Ok(Done { released: marked.iter().take(most).cloned().collect(), marked })
    }

    async fn finished(&self, view: &View) -> Result<BTreeSet<WorkerId>, BackendError> {
        let now = Instant::now();
        let late = |id: &WorkerId| self.draining.get(id).is_some_and(|draining| draining.deadline <= now);
        let drain = view.pods.iter().filter(|pod| self.drains(pod));
        let (waited_for, free): (Vec<&Pod>, Vec<&Pod>) =
            drain.partition(|pod| self.must_finish(pod) && !late(&id(pod)));
        let mut finished: BTreeSet<WorkerId> = free.into_iter().map(id).collect();
        if !waited_for.is_empty() {
            let ids: Vec<WorkerId> = waited_for.into_iter().map(id).collect();
            let states = self.shared.drain_control.states(&self.worker_type, &ids).await;
            let states = states.map_err(|error| error.into_backend_error(&self.worker_type))?;
            let drained = ids.into_iter().zip(states).filter(|(_, state)| *state == DrainState::Drained);
            finished.extend(drained.map(|(id, _)| id));
        }
        Ok(finished)
    }

    /// Marks the pods of these for removal, where the controller heeds that. All of them or none.
    pub(super) async fn mark(&self, view: &View, ids: &[WorkerId]) -> Result<(), BackendError> {
        self.shared.leader_guard.check()?;
        for pod in self.markable(view, ids).filter(|pod| !pod.marked) {
            if let Err(error) = self.shared.cluster.mark(pod).await {
                self.unmark(view, ids).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the marks back. One that can't be is found again as a stray.
    pub(super) async fn unmark(&self, view: &View, ids: &[WorkerId]) {
        for pod in self.markable(view, ids) {
            let _ = self.shared.cluster.unmark(pod).await;
        }
    }

    fn markable<'a>(&self, view: &'a View, ids: &[WorkerId]) -> impl Iterator<Item = &'a Pod> {
        let marked = self.spec.kind == TargetKind::Deployment;
        view.pods.iter().filter(move |pod| marked && pod.started && ids.contains(&id(pod)))
    }

    /// Another autoscaler leads and decides from now on. Requests to drain expire.
    pub(super) fn forget(&mut self) {
        self.draining.clear();
        self.released.clear();
        self.everybody = false;
        self.may_have_strays = true;
        self.publish();
    }

    /// These are counted no more.
    pub(super) fn release(&mut self, ids: Vec<WorkerId>) {
        self.draining.retain(|id, _| !ids.contains(id));
        self.everybody &= !self.draining.is_empty();
        self.released.extend(ids);
        self.publish();
    }

    /// Forgets workers that are gone, and lets workers that the controller kept return to work.
    pub(super) async fn tidy(&mut self, view: &View) -> Result<(), BackendError> {
        let active = |id: &WorkerId| view.pods.iter().any(|pod| pod.name == id.as_str());
        let gone = self.released.iter().filter(|id| !self.shared.store.exists(&self.worker_type, id)).cloned();
        let mut over: Vec<WorkerId> = gone.collect();
        over.extend(self.draining.keys().filter(|id| !active(id)).cloned());
        if view.pods.len() <= view.target.replicas as usize {
            over.extend(self.released.iter().filter(|id| active(id)).cloned());
        }
        if !over.is_empty() {
            // A StatefulSet's next pod has the same name, and must not find the request.
            self.cancel(&over).await?;
            self.draining.retain(|id, _| !over.contains(id));
            self.released.retain(|id| !over.contains(id));
            self.publish();
            self.may_have_strays = true;
        }
        if self.may_have_strays {
            self.clear_strays(view).await?;
            self.may_have_strays = false;
        }
        Ok(())
    }

    /// Takes back marks of pods that are not leaving: of an earlier scaler, or of those whom the controller has kept.
    async fn clear_strays(&self, view: &View) -> Result<(), BackendError> {
        let leaves = |pod: &Pod| self.drains(pod) || self.released.contains(&id(pod));
        for pod in view.pods.iter().filter(|pod| pod.marked && !leaves(pod)) {
            tracing::info!(pod = pod.name, "taking back {DELETION_COST}: the pod is not leaving");
            self.shared.cluster.unmark(pod).await?;
        }
        Ok(())
    }

    async fn cancel(&self, ids: &[WorkerId]) -> Result<(), BackendError> {
        if ids.is_empty() || !self.spec.drains {
            return Ok(());
        }
        self.shared
            .drain_control
            .cancel(&self.worker_type, ids)
            .await
            .map_err(|error| error.into_backend_error(&self.worker_type))
    }

    /// Whether this pod may hold a job that it could be asked to finish.
    fn must_finish(&self, pod: &Pod) -> bool {
        self.spec.drains && pod.started
    }

    fn drains(&self, pod: &Pod) -> bool {
        self.draining.contains_key(&id(pod))
    }

    /// Publishes the draining workers to the store.
    fn publish(&self) {
        let draining = self.draining.keys().cloned().collect();
        self.shared.store.set_draining(&self.worker_type, draining, self.released.clone());
    }
}

/// Waits until workers that return to work say so: until then they would count as leaving.
pub(super) async fn until_working(shared: &KubernetesShared, worker_type: &WorkerType, ids: &[WorkerId]) {
    let leaves = |state: &DrainState| *state == DrainState::Draining;
    let working = async {
        while shared.drain_control.states(worker_type, ids).await.is_ok_and(|states| states.iter().any(leaves)) {
            sleep(POLL_INTERVAL / 8).await;
        }
    };
    let _ = timeout(RESUME_TIMEOUT, working).await;
}

fn id(pod: &Pod) -> WorkerId {
    WorkerId::new(pod.name.as_str())
}
