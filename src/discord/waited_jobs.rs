//! The jobs that replies of this bot wait for.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The jobs that replies wait for, and the users who asked for them. The button cancels no other job.
#[derive(Debug, Default)]
pub(super) struct WaitedJobs(Mutex<HashMap<String, u64>>);

/// A job that a reply waits for, until dropped.
pub(super) struct WaitedJob<'a> {
    jobs: &'a WaitedJobs,
    id: String,
}

impl WaitedJobs {
    /// Notes that a reply to `user` waits for the job.
    pub(super) fn begin(&self, id: &str, user: u64) -> WaitedJob<'_> {
        self.lock().insert(id.to_owned(), user);
        WaitedJob { jobs: self, id: id.to_owned() }
    }

    /// Returns who asked for the job; `None` if no reply waits for it.
    pub(super) fn asker(&self, id: &str) -> Option<u64> {
        self.lock().get(id).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WaitedJob<'_> {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_while_it_is_waited_for() {
        let jobs = WaitedJobs::default();
        let waited = jobs.begin("a", 7);
        assert_eq!((jobs.asker("a"), jobs.asker("b")), (Some(7), None));
        drop(waited);
        assert_eq!(jobs.asker("a"), None);
    }
}
