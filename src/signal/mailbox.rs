//! Where signals for one worker type meet: a set of sources and the time of the first of them. Posting costs a few
//! atomic operations and never allocates or queues, so a flood of a million signals leaves one entry.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use crate::model::Source;

/// Signals that came in since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    bits: u32,
    /// When the first of them came in.
    pub first_at: Instant,
}

impl Signals {
    /// Signals of a single source.
    pub fn one(source: Source, first_at: Instant) -> Self {
        Self { bits: bit(source), first_at }
    }

    /// Both; the earlier time counts.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits, first_at: self.first_at.min(other.first_at) }
    }

    /// Whether `source` is among them.
    pub fn contains(self, source: Source) -> bool {
        self.bits & bit(source) != 0
    }

    /// The sources, in their fixed order.
    pub fn sources(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.contains(*source))
    }
}

fn bit(source: Source) -> u32 {
    1 << (source as u32)
}

/// Keyspace notifications seen since the last look from which on a queue counts as flooded. Small enough that a flood
/// costs little before its subscription is muted, large enough that ordinary bursts never pay for muting.
const FLOOD_THRESHOLD: u32 = 64;

/// The mailbox of one worker type. Any number of posters, one taker.
#[derive(Debug, Default)]
pub struct Mailbox {
    bits: AtomicU32,
    first_at: Mutex<Option<Instant>>,
    wake: Notify,
    repeats: AtomicU32,
    muted: AtomicBool,
}

impl Mailbox {
    /// Leaves a signal. Only the first one since the last [`take`](Self::take) wakes the taker.
    pub fn post(&self, source: Source, at: Instant) {
        // Repeats of a source that is already noted change nothing: this is the whole cost of a flood.
        if self.bits.load(Ordering::Acquire) & bit(source) != 0 {
            return;
        }
        let mut first_at = self.first_at.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bits.fetch_or(bit(source), Ordering::AcqRel) == 0 {
            *first_at = Some(at);
            drop(first_at);
            self.wake.notify_one();
        }
    }

    /// Leaves a keyspace signal and counts it; true when the queue turns out to be flooded, once per mute.
    pub fn post_counted(&self, source: Source, at: Instant) -> bool {
        self.post(source, at);
        self.repeats.fetch_add(1, Ordering::Relaxed) + 1 >= FLOOD_THRESHOLD && !self.muted.swap(true, Ordering::AcqRel)
    }

    /// Takes what has come in, if anything has.
    pub fn take(&self) -> Option<Signals> {
        let mut first_at = self.first_at.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = self.bits.swap(0, Ordering::AcqRel);
        self.repeats.store(0, Ordering::Relaxed);
        (bits != 0).then(|| Signals { bits, first_at: first_at.take().unwrap_or_else(Instant::now) })
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

    /// Whether the queue's keyspace subscription is, or is about to be, muted.
    pub fn is_muted(&self) -> bool {
        self.muted.load(Ordering::Acquire)
    }

    /// Notes that the queue's keyspace subscription is muted, because another worker type's was.
    pub fn mute(&self) {
        self.muted.store(true, Ordering::Release);
    }

    /// Ends the muting: the subscription is in force again.
    pub fn unmute(&self) {
        self.muted.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
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
        mailbox.take();
        mailbox.unmute();
        assert_eq!(reports(FLOOD_THRESHOLD), 1);
    }
}
