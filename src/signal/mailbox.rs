//! Collects the signals for one worker type: a set of sources and the time of the first signal. Posting costs a few
//! atomic operations and never allocates, so a flood of a million signals leaves one entry.
//!
//! A source that was taken stays noted until the next observation begins: that observation sees whatever the repeats
//! announce, so they neither wake the taker nor end the count of a flood.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use crate::model::Source;

/// Signals received since the last evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    bits: u32,
    /// When the first one was received.
    pub first_at: Instant,
}

impl Signals {
    /// Returns a signal of a single source.
    pub fn one(source: Source, first_at: Instant) -> Self {
        Self { bits: bit(source), first_at }
    }

    /// Returns the union; the earlier time counts.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits, first_at: self.first_at.min(other.first_at) }
    }

    /// Returns whether `source` is included.
    pub fn contains(self, source: Source) -> bool {
        self.bits & bit(source) != 0
    }

    /// Returns the sources, in a fixed order.
    pub fn sources(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.contains(*source))
    }
}

fn bit(source: Source) -> u32 {
    1 << (source as u32)
}

/// Keyspace notifications since the last observation began at which a queue counts as flooded. Small enough that a
/// flood costs little before its subscription is muted, large enough that ordinary bursts never pay for muting.
const FLOOD_THRESHOLD: u32 = 64;

/// The mailbox of one worker type. Any number of posters, one taker.
#[derive(Debug, Default)]
pub struct Mailbox {
    bits: AtomicU32,
    /// Sources that were taken, and whose observation has not begun.
    noted: AtomicU32,
    first_at: Mutex<Option<Instant>>,
    wake: Notify,
    repeats: AtomicU32,
    muted: AtomicBool,
}

impl Mailbox {
    /// Posts a signal. Only the first one of a source since the last [observation](Self::observing) can wake the taker.
    pub fn post(&self, source: Source, at: Instant) {
        // Repeats of a source that is already noted change nothing: this is the whole cost of a flood.
        if (self.bits.load(Ordering::Acquire) | self.noted.load(Ordering::Acquire)) & bit(source) != 0 {
            return;
        }
        let mut first_at = self.first_at.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bits.fetch_or(bit(source), Ordering::AcqRel) == 0 {
            *first_at = Some(at);
            drop(first_at);
            self.wake.notify_one();
        }
    }

    /// Posts a keyspace signal and counts it. Returns true when the queue is flooded, once per mute.
    pub fn post_counted(&self, source: Source, at: Instant) -> bool {
        self.post(source, at);
        self.repeats.fetch_add(1, Ordering::Relaxed) + 1 >= FLOOD_THRESHOLD && !self.muted.swap(true, Ordering::AcqRel)
    }

    /// Takes the signals received so far, if any. The taker has to observe because of them.
    pub fn take(&self) -> Option<Signals> {
        let mut first_at = self.first_at.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = self.bits.swap(0, Ordering::AcqRel);
        self.noted.fetch_or(bits, Ordering::AcqRel);
        (bits != 0).then(|| Signals { bits, first_at: first_at.take().unwrap_or_else(Instant::now) })
    }

    /// Notes that an observation begins because of all signals that were taken. Only what is read afterwards counts.
    pub fn observing(&self) {
        self.noted.store(0, Ordering::SeqCst);
        self.repeats.store(0, Ordering::Relaxed);
    }

    /// Waits for signals and takes them. Cancel safe: nothing is taken unless it is returned.
    pub async fn next(&self) -> Signals {
        loop {
            if let Some(signals) = self.take() {
                return signals;
            }
            self.wake.notified().await;
        }
    }

    /// Returns whether the queue's keyspace subscription is, or is about to be, muted.
    pub fn is_muted(&self) -> bool {
        self.muted.load(Ordering::Acquire)
    }

    /// Marks the queue's keyspace subscription as muted, because another worker type that shares it is muted.
    pub fn mute(&self) {
        self.muted.store(true, Ordering::Release);
    }

    /// Ends the mute: the subscription is active again.
    pub fn unmute(&self) {
        self.muted.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicU64},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn many_posts_leave_one_entry_with_the_first_time() {
        let mailbox = Mailbox::default();
        let start = Instant::now();
        for i in 0..1_000 {
            mailbox.post(Source::Keyspace, start + std::time::Duration::from_millis(i));
        }
        mailbox.post(Source::Channel, start);
        let signals = mailbox.next().await;
        assert_eq!(signals.sources().collect::<Vec<_>>(), [Source::Keyspace, Source::Channel]);
        assert_eq!(signals.first_at, start);
        assert_eq!(mailbox.take(), None);
    }

    #[tokio::test]
    async fn a_post_wakes_the_taker() {
        let mailbox = std::sync::Arc::new(Mailbox::default());
        let taker = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.next().await }
        });
        tokio::task::yield_now().await;
        mailbox.post(Source::Sweep, Instant::now());
        assert!(taker.await.expect("taker ends").contains(Source::Sweep));
    }

    #[test]
    fn a_flood_is_reported_once_until_unmuted() {
        let mailbox = Mailbox::default();
        let reports = |n: u32| (0..n).filter(|_| mailbox.post_counted(Source::Keyspace, Instant::now())).count();
        assert_eq!(reports(FLOOD_THRESHOLD - 1), 0);
        assert_eq!(reports(FLOOD_THRESHOLD * 3), 1);
        mailbox.observing();
        mailbox.unmute();
        assert_eq!(reports(FLOOD_THRESHOLD), 1);
    }

    #[test]
    fn a_flood_of_single_signals_is_noticed_although_each_is_taken_at_once() {
        let mailbox = Mailbox::default();
        let (mut takes, mut reports) = (0, 0);
        for _ in 0..FLOOD_THRESHOLD {
            reports += usize::from(mailbox.post_counted(Source::Keyspace, Instant::now()));
            takes += usize::from(mailbox.take().is_some());
        }
        assert_eq!((takes, reports), (1, 1));
        assert!(mailbox.take().is_none());
        mailbox.post(Source::Channel, Instant::now());
        assert!(mailbox.take().is_some(), "another source is news");
        mailbox.observing();
        mailbox.post(Source::Keyspace, Instant::now());
        assert!(mailbox.take().is_some(), "what comes after an observation has begun leads to another one");
    }

    /// Each signal says that a number has grown. Whoever observes after each signal that it takes sees the last number.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_signal_is_lost_between_post_take_and_observation() {
        const POSTERS: u64 = 4;
        const POSTS: u64 = 20_000;
        let (mailbox, number) = (Arc::new(Mailbox::default()), Arc::new(AtomicU64::new(0)));
        let posters = (0..POSTERS).map(|poster| {
            let (mailbox, number) = (mailbox.clone(), number.clone());
            let source = if poster % 2 == 0 { Source::Keyspace } else { Source::Channel };
            std::thread::spawn(move || {
                for _ in 0..POSTS {
                    number.fetch_add(1, Ordering::SeqCst);
                    mailbox.post(source, Instant::now());
                }
            })
        });
        let posters: Vec<_> = posters.collect();
        let mut seen = 0;
        while seen < POSTERS * POSTS {
            let next = tokio::time::timeout(Duration::from_secs(120), mailbox.next()).await;
            assert!(next.is_ok(), "{seen} of {} are seen, and nothing wakes", POSTERS * POSTS);
            mailbox.observing();
            seen = number.load(Ordering::SeqCst);
        }
        for poster in posters {
            poster.join().expect("a poster never panics");
        }
    }
}
