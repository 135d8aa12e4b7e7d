//! Events of the connection to Redis and the probe.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::{counter, gauge};
use tracing::{debug, info, warn};

use crate::{model::WorkerType, telemetry::metric};

/// A queue could not be read. Emitted for every failure; the caller knows whether it is news.
#[derive(Clone, Copy, Debug)]
pub struct ProbeFailed<'a> {
    /// Worker type of the queue: in the log only. While Redis is down every queue fails, and `swarm_queue_lag` is NaN
    /// for each.
    pub worker_type: &'a WorkerType,
    /// Why the queue could not be read.
    pub error: &'a str,
    /// Whether the previous probe succeeded or failed for another reason. Only then the failure is logged at `warn`, so
    /// that a queue that stays broken does not fill the log. The caller keeps track of it.
    pub news: bool,
}

impl ProbeFailed<'_> {
    /// Counts and logs the failure.
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

/// Redis no longer answers. Emitted on the change only.
#[derive(Clone, Copy, Debug)]
pub struct RedisUnreachable<'a> {
    /// Server of worker types that have their own; `None` for the top-level one.
    pub server: Option<&'a str>,
    /// Why Redis does not answer.
    pub error: &'a str,
}

impl RedisUnreachable<'_> {
    /// Logs the outage and sets `swarm_redis_up` or `swarm_queue_server_up`.
    pub fn emit(self) {
        let Self { server, error } = self;
        if let Some(server) = server {
            gauge!(metric::QUEUE_SERVER_UP, "server" => server.to_owned()).set(0.0);
            warn!(server, "redis of worker types does not answer, their workers are held as they are: {error}");
        } else {
            gauge!(metric::REDIS_UP).set(0.0);
            warn!("redis does not answer, workers are held as they are: {error}");
        }
    }
}

/// Redis began to refuse writes while it answers reads, or accepts them again. Emitted on the change only.
#[derive(Clone, Copy, Debug)]
pub struct RedisWrites<'a> {
    /// Error that Redis answered; `None` when it accepts writes again.
    pub refused: Option<&'a str>,
}

impl RedisWrites<'_> {
    /// Logs the change and sets `swarm_redis_writes_refused`.
    pub fn emit(self) {
        gauge!(metric::REDIS_WRITES_REFUSED).set(if self.refused.is_some() { 1.0 } else { 0.0 });
        if let Some(error) = self.refused {
            warn!(error, "redis refuses writes; silent workers are not replaced");
        } else {
            info!("redis accepts writes again");
        }
    }
}

/// Redis answers, for the first time or again. Emitted on the change only.
#[derive(Clone, Copy, Debug)]
pub struct RedisReachable<'a> {
    /// Server of worker types that have their own; `None` for the top-level one.
    pub server: Option<&'a str>,
}

impl RedisReachable<'_> {
    /// Logs the event and sets `swarm_redis_up` or `swarm_queue_server_up`.
    pub fn emit(self) {
        if let Some(server) = self.server {
            gauge!(metric::QUEUE_SERVER_UP, "server" => server.to_owned()).set(1.0);
            info!(server, "redis of worker types answers");
        } else {
            gauge!(metric::REDIS_UP).set(1.0);
            info!("redis answers");
        }
    }
}

/// No worker type has its queues on a server any more.
#[derive(Clone, Copy, Debug)]
pub struct QueueServerLeft<'a> {
    /// Server that was left.
    pub server: &'a str,
}

impl QueueServerLeft<'_> {
    /// Logs the event and unsets `swarm_queue_server_up`.
    pub fn emit(self) {
        gauge!(metric::QUEUE_SERVER_UP, "server" => self.server.to_owned()).set(f64::NAN);
        info!(server = self.server, "redis of worker types is no longer used");
    }
}
