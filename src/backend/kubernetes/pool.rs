//! From target and pods to the pool as the rest of the program sees it. Pure.
//!
//! `spec.replicas` is the desired count and so the capacity. Pods beyond it (the surge of a rollout, or those that the
//! controller has not removed yet) are leaving, in the order in which they will; replicas without a pod yet are
//! starting.

use std::collections::BTreeSet;

use super::{
    deletion_order::deletion_order,
    spec::TargetSpec,
    type_state::TypeState,
    view::{Pod, Target},
};
use crate::{
    backend::{Instance, Phase, Pool},
    model::{Timestamp, WorkerId},
};

/// Marks the names of replicas that have no pod yet; no pod's name has it.
const NO_POD: char = '#';

/// The pool of a worker type.
pub(super) fn pool(spec: &TargetSpec, target: &Target, state: &TypeState, now: Timestamp) -> Pool {
    let leaves = |name: &str| {
        let id = WorkerId::new(name);
        state.draining.contains(&id) || state.released.contains(&id)
    };
    let mut order = deletion_order(spec.kind, state.own_pods(), |_| false);
    order.retain(|pod| !leaves(&pod.name));
    let draining =
        state.own_pods().filter(|pod| pod.is_active() && state.draining.contains(&WorkerId::new(&*pod.name)));
    let capacity = (target.replicas as usize).saturating_sub(draining.count());
    let surplus: BTreeSet<&str> =
        order.iter().take(order.len().saturating_sub(capacity)).map(|pod| pod.name.as_str()).collect();

    let mut instances = Vec::with_capacity(state.pods.len());
    for pod in state.own_pods().filter(|pod| pod.is_active() || pod.terminating) {
        let leaving = !pod.is_active() || surplus.contains(pod.name.as_str()) || leaves(&pod.name);
        let (phase, reason) = if leaving { (Phase::Draining, None) } else { phase(spec, pod) };
        // The grace of a worker begins when its container does. Until then it is none that fails to become ready.
        let began_at = pod.running_since.or((!pod.started).then_some(now));
        let id = WorkerId::new(pod.name.as_str());
        instances.push(Instance { began_at, reason, ..Instance::new(id, phase, pod.created_at) });
    }
    let since = state.short_since.unwrap_or(now);
    let why = target.failure.clone().or_else(|| state.rejections.reason());
    let phase = if why.is_some() { Phase::Blocked } else { not_ready(spec) };
    instances.extend((order.len()..capacity).map(|number| {
        let id = WorkerId::new(format!("{}{NO_POD}{number}", spec.name));
        Instance { reason: why.clone(), ..Instance::new(id, phase, since) }
    }));
    Pool { instances, exits: state.exits.clone(), manual: state.manual.clone(), ..Pool::default() }
}

/// How far a pod is that is to stay, and why it is no further.
pub(super) fn phase(spec: &TargetSpec, pod: &Pod) -> (Phase, Option<String>) {
    match &pod.blocked {
        Some(why) => (Phase::Blocked, Some(why.clone())),
        None if pod.ready => (Phase::Ready, None),
        None => (not_ready(spec), pod.unready.clone()),
    }
}

/// Without heartbeats, readiness is all that vouches for a worker: one that is not ready does not count as one that
/// works.
fn not_ready(spec: &TargetSpec) -> Phase {
    if spec.drains { Phase::Running } else { Phase::Failing }
}

/// Whether this names a replica that has no pod yet.
pub(super) fn has_no_pod(id: &WorkerId) -> bool {
    id.as_str().contains(NO_POD)
}
