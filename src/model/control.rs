//! What people have said about a worker type besides its settings: leave it alone, or keep it at a number.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// How a worker type is controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
