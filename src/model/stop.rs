//! How a worker is asked to stop where the backend sends signals itself.

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

/// How the workers of a type are stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopPolicy {
    /// Asks a worker to finish its jobs and leave. Sent once, unless it may be missed.
    pub signal: StopSignal,
    /// Whether a worker that has not left within its drain timeout is killed.
    pub hard_kill: bool,
    /// Whether the helper processes of a worker are asked first, and the worker when they have left.
    pub helpers_first: bool,
    /// Whether a worker can miss the signal, so that one that is idle and has not left is asked again.
    pub may_be_missed: bool,
}
