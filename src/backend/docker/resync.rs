//! Asks the watcher for a list, and waits until one that began afterwards has come or failed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// Requests for a list, and how far they have been answered.
#[derive(Debug)]
pub(super) struct Resync {
    asked: AtomicU64,
    nudge: Notify,
    answered: watch::Sender<u64>,
}

impl Default for Resync {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), nudge: Notify::new(), answered: watch::Sender::new(0) }
    }
}

impl Resync {
    /// Waits for a list, for good or ill. Cancel safe.
    pub(super) async fn wait(&self) {
        let mine = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.nudge.notify_one();
        // The sender lives as long as `self`, so this only ends with an answer.
        let _ = self.answered.subscribe().wait_for(|answered| *answered >= mine).await;
    }

    /// Asks for a list and does not wait for it.
    pub(super) fn ask(&self) {
        self.nudge.notify_one();
    }

    /// Waits until somebody asks.
    pub(super) async fn asked_for(&self) {
        self.nudge.notified().await;
    }

    /// The requests that a list beginning now answers.
    pub(super) fn begin(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// That list has come, or failed.
    pub(super) fn end(&self, begun: u64) {
        self.answered.send_replace(begun);
    }
}
