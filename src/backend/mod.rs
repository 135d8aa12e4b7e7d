//! Who runs the workers. A backend answers two questions for a worker type, which instances there are and whether it
//! can make it exactly N, and says by itself when something changed. It decides nothing.

mod change_log;
mod check;
pub mod command;
#[cfg(feature = "docker")]
pub mod docker;
mod drain;
#[cfg(feature = "fly")]
pub mod fly;
#[cfg(any(feature = "fly", feature = "command-url"))]
mod http_client;
#[cfg(feature = "keda")]
pub mod keda;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod leader_guard;
mod lease;
pub mod process;
mod quiet;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Serialize;

pub use self::{
    check::{Check, CheckOutcome},
    drain::{DrainControl, DrainError, DrainState},
    leader_guard::MayAct,
    lease::{LeaseObject, LeaseRecord},
    quiet::QuietWatch,
};
use crate::{
    config::Settings,
    model::{Timestamp, WorkerId, WorkerType},
};

/// How far along an instance is, as its backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Asked for, or running without the backend vouching for readiness: its heartbeat decides.
    Running,
    /// The backend itself vouches that it is ready.
    Ready,
    /// The backend sees that it does not work: it keeps restarting, its health check fails. Only its own heartbeat can
    /// say otherwise; without one it is no capacity when its start grace is over, and is replaced.
    Failing,
    /// The platform has not begun it, and says why in [`Instance::reason`]: no node fits, an image is being pulled or
    /// can't be, a quota is used up. It counts as asked for and is never deleted to be made again.
    Blocked,
    /// Somebody suspended it (`docker pause`): no capacity, and left alone until it goes on.
    Suspended,
    /// Asked to leave.
    Draining,
}

/// One worker as its backend sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Matches its heartbeat and its consumer name.
    pub id: WorkerId,
    /// How far along it is.
    pub phase: Phase,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When its process began, if the backend can tell: its start grace runs from then, else from `started_at`.
    pub began_at: Option<Timestamp>,
    /// Why it is blocked or failing, in the platform's own words.
    pub reason: Option<String>,
}

impl Instance {
    /// An instance of which nothing more is known.
    pub fn new(id: WorkerId, phase: Phase, started_at: Timestamp) -> Self {
        Self { id, phase, started_at, began_at: None, reason: None }
    }
}

/// A worker that ended without being asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Rises by one with every exit of this worker type: who has seen up to N looks at those above.
    pub seq: u64,
    /// Which worker.
    pub id: WorkerId,
    /// When.
    pub at: Timestamp,
    /// How long it had lived.
    pub lived: Duration,
    /// Whether it reported success (exit code 0).
    pub success: bool,
    /// For people: `exit code 1`, `signal 9 (SIGKILL)`.
    pub detail: String,
}

/// The number of workers was changed by somebody else: a person, another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManualScale {
    /// Rises by one with every such change of this worker type, as [`Exit::seq`] does.
    pub seq: u64,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// When it was noticed.
    pub at: Timestamp,
    /// For people: what was seen, and who did it if that can be told.
    pub detail: String,
}

/// All workers of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Those that exist, draining ones included.
    pub instances: Vec<Instance>,
    /// The last few that ended by themselves, oldest first.
    pub exits: Vec<Exit>,
    /// The last few changes of their number that were not asked for here, oldest first.
    pub manual: Vec<ManualScale>,
    /// Who decides which workers go when there are to be fewer.
    pub removal: Removal,
    /// Whether the backend knows workers by their heartbeats alone. A worker without a heartbeat is then gone.
    pub known_by_heartbeat: bool,
}

/// Who decides which workers go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// Whoever asks: any worker can be let go.
    #[default]
    Chosen,
    /// The platform, in this order. Among the workers of one group it may take any. A worker can't be replaced by
    /// itself.
    ByOrder(Vec<Vec<WorkerId>>),
}

/// What to make true.
///
/// The target is absolute: with `live` = instances neither draining nor suspended nor in `retire`, a backend starts
/// `target - live` more (none if negative) and lets go exactly those in `retire`. Asking twice changes nothing more.
/// Workers that leave because somebody else asked them to are live here, so whoever asks adds them to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleRequest {
    /// Whose pool.
    pub worker_type: WorkerType,
    /// Workers wanted, draining ones not counted.
    pub target: u32,
    /// Workers to let go, in order. One that is gone already is no error.
    pub retire: Vec<WorkerId>,
    /// How long those may take to finish their jobs.
    pub drain_timeout: Duration,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScaleReport {
    /// Workers started.
    pub started: Vec<WorkerId>,
    /// Workers asked to leave.
    pub retired: Vec<WorkerId>,
}

/// What to do about a backend's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// May go away by itself: try again with backoff.
    Retryable,
    /// Someone must change something: try again rarely, say so loudly.
    Permanent,
}

/// A backend could not do (all of) what it was asked.
///
/// `Display` shows the complete message for people, which includes the words of the cause. A chain of errors that is
/// shown with its causes would repeat them, so show only the message. The source is for programs that need the cause's
/// type.
#[derive(Clone, Debug)]
pub struct BackendError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// Names the thing and the cure.
    pub message: String,
    /// What was done before it failed.
    pub done: ScaleReport,
    /// What failed below, if anything did.
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl BackendError {
    /// Returns an error before which nothing was done.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), done: ScaleReport::default(), cause: None }
    }

    /// Returns an error that may go away by itself.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retryable, message)
    }

    /// Returns an error that someone must cure.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Permanent, message)
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Written by hand: a derived source would be the `Arc`, which can't be downcast to the cause.
impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// Runs workers. Implementations are shared by all worker types and must not let one stall another.
#[async_trait]
pub trait ScalingBackend: Send + Sync + 'static {
    /// Its name in logs and metric labels.
    fn name(&self) -> &'static str;

    /// The workers of a type. An error means "not known", never "none".
    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError>;

    /// Makes the request true, or says how far it got.
    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError>;

    /// Sends the stop signal once more to those of `ids` that were asked to leave and are still there. Does nothing
    /// where the platform itself ends a worker that does not leave. Does not wait.
    fn ask_again(&self, _worker_type: &WorkerType, _ids: &[WorkerId]) {}

    /// From now on `watch` is asked when workers that take no more jobs may get their stop signal. Until then they get
    /// it when their drain timeout is over. Does nothing where the backend sends no signals itself.
    fn watch_quiet(&self, _watch: Arc<dyn QuietWatch>) {}

    /// From now on `may_act` is asked right before each change that may come long after it was ordered. Until then
    /// everything is allowed.
    fn act_only_while(&self, _may_act: MayAct) {}

    /// Another autoscaler leads now, and this one did before: gives up the workers that only this one can run, since
    /// the leader neither sees nor counts them. Does nothing where all autoscalers see the same workers. Does not wait.
    async fn stand_down(&self) {}

    /// From now on these settings hold: worker types that are new in them can be asked for, those that were there go on
    /// with their workers and by what is said of them now. Those that are not in them any more stay until each is
    /// [released](Self::release). All of it or, with an error, nothing. What is settled at the start is not looked at.
    async fn reconfigure(&self, _settings: &Settings) -> Result<(), BackendError> {
        Ok(())
    }

    /// A worker type is not looked after any more, and nothing of it is under way: gives up its workers if nobody else
    /// can run them, and leaves them alone otherwise. Does not wait.
    async fn release(&self, _worker_type: &WorkerType) {}

    /// Ends the backend: drains its workers if `drain`, waits until they are gone, and releases what it holds.
    async fn shutdown(&self, drain: bool);
}

/// Called by a backend when the workers of a type changed by themselves.
pub type OnChange = Arc<dyn Fn(&WorkerType) + Send + Sync>;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_cause_of_an_error_keeps_its_type_and_the_message_stands_alone() {
        let error = BackendError::permanent("no room: disk full; free some").caused_by(io::Error::other("disk full"));
        let copy = BackendError { done: ScaleReport::default(), ..error.clone() };
        let cause = copy.source().and_then(|cause| cause.downcast_ref::<io::Error>()).expect("it is kept");
        assert_eq!((cause.to_string().as_str(), copy.to_string()), ("disk full", error.message));
        assert!(BackendError::retryable("away").source().is_none());
    }
}
