//! What the worker has in hand: every entry that was delivered to it and is not settled, and whose turn it is within a
//! session. Shared by the loop that takes jobs, the jobs, and the one who settles them; holds no lock across an await.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::broker::{Delivery, is_suspect};

/// Jobs that may wait here for others of their session; with so many, no more are taken.
const MAX_WAITING: usize = 1_000;

/// Entries in hand.
#[derive(Default)]
pub(super) struct InFlight {
    state: Mutex<State>,
    changed: Notify,
    aside: Notify,
    revoked: Notify,
    suspect_ended: Notify,
}

/// A claim on an entry.
#[derive(Clone, Copy)]
struct Claim {
    /// The number of the delivery.
    number: u32,
    /// Whether another worker has the entry by now.
    revoked: bool,
}

#[derive(Default)]
struct State {
    /// By stream: an entry's id is unique within one only.
    entries: HashMap<Arc<str>, HashMap<String, Claim>>,
    /// Jobs in progress that take a slot.
    slots: usize,
    /// Those that took one and have ended, and are not settled.
    ended: usize,
    /// Sessions with a job in progress, and those of its jobs that wait for it.
    turns: HashMap<String, VecDeque<Delivery>>,
    waiting: usize,
}

/// A stream, and of each of its entries in flight the id and the number of its delivery.
pub(super) type StreamClaims = (Arc<str>, Vec<(String, u32)>);

impl InFlight {
    /// Takes an entry in hand; `false` if it is already.
    pub(super) fn take(&self, stream: &Arc<str>, entry: &str, number: u32) -> bool {
        let mut state = self.lock();
        let entries = match state.entries.get_mut(stream) {
            Some(entries) => entries,
            None => state.entries.entry(stream.clone()).or_default(),
        };
        if entries.contains_key(entry) {
            return false;
        }
        entries.insert(entry.to_owned(), Claim { number, revoked: false });
        true
    }

    /// Notes that the claim on an entry was lost: whoever does the job stops.
    pub(super) fn revoke(&self, stream: &str, entry: &str, number: u32) {
        let mut state = self.lock();
        let claim = state.entries.get_mut(stream).and_then(|entries| entries.get_mut(entry));
        if let Some(claim) = claim.filter(|claim| claim.number == number) {
            claim.revoked = true;
            drop(state);
            self.revoked.notify_waiters();
        }
    }

    fn is_revoked(&self, stream: &str, entry: &str) -> bool {
        let state = self.lock();
        state.entries.get(stream).and_then(|entries| entries.get(entry)).is_some_and(|claim| claim.revoked)
    }

    /// Waits for the claim on an entry to be lost.
    pub(super) async fn revoked(&self, stream: &str, entry: &str) {
        let mut told = pin!(self.revoked.notified());
        loop {
            // Before the look, so that nothing is missed behind it.
            told.as_mut().enable();
            if self.is_revoked(stream, entry) {
                return;
            }
            told.as_mut().await;
            told.set(self.revoked.notified());
        }
    }

    /// Lets entries go, each with its stream, and says which had taken a slot: they are settled, or another worker's. All at once,
    /// so that whoever waits for room finds all of it.
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

    /// Whether a job is in flight of which an earlier worker may have died.
    pub(super) fn has_suspect(&self) -> bool {
        self.lock().entries.values().flat_map(HashMap::values).any(|claim| is_suspect(claim.number))
    }

    /// Waits for such a job to end. Meant for one waiter.
    pub(super) async fn suspect_ended(&self) {
        self.suspect_ended.notified().await;
    }

    /// Jobs in progress take a slot each until [their work ends](InFlight::end_work).
    pub(super) fn take_slots(&self, count: usize) {
        self.lock().slots += count;
    }

    /// Frees the slots of jobs that have ended: others may begin while these are settled.
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

    /// Frees the slot of a job that waits, for [`take_slots`](InFlight::take_slots) when it goes on.
    pub(super) fn lend_slot(&self) {
        let mut state = self.lock();
        state.slots = state.slots.saturating_sub(1);
        drop(state);
        self.changed.notify_one();
    }

    /// How many jobs may be taken if `concurrency` of them may be in progress, and as many may have ended and wait to be
    /// settled. With more of these none are taken: Redis does not take what is done.
    pub(super) fn room(&self, concurrency: usize) -> usize {
        let state = self.lock();
        if state.waiting >= MAX_WAITING {
            return 0;
        }
        concurrency.saturating_sub(state.slots + state.ended.saturating_sub(concurrency))
    }

    /// Asks for the turn of a job in its session. The job comes back if it may begin; else it waits here.
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

    /// Ends the turn of a session's job; the next job of the session, if one waits, may begin.
    pub(super) fn end_turn(&self, session: &str) -> Option<Delivery> {
        let mut state = self.lock();
        let next = state.turns.get_mut(session)?.pop_front();
        match next {
            Some(_) => state.waiting -= 1,
            None => drop(state.turns.remove(session)),
        }
        next
    }

    /// Says that a failed job was put aside, to be tried again.
    pub(super) fn retry_scheduled(&self) {
        self.aside.notify_one();
    }

    /// Waits for a job to be put aside. Meant for one waiter.
    pub(super) async fn next_scheduled_retry(&self) {
        self.aside.notified().await;
    }

    /// Every entry of a stream that is in hand.
    pub(super) fn entries_of(&self, stream: &str) -> HashSet<String> {
        self.lock().entries.get(stream).map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// Every entry in flight with the number of its delivery, by stream.
    pub(super) fn entries(&self) -> Vec<StreamClaims> {
        let state = self.lock();
        let some = state.entries.iter().filter(|(_, entries)| !entries.is_empty());
        let claims = |entries: &HashMap<String, Claim>| {
            entries.iter().map(|(entry, claim)| (entry.clone(), claim.number)).collect()
        };
        some.map(|(stream, entries)| (stream.clone(), claims(entries))).collect()
    }

    /// Forgets a stream that is no more, unless something of it is in hand.
    pub(super) fn forget(&self, stream: &str) {
        let mut state = self.lock();
        if state.entries.get(stream).is_some_and(HashMap::is_empty) {
            state.entries.remove(stream);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().entries.values().map(HashMap::len).sum()
    }

    /// Waits for an entry to be let go or a slot to get free. Meant for one waiter.
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
        assert_eq!(in_flight.revoked("s", "1-0").now_or_never(), None);
        let (lost, ()) = tokio::join!(in_flight.revoked("s", "1-0"), async { in_flight.revoke("s", "1-0", 2) });
        assert_eq!((lost, in_flight.revoked("s", "2-0").now_or_never()), ((), None));
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
}
