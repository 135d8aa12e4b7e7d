//! What people say about a worker type besides its settings: leave it alone, or keep it at a number. What they may
//! order, and how it is told; giving an order is the scaler's.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Timestamp, WorkerType};

/// How a worker type is controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is changed.
    Paused,
    /// Nothing is changed, and the decisions tell what would be.
    Observe,
    /// So many workers, within `min_workers` and `max_workers`, whatever the queue says.
    Pinned(u32),
}

impl Mode {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Observe => "observe",
            Self::Pinned(_) => "pinned",
        }
    }

    /// The mode with that name on the wire; `pinned` needs its number of workers.
    pub fn parse(name: &str, workers: Option<u32>) -> Option<Self> {
        match (name, workers) {
            ("paused", _) => Some(Self::Paused),
            ("observe", _) => Some(Self::Observe),
            ("pinned", Some(workers)) => Some(Self::Pinned(workers)),
            _ => None,
        }
    }
}

/// Somebody's word about a worker type. It outlives restarts and ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// What was said.
    pub mode: Mode,
    /// When it ends; `None`: when somebody ends it.
    pub until: Option<Timestamp>,
    /// Who said it: `user@host`, for people.
    pub by: String,
    /// Why, in that person's words; may be empty.
    pub why: String,
}

impl Control {
    /// Whether it holds at `now`.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// How long a number that is asked for once is held: far longer than any leader takes to look, far shorter than a
/// cooldown.
pub const ONCE: Duration = Duration::from_secs(5);

/// What somebody wants to become of a worker type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideAction {
    /// Leave it as it is.
    Pause,
    /// Leave it as it is, and tell what would be done.
    Observe,
    /// So many workers; without an end they are asked for once, and the rules go on from there.
    Scale(u32),
    /// Let the rules decide again.
    Resume,
}

/// What somebody wants of a worker type, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideRequest {
    /// Which.
    pub worker_type: WorkerType,
    /// What.
    pub action: OverrideAction,
    /// How long it is to hold; `None`: until somebody ends it.
    pub lasts: Option<Duration>,
    /// Who wants it: `user@host`.
    pub by: String,
    /// Why; may be empty.
    pub why: String,
}

impl OverrideRequest {
    /// The control that it asks for, or `None` for its end.
    pub fn mode(&self) -> Option<Mode> {
        match self.action {
            OverrideAction::Pause => Some(Mode::Paused),
            OverrideAction::Observe => Some(Mode::Observe),
            OverrideAction::Scale(workers) => Some(Mode::Pinned(workers)),
            OverrideAction::Resume => None,
        }
    }

    /// How long that control holds.
    pub fn held_for(&self) -> Option<Duration> {
        match self.action {
            OverrideAction::Scale(_) => Some(self.lasts.unwrap_or(ONCE)),
            OverrideAction::Pause | OverrideAction::Observe => self.lasts,
            OverrideAction::Resume => None,
        }
    }

    /// What was done, for people: `browser: pinned at 4 for 600 s`. `existed`: whether there was a control before.
    pub fn done(&self, existed: bool) -> String {
        let name = &self.worker_type;
        let done = match (self.action, self.lasts) {
            (OverrideAction::Resume, _) if !existed => return format!("{name} is neither paused nor pinned"),
            (OverrideAction::Resume, _) => "resumed".to_owned(),
            (OverrideAction::Pause, _) => "paused".to_owned(),
            (OverrideAction::Observe, _) => "only observed".to_owned(),
            (OverrideAction::Scale(workers), Some(_)) => format!("pinned at {workers}"),
            (OverrideAction::Scale(workers), None) => format!("scaled once to {workers}, held"),
        };
        let lasts = self.held_for().map_or_else(String::new, |lasts| format!(" for {} s", lasts.as_secs()));
        format!("{name}: {done}{lasts}")
    }
}

/// Why an order was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// There is no such worker type.
    #[error("no worker type `{worker_type}` in the configuration; there are: {}", known.join(", "))]
    Unknown {
        /// The one that was named.
        worker_type: WorkerType,
        /// Those that there are.
        known: Vec<String>,
    },
    /// So many workers it may not have.
    #[error(
        "{workers} is outside of what `{worker_type}` may have, {} to {}; change min_workers or max_workers", bounds.0, bounds.1
    )]
    OutOfBounds {
        /// Whose.
        worker_type: WorkerType,
        /// How many were asked for.
        workers: u32,
        /// `min_workers` and `max_workers`.
        bounds: (u32, u32),
    },
    /// It could not be written down, so that nothing has changed.
    #[error("{0}")]
    Unavailable(String),
}

/// Takes orders: checks them, writes them down with who and why, and tells whoever leads. The scaler implements it.
#[async_trait]
pub trait ApplyOverride: Send + Sync + 'static {
    /// Gives the order. Says whether there was a control before; an end to none changes nothing.
    ///
    /// # Errors
    /// If it makes no sense, or can't be written down.
    async fn give(&self, order: &OverrideRequest) -> Result<bool, OverrideError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_with_its_end() {
        let order = |action, seconds: Option<u64>| OverrideRequest {
            worker_type: WorkerType::new("test"),
            action,
            lasts: seconds.map(Duration::from_secs),
            by: String::new(),
            why: String::new(),
        };
        for (order, existed, told) in [
            (order(OverrideAction::Pause, None), false, "test: paused"),
            (order(OverrideAction::Observe, Some(60)), false, "test: only observed for 60 s"),
            (order(OverrideAction::Scale(4), Some(3)), true, "test: pinned at 4 for 3 s"),
            (order(OverrideAction::Scale(4), None), true, "test: scaled once to 4, held for 5 s"),
            (order(OverrideAction::Resume, None), true, "test: resumed"),
            (order(OverrideAction::Resume, None), false, "test is neither paused nor pinned"),
        ] {
            assert_eq!(order.done(existed), told);
        }
    }
}
