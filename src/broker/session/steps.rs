//! Claims and routes on a Redis Cluster, where a session, the heartbeat of its holder and the stream are on different
//! nodes. They take several steps, each of which is atomic for its own keys. Between two steps the holder may change or
//! die. Then the entry is handed to a worker that no longer holds the session, which routes it again; or it stays with
//! a dead worker, from which it is recovered like any other job. It is never lost, and never with two workers at the
//! same time.

use redis::RedisResult;

use super::{Route, SessionClaims, Silence, script};
use crate::{
    broker::Consumer,
    connection::Connection,
    model::{StreamId, WorkerId, keys},
};

/// Maximum attempts at a claim, each because the holder has changed meanwhile.
const ATTEMPTS: usize = 5;

/// KEYS session, lost mark. ARGV me, TTL in ms, the holder that may be replaced ('' for none). Returns the holder.
const REPLACE: &str = "\
local holder = redis.call('GET', KEYS[1]) or ''
if holder ~= ARGV[3] and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return ARGV[1]";

/// KEYS session, lost mark. ARGV the holder that lost it, TTL of the mark in ms. Returns whether it still held it.
const LOSE: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], now[1] .. string.format('%03d', math.floor(now[2] / 1000)) .. ' ' .. ARGV[1], 'PX', ARGV[2])
return 1";

/// KEYS stream. ARGV group, consumer, entry, number of its delivery, the holder of its session. Returns whether the
/// entry was the consumer's and is the holder's now.
pub(super) const HAND_OVER: &str = "\
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if not held or held[4] ~= tonumber(ARGV[4]) then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[5], 0, ARGV[3], 'JUSTID')
return 1";

impl SessionClaims {
    /// Claims a session; see [`SessionClaims::claim`].
    pub(super) async fn claim_in_steps(
        &self,
        connection: &mut Connection,
        name: &str,
        may_judge: impl Fn() -> bool,
    ) -> RedisResult<WorkerId> {
        let (session, mark) = (self.key(name), self.mark(connection, name));
        let mut holder = self.holder(connection, &session).await?;
        for _ in 0..ATTEMPTS {
            if let Some(other) = holder.as_deref().filter(|holder| *holder != self.id.as_str())
                && (self.heartbeat(connection, other).await?.is_some() || !may_judge())
            {
                return Ok(WorkerId::new(other));
            }
            let mut call = script(REPLACE, &[&session, &mark]);
            call.arg(self.id.as_str()).arg(self.ttl_ms()).arg(holder.as_deref().unwrap_or_default());
            let now: String = call.query_async(connection).await?;
            if now == self.id.as_str() {
                return Ok(self.id.clone());
            }
            holder = Some(now);
        }
        Ok(WorkerId::new(holder.unwrap_or_default()))
    }

    /// Routes a job; see [`SessionClaims::route`].
    pub(super) async fn route_in_steps(
        &self,
        connection: &mut Connection,
        consumer: &Consumer,
        (entry, number): (&str, u32),
        name: &str,
        may_judge: impl Fn(Silence) -> bool,
    ) -> RedisResult<Route> {
        let (session, mark) = (self.key(name), self.mark(connection, name));
        let Some(holder) = self.holder(connection, &session).await?.map(WorkerId::new) else {
            return self.lost_before(connection, &mark, entry).await;
        };
        let channel = keys::control(&self.worker_type, &holder);
        let silence = match self.heartbeat(connection, holder.as_str()).await? {
            None => Some(Silence::NoHeartbeat),
            Some(true) if connection.listeners(&channel).await? == 0 => Some(Silence::NotSubscribed),
            Some(_) => None,
        };
        if holder == self.id || silence.is_some_and(&may_judge) {
            let mut call = script(LOSE, &[&session, &mark]);
            let was: bool = call.arg(holder.as_str()).arg(self.ttl_ms()).query_async(connection).await?;
            // If not, the holder has changed meanwhile: the next look finds the other one.
            let silence = silence.unwrap_or(Silence::NoHeartbeat);
            return Ok(if was { Route::Lost(holder) } else { Route::Silent(holder, silence) });
        }
        if let Some(silence) = silence {
            return Ok(Route::Silent(holder, silence));
        }
        let mut hand_over = script(HAND_OVER, &[&consumer.stream]);
        hand_over.arg(&consumer.group).arg(&consumer.name).arg(entry).arg(number).arg(holder.as_str());
        if !hand_over.query_async::<bool>(connection).await? {
            return Ok(Route::ClaimLost);
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&channel).arg(self.handed_over(consumer)).exec_async(connection).await?;
        Ok(Route::Forwarded(holder))
    }

    async fn holder(&self, connection: &mut Connection, session: &str) -> RedisResult<Option<String>> {
        redis::cmd("GET").arg(session).query_async(connection).await
    }

    /// Returns whether the worker is subscribed to its control channel; `None` if the worker is gone.
    async fn heartbeat(&self, connection: &mut Connection, worker: &str) -> RedisResult<Option<bool>> {
        let key = keys::heartbeat(&self.worker_type, &WorkerId::new(worker));
        let mut ask = redis::pipe();
        ask.cmd("EXISTS").arg(&key).cmd("HGET").arg(&key).arg(keys::LISTENS_FIELD);
        let (alive, listens): (bool, Option<String>) = ask.query_async(connection).await?;
        Ok(alive.then(|| listens.as_deref() == Some("1")))
    }

    /// Handles a session that no worker holds: the job is lost if its entry is older than the loss of the session.
    async fn lost_before(&self, connection: &mut Connection, mark: &str, entry: &str) -> RedisResult<Route> {
        let lost: Option<String> = redis::cmd("GET").arg(mark).query_async(connection).await?;
        let time = |id: &str| StreamId::parse_incomplete(id).map(StreamId::ms);
        Ok(match lost.as_deref().and_then(|lost| lost.split_once(' ')) {
            Some((at, who)) if time(entry) <= time(at) && time(at).is_some() => Route::Lost(WorkerId::new(who)),
            _ => Route::Here,
        })
    }
}
