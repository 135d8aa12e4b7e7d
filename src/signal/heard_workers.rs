//! What the workers of frameworks report about themselves on channels: which worker runs how many jobs. A report of
//! idleness counts only if it is younger than the last signal of the queues, because a worker may have taken a job in
//! between.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::queue_kind::{Heard, HeardWorker, WorkerStatement};

/// Minimum time between the last signal of the queues and a report of idleness that counts: an earlier report may have
/// been sent before the signal.
const SETTLED: Duration = Duration::from_millis(500);

/// Time for which reports are kept: much longer than any interval between two.
const KEPT: Duration = Duration::from_secs(120);

/// The last report of each worker of one type.
#[derive(Debug, Default)]
pub(super) struct HeardWorkers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    workers: HashMap<String, (u64, Instant)>,
    news_at: Option<Instant>,
}

impl State {
    fn is_since_news(&self, at: Instant) -> bool {
        self.news_at.is_none_or(|news| at >= news + SETTLED)
    }
}

impl HeardWorkers {
    /// Records that something happened in the queues.
    pub(super) fn note_news(&self, now: Instant) {
        self.state().news_at = Some(now);
    }

    /// Records a report. Returns whether it is news.
    pub(super) fn hear(&self, statement: WorkerStatement, now: Instant) -> bool {
        let mut heard = self.state();
        heard.workers.retain(|_, (_, at)| now.duration_since(*at) < KEPT);
        if statement.is_leaving {
            return heard.workers.remove(&statement.name).is_some();
        }
        let settled = heard.is_since_news(now);
        let before = heard.workers.insert(statement.name, (statement.active, now));
        before.is_none_or(|(active, at)| (active, heard.is_since_news(at)) != (statement.active, settled))
    }

    /// Returns the reports.
    pub(super) fn all(&self, now: Instant) -> Heard {
        let heard = self.state();
        let one = |(name, (active, at)): (&String, &(u64, Instant))| HeardWorker {
            name: name.clone(),
            active: *active,
            age: now.duration_since(*at),
            is_since_news: heard.is_since_news(*at),
        };
        let news_age = heard.news_at.map(|news| now.duration_since(news));
        Heard { workers: heard.workers.iter().map(one).collect(), news_age, is_hearing: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_older_than_the_last_news_is_told_as_such_and_the_next_one_is_news() {
        let heard = HeardWorkers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let idle = || WorkerStatement { name: "a".to_owned(), active: 0, is_leaving: false };
        assert!(heard.hear(idle(), at(0)), "the first one");
        assert!(!heard.hear(idle(), at(2_000)));
        assert!(heard.all(at(2_001)).workers[0].is_since_news);
        heard.note_news(at(2_500));
        assert!(!heard.all(at(2_501)).workers[0].is_since_news);
        assert!(!heard.hear(idle(), at(2_600)), "it may have been on its way");
        assert!(heard.hear(idle(), at(4_600)));
        let all = heard.all(at(5_000));
        assert_eq!((all.workers[0].age, all.workers.len()), (Duration::from_millis(400), 1));
        assert_eq!(all.news_age, Some(Duration::from_millis(2_500)));
        assert!(heard.hear(WorkerStatement { is_leaving: true, ..idle() }, at(5_000)));
        assert!(heard.all(at(5_000)).workers.is_empty());
    }
}
