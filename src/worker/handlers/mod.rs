//! Handlers of jobs. A handler knows nothing about Redis: it gets a job and returns a value or an error. If it keeps
//! sessions, it says so through [`Sessions`], and follow-up jobs are delivered to it.

#[cfg(feature = "browser")]
mod browser;
mod built_in;
mod error;
mod exec;
#[cfg(feature = "tankpit")]
mod tankpit;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

#[cfg(feature = "browser")]
pub use browser::BrowserHandler;
pub use built_in::BuiltIn;
pub use error::JobError;
pub use exec::Exec;
#[cfg(feature = "tankpit")]
pub use tankpit::TankpitHandler;

use super::Sessions;
use crate::{
    broker::Job,
    config::{HandlerKind, WorkerTypeSettings},
    model::{MissingFeature, WorkerId, WorkerType},
};

/// Methods that every worker knows, whatever its handler: those of [`BuiltIn`].
pub(super) const COMMON_METHODS: &[&str] = &["echo", "sleep"];

/// Executes the jobs of one worker type. Called for several jobs at the same time, but never for two jobs of one
/// session that is open here. A panic fails the job that caused it, and no other. What a handler may use for the job
/// that it executes, to report its progress for example, is [`JobContext::current`](super::JobContext::current).
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Executes `method` of `job` (`goto` of `browser.goto`; empty if the job names none). May be dropped at any await:
    /// when the job exceeds its time limit, which fails it, or when the worker is stopped hard, and then another worker
    /// does the job again.
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError>;

    /// Returns the methods that the handler knows; others are refused without calling it. `None`: it accepts any
    /// method. They are label values of metrics, so there must be few. `echo` and `sleep` are never passed to it: every
    /// worker executes them itself.
    fn methods(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Returns whether the handler keeps sessions. If so, a job that names a session goes to the worker that holds it.
    fn keeps_sessions(&self) -> bool {
        false
    }

    /// Returns how many sessions the handler can hold now, including the open ones; `None` if it does not limit them.
    /// At that number, a job that opens a session waits, and goes to another worker that has a place.
    fn places(&self) -> Option<usize> {
        None
    }

    /// Returns whether `method` opens the session of its job, which takes a place.
    fn opens_session(&self, _method: &str) -> bool {
        false
    }

    /// Releases what belongs to a session that ended without a job that closes it: the session idled out, or this
    /// worker counted as gone and lost it. The session is no longer open at the call. Must not take long.
    async fn session_ended(&self, _name: &str) {}

    /// Releases everything: child processes, connections, sessions. Called once, after the last job.
    async fn shutdown(&self) {}

    /// Returns further fields for the heartbeat, for example the memory of child processes. Called at each heartbeat.
    fn resources(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// What a handler may use of its worker.
#[derive(Clone)]
pub struct Context {
    /// Worker type whose jobs the handler executes.
    pub worker_type: WorkerType,
    /// Id of the worker.
    pub worker_id: WorkerId,
    /// All settings of the worker type.
    pub settings: Arc<WorkerTypeSettings>,
    /// Sessions that are open here.
    pub sessions: Sessions,
}

/// Why there is no handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// `handler = "exec"` without a program.
    #[error(
        "worker type `{0}` has `handler = \"exec\"` and no program; set `exec = [\"PROGRAM\", \"ARGUMENT\", …]` in \
         [worker_types.{0}.worker]"
    )]
    NoProgram(WorkerType),
    /// A setting is invalid. Checking the configuration finds it too.
    #[error("worker type `{worker_type}`: {problem}")]
    Settings {
        /// Worker type with the setting.
        worker_type: WorkerType,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// This build lacks the handler.
    #[error(transparent)]
    Missing(#[from] MissingFeature),
}

/// Returns the handler that the settings name.
pub fn build(context: Context) -> Result<Arc<dyn Handler>, HandlerError> {
    match context.settings.worker.handler(context.worker_type.as_str()) {
        HandlerKind::Builtin => Ok(Arc::new(BuiltIn)),
        #[cfg(feature = "browser")]
        HandlerKind::Browser => Ok(Arc::new(BrowserHandler::new(context)?)),
        #[cfg(not(feature = "browser"))]
        HandlerKind::Browser => Err(missing(&context.worker_type, "browser")),
        #[cfg(feature = "tankpit")]
        HandlerKind::Tankpit => Ok(Arc::new(TankpitHandler::new(context))),
        #[cfg(not(feature = "tankpit"))]
        HandlerKind::Tankpit => Err(missing(&context.worker_type, "tankpit")),
        HandlerKind::Exec => Ok(Arc::new(Exec::new(context)?)),
    }
}

/// Returns the error for a handler that this build lacks.
#[cfg(any(test, not(all(feature = "browser", feature = "tankpit"))))]
fn missing(worker_type: &WorkerType, handler: &'static str) -> HandlerError {
    let needed_by = format!("worker type `{worker_type}` with `handler = \"{handler}\"`");
    MissingFeature { needed_by, part: format!("{handler} handler"), feature: handler }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_was_compiled_out_is_named_with_its_feature() {
        assert_eq!(
            missing(&WorkerType::new("web"), "browser").to_string(),
            "worker type `web` with `handler = \"browser\"`: this build has no browser handler; build it with \
             `--features browser`"
        );
    }
}
