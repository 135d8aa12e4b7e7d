//! One message of an alert.

use crate::{
    config::AlertKind,
    model::{Timestamp, WorkerType},
};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Kind of the alert; `None` for a test.
    pub(super) kind: Option<AlertKind>,
    /// State of the alert.
    pub(super) status: Status,
    /// Worker type of the alert, if it has one.
    pub(super) worker_type: Option<WorkerType>,
    /// One line for people.
    pub(super) summary: String,
    /// Details, often in the words of the backend or Redis.
    pub(super) detail: String,
    /// Autoscaler that sends the message.
    pub(super) instance: String,
    /// When the alert began or ended, or the event happened.
    pub(super) at: Timestamp,
    /// Messages that were dropped before this one.
    pub(super) dropped: u32,
}

/// State of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The alert began.
    Firing,
    /// The alert ended.
    Resolved,
    /// Something happened that has no end.
    Event,
    /// Somebody tries the webhook.
    Test,
}

impl Status {
    /// Returns the name in messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Event => "event",
            Self::Test => "test",
        }
    }
}

impl Notification {
    /// Returns a message that says that messages arrive.
    pub fn test(instance: &str, at: Timestamp) -> Self {
        Self {
            kind: None,
            status: Status::Test,
            worker_type: None,
            summary: "swarm can send messages here".to_owned(),
            detail: "sent by `swarm notify test`".to_owned(),
            instance: instance.to_owned(),
            at,
            dropped: 0,
        }
    }

    /// Returns the name of the alert in messages.
    pub(super) fn alert(&self) -> &'static str {
        self.kind.map_or("test", AlertKind::as_str)
    }
}
