//! Machines that somebody else started or stopped, in one list.

use std::fmt;

/// Changes that were not asked for here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Machines that run now.
    pub(super) more: u32,
    /// Machines that don't any more.
    pub(super) fewer: u32,
}

impl Changes {
    /// Returns the number of workers after the changes.
    pub(super) fn applied_to(self, before: u32) -> u32 {
        before.saturating_add(self.more).saturating_sub(self.fewer)
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { more, fewer: 0 } => write!(f, "{more} machines of fly.io were started by somebody else"),
            Self { more: 0, fewer } => {
                write!(f, "{fewer} machines of fly.io were stopped or destroyed by somebody else")
            }
            Self { more, fewer } => {
                write!(f, "{more} machines of fly.io were started and {fewer} stopped or destroyed by somebody else")
            }
        }
    }
}
