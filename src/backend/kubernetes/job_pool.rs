//! From Jobs and their pods to the pool as the rest of the program sees it. Pure.
//!
//! Each unfinished Job is one worker. A Job without a pod is starting, and blocked if that lasts. A pod whose Job is
//! gone or over, and that still runs, is leaving.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    batch_job::Job,
    pool::phase,
    spec::TargetSpec,
    type_state::TypeState,
    view::{Pod, PodPhase},
};
use crate::{
    backend::{Instance, Phase, Pool},
    model::{Timestamp, WorkerId},
};

/// After which time a Job without a pod is blocked. The controller of Jobs takes a second.
const WITHOUT_POD_LIMIT: Duration = Duration::from_secs(30);

/// The pool of a worker type.
pub(super) fn pool(spec: &TargetSpec, state: &TypeState, now: Timestamp) -> Pool {
    let mut pods = HashMap::<&str, &Pod>::new();
    for pod in state.own_pods() {
        let Some((_, job)) = &pod.owner else { continue };
        let newest = pods.entry(job).or_insert(pod);
        if (pod.created_at, &pod.name) > (newest.created_at, &newest.name) {
            *newest = pod;
        }
    }
    let leaves = |id: &WorkerId| state.draining.contains(id) || state.released.contains(id);
    let mut instances = Vec::new();
    let mut unfinished = HashSet::new();
    for job in state.jobs.unfinished_of(&spec.name) {
        unfinished.insert(job.name.as_str());
        let pod = pods.get(job.name.as_str()).copied();
        if pod.is_some_and(|pod| pod.phase == PodPhase::Finished) {
            // Its controller has not said so yet.
            continue;
        }
        let id = WorkerId::new(job.name.as_str());
        let (phase, reason) = if leaves(&id) || job.terminating || pod.is_some_and(|pod| pod.terminating) {
            (Phase::Draining, None)
        } else {
            pod.map_or_else(|| without_pod(job, now), |pod| phase(spec, pod))
        };
        // As with other kinds, the grace of a worker begins when its container does.
        let began_at = pod.map_or(Some(now), |pod| pod.running_since.or((!pod.started).then_some(now)));
        instances.push(Instance { began_at, reason, ..Instance::new(id, phase, job.created_at) });
    }
    instances.extend(state.jobs.only_requested().map(|(name, at)| {
        let id = WorkerId::new(name);
        let phase = if leaves(&id) { Phase::Draining } else { Phase::Running };
        Instance { began_at: Some(now), ..Instance::new(id, phase, at) }
    }));
    let left = pods.iter().filter(|(job, pod)| !unfinished.contains(*job) && pod.phase != PodPhase::Finished);
    let mut left: Vec<Instance> =
        left.map(|(job, pod)| Instance::new(WorkerId::new(*job), Phase::Draining, pod.created_at)).collect();
    left.sort_by(|a, b| a.id.cmp(&b.id));
    instances.append(&mut left);
    Pool { instances, exits: state.exits.clone(), ..Pool::default() }
}

fn without_pod(job: &Job, now: Timestamp) -> (Phase, Option<String>) {
    if job.suspended {
        return (Phase::Blocked, Some("its Job is suspended".to_owned()));
    }
    if now.since(job.created_at) < WITHOUT_POD_LIMIT {
        return (Phase::Running, None);
    }
    (Phase::Blocked, Some("its Job has no pod; the events of the Job say why (kubectl describe job)".to_owned()))
}
