//! The stream and the group that have the jobs of a type, and who reads them.

use super::Routes;
use crate::{
    config::Settings,
    model::{WorkerId, WorkerType, keys},
};

/// Where the unanswered jobs are.
#[derive(Debug)]
pub struct Place {
    /// Worker type that reads the stream; `None` if no configured type does.
    pub(super) worker_type: Option<String>,
    /// Whether the jobs are on another stream than routing would choose.
    pub(super) is_elsewhere: bool,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) job_max_bytes: usize,
}

impl Place {
    /// Returns the place of jobs of that type which are on `stream`.
    pub fn of(settings: &Settings, routes: &Routes, job_type: &str, stream: &str) -> Self {
        let worker_type = routes.reader(job_type, stream).map(str::to_owned);
        let is_elsewhere = routes.stream(job_type).ok() != Some(stream);
        let configured = worker_type.as_ref().and_then(|name| Some(settings.worker_types.get(name)?.group(name)));
        let group = configured.unwrap_or_else(|| keys::DEFAULT_STREAM_GROUP.to_owned());
        let job_max_bytes = usize::try_from(settings.broker.job_max_bytes).unwrap_or(usize::MAX);
        Self { worker_type, is_elsewhere, stream: stream.to_owned(), group, job_max_bytes }
    }

    /// Returns the heartbeat key of one of its workers.
    pub(super) fn heartbeat(&self, worker: &str) -> String {
        keys::heartbeat(&self.workers(), &WorkerId::new(worker))
    }

    /// Returns the type of the workers that read the stream. Without a configured type, the name of the group is the
    /// best guess.
    pub(super) fn workers(&self) -> WorkerType {
        WorkerType::new(self.worker_type.as_deref().unwrap_or(&self.group))
    }
}
