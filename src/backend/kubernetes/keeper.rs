//! One task for each worker type, the only one that changes its target and pods. It scales up at once. To scale down it asks
//! workers to drain and goes on listening; when they hold nothing any more, it marks just those pods for removal and lowers
//! `spec.replicas` by their number. More workers wanted meanwhile are taken from those that drain.
//!
//! Who drains is who the controller will remove (`rank`), not only who was proposed: a pod that is not ready goes first,
//! whatever anybody proposes.

mod leaving;
mod writing;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::leaving::Leaving;
use super::{
    Shared,
    failure::{retryable, unknown_type},
    notices::{Happened, Notice, Teller},
    pool::has_no_pod,
    spec::TargetSpec,
    store::View,
};
use crate::{
    backend::{BackendError, ScaleReport, ScaleRequest},
    model::{WorkerId, WorkerType},
    telemetry::ScalingRefused,
};

/// How often to ask whether draining workers are done: the heartbeat that says so comes within 50 ms.
const LOOK: Duration = Duration::from_millis(200);

/// A request to drain outlives the time that the worker has by so much.
const MARGIN: Duration = Duration::from_secs(60);

/// The longest pause after failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a keeper is told.
pub(super) enum Order {
    /// Make it so many.
    Scale(ScaleRequest, oneshot::Sender<Result<ScaleReport, BackendError>>),
    /// Let all of them go, each within this time; answered when they have been.
    Empty(Duration, oneshot::Sender<()>),
}

/// See the [module](self).
pub(super) struct Keeper {
    worker_type: WorkerType,
    spec: TargetSpec,
    shared: Arc<Shared>,
    changed: Arc<Notify>,
    teller: Teller,
    leaving: Leaving,
    /// Whom to tell that nobody is left to wait for.
    emptied: Option<oneshot::Sender<()>>,
    failures: u32,
    next_look: Instant,
}

impl Keeper {
    pub(super) fn new(worker_type: WorkerType, spec: TargetSpec, shared: Arc<Shared>) -> Self {
        Self {
            changed: shared.store.changed(&worker_type),
            teller: shared.notices.teller(),
            leaving: Leaving::new(worker_type.clone(), spec.clone(), shared.clone()),
            worker_type,
            spec,
            shared,
            emptied: None,
            failures: 0,
            next_look: Instant::now(),
        }
    }

    /// Runs until cancelled; then those that drain are let back to work.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, cancel: CancellationToken) {
        loop {
            let waits = !self.leaving.draining.is_empty() || self.failures > 0;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(order) = orders.recv() => self.obey(order).await,
                () = self.changed.notified() => {}
                () = sleep_until(self.next_look), if waits => {}
            }
            self.upkeep().await;
        }
        // What can't be taken back lapses by itself; where another one leads, it is that one's business.
        if !self.shared.mandate.holds() {
            return;
        }
        let _ = self.leaving.let_back(usize::MAX).await;
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Scale(request, reply) => {
                let outcome = self.scale(&request).await;
                if let Err(error) = &outcome {
                    self.tell_failure(error);
                }
                // Who asked may have given up.
                let _ = reply.send(outcome);
            }
            Order::Empty(within, reply) => {
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
    async fn upkeep(&mut self) {
        if Instant::now() < self.next_look && self.failures > 0 {
            return;
        }
        match self.go_on().await {
            Ok(()) => {
                self.failures = 0;
                self.next_look = Instant::now() + LOOK;
            }
            Err(error) => {
                self.tell_failure(&error);
                let pause = Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(self.failures));
                self.failures += 1;
                self.next_look = Instant::now() + pause.min(LONGEST_PAUSE);
            }
        }
        if self.leaving.draining.is_empty()
            && let Some(emptied) = self.emptied.take()
        {
            let _ = emptied.send(());
        }
    }

    async fn go_on(&mut self) -> Result<(), BackendError> {
        if self.leaving.is_nobody() && !self.leaving.may_have_strays {
            return Ok(());
        }
        if !self.shared.mandate.holds() {
            if !self.leaving.is_nobody() {
                self.leaving.forget();
            }
            return Ok(());
        }
        let Ok(view) = self.shared.store.view(&self.worker_type) else { return Ok(()) };
        self.leaving.tidy(&view).await?;
        self.release().await
    }

    /// Brings the target to what is asked for, as far as nobody has to finish a job first.
    async fn scale(&mut self, request: &ScaleRequest) -> Result<ScaleReport, BackendError> {
        if let Some(rival) = self.shared.rivals.of(&self.spec)? {
            ScalingRefused { worker_type: &self.worker_type, rival: rival.kind.as_str() }.emit();
            return Err(rival.refusal(&self.spec));
        }
        let view = self.view()?;
        let current = (view.target.replicas as usize).saturating_sub(self.leaving.counted(&view));
        let wanted = request.target as usize;
        let mut done = ScaleReport::default();
        if wanted < current {
            // No more than were named, even if others of them have to go.
            let named = request.retire.iter().filter(|id| has_no_pod(id) || self.leaving.may_leave(&view, id)).count();
            let asked = self.let_go(&view, named.min(current - wanted), request).await;
            done.retired = asked.map_err(|error| BackendError { done: done.clone(), ..error })?;
            self.release().await.map_err(|error| BackendError { done: done.clone(), ..error })?;
            self.next_look = Instant::now() + LOOK;
            return Ok(done);
        }
        done.started = self.leaving.let_back(wanted - current).await?;
        let missing = wanted - current - done.started.len();
        if missing > 0 {
            let to = view.target.replicas.saturating_add(u32::try_from(missing).unwrap_or(u32::MAX));
            self.write(&view, to).await.map_err(|error| BackendError { done: done.clone(), ..error })?;
        }
        let replaced = self.replace(&view, &request.retire).await?;
        if missing == 0 && replaced == 0 && done.started.is_empty() {
            self.why_not_there(&view, &request.retire)?;
        }
        Ok(done)
    }

    /// Asks those to drain whom the controller will remove when there are `surplus` fewer.
    async fn let_go(
        &mut self,
        view: &View,
        surplus: usize,
        request: &ScaleRequest,
    ) -> Result<Vec<WorkerId>, BackendError> {
        if surplus == 0 {
            return Ok(Vec::new());
        }
        let pods = self.leaving.counted_pods(view).count();
        let without_pod = (view.target.replicas as usize).saturating_sub(pods).min(surplus);
        if without_pod > 0 {
            // Nobody is there to be asked.
            self.write(view, view.target.replicas - u32::try_from(without_pod).unwrap_or(0)).await?;
        }
        if surplus == without_pod {
            return Ok(Vec::new());
        }
        if is_rolling(view) {
            return Err(retryable(format!(
                "{} is being rolled out: who would be removed can't be told, so nobody is let go until that is over",
                self.spec.shown()
            )));
        }
        self.leaving.ask(view, surplus - without_pod, &request.retire, request.drain_timeout).await
    }

    /// Lowers `spec.replicas` by those who are done and whom the controller will remove then.
    async fn release(&mut self) -> Result<(), BackendError> {
        let view = self.view()?;
        if self.leaving.draining.is_empty() || is_rolling(&view) {
            return Ok(());
        }
        if self.shared.rivals.of(&self.spec)?.is_some() {
            // Somebody else decides now.
            self.leaving.let_back(usize::MAX).await?;
            return Ok(());
        }
        self.leaving.follow_order(&view).await?;
        let ready = self.leaving.done(&view).await?;
        if ready.is_empty() {
            return Ok(());
        }
        let to = view.target.replicas.saturating_sub(u32::try_from(ready.len()).unwrap_or(u32::MAX));
        self.leaving.mark(&view, &ready).await?;
        match self.write(&view, to).await {
            Ok(()) => self.leaving.release(ready),
            Err(error) => {
                // Given up for now: a mark without a purpose would bind the next person who scales.
                self.leaving.unmark(&view, &ready).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes pods that are to be replaced, so that their controller makes others. How many there were.
    async fn replace(&mut self, view: &View, ids: &[WorkerId]) -> Result<usize, BackendError> {
        let mut replaced = 0;
        let leaves = |id: &WorkerId| self.leaving.draining.contains_key(id);
        let ids: BTreeSet<&str> = ids.iter().filter(|id| !leaves(id)).map(WorkerId::as_str).collect();
        for pod in view.pods.iter().filter(|pod| ids.contains(pod.name.as_str())) {
            self.shared.mandate.check()?;
            self.shared.cluster.delete_pod(&pod.name, &pod.uid).await?;
            replaced += 1;
        }
        Ok(replaced)
    }

    /// Replicas that never got a pod can't be replaced by us: says what their controller says.
    fn why_not_there(&self, view: &View, ids: &[WorkerId]) -> Result<(), BackendError> {
        let missing = ids.iter().filter(|id| has_no_pod(id)).count();
        if missing == 0 {
            return Ok(());
        }
        let why = view.target.failure.as_deref().unwrap_or("its events say why (kubectl describe)");
        Err(retryable(format!(
            "{} wants {} replicas, and {missing} of them have no pod after their start grace: {why}",
            self.spec.shown(),
            view.target.replicas
        )))
    }

    fn view(&self) -> Result<View, BackendError> {
        self.shared.store.view(&self.worker_type)
    }

    fn tell_failure(&mut self, error: &BackendError) {
        let refused = self.shared.rivals.of(&self.spec).is_ok_and(|rival| rival.is_some());
        self.tell(if refused { Happened::Refused } else { Happened::Failed }, error.message.clone());
    }

    fn tell(&mut self, happened: Happened, note: String) {
        let uid = self.view().map(|view| view.target.uid).unwrap_or_default();
        self.teller.tell(Notice { target: self.spec.clone(), uid, happened, note });
    }
}

/// Hands orders to keepers.
pub(super) async fn order(
    keeper: Option<mpsc::Sender<Order>>,
    request: ScaleRequest,
) -> Result<ScaleReport, BackendError> {
    let worker_type = request.worker_type.clone();
    let keeper = keeper.ok_or_else(|| unknown_type(&worker_type))?;
    let (reply, answer) = oneshot::channel();
    let stopping = || {
        retryable(format!(
            "worker type `{worker_type}` is not scaled by these settings any more, or the scaler is stopping"
        ))
    };
    keeper.send(Order::Scale(request, reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

/// Whether pods of more than one revision are there: then the controller weighs revisions against each other.
fn is_rolling(view: &View) -> bool {
    let revisions: BTreeSet<_> = view.pods.iter().filter_map(|pod| pod.revision.as_deref()).collect();
    revisions.len() > 1
}
