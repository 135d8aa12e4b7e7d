//! Where the lease is kept, as a [`Candidate`](super::Candidate) sees it: who holds it, and how to take, renew and give
//! it up. Each store makes these steps atomic. Notifies nobody and decides nothing about leading.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::lease::Lease;
use crate::{backend::BackendError, connection::ConnectionError};

/// Longest pause after a failure, if the lease is long.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A candidate of the election.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Name that is unique to this process: an instance's name may come back after a crash.
    pub(super) holder: String,
    /// Name of this autoscaler, for people.
    pub(super) instance: String,
    pub(super) lease: Lease,
}

/// Holder of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) mine: bool,
    /// Fencing token; 0 for nobody.
    pub(super) token: u64,
    pub(super) instance: String,
    /// Time during which no other candidate can take the lease.
    pub(super) ends_in: Duration,
}

impl Held {
    /// Returns a lease that nobody holds and that nobody may take before `ends_in` has passed.
    pub(super) fn by_nobody(ends_in: Duration) -> Self {
        Self { mine: false, token: 0, instance: String::new(), ends_in }
    }
}

/// A place that keeps the lease. Any of its futures may be dropped before it ends; then [`lost`](Self::lost) is called.
#[async_trait]
pub(super) trait LeaseStore: Send {
    /// Name of the service, for the error that it does not answer.
    fn name(&self) -> &'static str;

    /// Renews the lease if this candidate holds it, or takes it if it is free. A lease that is taken gets a token
    /// greater than every earlier token; `last_token` is the greatest one seen.
    async fn take(&mut self, last_token: u64) -> Result<Held, ElectionError>;

    /// Returns the holder, without taking the lease.
    async fn look(&mut self) -> Result<Held, ElectionError>;

    /// Ends the lease if this candidate holds it, and announces that. Returns whether it tried to.
    async fn give_up(&mut self) -> Result<bool, ElectionError>;

    /// Handles that the last call failed, or was not waited for.
    fn lost(&mut self);
}

/// Notification that a leader gave up its lease.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    wake: Notify,
    told: AtomicBool,
}

impl GivenUp {
    pub(super) fn tell(&self) {
        self.told.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Returns whether a notification has come since the last call.
    pub(super) fn take(&self) -> bool {
        self.told.swap(false, Ordering::AcqRel)
    }

    pub(super) async fn told(&self) {
        self.wake.notified().await;
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ElectionError {
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    #[error("the lease `scaler:leader` can't be used ({0}); give the redis user the rights listed in docs/redis.md")]
    Redis(#[from] redis::RedisError),
    #[error("nobody holds the lease `scaler:leader`, and redis refuses it ({0}); run `swarm doctor`")]
    Refused(String),
    #[error("the lease is on a server that is cut off from the others: {0}")]
    Deposed(#[source] redis::RedisError),
    #[error("{}", .0.message)]
    Object(#[from] BackendError),
    #[error("{0} did not answer in time")]
    Timeout(&'static str),
}
