//! The entries in flight: every entry that was delivered to the worker and is not completed, and whose turn it is
//! within a session. Shared by the loop that takes jobs, the jobs, and the completer; holds no lock across an await.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::broker::{Delivery, is_suspect};

/// Maximum jobs that wait here for others of their session; with this number, no more are taken.
const MAX_WAITING: usize = 1_000;

/// Entries in flight.
#[derive(Default)]
pub(super) struct InFlight {
    state: Mutex<State>,
    changed: Notify,
    aside: Notify,
    stopped: Notify,
    suspect_ended: Notify,
}

/// A claim on an entry.
#[derive(Clone, Copy)]
struct Claim {
    /// Number of the delivery.
    number: u32,
    /// Why the job must stop, if it must.
    stop: Option<Stop>,
}

/// Why a job in progress must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Another worker has claimed the entry.
    ClaimLost,
    /// Somebody has cancelled the job.
    Cancelled,
}

#[derive(Default)]
struct State {
    /// By stream, because an entry's id is unique only within its stream.
    entries: HashMap<Arc<str>, HashMap<String, Claim>>,
    /// Jobs in progress that take a slot.
    slots: usize,
    /// Jobs that took a slot, have ended, and are not completed.
    ended: usize,
    /// Sessions with a job in progress, and the jobs of each that wait for it.
    turns: HashMap<String, VecDeque<Delivery>>,
    waiting: usize,
    /// Jobs that the worker may still take; `None`: unlimited.
    left: Option<usize>,
}

/// A stream, and the id and delivery number of each of its entries in flight.
pub(super) type StreamClaims = (Arc<str>, Vec<(String, u32)>);

impl InFlight {
    /// Returns an empty set for a worker that takes at most `max_jobs` jobs; `None`: unlimited.
    pub(super) fn new(max_jobs: Option<usize>) -> Self {
        let state = Mutex::new(State { left: max_jobs, ..State::default() });
        Self { state, ..Self::default() }
    }

    /// Adds an entry; returns `false` if it is in flight already.
    pub(super) fn take(&self, stream: &Arc<str>, entry: &str, number: u32) -> bool {
        let mut state = self.lock();
        let entries = match state.entries.get_mut(stream) {
            Some(entries) => entries,
            None => state.entries.entry(stream.clone()).or_default(),
        };
        if entries.contains_key(entry) {
            return false;
        }
        entries.insert(entry.to_owned(), Claim { number, stop: None });
        true
    }

    /// Records that the claim on an entry was lost: its job stops.
    pub(super) fn revoke(&self, stream: &str, entry: &str, number: u32) {
        let mut state = self.lock();
        let claim = state.entries.get_mut(stream).and_then(|entries| entries.get_mut(entry));
        if let Some(claim) = claim.filter(|claim| claim.number == number) {
            claim.stop = Some(Stop::ClaimLost);
            drop(state);
            self.stopped.notify_waiters();
        }
    }

    /// Records that the job of an entry is cancelled: it stops. Returns the job if it waits here for others of its
    /// session, and waits no longer.
    pub(super) fn cancel(&self, stream: &str, entry: &str) -> Option<Delivery> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let claim = state.entries.get_mut(stream).and_then(|entries| entries.get_mut(entry))?;
        claim.stop.get_or_insert(Stop::Cancelled);
        let is_it = |waiting: &Delivery| &*waiting.stream == stream && waiting.entry == entry;
        let waiting = state.turns.values_mut().find_map(|turns| turns.remove(turns.iter().position(is_it)?));
        state.waiting -= usize::from(waiting.is_some());
        drop(guard);
        self.stopped.notify_waiters();
        waiting
    }

    /// Returns why the job of an entry must stop; `None` if it need not.
    pub(super) fn stop_of(&self, stream: &str, entry: &str) -> Option<Stop> {
        self.lock().entries.get(stream)?.get(entry)?.stop
    }

    /// Waits until the job of an entry must stop.
    pub(super) async fn stopped(&self, stream: &str, entry: &str) -> Stop {
        let mut told = pin!(self.stopped.notified());
        loop {
            // Enabled before the check, so that no notification is missed after it.
            told.as_mut().enable();
            if let Some(stop) = self.stop_of(stream, entry) {
                return stop;
            }
            told.as_mut().await;
            told.set(self.stopped.notified());
        }
    }

    /// Counts jobs towards the number that the worker may take.
    pub(super) fn count_jobs(&self, jobs: usize) {
        let mut state = self.lock();
        state.left = state.left.map(|left| left.saturating_sub(jobs));
    }

    /// Returns whether the worker has taken all the jobs that it may take.
    pub(super) fn is_spent(&self) -> bool {
        self.lock().left == Some(0)
    }

    /// Releases entries that are completed, or that another worker has. Each item is the stream, the entry, and whether
    /// the entry took a slot. Releases all entries together, so that a waiter finds all the room.
    pub(super) fn release<'a>(&self, entries: impl IntoIterator<Item = (&'a str, &'a str, bool)>) {
        let mut state = self.lock();
        let mut suspect = false;
        for (stream, entry, took_slot) in entries {
            let claim = state.entries.get_mut(stream).and_then(|entries| entries.remove(entry));
            suspect |= claim.is_some_and(|claim| is_suspect(claim.number));
            state.ended = state.ended.saturating_sub(usize::from(took_slot));
        }
        drop(state);
        if suspect {
            self.suspect_ended.notify_one();
        }
        self.changed.notify_one();
    }

    /// Returns whether a job is in flight that may have killed an earlier worker.
    pub(super) fn has_suspect(&self) -> bool {
        self.lock().entries.values().flat_map(HashMap::values).any(|claim| is_suspect(claim.number))
    }

    /// Waits for such a job to end. Supports one waiter.
    pub(super) async fn suspect_ended(&self) {
        self.suspect_ended.notified().await;
    }

    /// Takes a slot for each of `count` jobs until [their work ends](InFlight::end_work).
    pub(super) fn take_slots(&self, count: usize) {
        self.lock().slots += count;
    }

    /// Frees the slots of ended jobs: others may start while these are being completed.
    pub(super) fn end_work(&self, slots: usize) {
        if slots == 0 {
            return;
        }
        let mut state = self.lock();
        state.slots = state.slots.saturating_sub(slots);
        state.ended += slots;
        drop(state);
        self.changed.notify_one();
    }

    /// Frees the slot of a job that waits. When the job continues, it takes a slot again with
    /// [`take_slots`](InFlight::take_slots).
    pub(super) fn lend_slot(&self) {
        let mut state = self.lock();
        state.slots = state.slots.saturating_sub(1);
        drop(state);
        self.changed.notify_one();
    }

    /// Returns how many jobs may be taken, if `concurrency` of them may be in progress, and as many may have ended and
    /// wait for completion. If more are waiting, no job is taken, because Redis does not accept the completed ones.
    /// Never more than the worker may still take.
    pub(super) fn room(&self, concurrency: usize) -> usize {
        let state = self.lock();
        if state.waiting >= MAX_WAITING {
            return 0;
        }
        let free = concurrency.saturating_sub(state.slots + state.ended.saturating_sub(concurrency));
        free.min(state.left.unwrap_or(usize::MAX))
    }

    /// Asks for the turn of a job in its session. Returns the job if it may start; otherwise the job waits here.
    pub(super) fn begin_turn(&self, session: &str, delivery: Delivery) -> Option<Delivery> {
        let mut state = self.lock();
        if let Some(waiting) = state.turns.get_mut(session) {
            waiting.push_back(delivery);
            state.waiting += 1;
            return None;
        }
        state.turns.insert(session.to_owned(), VecDeque::new());
        Some(delivery)
    }

    /// Ends the turn of a session's job. Returns the session's next job, if one waits; it may start.
    pub(super) fn end_turn(&self, session: &str) -> Option<Delivery> {
        let mut state = self.lock();
        let next = state.turns.get_mut(session)?.pop_front();
        match next {
            Some(_) => state.waiting -= 1,
            None => drop(state.turns.remove(session)),
        }
        next
    }

    /// Notifies that a failed job was scheduled for a retry.
    pub(super) fn retry_scheduled(&self) {
        self.aside.notify_one();
    }

    /// Waits for a job to be scheduled for a retry. Supports one waiter.
    pub(super) async fn next_scheduled_retry(&self) {
        self.aside.notified().await;
    }

    /// Returns all entries of a stream that are in flight.
    pub(super) fn entries_of(&self, stream: &str) -> HashSet<String> {
        self.lock().entries.get(stream).map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns all entries in flight with their delivery numbers, by stream.
    pub(super) fn entries(&self) -> Vec<StreamClaims> {
        let state = self.lock();
        let some = state.entries.iter().filter(|(_, entries)| !entries.is_empty());
        let claims = |entries: &HashMap<String, Claim>| {
            entries.iter().map(|(entry, claim)| (entry.clone(), claim.number)).collect()
        };
        some.map(|(stream, entries)| (stream.clone(), claims(entries))).collect()
    }

    /// Forgets a stream that no longer exists, unless one of its entries is in flight.
    pub(super) fn forget(&self, stream: &str) {
        let mut state = self.lock();
        if state.entries.get(stream).is_some_and(HashMap::is_empty) {
            state.entries.remove(stream);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().entries.values().map(HashMap::len).sum()
    }

    /// Waits for an entry to be released or a slot to be freed. Supports one waiter.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_the_claim_that_was_lost_is_revoked() {
        let (in_flight, stream) = (InFlight::default(), "s".into());
        assert!(in_flight.take(&stream, "1-0", 2) && in_flight.take(&stream, "2-0", 1));
        in_flight.revoke("s", "1-0", 1);
        in_flight.revoke("t", "1-0", 2);
        assert_eq!(in_flight.stopped("s", "1-0").now_or_never(), None);
        let (lost, ()) = tokio::join!(in_flight.stopped("s", "1-0"), async { in_flight.revoke("s", "1-0", 2) });
        assert_eq!((lost, in_flight.stopped("s", "2-0").now_or_never()), (Stop::ClaimLost, None));
    }

    #[tokio::test]
    async fn a_cancelled_job_stops_unless_its_claim_was_lost_before() {
        let (in_flight, stream) = (InFlight::default(), "s".into());
        assert!(in_flight.take(&stream, "1-0", 1) && in_flight.take(&stream, "2-0", 1));
        in_flight.revoke("s", "2-0", 1);
        let (stop, ()) = tokio::join!(in_flight.stopped("s", "1-0"), async {
            for entry in ["1-0", "2-0", "3-0"] {
                assert!(in_flight.cancel("s", entry).is_none());
            }
        });
        assert_eq!((stop, in_flight.stop_of("s", "2-0")), (Stop::Cancelled, Some(Stop::ClaimLost)));
    }

    #[test]
    fn a_slot_is_free_when_its_job_has_ended_unless_too_many_are_not_settled() {
        let (in_flight, stream) = (InFlight::default(), "s".into());
        for entry in ["1-0", "2-0", "3-0", "4-0"] {
            assert!(in_flight.take(&stream, entry, 1) && !in_flight.take(&stream, entry, 1));
        }
        in_flight.take_slots(2);
        assert_eq!(in_flight.room(2), 0);
        in_flight.end_work(2);
        assert_eq!(in_flight.room(2), 2);
        in_flight.take_slots(2);
        in_flight.end_work(2);
        assert_eq!((in_flight.room(2), in_flight.count()), (0, 4));
        in_flight.release([("s", "1-0", true), ("s", "2-0", false)]);
        assert_eq!((in_flight.room(2), in_flight.count()), (1, 2));
        in_flight.release([("s", "3-0", true)]);
        assert_eq!(in_flight.room(2), 2);
    }

    #[test]
    fn there_is_never_room_for_more_jobs_than_are_left() {
        let in_flight = InFlight::new(Some(3));
        for (jobs, room, is_spent) in [(0, 2, false), (2, 1, false), (1, 0, true)] {
            in_flight.count_jobs(jobs);
            assert_eq!((in_flight.room(2), in_flight.is_spent()), (room, is_spent), "{jobs} more");
        }
        let unlimited = InFlight::default();
        unlimited.count_jobs(1_000);
        assert_eq!((unlimited.room(2), unlimited.is_spent()), (2, false));
    }
}
