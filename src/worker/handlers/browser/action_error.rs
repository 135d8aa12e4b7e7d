//! Why an action on a page failed, in words for the publisher of the job.

use std::time::Duration;

use super::devtools::CommandError;

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    /// The page is gone; the caller has to start again.
    #[error("session lost: {0}; open it again")]
    Lost(String),
    #[error("{what} took longer than {limit:?} and was broken off")]
    TooSlow { what: String, limit: Duration },
    #[error("{0}")]
    Refused(String),
    #[error("{url} was not loaded: {cause}")]
    NotLoaded { url: String, cause: String },
    #[error("no element matches `{0}`")]
    NoElement(String),
    #[error("`{0}` is no CSS selector")]
    NoSelector(String),
    #[error("the element `{selector}` {problem}")]
    Unfit { selector: String, problem: String },
    #[error("the browser says: {0}")]
    Browser(#[from] CommandError),
}
