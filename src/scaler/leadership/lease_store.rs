//! Where the lease is kept, as a [`Candidate`](super::Candidate) sees it: who holds it, and a way to take it, to renew
//! it and to give it up. Each place sees to it that nobody comes in between. Tells nobody and decides nothing about
//! leading.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::lease::Lease;
use crate::{backend::BackendError, connection::ConnectionError};

/// The longest pause after a failure, if the lease is long.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Who stands for election.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Names this process and no other: an instance's name may come back after a crash.
    pub(super) holder: String,
    /// Names this autoscaler to people.
    pub(super) instance: String,
    pub(super) lease: Lease,
}

/// Who holds the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) mine: bool,
    /// 0 for nobody.
    pub(super) token: u64,
    pub(super) instance: String,
    /// So long nobody else can take it.
    pub(super) ends_in: Duration,
}

impl Held {
    /// By nobody, and nobody may take it before that.
    pub(super) fn by_nobody(ends_in: Duration) -> Self {
        Self { mine: false, token: 0, instance: String::new(), ends_in }
    }
}

/// A place that keeps the lease. Any of its futures may be dropped before it ends; then [`lost`](Self::lost) is called.
#[async_trait]
pub(super) trait LeaseStore: Send {
    /// What does not answer, if it does not.
    fn name(&self) -> &'static str;

    /// Renews the lease if it is ours, or takes it if it is free. A lease that is taken gets a token greater than every
    /// token before, of which `last_token` is the greatest that was seen.
    async fn take(&mut self, last_token: u64) -> Result<Held, ElectionError>;

    /// Who holds it, for one that never will.
    async fn look(&mut self) -> Result<Held, ElectionError>;

    /// Ends it, if it is ours, and says so; whether it tried to.
    async fn give_up(&mut self) -> Result<bool, ElectionError>;

    /// The last call has failed, or was not waited for.
    fn lost(&mut self);
}

/// A leader has said that it gave up its lease.
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

    /// Whether it was told since the last time.
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
    #[error("the lease `scaler:leader` can't be had ({0}); give the redis user the rights listed in docs/redis.md")]
    Redis(#[from] redis::RedisError),
    #[error("{}", .0.message)]
    Object(#[from] BackendError),
    #[error("{0} does not answer in time")]
    Timeout(&'static str),
}
