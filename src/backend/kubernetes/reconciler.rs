//! One task for each worker type changes its target and pods; no other task does. It scales up immediately. To scale
//! down it asks workers to drain. When they hold no job any more, it marks exactly those pods for removal and lowers
//! `spec.replicas` by their number. If more workers are wanted meanwhile, draining ones return to work first.
//!
//! The workers that drain are those that the controller will remove (`deletion_order`), not only the proposed ones: a
//! pod that is not ready goes first, whatever is proposed.
//!
//! Where each worker is a Job, no controller chooses, and nothing is counted: `jobs` does what is asked.

mod drain;
mod jobs;
mod rejected;
mod writing;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    drain::{Done, Drain},
    jobs::JobScaler,
    rejected::RejectionBackoff,
};
use super::{
    KubernetesShared,
    event_recorder::{EventReason, TargetEvent, TargetRecorder},
    failure::unknown_type,
    pool::has_no_pod,
    spec::TargetSpec,
    store::View,
};
use crate::{
    backend::{BackendError, ScaleReport, ScaleRequest},
    config::TargetKind,
    model::{WorkerId, WorkerType},
    telemetry::ScalingRefused,
};

/// How often to poll draining workers. Their heartbeat follows within 50 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How much longer than the drain timeout a request to drain lasts.
const DRAIN_REQUEST_MARGIN: Duration = Duration::from_secs(60);

/// The longest pause after failures in a row.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// A command to a reconciler.
pub(super) enum ReconcileCommand {
    /// Scale to the target.
    Scale(ScaleRequest, oneshot::Sender<Result<ScaleReport, BackendError>>),
    /// Drain all workers within this time; answered when they are gone.
    DrainAll(Duration, oneshot::Sender<()>),
}

/// See the [module](self).
pub(super) struct Reconciler {
    worker_type: WorkerType,
    spec: TargetSpec,
    shared: Arc<KubernetesShared>,
    changed: Arc<Notify>,
    events: TargetRecorder,
    drain: Drain,
    /// `None`: a count is written.
    jobs: Option<JobScaler>,
    /// Answer to `DrainAll`.
    emptied: Option<oneshot::Sender<()>>,
    failures: u32,
    next_look: Instant,
    /// Nodes reject this target's pods.
    rejected: RejectionBackoff,
}

impl Reconciler {
    pub(super) fn new(worker_type: WorkerType, spec: TargetSpec, shared: Arc<KubernetesShared>) -> Self {
        Self {
            changed: shared.store.changed(&worker_type),
            events: shared.event_recorder.for_target(),
            drain: Drain::new(worker_type.clone(), spec.clone(), shared.clone()),
            jobs: (spec.kind == TargetKind::Job)
                .then(|| JobScaler::new(worker_type.clone(), spec.clone(), shared.clone())),
            worker_type,
            spec,
            shared,
            emptied: None,
            failures: 0,
            next_look: Instant::now(),
            rejected: RejectionBackoff::default(),
        }
    }

    /// Runs until cancelled; then those that drain are let back to work.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<ReconcileCommand>, cancel: CancellationToken) {
        loop {
            let waits = self.drains_some() || self.failures > 0;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(command) = commands.recv() => self.carry_out(command).await,
                () = self.changed.notified() => {}
                () = sleep_until(self.next_look), if waits => {}
            }
            self.advance().await;
        }
        // What can't be taken back lapses by itself; where another one leads, it is that one's business.
        if !self.shared.leader_guard.holds() {
            return;
        }
        let _ = match &mut self.jobs {
            Some(jobs) => jobs.let_all_back().await,
            None => self.drain.let_back(usize::MAX).await.map(drop),
        };
    }

    fn drains_some(&self) -> bool {
        !self.drain.draining.is_empty() || self.jobs.as_ref().is_some_and(JobScaler::drains_some)
    }

    async fn carry_out(&mut self, command: ReconcileCommand) {
        match command {
            ReconcileCommand::Scale(request, reply) => {
                let outcome = self.scale(&request).await;
                if let Err(error) = &outcome {
                    self.record_failure(error);
                }
                // Who asked may have given up.
                let _ = reply.send(outcome);
            }
            ReconcileCommand::DrainAll(within, reply) => {
                let pool = self.shared.store.pool(&self.worker_type).unwrap_or_default();
                let all = ScaleRequest {
                    worker_type: self.worker_type.clone(),
                    target: 0,
                    retire: pool.instances.into_iter().map(|instance| instance.id).collect(),
                    drain_timeout: within,
                };
                if self.scale(&all).await.is_ok() {
                    self.emptied = Some(reply);
                }
            }
        }
    }

    /// Goes on with what is under way. After a failure, only when its pause is over.
    async fn advance(&mut self) {
        if Instant::now() < self.next_look && self.failures > 0 {
            return;
        }
        match self.go_on().await {
            Ok(()) => {
                self.failures = 0;
                self.next_look = Instant::now() + self.jobs.as_ref().map_or(POLL_INTERVAL, JobScaler::poll_interval);
            }
            Err(error) => {
                self.record_failure(&error);
                let pause = Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(self.failures));
                self.failures += 1;
                self.next_look = Instant::now() + pause.min(MAX_BACKOFF);
            }
        }
        if !self.drains_some()
            && let Some(emptied) = self.emptied.take()
        {
            let _ = emptied.send(());
        }
    }

    async fn go_on(&mut self) -> Result<(), BackendError> {
        if let Some(jobs) = &mut self.jobs {
            let outcome = jobs.go_on().await;
            self.note_rejected();
            self.record_jobs(0);
            return outcome;
        }
        self.give_up_rejected().await?;
        if self.drain.is_nobody() && !self.drain.may_have_strays {
            return Ok(());
        }
        if !self.shared.leader_guard.holds() {
            if !self.drain.is_nobody() {
                self.drain.forget();
            }
            return Ok(());
        }
        let Ok(view) = self.shared.store.view(&self.worker_type) else { return Ok(()) };
        self.drain.tidy(&view).await?;
        self.release().await
    }

    /// Applies the request, as far as no worker has to finish a job first.
    async fn scale(&mut self, request: &ScaleRequest) -> Result<ScaleReport, BackendError> {
        let may_start = self.wait_for_nodes();
        if let Some(jobs) = &mut self.jobs {
            let outcome = jobs.scale(request, may_start).await;
            let done = outcome.as_ref().unwrap_or_else(|error| &error.done);
            let started = done.started.len();
            self.record_jobs(started);
            self.next_look = Instant::now();
            return outcome;
        }
        if let Some(conflict) = self.shared.conflicts.of(&self.spec)? {
            ScalingRefused { worker_type: &self.worker_type, rival: conflict.kind.as_str() }.emit();
            return Err(conflict.refusal(&self.spec));
        }
        let view = self.view()?;
        let current = (view.target.replicas as usize).saturating_sub(self.drain.counted(&view));
        let wanted = request.target as usize;
        let mut done = ScaleReport::default();
        if wanted < current {
            // No more than were named, even if others of them have to go.
            let named = request.retire.iter().filter(|id| has_no_pod(id) || self.drain.may_leave(&view, id)).count();
            let asked = self.let_go(&view, named.min(current - wanted), request).await;
            done.retired = asked.map_err(|error| BackendError { done: done.clone(), ..error })?;
            self.release().await.map_err(|error| BackendError { done: done.clone(), ..error })?;
            self.next_look = Instant::now() + POLL_INTERVAL;
            return Ok(done);
        }
        done.started = self.drain.let_back(wanted - current).await?;
        let missing = wanted - current - done.started.len();
        if missing > 0 {
            may_start.map_err(|error| BackendError { done: done.clone(), ..error })?;
            let to = view.target.replicas.saturating_add(u32::try_from(missing).unwrap_or(u32::MAX));
            self.write(&view, to).await.map_err(|error| BackendError { done: done.clone(), ..error })?;
        }
        let replaced = self.replace(&view, &request.retire).await?;
        if missing == 0 && replaced == 0 && done.started.is_empty() {
            self.why_not_there(&view, &request.retire)?;
        }
        Ok(done)
    }

    /// Asks the `surplus` workers to drain that the controller will remove first.
    async fn let_go(
        &mut self,
        view: &View,
        surplus: usize,
        request: &ScaleRequest,
    ) -> Result<Vec<WorkerId>, BackendError> {
        if surplus == 0 {
            return Ok(Vec::new());
        }
        let without_pod = self.drain.without_pod(view).min(surplus);
        if without_pod > 0 {
            // Nobody is there to be asked.
            self.write(view, view.target.replicas - u32::try_from(without_pod).unwrap_or(0)).await?;
        }
        if surplus == without_pod {
            return Ok(Vec::new());
        }
        // With everybody gone it does not matter in which order.
        if request.target == 0 && surplus == without_pod + self.drain.undecided(view) {
            return self.drain.ask_everybody(view, request.drain_timeout).await;
        }
        let surplus = surplus - without_pod;
        if self.is_rolling(view) {
            return self.drain.ask_proposed(view, surplus, &request.retire, request.drain_timeout).await;
        }
        self.drain.ask(view, surplus, &request.retire, request.drain_timeout).await
    }

    /// Lowers `spec.replicas` by the drained workers that the controller will remove then.
    async fn release(&mut self) -> Result<(), BackendError> {
        let view = self.view()?;
        if self.drain.draining.is_empty() {
            return Ok(());
        }
        if self.shared.conflicts.of(&self.spec)?.is_some() {
            // Somebody else decides now.
            self.drain.let_back(usize::MAX).await?;
            return Ok(());
        }
        let rolling = self.is_rolling(&view);
        if !rolling || self.drain.everybody {
            self.drain.follow_order(&view).await?;
        }
        let Done { marked, released: ready } =
            if rolling { self.drain.done_in_rollout(&view).await? } else { self.drain.done(&view).await? };
        let counted = self.drain.counted_pods(&view).count();
        // Pods beyond the count go too: none may be left for the controller to choose wrongly.
        let all_at_once = !rolling && self.drain.everybody && counted > view.target.replicas as usize;
        if ready.is_empty() || (all_at_once && ready.len() < counted) {
            return Ok(());
        }
        let to = view.target.replicas.saturating_sub(u32::try_from(ready.len()).unwrap_or(u32::MAX));
        self.drain.mark(&view, &marked).await?;
        match self.write(&view, to).await {
            Ok(()) => self.drain.release(ready),
            Err(error) => {
                // Given up for now: a mark without a purpose would bind the next person who scales.
                self.drain.unmark(&view, &marked).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes pods that are to be replaced, so that their controller creates new ones. Returns their number.
    async fn replace(&mut self, view: &View, ids: &[WorkerId]) -> Result<usize, BackendError> {
        let mut replaced = 0;
        let leaves = |id: &WorkerId| self.drain.draining.contains_key(id);
        let ids: BTreeSet<&str> = ids.iter().filter(|id| !leaves(id)).map(WorkerId::as_str).collect();
        for pod in view.pods.iter().filter(|pod| ids.contains(pod.name.as_str())) {
            self.shared.leader_guard.check()?;
            self.shared.cluster.delete_pod(&pod.name, &pod.uid).await?;
            replaced += 1;
        }
        Ok(replaced)
    }

    /// Replicas without a pod can't be replaced: returns their controller's reason as an error.
    fn why_not_there(&self, view: &View, ids: &[WorkerId]) -> Result<(), BackendError> {
        let missing = ids.iter().filter(|id| has_no_pod(id)).count();
        if missing == 0 {
            return Ok(());
        }
        let why = view.target.failure.as_deref().unwrap_or("its events say why (kubectl describe)");
        Err(BackendError::retryable(format!(
            "{} wants {} replicas, and {missing} of them have no pod after their start grace: {why}",
            self.spec.shown(),
            view.target.replicas
        )))
    }

    /// Whether pods of several ReplicaSets are there: then the Deployment's controller decides which ReplicaSet loses
    /// how many. A StatefulSet loses its highest ordinals, whatever their revisions.
    fn is_rolling(&self, view: &View) -> bool {
        let revisions: BTreeSet<_> = view.pods.iter().filter_map(|pod| pod.revision.as_deref()).collect();
        self.spec.kind == TargetKind::Deployment && revisions.len() > 1
    }

    fn view(&self) -> Result<View, BackendError> {
        self.shared.store.view(&self.worker_type)
    }

    fn record_failure(&mut self, error: &BackendError) {
        let refused = self.shared.conflicts.of(&self.spec).is_ok_and(|conflict| conflict.is_some());
        self.record(if refused { EventReason::Refused } else { EventReason::Failed }, error.message.clone());
    }

    fn record_jobs(&mut self, started: usize) {
        let deleted = self.jobs.as_mut().map_or(0, JobScaler::take_deleted);
        let worker_type = self.worker_type.clone();
        if started > 0 {
            self.record(EventReason::ScaledUp, format!("worker type `{worker_type}`: {started} workers started"));
        }
        if deleted > 0 {
            self.record(EventReason::ScaledDown, format!("worker type `{worker_type}`: {deleted} idle workers let go"));
        }
    }

    fn record(&mut self, reason: EventReason, note: String) {
        let uid = self.view().map(|view| view.target.uid).unwrap_or_default();
        self.events.record(TargetEvent { target: self.spec.clone(), uid, reason, note });
    }
}

/// Sends commands to a reconciler.
pub(super) async fn send(
    reconciler: Option<mpsc::Sender<ReconcileCommand>>,
    request: ScaleRequest,
) -> Result<ScaleReport, BackendError> {
    let worker_type = request.worker_type.clone();
    let reconciler = reconciler.ok_or_else(|| unknown_type(&worker_type))?;
    let (reply, answer) = oneshot::channel();
    let stopping = || {
        BackendError::retryable(format!(
            "worker type `{worker_type}` is not scaled by these settings any more, or the scaler is stopping"
        ))
    };
    reconciler.send(ReconcileCommand::Scale(request, reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}
