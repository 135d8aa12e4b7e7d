//! Overrides: what a person can ask of a worker type besides its settings (pause it, only observe it, pin it to a
//! number), and how the result is reported. Applying an override is the scaler's task.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Timestamp, WorkerType};

/// Kind of override that is in force for a worker type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The autoscaler changes nothing.
    Paused,
    /// The autoscaler lets no worker go, and starts workers as usual.
    PausedIn,
    /// The autoscaler starts and replaces no worker, and lets workers go as usual.
    PausedOut,
    /// The autoscaler changes nothing, and its decisions say what it would change.
    Observe,
    /// This number of workers, whatever the queue holds, within `min_workers` and `max_workers`.
    Pinned(u32),
}

impl Mode {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::PausedIn => "paused_in",
            Self::PausedOut => "paused_out",
            Self::Observe => "observe",
            Self::Pinned(_) => "pinned",
        }
    }

    /// Returns the mode with that name on the wire. `pinned` needs the number of workers; without it: `None`.
    pub fn parse(name: &str, workers: Option<u32>) -> Option<Self> {
        match (name, workers) {
            ("paused", _) => Some(Self::Paused),
            ("paused_in", _) => Some(Self::PausedIn),
            ("paused_out", _) => Some(Self::PausedOut),
            ("observe", _) => Some(Self::Observe),
            ("pinned", Some(workers)) => Some(Self::Pinned(workers)),
            _ => None,
        }
    }

    /// Returns whether the autoscaler carries out the decisions that it makes in this mode.
    pub fn acts(self) -> bool {
        matches!(self, Self::PausedIn | Self::PausedOut | Self::Pinned(_))
    }

    /// Returns the mode in words: `paused`, `pinned at 4`.
    pub fn in_words(self) -> String {
        match self {
            Self::Paused => "paused".to_owned(),
            Self::PausedIn => "paused for scaling in".to_owned(),
            Self::PausedOut => "paused for scaling out".to_owned(),
            Self::Observe => "only observed".to_owned(),
            Self::Pinned(workers) => format!("pinned at {workers}"),
        }
    }
}

/// An override in force for a worker type. It outlives restarts of the autoscaler and can end by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// Kind of override.
    pub mode: Mode,
    /// When the override ends; `None`: when somebody ends it.
    pub until: Option<Timestamp>,
    /// Who set the override, as `user@host`, for people to read.
    pub by: String,
    /// Reason, in that person's words; may be empty.
    pub why: String,
}

impl Control {
    /// Returns whether the override is in force at `now`.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// How long the autoscaler holds a number that somebody asked for once: far longer than a leader takes to read the
/// override, far shorter than a cooldown.
pub const ONCE: Duration = Duration::from_secs(5);

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideAction {
    /// Change nothing.
    Pause,
    /// Let no worker go.
    PauseIn,
    /// Start no worker.
    PauseOut,
    /// Change nothing, and say in the decisions what would change.
    Observe,
    /// This number of workers. Without an end the number is held for [`ONCE`], and the rules go on from there.
    Scale(u32),
    /// Let the rules decide again.
    Resume,
}

/// A person's request to set or to end an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideRequest {
    /// Worker type to override.
    pub worker_type: WorkerType,
    /// What the person asks for.
    pub action: OverrideAction,
    /// How long the override holds; `None`: until somebody ends it.
    pub lasts: Option<Duration>,
    /// Who asks, as `user@host`.
    pub by: String,
    /// Reason; may be empty.
    pub why: String,
}

impl OverrideRequest {
    /// Returns the mode that the request sets; `None` if it ends an override.
    pub fn mode(&self) -> Option<Mode> {
        match self.action {
            OverrideAction::Pause => Some(Mode::Paused),
            OverrideAction::PauseIn => Some(Mode::PausedIn),
            OverrideAction::PauseOut => Some(Mode::PausedOut),
            OverrideAction::Observe => Some(Mode::Observe),
            OverrideAction::Scale(workers) => Some(Mode::Pinned(workers)),
            OverrideAction::Resume => None,
        }
    }

    /// Returns how long that mode holds; `None`: until somebody ends it.
    pub fn held_for(&self) -> Option<Duration> {
        match self.action {
            OverrideAction::Scale(_) => Some(self.lasts.unwrap_or(ONCE)),
            OverrideAction::Pause | OverrideAction::PauseIn | OverrideAction::PauseOut | OverrideAction::Observe => {
                self.lasts
            }
            OverrideAction::Resume => None,
        }
    }

    /// Returns what was done, for people: `browser: pinned at 4 for 600 s`. `existed` says whether an override was in
    /// force before.
    pub fn done(&self, existed: bool) -> String {
        let name = &self.worker_type;
        let done = match (self.action, self.lasts) {
            (OverrideAction::Resume, _) if !existed => return format!("{name} is neither paused nor pinned"),
            (OverrideAction::Resume, _) => "resumed".to_owned(),
            (OverrideAction::Scale(workers), None) => format!("scaled once to {workers}, held"),
            _ => self.mode().map_or_else(String::new, Mode::in_words),
        };
        let lasts = self.held_for().map_or_else(String::new, |lasts| format!(" for {} s", lasts.as_secs()));
        format!("{name}: {done}{lasts}")
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// The configuration has no such worker type.
    #[error("no worker type `{worker_type}` in the configuration; there are: {}", known.join(", "))]
    Unknown {
        /// Worker type that the request names.
        worker_type: WorkerType,
        /// Worker types of the configuration.
        known: Vec<String>,
    },
    /// The number of workers is outside the worker type's bounds.
    #[error(
        "{workers} is outside of what `{worker_type}` may have, {} to {}; change min_workers or max_workers", bounds.0, bounds.1
    )]
    OutOfBounds {
        /// Worker type that the request names.
        worker_type: WorkerType,
        /// Number of workers that was asked for.
        workers: u32,
        /// `min_workers` and `max_workers`.
        bounds: (u32, u32),
    },
    /// The override could not be stored, so nothing has changed.
    #[error("{0}")]
    Unavailable(String),
}

/// Applies requests: validates them, stores them with who asked and why, and notifies the leader. The scaler implements
/// this trait.
#[async_trait]
pub trait ApplyOverride: Send + Sync + 'static {
    /// Carries out a request. Returns whether an override was in force before; ending an override that does not exist
    /// changes nothing.
    ///
    /// # Errors
    /// If the request is invalid, or can't be stored.
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
            (order(OverrideAction::PauseIn, None), false, "test: paused for scaling in"),
            (order(OverrideAction::PauseOut, Some(9)), false, "test: paused for scaling out for 9 s"),
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
