//! The pool of one worker type, and what all pools share.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CommandSpec,
    call::{CallError, Change},
    platform::Platform,
    programs::Programs,
    registry::Registry,
    service::{Client, Service},
};
use crate::{
    backend::{BackendError, DrainControl, OnChange, leader_guard::LeaderGuard},
    model::{Clock, WorkerType},
};

/// Shortest time for which a list is valid, whatever `poll_seconds` says.
const VALID_AT_LEAST: Duration = Duration::from_secs(5);
/// Number of polls for which a list is valid while newer ones fail.
const VALID_POLLS: u32 = 3;
/// Longest wait for the first list of a worker type before its workers count as unknown.
const FIRST_LIST: Duration = Duration::from_secs(10);
/// Permits of the semaphore: enough to divide them evenly among 1 to 64 runs.
const PERMITS: u32 = 8_192;

/// State shared by all worker types.
pub(super) struct CommandShared {
    pub(super) drain_control: Arc<dyn DrainControl>,
    pub(super) on_change: OnChange,
    pub(super) clock: Clock,
    pub(super) leader_guard: LeaderGuard,
    pub(super) client: Arc<Client>,
    /// Tasks that outlive the call that started them.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Outcome of the latest lists of a worker type.
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
    /// Requests a list before the next poll.
    pub(super) list_now: Notify,
    /// Held while the number of workers is changed: one request at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Cancelled when this backend no longer runs the worker type.
    pub(super) released: CancellationToken,
    /// Held while a list is run and merged: one at a time.
    pub(super) listing: tokio::sync::Mutex<()>,
    running: Semaphore,
    client: Arc<Client>,
}

impl TypePool {
    pub(super) fn new(worker_type: WorkerType, spec: CommandSpec, client: Arc<Client>) -> Self {
        Self {
            worker_type,
            spec: watch::Sender::new(Arc::new(spec)),
            registry: Registry::default(),
            lists: watch::Sender::default(),
            list_now: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            released: CancellationToken::new(),
            listing: tokio::sync::Mutex::default(),
            running: Semaphore::new(PERMITS as usize),
            client,
        }
    }

    /// Returns the current settings.
    pub(super) fn spec(&self) -> Arc<CommandSpec> {
        self.spec.borrow().clone()
    }

    /// Returns a receiver of changes of the settings.
    pub(super) fn specs(&self) -> watch::Receiver<Arc<CommandSpec>> {
        self.spec.subscribe()
    }

    /// Replaces the settings; they apply to the next run of each command.
    pub(super) fn set_spec(&self, spec: CommandSpec) {
        if *self.spec() != spec {
            self.spec.send_replace(Arc::new(spec));
            self.list_now.notify_one();
        }
    }

    /// Returns the platform of these settings. Listing does not count against `max_concurrent`: changes that hang must
    /// not make the pool unknown.
    pub(super) fn platform<'a>(&'a self, spec: &'a CommandSpec) -> Platform<'a> {
        let (worker_type, settings) = (&self.worker_type, &spec.settings);
        match &settings.url {
            Some(url) => Platform::Service(Service { worker_type, settings, url, client: &self.client }),
            None => Platform::Programs(Programs { worker_type, settings }),
        }
    }

    /// Changes something, once fewer than `max_concurrent` changes are under way.
    pub(super) async fn change(&self, spec: &CommandSpec, change: Change<'_>) -> Result<(), CallError> {
        let share = share(spec.settings.max_concurrent);
        let _permit =
            self.running.acquire_many(share).await.map_err(|error| BackendError::retryable(error.to_string()))?;
        self.platform(spec).change(change).await
    }

    /// Waits for the first list, then checks that the registry is recent enough to rely on.
    pub(super) async fn ensure_known(&self) -> Result<(), BackendError> {
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
            (_, None) => {
                Err(BackendError::retryable(format!("the workers of type `{}` are not listed yet", self.worker_type)))
            }
        }
    }
}

/// Returns the permits that each run takes, so that exactly `max_concurrent` runs have room.
fn share(max_concurrent: u32) -> u32 {
    PERMITS / max_concurrent.clamp(1, PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_commands_run_at_the_same_time_as_the_setting_says() {
        for max_concurrent in 1..=64 {
            assert_eq!(PERMITS / share(max_concurrent), max_concurrent);
        }
    }
}
