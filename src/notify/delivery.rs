//! The task of one webhook: sends its messages one after the other, within the rate limit, and retries while the
//! receiver can't be reached.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{alerts::Key, notification::Notification, sender::Sender};
use crate::telemetry::{NotificationOutcome, NotificationSent};

/// First and longest wait between two attempts.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Maximum age of a message: an older one says nothing about the present.
const MAX_AGE: Duration = Duration::from_secs(900);

const MINUTE: Duration = Duration::from_secs(60);

/// A message that waits for its webhook.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) notification: Notification,
    pub(super) at: Instant,
}

/// One webhook's messages.
pub(super) struct Delivery {
    /// The webhook with its present settings.
    pub(super) sender: watch::Receiver<Arc<Sender>>,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) limit: RateLimit,
    /// Messages that found no room since the last one was sent.
    pub(super) dropped: Arc<AtomicU32>,
    /// Alerts whose message was given up.
    pub(super) failed: mpsc::Sender<Key>,
}

impl Delivery {
    /// Sends until the queue is closed.
    pub(super) async fn run(mut self) {
        while let Some(Queued { mut notification, at }) = self.queue.recv().await {
            let per_minute = self.sender.borrow().per_minute();
            self.limit.wait(per_minute).await;
            notification.dropped = self.dropped.swap(0, Ordering::Relaxed);
            let delivered = self.deliver(&notification, at).await;
            if delivered {
                continue;
            }
            self.dropped.fetch_add(notification.dropped, Ordering::Relaxed);
            if let Some(kind) = notification.kind {
                // If there is no room, the notifier itself has stopped: nobody needs to know.
                let _ = self.failed.try_send((kind, notification.worker_type));
            }
        }
    }

    /// Returns whether the message arrived.
    async fn deliver(&self, notification: &Notification, queued_at: Instant) -> bool {
        let id = Uuid::now_v7().to_string();
        let mut backoff = BACKOFF[0];
        loop {
            let sender = self.sender.borrow().clone();
            let webhook = sender.name();
            let error = match sender.send(notification, &id).await {
                Ok(()) => {
                    NotificationSent { webhook, outcome: NotificationOutcome::Sent, error: None }.emit();
                    return true;
                }
                Err(error) => error,
            };
            let wait = error.retry_after.unwrap_or_default().max(backoff);
            if !error.retryable || queued_at.elapsed() + wait > MAX_AGE {
                let outcome = NotificationOutcome::Failed;
                NotificationSent { webhook, outcome, error: Some(&error.message) }.emit();
                return false;
            }
            tracing::debug!(webhook, %error, "notification delayed");
            sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF[1]);
        }
    }
}

/// Limits the messages of one webhook in any minute.
#[derive(Default)]
pub(super) struct RateLimit {
    sent: VecDeque<Instant>,
}

impl RateLimit {
    /// Waits until another message is allowed, and counts it.
    async fn wait(&mut self, per_minute: u32) {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX).max(1);
        // Several if the limit was lowered.
        while self.sent.len() >= per_minute
            && let Some(first) = self.sent.pop_front()
        {
            sleep_until(first + MINUTE).await;
        }
        self.sent.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_messages_than_allowed() {
        let (mut limit, begun) = (RateLimit::default(), Instant::now());
        let mut at = Vec::new();
        for per_minute in [3, 3, 3, 3, 3, 3, 3, 1, 1, 3] {
            limit.wait(per_minute).await;
            at.push(begun.elapsed().as_secs());
        }
        assert_eq!(at, [0, 0, 0, 60, 60, 60, 120, 180, 240, 240]);
    }
}
