//! Events of the connection to Redis and the probe.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::{counter, gauge};
use tracing::{debug, info, warn};

use crate::{model::WorkerType, telemetry::metric};

/// A queue could not be read. Emitted each time; the caller knows whether it is news.
#[derive(Clone, Copy, Debug)]
pub struct ProbeFailed<'a> {
    /// Whose queue: in the log only. While Redis is away every queue fails, and `swarm_queue_lag` is NaN for each.
    pub worker_type: &'a WorkerType,
    /// Why.
    pub error: &'a str,
    /// Whether the probe before succeeded or failed otherwise. Only then is it logged at `warn`: a queue that stays
    /// broken must not fill the log. Keeping track of that is the caller's part.
    pub news: bool,
}

impl ProbeFailed<'_> {
    /// Counts it and logs it.
    pub fn emit(self) {
        let Self { worker_type, error, news } = self;
        counter!(metric::PROBE_FAILURES).increment(1);
        if news {
            warn!(%worker_type, "queue can't be read, workers are held: {error}");
        } else {
            debug!(%worker_type, "queue still can't be read: {error}");
        }
    }
}

/// Redis does not answer any more. To be emitted on the change only.
#[derive(Clone, Copy, Debug)]
pub struct RedisUnreachable<'a> {
    /// Why.
    pub error: &'a str,
}

impl RedisUnreachable<'_> {
    /// Logs it and sets `swarm_redis_up`.
    pub fn emit(self) {
        gauge!(metric::REDIS_UP).set(0.0);
        warn!("redis does not answer, workers are held as they are: {}", self.error);
    }
}

/// Redis begins to refuse writes while it answers reads, or takes them again. To be emitted on the change only.
#[derive(Clone, Copy, Debug)]
pub struct RedisWrites<'a> {
    /// Its answer; `None` when it takes writes again.
    pub refused: Option<&'a str>,
}

impl RedisWrites<'_> {
    /// Logs it and sets `swarm_redis_writes_refused`.
    pub fn emit(self) {
        gauge!(metric::REDIS_WRITES_REFUSED).set(if self.refused.is_some() { 1.0 } else { 0.0 });
        if let Some(error) = self.refused {
            warn!(error, "redis refuses writes; silent workers are not replaced");
        } else {
            info!("redis accepts writes again");
        }
    }
}

/// Redis answers, for the first time or again. To be emitted on the change only.
#[derive(Clone, Copy, Debug)]
pub struct RedisReachable;

impl RedisReachable {
    /// Logs it and sets `swarm_redis_up`.
    pub fn emit(self) {
        gauge!(metric::REDIS_UP).set(1.0);
        info!("redis answers");
    }
}
