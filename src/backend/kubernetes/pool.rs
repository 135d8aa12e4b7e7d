//! From target and pods to the pool as the rest of the program sees it. Pure.
//!
//! `spec.replicas` is the desired count and so the capacity. Pods beyond it (the surge of a rollout, or those that the
//! controller has not removed yet) are leaving, in the order in which they will; replicas without a pod yet are starting.

use std::collections::BTreeSet;

use super::{deletion_order::deletion_order, spec::TargetSpec, store::State, view::Target};
use crate::{
    backend::{Instance, Phase, Pool},
    model::{Timestamp, WorkerId},
};

/// Marks the names of replicas that have no pod yet; no pod's name has it.
const NO_POD: char = '#';

/// The pool of a worker type.
pub(super) fn pool(spec: &TargetSpec, target: &Target, state: &State, now: Timestamp) -> Pool {
    let leaves = |name: &str| {
        let id = WorkerId::new(name);
        state.draining.contains(&id) || state.released.contains(&id)
    };
    let mut order = deletion_order(spec.kind, state.pods.values(), |_| false);
    order.retain(|pod| !leaves(&pod.name));
    let draining =
        state.draining.iter().filter(|id| state.pods.get(id.as_str()).is_some_and(super::view::Pod::is_active));
    let capacity = (target.replicas as usize).saturating_sub(draining.count());
    let surplus: BTreeSet<&str> =
        order.iter().take(order.len().saturating_sub(capacity)).map(|pod| pod.name.as_str()).collect();

    let mut instances = Vec::with_capacity(state.pods.len());
    for pod in state.pods.values().filter(|pod| pod.is_active() || pod.terminating) {
        let phase = match pod {
            pod if !pod.is_active() || surplus.contains(pod.name.as_str()) || leaves(&pod.name) => Phase::Draining,
            pod if pod.ready => Phase::Ready,
            _ => Phase::Running,
        };
        instances.push(Instance::new(WorkerId::new(pod.name.as_str()), phase, pod.created_at));
    }
    let since = state.short_since.unwrap_or(now);
    let without_pod = |number| WorkerId::new(format!("{}{NO_POD}{number}", spec.name));
    instances.extend((order.len()..capacity).map(|number| Instance::new(without_pod(number), Phase::Running, since)));
    Pool { instances, exits: state.exits.clone(), manual: state.manual.clone() }
}

/// Whether this names a replica that has no pod yet.
pub(super) fn has_no_pod(id: &WorkerId) -> bool {
    id.as_str().contains(NO_POD)
}
