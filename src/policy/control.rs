//! Decisions under an override ([`Control`]).

use super::{Decision, History, Observation, Reason, bounds::Bounds, decide};
use crate::{
    config::ScalingSettings,
    model::{
        Timestamp,
        control::{Control, Mode},
        snapshot::Action,
    },
};

/// Decides like [`decide`], under an override that is in force at `now`.
///
/// - Paused: always [`Action::Hold`].
/// - Paused in one direction: the decision as [`decide`] makes it, or [`Action::Hold`] if it goes in that direction.
/// - Observe: the decision as [`decide`] makes it, which the caller must not carry out.
/// - Pinned: immediately to the pinned number, up or down, but never outside `min_workers` and `max_workers`. Backoffs
///   hold it like any other change; neither the schedule nor `spare` changes it.
///
/// Asks for the next evaluation at the end of the override, at the latest.
pub fn decide_under(
    control: Option<&Control>,
    settings: &ScalingSettings,
    observation: &Observation,
    history: &History,
    now: Timestamp,
) -> Decision {
    let Some(control) = control.filter(|control| control.holds_at(now)) else {
        return decide(settings, observation, history, now);
    };
    let remaining = control.until.map(|until| until.since(now));
    let by = control.by.clone();
    let mut decision = match control.mode {
        Mode::Paused => {
            let free = decide(settings, observation, history, now);
            let target = Bounds::at(settings, now).repaired(free.current);
            Decision { target, action: Action::Hold, recheck_at: None, ..free }
        }
        Mode::PausedIn | Mode::PausedOut | Mode::Observe => decide(settings, observation, history, now),
        Mode::Pinned(workers) => {
            let workers = workers.max(settings.min_workers).min(settings.max_workers);
            let bounds = ScalingSettings { min_workers: workers, max_workers: workers, ..settings.clone() };
            let pinned = ScalingSettings { schedule: Vec::new(), ..bounds };
            let mut decision = decide(&pinned, observation, history, now);
            decision.reasons.retain(|reason| !matches!(reason, Reason::Minimum { .. } | Reason::Maximum { .. }));
            let bounds = Bounds::at(settings, now);
            Decision { floor: bounds.bound(0), ceiling: bounds.max, recommendation: None, ..decision }
        }
    };
    let reason = match (control.mode, decision.action) {
        (Mode::Paused, _) => Some(Reason::Paused { by, remaining }),
        (Mode::PausedIn, Action::ScaleDown) => Some(Reason::PausedIn { by, remaining }),
        (Mode::PausedOut, Action::ScaleUp) => Some(Reason::PausedOut { by, remaining }),
        (Mode::PausedIn | Mode::PausedOut, _) => None,
        (Mode::Observe, _) => Some(Reason::ObserveOnly { by, remaining }),
        (Mode::Pinned(_), _) => Some(Reason::Pinned { workers: decision.target, by, remaining }),
    };
    if matches!(reason, Some(Reason::PausedIn { .. } | Reason::PausedOut { .. })) {
        decision.target = decision.current;
        decision.action = Action::Hold;
        decision.recheck_at = Bounds::at(settings, now).change_at;
    }
    decision.reasons.extend(reason);
    decision.recheck_at = [decision.recheck_at, control.until].into_iter().flatten().min();
    decision
}
