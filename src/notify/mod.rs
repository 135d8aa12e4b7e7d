//! Sends alerts to the webhooks of `[[notify]]` (`docs/notify.md`): derives them from the snapshots that the autoscaler
//! shows of itself, and sends each one once when it begins and once when it ends.
//!
//! Reads snapshots only and keeps its memory in the process, so that it works while Redis does not. Must not block the
//! autoscaler. The leader sends; a standby sends only that nobody leads.

mod alerts;
mod delivery;
#[cfg(test)]
mod fixtures;
mod format;
mod notification;
mod notifier;
mod sender;
mod tracker;

pub use self::{
    notification::Notification,
    notifier::Notifier,
    sender::{SendError, Sender},
};
