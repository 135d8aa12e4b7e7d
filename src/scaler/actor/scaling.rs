//! Requests to the backend, and the records of their outcomes.

use std::sync::Arc;

use super::{Actor, Consequence, Effect, Observed, Phase, Scaled, ScalingRecord, UnderWay};
use crate::{
    backend::{BackendError, ErrorKind, ScaleReport, ScaleRequest},
    model::{
        Timestamp, WorkerId,
        snapshot::{Action, Change, Reaction, WorkerStatus},
    },
    policy::{Backoff, Decision},
    scaler::worker_tracker::PoolView,
};

impl Actor {
    /// Returns the workers to replace now: all stalled ones, and at most one without a heartbeat, at its own pace.
    pub(super) fn replaced(&mut self, view: &PoolView, now: Timestamp) -> Replaced {
        if !view.workers.iter().any(|worker| worker.status == WorkerStatus::Unheard) {
            self.history.replacements = None;
        }
        if self.backs_off(now) {
            return Replaced::default();
        }
        let next_at = self.history.replacements.as_ref().map(|failures| failures.retry_at(Backoff::REPLACE));
        let paced = next_at.is_none_or(|at| at <= now);
        if !paced && !view.overdue.is_empty() {
            self.recheck_at = [self.recheck_at, next_at].into_iter().flatten().min();
        }
        let unheard = view.overdue.first().filter(|_| paced).cloned();
        Replaced { stalled: view.stalled.clone(), spent: view.spent.clone(), unheard }
    }

    /// Returns whether a decision lets workers go, or replaces some.
    pub(super) fn lets_go(
        &mut self,
        decision: &Decision,
        view: &Result<PoolView, BackendError>,
        may_replace: bool,
        now: Timestamp,
    ) -> bool {
        decision.action == Action::ScaleDown
            || view.as_ref().is_ok_and(|view| may_replace && !self.replaced(view, now).is_empty())
    }

    /// Returns the request to the backend; `None` if there is nothing to do. Replaces workers along the way.
    pub(super) fn request(&self, decision: &Decision, view: &PoolView, replaced: &Replaced) -> Option<ScaleRequest> {
        if decision.action == Action::Hold && replaced.is_empty() {
            return None;
        }
        let target = if decision.action == Action::Hold { decision.current } else { decision.target };
        // A worker without a heartbeat counts until it is replaced, so letting it go is part of letting workers go.
        let unheard = replaced.unheard.iter();
        let surplus = (decision.current.saturating_sub(target) as usize).saturating_sub(unheard.len());
        let others = view.idle.iter().chain(&view.busy).filter(|id| replaced.unheard.as_ref() != Some(id));
        // The backend also counts workers that leave because somebody else asked them to.
        let leaving = u32::try_from(view.leaving.len()).unwrap_or(u32::MAX);
        Some(ScaleRequest {
            worker_type: self.worker_type.clone(),
            target: target.saturating_add(leaving),
            retire: replaced
                .stalled
                .iter()
                .chain(&replaced.spent)
                .chain(unheard)
                .chain(others.take(surplus))
                .cloned()
                .collect(),
            drain_timeout: self.settings.drain_timeout(),
        })
    }

    /// Returns the order to ask workers again which may have missed their stop signal. Without it they would stay for
    /// ever, beyond the number that was decided, and go on to take jobs.
    pub(super) fn ask_again(&self, observed: &Observed) -> Option<Effect> {
        let acts = self.leads && self.consequence == Consequence::Scale;
        let view = observed.view.as_ref().ok().filter(|view| acts && !view.unmoved.is_empty())?;
        Some(Effect::AskAgain(view.unmoved.clone()))
    }

    pub(super) fn scaled(&mut self, scaled: Scaled, now: Timestamp) -> Option<Effect> {
        let Phase::Scaling(under_way) = std::mem::replace(&mut self.phase, Phase::Resting) else { return None };
        let UnderWay { decision, reason, demand, from, signals, replaces_unheard } = *under_way;
        let to = if decision.action == Action::Hold { decision.current } else { decision.target };
        let (reached, error) = match scaled.outcome {
            Ok(_) => {
                // The next observation sees the requested workers, and watches them.
                self.recheck_at = Some(now);
                self.history.note_backend_success(decision.action);
                if replaces_unheard {
                    self.history.note_replacement(now);
                }
                Arc::make_mut(&mut self.snapshot).backend_error = None;
                (to, None)
            }
            Err(error) => {
                self.note_backend_failure(decision.action, &error, now);
                (reached_in_part(from, &error.done), Some(error.message))
            }
        };
        let change = (reached != from).then_some(Change { at: now, from, to: reached });
        let snapshot = Arc::make_mut(&mut self.snapshot);
        if let Some(change) = change {
            self.history.note_change(change);
            snapshot.last_change = Some(change);
        }
        snapshot.desired = to;
        snapshot.reaction = Some(Reaction {
            requested_ms: Some(scaled.elapsed.as_secs_f64() * 1e3),
            ..snapshot.reaction.unwrap_or_default()
        });
        Some(Effect::Record(Box::new(ScalingRecord {
            worker_type: self.worker_type.clone(),
            action: if to < from { Action::ScaleDown } else { Action::ScaleUp },
            from,
            to,
            at: now,
            reason,
            trigger: signals.sources().collect(),
            lag: demand.lag.known().copied(),
            pending: demand.pending.known().copied(),
            change,
            token: scaled.token,
            error,
            reaction: Some(scaled.elapsed),
        })))
    }

    fn note_backend_failure(&mut self, action: Action, error: &BackendError, now: Timestamp) {
        // A permanent error is retried as rarely as one that has failed many times.
        let times = if error.kind == ErrorKind::Permanent { PERMANENT_FAILURE_WEIGHT } else { 1 };
        for _ in 0..times {
            self.history.note_backend_failure(action, now, error.message.clone());
        }
        self.recheck_at = self.history.backend_failures.of(action).map(|failures| failures.retry_at(Backoff::BACKEND));
        Arc::make_mut(&mut self.snapshot).backend_error = Some(error.message.clone());
    }
}

/// Workers to be replaced.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    pub(super) stalled: Vec<WorkerId>,
    pub(super) spent: Vec<WorkerId>,
    pub(super) unheard: Option<WorkerId>,
}

impl Replaced {
    pub(super) fn is_empty(&self) -> bool {
        self.stalled.is_empty() && self.spent.is_empty() && self.unheard.is_none()
    }

    /// Returns the reason for the record of a change that has no other reason.
    pub(super) fn reason(&self) -> String {
        let stalled = match self.stalled.len() {
            0 => None,
            count => Some(format!("replacing {count} that were not ready within their start grace")),
        };
        let unheard = self.unheard.as_ref().map(|id| format!("replacing {id}, which is not heard any more"));
        let spent = match self.spent.len() {
            0 => None,
            count => Some(format!("letting {count} go that were told to take no more jobs")),
        };
        [stalled, spent, unheard].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Returns the number of workers after a change that failed halfway.
fn reached_in_part(from: u32, done: &ScaleReport) -> u32 {
    let count = |ids: &[WorkerId]| u32::try_from(ids.len()).unwrap_or(u32::MAX);
    from.saturating_add(count(&done.started)).saturating_sub(count(&done.retired))
}

/// Weight of one permanent failure: enough for the backend's longest pause immediately.
const PERMANENT_FAILURE_WEIGHT: u32 = 7;
