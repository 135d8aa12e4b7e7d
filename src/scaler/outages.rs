//! Outages of the backend, for the log: one line when an outage begins and one when it ends, whatever the number of
//! worker types and attempts. Decides nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::WorkerType;

/// Outages in progress, by their first error.
#[derive(Debug, Default)]
pub struct Outages(Mutex<HashMap<String, Outage>>);

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// Worker types that the outage affects.
    types: HashSet<WorkerType>,
}

impl Outages {
    /// Records a failure for a worker type. Returns whether it begins an outage: another error during an outage does
    /// not.
    pub(super) fn failed(&self, worker_type: &WorkerType, error: &str) -> bool {
        let mut outages = self.lock();
        if outages.values().any(|outage| outage.types.contains(worker_type)) {
            return false;
        }
        let begins = !outages.contains_key(error);
        let begin = || Outage { since: Instant::now(), types: HashSet::new() };
        outages.entry(error.to_owned()).or_insert_with(begin).types.insert(worker_type.clone());
        begins
    }

    /// Records a success for a worker type. Returns the length of the outage that ends with it: an outage ends when the
    /// last affected type has recovered.
    pub(super) fn answered(&self, worker_type: &WorkerType) -> Option<Duration> {
        let mut outages = self.lock();
        let affects = |outage: &Outage| outage.types.contains(worker_type);
        let error = outages.iter().find(|(_, outage)| affects(outage)).map(|(error, _)| error.clone())?;
        let outage = outages.get_mut(&error)?;
        outage.types.remove(worker_type);
        let lasted = outage.types.is_empty().then(|| outage.since.elapsed());
        if lasted.is_some() {
            outages.remove(&error);
        }
        lasted
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Outage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_at_its_beginning_and_once_at_its_end() {
        let outages = Outages::default();
        let [mail, news, web] = &["mail", "news", "web"].map(WorkerType::new);
        assert_eq!(outages.answered(mail), None);
        assert!(outages.failed(mail, "engine is away"));
        assert!(!outages.failed(mail, "engine is away"), "another attempt");
        assert!(!outages.failed(news, "engine is away"), "another worker type");
        assert!(!outages.failed(mail, "timed out"), "another error of the same outage");
        assert!(outages.failed(web, "no such target"), "another outage");
        assert_eq!(outages.answered(mail), None, "it goes on for the other worker type");
        assert!(outages.answered(news).is_some());
        assert!(outages.answered(web).is_some());
        assert!(outages.failed(mail, "engine is away"), "the next one");
    }
}
