//! What workers do with jobs. A handler knows nothing of Redis: it gets a job and answers a value or an error. If it keeps
//! sessions, it says so through [`Sessions`], and follow-up jobs are brought to it.

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

/// Does jobs of one worker type. Called for several jobs at the same time, but never for two jobs of one session that
/// is open here. A panic fails the job that caused it, no other.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does `method` of `job` (`goto` of `browser.goto`; empty if the job names none). May be dropped at any await: when
    /// the job takes too long, which fails it, or when the worker is stopped hard, and then it is done again elsewhere.
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError>;

    /// The methods that it knows; others are refused without asking it. `None`: it takes any. They are label values of
    /// metrics, so there must be few. `echo` and `sleep` never come here: every worker answers them itself.
    fn methods(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Whether it keeps sessions. If so, a job that names a session goes to the worker where that is open.
    fn keeps_sessions(&self) -> bool {
        false
    }

    /// How many sessions it can hold now, those that are open included; `None`: it does not limit them. A job that opens
    /// one waits while there are as many, and goes to another worker that has a place.
    fn places(&self) -> Option<usize> {
        None
    }

    /// Whether `method` opens the session of its job, which takes a place.
    fn opens_session(&self, _method: &str) -> bool {
        false
    }

    /// Lets go of what belongs to a session that is over without having been closed by a job: it idled out, or this worker
    /// was thought dead and lost it. It is no longer open when this is called. Must not take long.
    async fn session_ended(&self, _name: &str) {}

    /// Lets go of everything: child processes, connections, sessions. Called once, after the last job.
    async fn shutdown(&self) {}

    /// More fields for the heartbeat, for example how much memory its child processes take. Called at each heartbeat.
    fn resources(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// What a handler may use of its worker.
#[derive(Clone)]
pub struct Context {
    /// The type whose jobs it does.
    pub worker_type: WorkerType,
    /// The worker's name.
    pub worker_id: WorkerId,
    /// Everything configured for the type.
    pub settings: Arc<WorkerTypeSettings>,
    /// Which sessions are open here.
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
    /// A setting means nothing. Checking the configuration finds it too.
    #[error("worker type `{worker_type}`: {problem}")]
    Settings {
        /// Whose setting.
        worker_type: WorkerType,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// This build lacks the handler.
    #[error(transparent)]
    Missing(#[from] MissingFeature),
}

/// The handler that the settings ask for.
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

/// The settings ask for a handler that this build lacks.
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
