//! What the watches have told so far, by worker type, and what is made of it: the pool. Written by the watches and, for the
//! counts it has just set itself, by the keeper of a type; read by everybody. Talks to nobody.

mod state;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

pub(super) use self::state::State;
use self::state::is_older;
use super::{
    failure::retryable,
    pool,
    spec::{KubernetesSpec, TargetSpec},
    view::{Pod, Target},
};
use crate::{
    backend::{BackendError, OnChange, Pool},
    config::TargetKind,
    model::{Clock, Timestamp, WorkerId, WorkerType},
};

/// What is watched. Each of them is one watch for all worker types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Watched {
    Targets(TargetKind),
    Pods,
}

impl Watched {
    /// The name in metric labels.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Targets(TargetKind::Deployment) => "deployments",
            Self::Targets(TargetKind::StatefulSet) => "statefulsets",
            Self::Pods => "pods",
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: works. Else why nothing can be told.
    trouble: BTreeMap<Watched, Option<String>>,
    types: HashMap<WorkerType, State>,
}

/// See the [module](self).
pub(super) struct Store {
    by_target: HashMap<(TargetKind, String), WorkerType>,
    specs: BTreeMap<WorkerType, TargetSpec>,
    inner: Mutex<Inner>,
    /// Whether every watch has listed and works.
    complete: watch::Sender<bool>,
    on_change: OnChange,
    clock: Clock,
}

/// What the keeper of a type works from.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) target: Target,
    /// Active ones only.
    pub(super) pods: Vec<Pod>,
}

impl Store {
    pub(super) fn new(spec: &KubernetesSpec, on_change: OnChange, clock: Clock) -> Self {
        let specs = spec.types.clone();
        let by_target = specs.iter().map(|(name, one)| ((one.kind, one.name.clone()), name.clone())).collect();
        let types = specs.keys().map(|name| (name.clone(), State::default())).collect();
        let watched = specs.values().map(|one| Watched::Targets(one.kind)).chain([Watched::Pods]);
        let trouble = watched.map(|one| (one, Some("not listed yet".to_owned()))).collect();
        let inner = Mutex::new(Inner { trouble, types });
        Self { by_target, specs, inner, complete: watch::Sender::new(false), on_change, clock }
    }

    /// What there is to watch.
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

    /// A watch does not work: until it does, nothing is known.
    pub(super) fn broken(&self, watched: Watched, why: &str) {
        self.lock().trouble.insert(watched, Some(why.to_owned()));
        self.complete.send_replace(false);
        self.tell_all();
    }

    /// A complete list of targets.
    pub(super) fn replace_targets(&self, kind: TargetKind, all: Vec<(String, Target)>) {
        let listed: BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let gone = self.by_target.iter().filter(|((of, name), _)| *of == kind && !listed.contains(name.as_str()));
        for (_, worker_type) in gone {
            self.update(worker_type, |state, _| state.target.take().is_some());
        }
        for (name, target) in all {
            self.apply_target(kind, &name, Some(target));
        }
        self.works(Watched::Targets(kind));
    }

    /// A target changed, or is gone.
    pub(super) fn apply_target(&self, kind: TargetKind, name: &str, target: Option<Target>) {
        let Some(worker_type) = self.by_target.get(&(kind, name.to_owned())) else { return };
        self.update(worker_type, |state, now| match target {
            None => state.target.take().is_some(),
            Some(target) => state.see_target(kind, name, target, now),
        });
    }

    /// A complete list of pods, with the worker types that their labels say.
    pub(super) fn replace_pods(&self, all: Vec<(WorkerType, Pod)>) {
        let listed: BTreeSet<String> = all.iter().map(|(_, pod)| pod.name.clone()).collect();
        for worker_type in self.specs.keys() {
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
        self.update(worker_type, |state, _| state.see_pod(pod));
    }

    /// A pod is gone.
    pub(super) fn remove_pod(&self, worker_type: &WorkerType, name: &str) {
        self.update(worker_type, |state, _| state.pods.remove(name).is_some());
    }

    /// The pool of a type; an error if that is not known for certain.
    pub(super) fn pool(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let spec = self.spec(worker_type)?;
        let inner = self.lock();
        inner.trusted(spec)?;
        let state = &inner.types[worker_type];
        let target = state.target.as_ref().ok_or_else(|| spec.missing())?;
        Ok(pool::pool(spec, target, state, self.clock.now()))
    }

    /// What the keeper works from; an error if that is not known for certain.
    pub(super) fn view(&self, worker_type: &WorkerType) -> Result<View, BackendError> {
        let spec = self.spec(worker_type)?;
        let inner = self.lock();
        inner.trusted(spec)?;
        let state = &inner.types[worker_type];
        let target = state.target.clone().ok_or_else(|| spec.missing())?;
        Ok(View { target, pods: state.pods.values().filter(|pod| pod.is_active()).cloned().collect() })
    }

    /// Whether a pod of that name exists, leaving or not.
    pub(super) fn exists(&self, worker_type: &WorkerType, id: &WorkerId) -> bool {
        self.lock().types.get(worker_type).is_some_and(|state| state.pods.contains_key(id.as_str()))
    }

    /// The keeper's books of who leaves.
    pub(super) fn set_leaving(
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
        let Some(spec) = self.specs.get(worker_type) else { return };
        self.update(worker_type, |state, now| {
            let Some(known) = state.target.clone() else { return false };
            let target = Target { resource_version: resource_version.to_owned(), replicas, scaled_by: None, ..known };
            state.see_target(spec.kind, &spec.name, target, now)
        });
    }

    fn spec(&self, worker_type: &WorkerType) -> Result<&TargetSpec, BackendError> {
        self.specs.get(worker_type).ok_or_else(|| super::failure::unknown_type(worker_type))
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
        for worker_type in self.specs.keys() {
            (self.on_change)(worker_type);
        }
    }

    /// Changes a type's state and tells of it if `change` says that it is news. Nobody is told while the lock is held.
    fn update(&self, worker_type: &WorkerType, change: impl FnOnce(&mut State, Timestamp) -> bool) {
        let news = {
            let mut inner = self.lock();
            let Some(state) = inner.types.get_mut(worker_type) else { return };
            let now = self.clock.now();
            let news = change(state, now);
            state.note_shortage(now);
            if news {
                state.changed.notify_one();
            }
            news
        };
        if news {
            (self.on_change)(worker_type);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Nothing that a broken watch once told counts: it may be long past.
    fn trusted(&self, spec: &TargetSpec) -> Result<(), BackendError> {
        for watched in [Watched::Targets(spec.kind), Watched::Pods] {
            if let Some(Some(why)) = self.trouble.get(&watched) {
                return Err(retryable(why.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
