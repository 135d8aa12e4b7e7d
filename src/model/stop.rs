//! How a worker is asked to stop where the backend sends signals itself.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A signal that asks a worker to do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum StopSignal {
    /// Most programs.
    #[default]
    #[serde(rename = "SIGTERM")]
    Term,
    /// Ctrl-C.
    #[serde(rename = "SIGINT")]
    Int,
    /// Ctrl-\.
    #[serde(rename = "SIGQUIT")]
    Quit,
}

impl StopSignal {
    /// Every signal.
    pub const ALL: [Self; 3] = [Self::Term, Self::Int, Self::Quit];

    /// The name without `SIG`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
        }
    }

    /// Returns the signal with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }
}

/// A signal that asks a worker to take no more jobs, and to go on with those that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuietSignal {
    /// Ctrl-Z for a program that does not handle it.
    Tstp,
}

impl QuietSignal {
    /// The name without `SIG`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tstp => "TSTP",
        }
    }
}

/// How the workers of a type are stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopPolicy {
    /// Sent first, and `signal` when the worker says that it has no more jobs, or when its drain timeout is over.
    /// `None`: `signal` is sent immediately.
    pub quiet: Option<QuietSignal>,
    /// Asks a worker to finish its jobs and leave. Sent once, unless it may be missed.
    pub signal: StopSignal,
    /// Whether a worker that has not left within its drain timeout is killed; with `quiet`, [`AFTER_QUIET`] later.
    pub hard_kill: bool,
    /// Whether the helper processes of a worker are asked first, and the worker when they have left.
    pub helpers_first: bool,
    /// Whether a worker can miss the signal, so that one that is idle and has not left is asked again.
    pub may_be_missed: bool,
}

/// Time that a worker has for its last signal when its drain timeout ended before its jobs did. Sidekiq puts jobs back
/// after 25 s, asynq after 8 s.
pub const AFTER_QUIET: Duration = Duration::from_secs(30);

impl StopPolicy {
    /// Returns the time after which a worker with this drain timeout is killed; `None` if it is not.
    pub fn kill_after(&self, drain_timeout: Duration) -> Option<Duration> {
        let after_quiet = if self.quiet.is_some() { AFTER_QUIET } else { Duration::ZERO };
        self.hard_kill.then(|| drain_timeout.saturating_add(after_quiet))
    }
}
