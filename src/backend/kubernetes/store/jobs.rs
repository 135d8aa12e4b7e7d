//! What the store keeps of Jobs: written by their watch and, for those that it requests and deletes, by the reconciler
//! of a type.

use std::collections::BTreeSet;

use super::{Store, Watched};
use crate::{
    backend::kubernetes::batch_job::Job,
    model::{WorkerId, WorkerType},
};

impl Store {
    /// A complete list of Jobs, with the worker types that their labels say.
    pub(in crate::backend::kubernetes) fn replace_jobs(&self, all: Vec<(WorkerType, Job)>) {
        let listed: BTreeSet<String> = all.iter().map(|(_, job)| job.name.clone()).collect();
        let types: Vec<WorkerType> = self.lock().types.keys().cloned().collect();
        for worker_type in &types {
            self.update(worker_type, |state, now| state.jobs.keep(&listed, now));
        }
        for (worker_type, job) in all {
            self.apply_job(&worker_type, job);
        }
        self.works(Watched::Jobs);
    }

    /// A Job changed.
    pub(in crate::backend::kubernetes) fn apply_job(&self, worker_type: &WorkerType, job: Job) {
        self.lock().types.entry(worker_type.clone()).or_default();
        self.update(worker_type, |state, _| state.jobs.see(job));
    }

    /// A Job is gone, or certainly was not created.
    pub(in crate::backend::kubernetes) fn remove_job(&self, worker_type: &WorkerType, name: &str) {
        self.update(worker_type, |state, _| state.jobs.remove(name));
    }

    /// A Job is about to be requested. Until its watch tells of it, it counts all the same.
    pub(in crate::backend::kubernetes) fn request_job(&self, worker_type: &WorkerType, id: &WorkerId) {
        self.update(worker_type, |state, now| {
            state.jobs.request(id.as_str(), now);
            false
        });
    }

    /// A requested Job was created.
    pub(in crate::backend::kubernetes) fn created_job(&self, worker_type: &WorkerType, job: Job) {
        self.update(worker_type, |state, _| {
            state.jobs.answered(job);
            true
        });
    }

    /// The uid of a Job, if it is known.
    pub(in crate::backend::kubernetes) fn uid_of_job(&self, worker_type: &WorkerType, id: &WorkerId) -> Option<String> {
        self.lock().types.get(worker_type)?.jobs.uid(id.as_str()).map(str::to_owned)
    }

    /// Whether the Job of a worker was requested, and nobody has told of it yet.
    pub(in crate::backend::kubernetes) fn awaits_job(&self, worker_type: &WorkerType, id: &WorkerId) -> bool {
        self.lock().types.get(worker_type).is_some_and(|state| state.jobs.is_only_requested(id.as_str()))
    }

    /// Whether the Job of a worker is there or requested, and not over.
    pub(in crate::backend::kubernetes) fn has_unfinished_job(&self, worker_type: &WorkerType, id: &WorkerId) -> bool {
        self.lock().types.get(worker_type).is_some_and(|state| state.jobs.is_unfinished(id.as_str()))
    }

    /// Whether anything is left of a worker: its Job, or its pod.
    pub(in crate::backend::kubernetes) fn has_job_or_pod(&self, worker_type: &WorkerType, id: &WorkerId) -> bool {
        let inner = self.lock();
        let Some(state) = inner.types.get(worker_type) else { return false };
        state.jobs.is_unfinished(id.as_str()) || state.own_pods().any(|pod| pod.worker_id() == *id)
    }
}
