//! Errors of a running or starting autoscaler.

use std::error::Error;

/// Why an autoscaler did not start, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum AutoscalerError {
    /// The autoscaler can't start, and waiting does not help: a port in use, a backend that this build lacks, an
    /// invalid URL.
    #[error(transparent)]
    Start(Box<dyn Error + Send + Sync>),
    /// An actor failed during a reload of the configuration.
    #[error("loading the configuration again: {0}")]
    Reload(#[source] Box<dyn Error + Send + Sync>),
    /// An essential task ended.
    #[error("the {0} task ended by itself; this is a bug, please report it with the log")]
    Ended(&'static str),
    /// An essential task panicked.
    #[error("a task failed: {0}; this is a bug, please report it with the log")]
    Panicked(#[from] tokio::task::JoinError),
}
