//! What the worker has in hand: every entry that was delivered to it and is not settled, and whose turn it is within a
//! session. Shared by the loop that takes jobs, the jobs, and the one who settles them; holds no lock across an await.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::broker::Delivery;

/// Jobs that may wait here for others of their session; with so many, no more are taken.
const MAX_WAITING: usize = 1_000;

/// Entries in hand.
#[derive(Default)]
pub(super) struct Hand {
    book: Mutex<Book>,
    changed: Notify,
    aside: Notify,
}

#[derive(Default)]
struct Book {
    /// By stream: an entry's id is unique within one only.
    entries: HashMap<Arc<str>, HashSet<String>>,
    /// Jobs in progress that take a slot.
    slots: usize,
    /// Those that took one and have ended, and are not settled.
    ended: usize,
    /// Sessions with a job in progress, and those of its jobs that wait for it.
    turns: HashMap<String, VecDeque<Delivery>>,
    waiting: usize,
}

impl Hand {
    /// Takes an entry in hand; `false` if it is already.
    pub(super) fn take(&self, stream: &Arc<str>, entry: &str) -> bool {
        let mut book = self.lock();
        match book.entries.get_mut(stream) {
            Some(entries) => entries.insert(entry.to_owned()),
            None => book.entries.entry(stream.clone()).or_default().insert(entry.to_owned()),
        }
    }

    /// Lets entries go, each with its stream, and says which had taken a slot: they are settled, or another worker's. All at once,
    /// so that whoever waits for room finds all of it.
    pub(super) fn put_down<'a>(&self, entries: impl IntoIterator<Item = (&'a str, &'a str, bool)>) {
        let mut book = self.lock();
        for (stream, entry, took_slot) in entries {
            if let Some(entries) = book.entries.get_mut(stream) {
                entries.remove(entry);
            }
            book.ended = book.ended.saturating_sub(usize::from(took_slot));
        }
        drop(book);
        self.changed.notify_one();
    }

    /// Jobs in progress take a slot each until [their work ends](Hand::end_work).
    pub(super) fn take_slots(&self, count: usize) {
        self.lock().slots += count;
    }

    /// Frees the slots of jobs that have ended: others may begin while these are settled.
    pub(super) fn end_work(&self, slots: usize) {
        if slots == 0 {
            return;
        }
        let mut book = self.lock();
        book.slots = book.slots.saturating_sub(slots);
        book.ended += slots;
        drop(book);
        self.changed.notify_one();
    }

    /// How many jobs may be taken if `concurrency` of them may be in progress, and as many may have ended and wait to be
    /// settled. With more of these none are taken: Redis does not take what is done.
    pub(super) fn room(&self, concurrency: usize) -> usize {
        let book = self.lock();
        if book.waiting >= MAX_WAITING {
            return 0;
        }
        concurrency.saturating_sub(book.slots + book.ended.saturating_sub(concurrency))
    }

    /// Asks for the turn of a job in its session. The job comes back if it may begin; else it waits here.
    pub(super) fn begin_turn(&self, session: &str, delivery: Delivery) -> Option<Delivery> {
        let mut book = self.lock();
        if let Some(waiting) = book.turns.get_mut(session) {
            waiting.push_back(delivery);
            book.waiting += 1;
            return None;
        }
        book.turns.insert(session.to_owned(), VecDeque::new());
        Some(delivery)
    }

    /// Ends the turn of a session's job; the next job of the session, if one waits, may begin.
    pub(super) fn end_turn(&self, session: &str) -> Option<Delivery> {
        let mut book = self.lock();
        let next = book.turns.get_mut(session)?.pop_front();
        match next {
            Some(_) => book.waiting -= 1,
            None => drop(book.turns.remove(session)),
        }
        next
    }

    /// Says that a failed job was put aside, to be tried again.
    pub(super) fn put_aside(&self) {
        self.aside.notify_one();
    }

    /// Waits for a job to be put aside. Meant for one waiter.
    pub(super) async fn job_put_aside(&self) {
        self.aside.notified().await;
    }

    /// Every entry of a stream that is in hand.
    pub(super) fn entries_of(&self, stream: &str) -> HashSet<String> {
        self.lock().entries.get(stream).cloned().unwrap_or_default()
    }

    /// Every entry in hand, by stream.
    pub(super) fn entries(&self) -> Vec<(Arc<str>, Vec<String>)> {
        let book = self.lock();
        let some = book.entries.iter().filter(|(_, entries)| !entries.is_empty());
        some.map(|(stream, entries)| (stream.clone(), entries.iter().cloned().collect())).collect()
    }

    /// Forgets a stream that is no more, unless something of it is in hand.
    pub(super) fn forget(&self, stream: &str) {
        let mut book = self.lock();
        if book.entries.get(stream).is_some_and(HashSet::is_empty) {
            book.entries.remove(stream);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().entries.values().map(HashSet::len).sum()
    }

    /// Waits for an entry to be let go or a slot to get free. Meant for one waiter.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_when_its_job_has_ended_unless_too_many_are_not_settled() {
        let (hand, stream) = (Hand::default(), "s".into());
        for entry in ["1-0", "2-0", "3-0", "4-0"] {
            assert!(hand.take(&stream, entry) && !hand.take(&stream, entry));
        }
        hand.take_slots(2);
        assert_eq!(hand.room(2), 0);
        hand.end_work(2);
        assert_eq!(hand.room(2), 2);
        hand.take_slots(2);
        hand.end_work(2);
        assert_eq!((hand.room(2), hand.count()), (0, 4));
        hand.put_down([("s", "1-0", true), ("s", "2-0", false)]);
        assert_eq!((hand.room(2), hand.count()), (1, 2));
        hand.put_down([("s", "3-0", true)]);
        assert_eq!(hand.room(2), 2);
    }
}
