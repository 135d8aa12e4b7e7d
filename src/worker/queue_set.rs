//! The queues that a worker serves now: always the named ones, and those that its patterns have found, while they
//! exist. Shared by the code that finds, reads and maintains queues. Does no I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::Queues;

/// Maximum queues found by patterns that one worker serves: each costs a little with every read.
pub(super) const MAX_FOUND: usize = 1_000;

/// See the [module](self). The order is stable while no queue comes or goes: the named ones first.
pub(super) struct QueueSet {
    queues: Queues,
    named: usize,
    now: Mutex<Arc<[Arc<str>]>>,
    news: watch::Sender<()>,
}

/// Result of offering a key that may be a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// The queue is served from now on.
    New,
    /// The queue was served before.
    Known,
    /// The key is not a queue of this worker.
    Foreign,
    /// The worker already serves the maximum number of queues.
    TooMany,
}

impl QueueSet {
    pub(super) fn new(queues: Queues) -> Self {
        let now: Arc<[Arc<str>]> = queues.named().map(Arc::from).collect();
        Self { queues, named: now.len(), now: Mutex::new(now), news: watch::Sender::default() }
    }

    /// Returns the configured queues and patterns.
    pub(super) fn configured(&self) -> &Queues {
        &self.queues
    }

    /// Returns the queues that are served now.
    pub(super) fn streams(&self) -> Arc<[Arc<str>]> {
        self.lock().clone()
    }

    /// Returns whether the settings name this queue, so that it is served whether it exists or not.
    pub(super) fn is_named(&self, stream: &str) -> bool {
        self.queues.named().any(|named| named == stream)
    }

    /// Adds a queue that was seen somewhere, if it matches a pattern.
    pub(super) fn offer(&self, key: &str) -> Offered {
        let mut now = self.lock();
        if now.iter().any(|known| **known == *key) {
            return Offered::Known;
        }
        if !self.queues.finds(key) {
            return Offered::Foreign;
        }
        if now.len() - self.named >= MAX_FOUND {
            return Offered::TooMany;
        }
        *now = now.iter().cloned().chain([key.into()]).collect();
        drop(now);
        self.news.send_replace(());
        tracing::info!(queue = key, "found a queue");
        Offered::New
    }

    /// Drops a queue that no longer exists. A named queue stays.
    pub(super) fn forget(&self, stream: &str) {
        if !self.is_named(stream) {
            let mut now = self.lock();
            *now = now.iter().filter(|known| ***known != *stream).cloned().collect();
        }
    }

    /// Returns a receiver that changes when a queue is added, or when one was [written to](Self::written).
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Notifies that a queue was written to.
    pub(super) fn written(&self) {
        self.news.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[Arc<str>]>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Round-robin over the queues, so that a busy queue can't starve the others.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: Option<Arc<str>>,
}

impl Turns {
    /// Begins at an index that differs from worker to worker; otherwise all workers would read the same queue first.
    pub(super) fn new(streams: &[Arc<str>], seed: usize) -> Self {
        Self { last: streams.get(seed.checked_rem(streams.len()).unwrap_or(0)).cloned() }
    }

    /// Returns all streams, in the order of their turns.
    pub(super) fn order(&self, streams: &[Arc<str>]) -> Vec<Arc<str>> {
        let last = self.last.as_ref().and_then(|last| streams.iter().position(|stream| stream == last));
        let (before, from) = streams.split_at(last.map_or(0, |last| last + 1));
        from.iter().chain(before).cloned().collect()
    }

    /// Ends the turn of this stream; the following ones are next.
    pub(super) fn had(&mut self, stream: Arc<str>) {
        self.last = Some(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::QueuePattern;

    fn names(streams: &[Arc<str>]) -> Vec<&str> {
        streams.iter().map(|stream| &**stream).collect()
    }

    fn set() -> QueueSet {
        let patterns = vec![QueuePattern::parse("t-*").unwrap()];
        QueueSet::new(Queues { own: "a".to_owned(), others: vec!["b".to_owned()], patterns })
    }

    #[test]
    fn queues_come_and_go_and_the_named_ones_stay() {
        let set = set();
        let mut news = set.news();
        assert_eq!(
            (set.offer("a"), set.offer("x"), set.offer("t-1:dead")),
            (Offered::Known, Offered::Foreign, Offered::Foreign)
        );
        assert!(!news.has_changed().unwrap());
        assert_eq!(
            (set.offer("t-1"), set.offer("t-2"), set.offer("t-1")),
            (Offered::New, Offered::New, Offered::Known)
        );
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        set.forget("t-1");
        set.forget("a");
        assert_eq!(names(&set.streams()), ["a", "b", "t-2"]);
        assert!(set.is_named("b") && !set.is_named("t-2"));
        assert_eq!(set.offer("t-1"), Offered::New);
    }

    #[test]
    fn one_worker_serves_so_many_and_no_more() {
        let set = set();
        assert!((0..MAX_FOUND).all(|number| set.offer(&format!("t-{number}")) == Offered::New));
        assert_eq!((set.offer("t-more"), set.offer("t-0")), (Offered::TooMany, Offered::Known));
        set.forget("t-0");
        assert_eq!(set.offer("t-more"), Offered::New);
    }

    #[test]
    fn whoever_had_a_turn_comes_last() {
        let streams: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        let mut turns = Turns::default();
        assert_eq!(names(&turns.order(&streams)), ["a", "b", "c"]);
        turns.had("a".into());
        assert_eq!(names(&turns.order(&streams)), ["b", "c", "a"]);
        turns.had("c".into());
        assert_eq!(names(&turns.order(&streams)), ["a", "b", "c"]);
        turns.had("gone".into());
        assert_eq!(names(&turns.order(&streams)), ["a", "b", "c"]);
        assert_eq!(names(&turns.order(&[])), Vec::<&str>::new());
    }

    #[test]
    fn of_two_queues_that_are_never_empty_each_has_every_second_turn() {
        let streams: Vec<Arc<str>> = ["full", "empty", "full too", "also empty"].map(Arc::from).into();
        let mut turns = Turns::new(&streams, 6);
        let mut had = Vec::new();
        for _ in 0..6 {
            let next = turns.order(&streams).into_iter().find(|stream| stream.starts_with("full")).unwrap();
            had.push(next.clone());
            turns.had(next);
        }
        assert!(had.windows(2).all(|pair| pair[0] != pair[1]), "{had:?}");
    }
}
