//! What a platform is asked, whichever form it has: the changes, and how one of its calls can fail. Asks nothing.

use crate::{backend::BackendError, model::WorkerId};

/// Most that a call may answer: a list of ten thousand workers takes 2 MiB.
pub(super) const MAX_ANSWER: usize = 8 << 20;

/// A call that changes the workers of a type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// Starts one worker with this id.
    Start(&'a WorkerId),
    /// Starts N workers, whose ids the platform makes up.
    StartMany(usize),
    /// Stops one worker.
    Stop {
        /// The platform's name for it.
        handle: &'a str,
        /// Its own id.
        id: &'a WorkerId,
    },
    /// Sets the number of workers.
    Scale(u32),
}

impl Change<'_> {
    /// Returns the name of the call, as in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start(_) | Self::StartMany(_) => "start",
            Self::Stop { .. } => "stop",
            Self::Scale(_) => "scale",
        }
    }
}

/// Why a call did not succeed.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) error: BackendError,
    /// Whether it may have had its effect: a command was killed halfway, an answer was lost.
    pub(super) ambiguous: bool,
}

impl From<BackendError> for CallError {
    fn from(error: BackendError) -> Self {
        Self { error, ambiguous: false }
    }
}
