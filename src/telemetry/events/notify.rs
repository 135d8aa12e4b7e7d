//! Messages to webhooks.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::counter;
use tracing::{info, warn};

use crate::telemetry::metric;

/// Outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationOutcome {
    /// The receiver accepted it.
    Sent,
    /// The receiver refused it, or could not be reached for too long.
    Failed,
    /// Too many messages were waiting.
    Dropped,
}

impl NotificationOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// A message was sent, given up or dropped.
#[derive(Clone, Copy, Debug)]
pub struct NotificationSent<'a> {
    /// Name of the webhook, for the log only.
    pub webhook: &'a str,
    /// Outcome of the message.
    pub outcome: NotificationOutcome,
    /// Why it failed, without the URL.
    pub error: Option<&'a str>,
}

impl NotificationSent<'_> {
    /// Counts the message and logs it.
    pub fn emit(self) {
        let Self { webhook, outcome, error } = self;
        counter!(metric::NOTIFICATIONS, "outcome" => outcome.as_str()).increment(1);
        match outcome {
            NotificationOutcome::Sent => info!(webhook, "notification sent"),
            NotificationOutcome::Failed => {
                warn!(webhook, error = error.unwrap_or_default(), "notification given up");
            }
            // The next message says how many: a full queue must not also fill the log.
            NotificationOutcome::Dropped => tracing::debug!(webhook, "notification dropped"),
        }
    }
}
