//! State from the watches by worker type, and the pool that follows from it. Written by the watches and, for counts
//! that it has just set, by the reconciler of a type. Does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{
    failure::Right,
    job_pool, pool,
    spec::{KubernetesSpec, TargetSpec, api_resource},
    type_state::{TypeState, is_older},
    view::{Pod, Target},
};
use crate::{
    backend::{BackendError, OnChange, Pool},
    config::TargetKind,
    model::{Clock, Timestamp, WorkerId, WorkerType},
};

/// Error of a watch that has not listed yet.
const NOT_LISTED: &str = "not listed yet";

/// A watched resource: one watch for all worker types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Watched {
    Targets(TargetKind),
    Jobs,
    Pods,
}

impl Watched {
    /// The API's group and name of the resource.
    fn api_resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Targets(kind) => api_resource(kind),
            Self::Jobs => ("batch", "jobs"),
            Self::Pods => ("", "pods"),
        }
    }

    /// The name in errors and metric labels.
    pub(super) fn as_str(self) -> &'static str {
        self.api_resource().1
    }

    /// The right to a verb.
    pub(super) fn right(self, verb: &'static str) -> Right {
        let (group, resource) = self.api_resource();
        Right::new(group, resource, verb)
    }
}

/// What is watched for targets of a kind, besides pods.
fn needed(kind: TargetKind) -> &'static [Watched] {
    match kind {
        TargetKind::Deployment => &[Watched::Targets(TargetKind::Deployment)],
        TargetKind::StatefulSet => &[Watched::Targets(TargetKind::StatefulSet)],
        TargetKind::Job => &[Watched::Targets(TargetKind::Job), Watched::Jobs],
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: works. Else why nothing can be told.
    trouble: BTreeMap<Watched, Option<String>>,
    /// Also those that are not looked after: their labelled pods and Jobs are told all the same, and they may come to
    /// be.
    types: HashMap<WorkerType, TypeState>,
    /// The targets of those that are looked after.
    specs: BTreeMap<WorkerType, TargetSpec>,
    by_target: HashMap<TargetKey, WorkerType>,
    /// Labelled targets that belong to none of them.
    unclaimed: HashMap<TargetKey, Target>,
}

type TargetKey = (TargetKind, String);

/// See the [module](self).
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// Whether every watch has listed and works.
    complete: watch::Sender<bool>,
    on_change: OnChange,
    clock: Clock,
}

/// Input of a type's reconciler.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) target: Target,
    /// Active ones of the target only.
    pub(super) pods: Vec<Pod>,
}

impl Store {
    pub(super) fn new(spec: &KubernetesSpec, on_change: OnChange, clock: Clock) -> Self {
        let trouble = BTreeMap::from([(Watched::Pods, Some(NOT_LISTED.to_owned()))]);
        let inner = Mutex::new(Inner { trouble, ..Inner::default() });
        let store = Self { inner, complete: watch::Sender::new(false), on_change, clock };
        store.look_after(&spec.types);
        store
    }

    /// From now on these are looked after too, or by other targets. Returns the watches that this takes besides those
    /// there are.
    pub(super) fn look_after(&self, types: &BTreeMap<WorkerType, TargetSpec>) -> Vec<Watched> {
        let now = self.clock.now();
        let mut inner = self.lock();
        let mut new = Vec::new();
        for (worker_type, spec) in types {
            for watched in needed(spec.kind) {
                if let Entry::Vacant(entry) = inner.trouble.entry(*watched) {
                    new.push(*watched);
                    entry.insert(Some(NOT_LISTED.to_owned()));
                }
            }
            inner.claim(worker_type, spec, now);
        }
        drop(inner);
        if !new.is_empty() {
            self.complete.send_replace(false);
        }
        new
    }

    /// It is not looked after any more.
    pub(super) fn release(&self, worker_type: &WorkerType) {
        self.lock().disclaim(worker_type);
    }

    /// Returns the watched resources.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.lock().trouble.keys().copied().collect()
    }

    /// Waits until everything is known.
    pub(super) async fn until_complete(&self) {
        // The sender is here as well: it can't be gone.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Told when anything of a type changed.
    pub(super) fn changed(&self, worker_type: &WorkerType) -> Arc<Notify> {
        self.lock().types.get(worker_type).map(|state| state.changed.clone()).unwrap_or_default()
    }

    /// Records that a watch is broken: until it works, the pools are unknown.
    pub(super) fn broken(&self, watched: Watched, why: &str) {
        self.lock().trouble.insert(watched, Some(why.to_owned()));
        self.complete.send_replace(false);
        self.tell_all();
    }

    /// A complete list of targets.
    pub(super) fn replace_targets(&self, kind: TargetKind, all: Vec<(String, Target)>) {
        let listed: BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let is_gone = |(of, name): &TargetKey| *of == kind && !listed.contains(name.as_str());
        let gone: Vec<WorkerType> = {
            let mut inner = self.lock();
            inner.unclaimed.retain(|key, _| !is_gone(key));
            inner.by_target.iter().filter(|(key, _)| is_gone(key)).map(|(_, name)| name.clone()).collect()
        };
        for worker_type in gone {
            self.update(&worker_type, |state, _| state.target.take().is_some());
        }
        for (name, target) in all {
            self.apply_target(kind, &name, Some(target));
        }
        self.works(Watched::Targets(kind));
    }

    /// A target changed, or is gone.
    pub(super) fn apply_target(&self, kind: TargetKind, name: &str, target: Option<Target>) {
        let key = (kind, name.to_owned());
        let mut inner = self.lock();
        let Some(worker_type) = inner.by_target.get(&key).cloned() else {
            match target {
                None => drop(inner.unclaimed.remove(&key)),
                Some(target) => drop(inner.unclaimed.insert(key, target)),
            }
            return;
        };
        self.update_locked(inner, &worker_type, |state, now| match target {
            None => state.target.take().is_some(),
            Some(target) => state.see_target(kind, name, target, now),
        });
    }

    /// A complete list of pods, with the worker types that their labels say.
    pub(super) fn replace_pods(&self, all: Vec<(WorkerType, Pod)>) {
        let listed: BTreeSet<String> = all.iter().map(|(_, pod)| pod.name.clone()).collect();
        let types: Vec<WorkerType> = self.lock().types.keys().cloned().collect();
        for worker_type in &types {
            self.update(worker_type, |state, _| {
                let before = state.pods.len();
                state.pods.retain(|name, _| listed.contains(name));
                before != state.pods.len()
            });
        }
        for (worker_type, pod) in all {
            self.apply_pod(&worker_type, pod);
        }
        self.works(Watched::Pods);
    }

    /// A pod changed.
    pub(super) fn apply_pod(&self, worker_type: &WorkerType, pod: Pod) {
        self.lock().types.entry(worker_type.clone()).or_default();
        self.update(worker_type, |state, now| state.see_pod(pod, worker_type, now));
    }

    /// A pod is gone.
    pub(super) fn remove_pod(&self, worker_type: &WorkerType, name: &str) {
        self.update(worker_type, |state, _| state.pods.remove(name).is_some());
    }

    /// The pool of a type; an error if that is not known for certain.
    pub(super) fn pool(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let (mut inner, now) = (self.lock(), self.clock.now());
        if let Some(state) = inner.types.get_mut(worker_type) {
            state.settle(worker_type, now);
        }
        let spec = inner.trusted(worker_type)?;
        let state = &inner.types[worker_type];
        let target = state.target.as_ref().ok_or_else(|| spec.missing())?;
        Ok(match spec.kind {
            TargetKind::Job => job_pool::pool(spec, state, now),
            TargetKind::Deployment | TargetKind::StatefulSet => pool::pool(spec, target, state, now),
        })
    }

    /// Returns the reconciler's input; an error if it is not known for certain.
    pub(super) fn view(&self, worker_type: &WorkerType) -> Result<View, BackendError> {
        let inner = self.lock();
        let spec = inner.trusted(worker_type)?;
        let state = &inner.types[worker_type];
        let target = state.target.clone().ok_or_else(|| spec.missing())?;
        Ok(View { target, pods: state.own_pods().filter(|pod| pod.is_active()).cloned().collect() })
    }

    /// Why nodes reject pods of a type at present, and how many they have rejected.
    pub(super) fn rejections(&self, worker_type: &WorkerType) -> Option<(String, u64)> {
        self.lock().types.get(worker_type)?.rejections.current()
    }

    /// Whether a pod of that name exists, leaving or not.
    pub(super) fn exists(&self, worker_type: &WorkerType, id: &WorkerId) -> bool {
        self.lock().types.get(worker_type).is_some_and(|state| state.pods.contains_key(id.as_str()))
    }

    /// Records which workers are leaving.
    pub(super) fn set_draining(
        &self,
        worker_type: &WorkerType,
        draining: BTreeSet<WorkerId>,
        released: BTreeSet<WorkerId>,
    ) {
        self.update(worker_type, |state, _| {
            let news = state.draining != draining || state.released != released;
            (state.draining, state.released) = (draining, released);
            news
        });
    }

    /// This count is about to be written; `None`: certainly none was.
    pub(super) fn will_write(&self, worker_type: &WorkerType, replicas: Option<u32>) {
        self.update(worker_type, |state, _| {
            state.writing = replicas;
            false
        });
    }

    /// This count was written.
    pub(super) fn wrote(&self, worker_type: &WorkerType, resource_version: &str, replicas: u32) {
        self.update(worker_type, |state, now| {
            state.writing = None;
            let Some(target) = &mut state.target else { return false };
            if !is_older(resource_version, &target.resource_version) {
                (target.replicas, target.resource_version) = (replicas, resource_version.to_owned());
            }
            state.note_shortage(now);
            true
        });
    }

    /// This count was read, with what it was read from.
    pub(super) fn read(&self, worker_type: &WorkerType, resource_version: &str, replicas: u32) {
        let Some(spec) = self.lock().specs.get(worker_type).cloned() else { return };
        self.update(worker_type, |state, now| {
            let Some(known) = state.target.clone() else { return false };
            let target = Target { resource_version: resource_version.to_owned(), replicas, scaled_by: None, ..known };
            state.see_target(spec.kind, &spec.name, target, now)
        });
    }

    fn works(&self, watched: Watched) {
        let (news, complete) = {
            let mut inner = self.lock();
            let news = inner.trouble.insert(watched, None).flatten().is_some();
            (news, inner.trouble.values().all(Option::is_none))
        };
        if news {
            self.complete.send_replace(complete);
            self.tell_all();
        }
    }

    fn tell_all(&self) {
        let types: Vec<WorkerType> = self.lock().specs.keys().cloned().collect();
        for worker_type in &types {
            (self.on_change)(worker_type);
        }
    }

    /// Changes a type's state and tells of it if `change` says that it is news. Nobody is told while the lock is held.
    fn update(&self, worker_type: &WorkerType, change: impl FnOnce(&mut TypeState, Timestamp) -> bool) {
        self.update_locked(self.lock(), worker_type, change);
    }

    fn update_locked(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        worker_type: &WorkerType,
        change: impl FnOnce(&mut TypeState, Timestamp) -> bool,
    ) {
        let looked_after = inner.specs.contains_key(worker_type);
        let Some(state) = inner.types.get_mut(worker_type) else { return };
        let now = self.clock.now();
        let news = change(state, now);
        state.note_shortage(now);
        if news {
            state.changed.notify_one();
        }
        drop(inner);
        if news && looked_after {
            (self.on_change)(worker_type);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The target of a type that is looked after, if what is known of it counts: nothing that a broken watch once told
    /// does, as it may be long past.
    fn trusted(&self, worker_type: &WorkerType) -> Result<&TargetSpec, BackendError> {
        let spec = self.specs.get(worker_type).ok_or_else(|| super::failure::unknown_type(worker_type))?;
        for watched in needed(spec.kind).iter().chain([&Watched::Pods]) {
            if let Some(Some(why)) = self.trouble.get(watched) {
                return Err(BackendError::retryable(why.clone()));
            }
        }
        Ok(spec)
    }

    /// A type has this target now. What is known of its pods, and of the target if it was the same, stays.
    fn claim(&mut self, worker_type: &WorkerType, spec: &TargetSpec, now: Timestamp) {
        let key = (spec.kind, spec.name.clone());
        let before = self.specs.get(worker_type).map(|before| (before.kind, before.name.clone()));
        if before.as_ref() != Some(&key) {
            self.disclaim(worker_type);
            // A type that goes may still have it: that one writes no more.
            let others = self.by_target.get(&key).and_then(|other| self.types.get(other)?.target.clone());
            let target = self.unclaimed.remove(&key).or(others);
            let state = self.types.entry(worker_type.clone()).or_default();
            state.target = target;
            state.owner = Some(key.clone());
            state.note_shortage(now);
            self.by_target.insert(key, worker_type.clone());
        }
        self.specs.insert(worker_type.clone(), spec.clone());
    }

    fn disclaim(&mut self, worker_type: &WorkerType) {
        let Some(spec) = self.specs.remove(worker_type) else { return };
        let key = (spec.kind, spec.name);
        let target = self.types.get_mut(worker_type).and_then(TypeState::leave_alone);
        if self.by_target.get(&key) == Some(worker_type) {
            self.by_target.remove(&key);
            self.unclaimed.extend(target.map(|target| (key, target)));
        }
    }
}

mod jobs;

#[cfg(test)]
mod tests;
