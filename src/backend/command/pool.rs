//! The pool of one worker type, and what all pools share.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CommandSpec, FIRST_LIST, poll,
    registry::Registry,
    retryable,
    run::{self, RunError},
    spec::filled,
};
use crate::{
    backend::{BackendError, DrainControl, OnChange, leader_guard::LeaderGuard},
    model::{Clock, WorkerType},
};

/// Shortest time for which a list is valid, whatever `poll_seconds` says.
const VALID_AT_LEAST: Duration = Duration::from_secs(5);
/// Number of polls for which a list is valid while newer ones fail.
const VALID_POLLS: u32 = 3;
/// Permits of the semaphore: more than `max_concurrent` may ever be.
const PERMITS: u32 = 64;

/// The command that is not counted: commands that hang must not make the pool unknown.
pub(super) const LIST: &str = "list";

/// State shared by all worker types.
pub(super) struct CommandShared {
    pub(super) drain_control: Arc<dyn DrainControl>,
    pub(super) on_change: OnChange,
    pub(super) clock: Clock,
    pub(super) leader_guard: LeaderGuard,
    /// Everything that runs beside the calls of the scaler.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// How the lists of a worker type come along.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    pub(super) last: Option<Instant>,
    pub(super) failure: Option<BackendError>,
}

/// The pool of one worker type.
pub(super) struct TypePool {
    pub(super) worker_type: WorkerType,
    spec: watch::Sender<Arc<CommandSpec>>,
    pub(super) registry: Registry,
    pub(super) lists: watch::Sender<Lists>,
    /// Asks for a list before it is time.
    pub(super) look: Notify,
    /// Who changes the number of workers: one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// The worker type is not looked after any more.
    pub(super) released: CancellationToken,
    /// Lists are run and taken in one after the other.
    pub(super) listing: tokio::sync::Mutex<()>,
    running: Semaphore,
}

impl TypePool {
    /// Begins to list and to watch.
    pub(super) fn begin(shared: &Arc<CommandShared>, worker_type: &WorkerType, spec: CommandSpec) -> Arc<Self> {
        let pool = Arc::new(Self {
            worker_type: worker_type.clone(),
            spec: watch::Sender::new(Arc::new(spec)),
            registry: Registry::default(),
            lists: watch::Sender::default(),
            look: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            released: CancellationToken::new(),
            listing: tokio::sync::Mutex::default(),
            running: Semaphore::new(PERMITS as usize),
        });
        shared.tasks.spawn(poll::keep_listing(shared.clone(), pool.clone()));
        shared.tasks.spawn(poll::keep_watching(shared.clone(), pool.clone()));
        pool
    }

    /// Returns the present settings.
    pub(super) fn spec(&self) -> Arc<CommandSpec> {
        self.spec.borrow().clone()
    }

    /// Returns a receiver of changes of the settings.
    pub(super) fn specs(&self) -> watch::Receiver<Arc<CommandSpec>> {
        self.spec.subscribe()
    }

    pub(super) fn respec(&self, spec: CommandSpec) {
        if *self.spec() != spec {
            self.spec.send_replace(Arc::new(spec));
            self.look.notify_one();
        }
    }

    /// Runs one of the commands; `list` immediately, the others when fewer than `max_concurrent` run.
    pub(super) async fn run(
        &self,
        spec: &CommandSpec,
        key: &str,
        words: &[String],
        values: &[(&str, &str)],
    ) -> Result<Vec<u8>, RunError> {
        // Shares of such a size that `max_concurrent` of them fit.
        let share = if key == LIST { 0 } else { PERMITS / spec.settings.max_concurrent.clamp(1, PERMITS) };
        let _permit = self.running.acquire_many(share).await.map_err(|error| retryable(error.to_string()))?;
        let mut all = vec![("type", self.worker_type.as_str())];
        all.extend_from_slice(values);
        let setting = format!("worker_types.{}.command.{key}", self.worker_type);
        run::run(&filled(words, &all), &spec.settings, &setting).await
    }

    /// Waits for the first list; then says at once whether the registry can be relied on.
    pub(super) async fn known(&self) -> Result<(), BackendError> {
        let mut lists = self.lists.subscribe();
        let first = lists.wait_for(|lists| lists.last.is_some() || lists.failure.is_some());
        let lists = match tokio::time::timeout(FIRST_LIST, first).await {
            Ok(Ok(lists)) => lists.clone(),
            _ => self.lists.borrow().clone(),
        };
        let valid = (self.spec().settings.poll() * VALID_POLLS).max(VALID_AT_LEAST);
        match (lists.last, lists.failure) {
            (Some(last), None) if last.elapsed() <= valid + self.spec().settings.timeout() => Ok(()),
            (Some(last), Some(_)) if last.elapsed() <= valid => Ok(()),
            (_, Some(failure)) => Err(failure),
            (_, None) => Err(retryable(format!("the workers of type `{}` are not listed yet", self.worker_type))),
        }
    }
}
