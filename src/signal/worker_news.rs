//! News of workers since somebody last took them: of some workers of a type by name, or of any of them. A signal that
//! tells of a worker leaves its news here before it is posted, so whoever takes the news and then reads misses nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::WorkerId;

/// Named workers beyond which the news are of any worker: then reading all costs little more, and memory is bounded.
const MAX_NAMED: usize = 256;

/// News of the workers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerNews {
    /// News of these workers.
    Of(HashSet<WorkerId>),
    /// News of any worker.
    OfAny,
}

/// The news by the index of the worker type; nothing for a worker type without news.
#[derive(Debug, Default)]
pub(super) struct NewsByType(Mutex<HashMap<u32, WorkerNews>>);

impl NewsByType {
    /// Adds news of one worker, or of any if it is not named.
    pub(super) fn add(&self, index: u32, worker: Option<&str>) {
        let mut all = self.lock();
        let news = all.entry(index).or_insert_with(|| WorkerNews::Of(HashSet::new()));
        match (worker, &mut *news) {
            (Some(worker), WorkerNews::Of(named)) if named.len() < MAX_NAMED => {
                named.insert(WorkerId::new(worker));
            }
            _ => *news = WorkerNews::OfAny,
        }
    }

    /// Takes the news of a worker type. The caller has to read these workers.
    pub(super) fn take(&self, index: u32) -> Option<WorkerNews> {
        self.lock().remove(&index)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, WorkerNews>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_taken_once_and_many_named_workers_mean_any() {
        let news = NewsByType::default();
        assert_eq!(news.take(1), None);
        news.add(1, Some("a"));
        news.add(1, Some("a"));
        news.add(2, None);
        news.add(2, Some("a"));
        assert_eq!(news.take(1), Some(WorkerNews::Of([WorkerId::new("a")].into())));
        assert_eq!((news.take(1), news.take(2)), (None, Some(WorkerNews::OfAny)));
        (0..=MAX_NAMED).for_each(|number| news.add(1, Some(&number.to_string())));
        assert_eq!(news.take(1), Some(WorkerNews::OfAny));
    }
}
