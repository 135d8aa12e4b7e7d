//! Why an autoscaler does not run.

use std::error::Error;

/// Why an autoscaler did not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum AutoscalerError {
    /// It can't start, and waiting does not change that: a port in use, a backend that this build lacks, a URL that is
    /// not valid.
    #[error(transparent)]
    Start(Box<dyn Error + Send + Sync>),
    /// An actor failed while the configuration was loaded again.
    #[error("loading the configuration again: {0}")]
    Reload(#[source] Box<dyn Error + Send + Sync>),
    /// A part without which it can't work ended.
    #[error("the {0} task ended by itself; this is a bug, please report it with the log")]
    Ended(&'static str),
    /// A part without which it can't work panicked.
    #[error("a task failed: {0}; this is a bug, please report it with the log")]
    Panicked(#[from] tokio::task::JoinError),
}
