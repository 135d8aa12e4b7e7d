//! Which worker holds which session, and handing a session's jobs over to that worker. A session is a name (a channel,
//! a user) under which a worker keeps state between jobs. Owns the keys `session:*` and `session-lost:*`.
//!
//! A job of a session that is open elsewhere is not copied: its entry is handed over within the consumer group (XCLAIM
//! for the holder). So exactly one worker has it at any moment, and if that one dies the job is recovered like any
//! other.

mod room;
mod steps;

use std::{collections::BTreeSet, time::Duration};

use redis::{Cmd, RedisResult};

use super::{BrokerError, Consumer, Job, find::scan};
use crate::connection::Connection;
use crate::model::{WorkerId, WorkerType, keys};

/// Longest name of a session, in bytes: it becomes part of a key.
pub const MAX_SESSION_NAME: usize = 256;

/// Message on a worker's control channel when jobs were handed over to it. A blank and a key after it name the stream,
/// if that is not the type's own.
pub const HANDED_OVER: &str = "jobs";

/// KEYS session, lost mark. ARGV me, TTL in ms, heartbeat prefix, the holder that is dead if it has no heartbeat (''
/// for none). Returns the holder, me or another worker, and whether it has a heartbeat.
const CLAIM: &str = "\
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  local alive = redis.call('EXISTS', ARGV[3] .. holder)
  if alive == 1 or holder ~= ARGV[4] then return {holder, alive} end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return {ARGV[1], 1}";

/// KEYS session, lost mark. ARGV me, TTL in ms. Returns whether the session is still mine.
const RENEW: &str = "\
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if not holder and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// KEYS session. ARGV me.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// KEYS session, lost mark, stream. ARGV me, group, entry, heartbeat prefix, control prefix, the holder that is dead if
/// it is still silent ('' for none), its silence, TTL of the mark in ms, message to the holder, number of the delivery.
/// Returns what to do, and the worker it concerns. JUSTID, because handing over is not an attempt.
///
/// The mark holds the time of the loss: jobs that were published before it, and read only later, are told about the
/// loss too.
const ROUTE: &str = "\
local holder = redis.call('GET', KEYS[1])
if not holder then
  local at, who = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) (.*)$')
  if at and tonumber(string.match(ARGV[3], '^%d+')) <= tonumber(at) then return {'lost', who} end
  return {'here', ARGV[1]}
end
local heartbeat, channel, silence = ARGV[4] .. holder, ARGV[5] .. holder, nil
if redis.call('EXISTS', heartbeat) == 0 then
  silence = 'no_heartbeat'
elseif redis.call('HGET', heartbeat, 'listens') == '1' and redis.call('PUBSUB', 'NUMSUB', channel)[2] == 0 then
  silence = 'not_subscribed'
end
if holder == ARGV[1] or (silence == ARGV[7] and holder == ARGV[6]) then
  local now = redis.call('TIME')
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[2], now[1] .. string.format('%03d', math.floor(now[2] / 1000)) .. ' ' .. holder, 'PX', ARGV[8])
  return {'lost', holder}
end
if silence then return {silence, holder} end
local held = redis.call('XPENDING', KEYS[3], ARGV[2], ARGV[3], ARGV[3], 1, ARGV[1])[1]
if not held or held[4] ~= tonumber(ARGV[10]) then return {'gone', holder} end
redis.call('XCLAIM', KEYS[3], ARGV[2], holder, 0, ARGV[3], 'JUSTID')
redis.call('PUBLISH', channel, ARGV[9])
return {'forwarded', holder}";

/// Where a job of a session belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// No worker holds the session: the worker with the job may do it.
    Here,
    /// The job was handed over to the holder.
    Forwarded(WorkerId),
    /// The holder died with the session.
    Lost(WorkerId),
    /// The job is no longer this worker's: another worker has claimed it.
    ClaimLost,
    /// The holder is silent: it is reconnecting, or has died. Ask again.
    Silent(WorkerId, Silence),
}

/// What shows that a session's holder may be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It has no heartbeat.
    NoHeartbeat,
    /// It has a heartbeat, and is not subscribed to its control channel.
    NotSubscribed,
}

impl Silence {
    /// Returns what the script calls it.
    fn as_str(self) -> &'static str {
        match self {
            Self::NoHeartbeat => "no_heartbeat",
            Self::NotSubscribed => "not_subscribed",
        }
    }
}

/// Where a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No worker holds it.
    Closed,
    /// This worker holds it.
    Open(WorkerId),
    /// It was lost some time ago, with the worker that held it.
    Lost(WorkerId),
}

/// Returns where session `name` is.
pub(super) async fn state_of(
    connection: &mut Connection,
    worker_type: &WorkerType,
    name: &str,
) -> Result<SessionState, BrokerError> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(keys::session(worker_type, name));
    pipeline.cmd("GET").arg(connection.layout().session_lost(worker_type, name));
    let (holder, lost): (Option<String>, Option<String>) = pipeline
        .query_async(connection)
        .await
        .map_err(|cause| BrokerError::new(format!("find the holder of session `{name}`"), cause))?;
    Ok(match (holder, lost.as_deref().and_then(|mark| mark.split_once(' '))) {
        (Some(holder), _) => SessionState::Open(WorkerId::new(holder)),
        (None, Some((_, holder))) => SessionState::Lost(WorkerId::new(holder)),
        (None, None) => SessionState::Closed,
    })
}

/// Returns the names of the open sessions that begin with `prefix`, which is not a pattern.
pub(super) async fn open_sessions(
    connection: &mut Connection,
    worker_type: &WorkerType,
    prefix: &str,
) -> Result<Vec<String>, BrokerError> {
    let all = keys::session(worker_type, "");
    let pattern = format!("{all}{}*", literal(prefix));
    let mut found = BTreeSet::new();
    let keep = |key: String| {
        found.extend(key.strip_prefix(&all).map(str::to_owned));
        true
    };
    let scanned = scan(connection, &pattern, None, keep).await;
    scanned.map_err(|cause| BrokerError::new(format!("look for the sessions of `{worker_type}`"), cause))?;
    Ok(found.into_iter().collect())
}

/// Returns a pattern that matches only `text`.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// The claims of one worker on sessions of its type.
#[derive(Clone, Debug)]
pub struct SessionClaims {
    worker_type: WorkerType,
    id: WorkerId,
    ttl: Duration,
    /// Queue whose name is left out of the message to a holder.
    own_queue: Option<String>,
}

impl SessionClaims {
    /// Returns the claims of worker `id`. A claim expires after `ttl` without renewal. Until then the loss of its
    /// holder can be detected, so `ttl` is longer than a heartbeat's.
    pub fn new(worker_type: WorkerType, id: WorkerId, ttl: Duration) -> Self {
        Self { worker_type, id, ttl, own_queue: None }
    }

    /// Returns the same claims for workers that serve other queues too: the message to a holder names a queue other
    /// than `own_queue`.
    #[must_use]
    pub fn with_own_queue(self, own_queue: impl Into<String>) -> Self {
        Self { own_queue: Some(own_queue.into()), ..self }
    }

    /// Returns the worker that holds the claims.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Claims session `name` for this worker. Returns the holder: this worker, or another one that lives. `may_judge`
    /// is asked after each look at another holder without a heartbeat whether that proves its death: this process, or
    /// the machine, may have stood still since the request was sent. If it does not, the holder keeps the session.
    pub async fn claim(
        &self,
        connection: &mut Connection,
        name: &str,
        may_judge: impl Fn() -> bool,
    ) -> Result<WorkerId, BrokerError> {
        let claimed = if connection.is_cluster() {
            self.claim_in_steps(connection, name, may_judge).await
        } else {
            self.claim_by_script(connection, name, may_judge).await
        };
        claimed.map_err(|cause| BrokerError::new(format!("claim session `{name}`"), cause))
    }

    async fn claim_by_script(
        &self,
        connection: &mut Connection,
        name: &str,
        may_judge: impl Fn() -> bool,
    ) -> RedisResult<WorkerId> {
        let (holder, is_alive) = self.try_claim(connection, name, None).await?;
        if is_alive || !may_judge() {
            return Ok(holder);
        }
        Ok(self.try_claim(connection, name, Some(&holder)).await?.0)
    }

    /// Claims a session that no other worker holds, or `dead`, which has no heartbeat. Returns the holder, and whether
    /// it has a heartbeat.
    async fn try_claim(
        &self,
        connection: &mut Connection,
        name: &str,
        dead: Option<&WorkerId>,
    ) -> RedisResult<(WorkerId, bool)> {
        let mut call = script(CLAIM, &[&self.key(name), &self.mark(connection, name)]);
        call.arg(self.id.as_str()).arg(self.ttl_ms()).arg(self.heartbeats()).arg(dead.map_or("", WorkerId::as_str));
        let (holder, is_alive): (String, bool) = call.query_async(connection).await?;
        Ok((WorkerId::new(holder), is_alive))
    }

    /// Renews the claim on session `name`; returns `false` if another worker has claimed it in the meantime.
    pub async fn renew(&self, connection: &mut Connection, name: &str) -> Result<bool, BrokerError> {
        let mut call = script(RENEW, &[&self.key(name), &self.mark(connection, name)]);
        let kept = call.arg(self.id.as_str()).arg(self.ttl_ms()).query_async(connection).await;
        kept.map_err(|cause| BrokerError::new(format!("renew the claim on session `{name}`"), cause))
    }

    /// Gives up session `name`, if it is this worker's.
    pub async fn release(&self, connection: &mut Connection, name: &str) -> Result<(), BrokerError> {
        let released = script(RELEASE, &[&self.key(name)]).arg(self.id.as_str()).exec_async(connection).await;
        released.map_err(|cause| BrokerError::new(format!("release session `{name}`"), cause))
    }

    /// Decides where a job of session `name` belongs that was delivered to this worker, which does not hold the
    /// session. Hands the job over if another worker holds it. `may_judge` is asked after each look at a silent holder
    /// whether its silence proves its death, as for [`SessionClaims::claim`].
    pub async fn route(
        &self,
        connection: &mut Connection,
        consumer: &Consumer,
        delivery: (&str, u32),
        name: &str,
        may_judge: impl Fn(Silence) -> bool,
    ) -> Result<Route, BrokerError> {
        let routed = if connection.is_cluster() {
            self.route_in_steps(connection, consumer, delivery, name, may_judge).await
        } else {
            self.route_by_script(connection, consumer, delivery, name, may_judge).await
        };
        routed.map_err(|cause| BrokerError::new(format!("find the holder of session `{name}`"), cause))
    }

    async fn route_by_script(
        &self,
        connection: &mut Connection,
        consumer: &Consumer,
        delivery: (&str, u32),
        name: &str,
        may_judge: impl Fn(Silence) -> bool,
    ) -> RedisResult<Route> {
        let seen = self.try_route(connection, consumer, delivery, name, None).await?;
        match &seen {
            Route::Silent(holder, silence) if may_judge(*silence) => {
                self.try_route(connection, consumer, delivery, name, Some((holder, *silence))).await
            }
            _ => Ok(seen),
        }
    }

    /// Runs the script. A silent holder has lost the session only if it is `dead`, and silent in the same way as then.
    async fn try_route(
        &self,
        connection: &mut Connection,
        consumer: &Consumer,
        (entry, number): (&str, u32),
        name: &str,
        dead: Option<(&WorkerId, Silence)>,
    ) -> RedisResult<Route> {
        let mut call = script(ROUTE, &[&self.key(name), &self.mark(connection, name), &consumer.stream]);
        call.arg(self.id.as_str()).arg(&consumer.group).arg(entry);
        call.arg(self.heartbeats()).arg(keys::control(&self.worker_type, &WorkerId::new("")));
        call.arg(dead.map_or("", |(holder, _)| holder.as_str())).arg(dead.map_or("", |(_, silence)| silence.as_str()));
        call.arg(self.ttl_ms()).arg(self.handed_over(consumer)).arg(number);
        let (verdict, holder): (String, String) = call.query_async(connection).await?;
        let holder = WorkerId::new(holder);
        let silence = [Silence::NoHeartbeat, Silence::NotSubscribed].into_iter().find(|of| of.as_str() == verdict);
        Ok(match (verdict.as_str(), silence) {
            (_, Some(silence)) => Route::Silent(holder, silence),
            ("forwarded", _) => Route::Forwarded(holder),
            ("lost", _) => Route::Lost(holder),
            ("gone", _) => Route::ClaimLost,
            _ => Route::Here,
        })
    }

    /// Returns the message to the holder.
    fn handed_over(&self, consumer: &Consumer) -> String {
        match &self.own_queue {
            Some(own) if *own != consumer.stream => format!("{HANDED_OVER} {}", consumer.stream),
            _ => HANDED_OVER.to_owned(),
        }
    }

    fn key(&self, name: &str) -> String {
        keys::session(&self.worker_type, name)
    }

    fn mark(&self, connection: &Connection, name: &str) -> String {
        connection.layout().session_lost(&self.worker_type, name)
    }

    fn heartbeats(&self) -> String {
        keys::heartbeat(&self.worker_type, &WorkerId::new(""))
    }

    fn ttl_ms(&self) -> u64 {
        u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Returns the command of a script with its keys; the arguments are still to be added.
pub(super) fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut call = redis::cmd("EVAL");
    call.arg(text).arg(keys.len()).arg(keys);
    call
}

/// Returns the session of a job: its field `session`, else the named argument `session`, else `channel`. Empty values
/// and values that are not strings count as absent.
pub fn session_of(job: &Job) -> Option<&str> {
    let argument = |name| job.kwargs.get(name).and_then(serde_json::Value::as_str);
    let named = [job.session.as_deref(), argument("session"), argument("channel")];
    named.into_iter().flatten().find(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(job: serde_json::Value) -> Option<String> {
        session_of(&serde_json::from_value(job).unwrap()).map(str::to_owned)
    }

    #[test]
    fn the_field_wins_over_the_arguments() {
        let job = json!({"id": "1", "type": "t.x", "session": "a", "kwargs": {"session": "b", "channel": "c"}});
        assert_eq!(session(job).as_deref(), Some("a"));
        let job = json!({"id": "1", "type": "t.x", "kwargs": {"session": "b", "channel": "c"}});
        assert_eq!(session(job).as_deref(), Some("b"));
        let job = json!({"id": "1", "type": "t.x", "session": "", "kwargs": {"session": 7, "channel": "c"}});
        assert_eq!(session(job).as_deref(), Some("c"));
        assert_eq!(session(json!({"id": "1", "type": "t.x", "session": null})), None);
    }
}
