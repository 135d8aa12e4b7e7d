//! The lease in Redis: the hash `scaler:leader`, which expires. Each step is one script, so that it is atomic.
//!
//! A candidate that finds no lease creates one, with a token greater than every earlier token: greater than the counter
//! in Redis, or than the greatest token seen if Redis has lost the counter. A leader that stops gives up its lease and
//! publishes that on a channel, so that the next one need not wait for the lease to end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Cmd, PushInfo, PushKind, RedisError};

use super::{
    lease::{SinceBoot, since_boot},
    lease_store::{ElectionError, GivenUp, Held, Identity, LONGEST_PAUSE, LeaseStore},
};
use crate::{
    connection::{Connection, RedisTarget},
    model::{Layout, keys},
    scaler::signs_of_life::{Signs, SignsOfLife},
};

/// Renews the caller's lease, or takes it if there is none: returns `{1, token, instance, ms}`. If another candidate
/// holds it, returns `{0, …}`, with token 0 for nobody. `ARGV`: holder, instance, length in ms, greatest token seen, ms
/// to wait before taking a lease. With four keys it also writes the [signs of life](crate::scaler::SignsOfLife), the
/// canary only with a renewal, and returns what `write_signs` does. Returns last why Redis refused a lease that nobody
/// holds ('' if it did not).
const TAKE: &str = concat!(
    include_str!("../signs_of_life.lua"),
    "
local held = redis.call('HMGET', KEYS[1], 'holder', 'token', 'instance')
local tried, before, refused = 0, false, ''
if KEYS[3] then
  local leads = held[1] == ARGV[1] and ARGV[6] == '1'
  tried, before, refused =
    write_signs(KEYS[3], KEYS[4], leads, ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
end
if held[1] and held[1] ~= ARGV[1] then
  return {0, held[2], held[3], redis.call('PTTL', KEYS[1]), tried, before, refused, ''}
end
local token = held[2]
if not held[1] then
  if tonumber(ARGV[5]) > 0 then
    return {0, '0', '', tonumber(ARGV[5]), tried, before, refused, ''}
  end
  local last = tonumber(redis.call('GET', KEYS[2]) or 0)
  token = string.format('%.0f', math.max(last, tonumber(ARGV[4])) + 1)
  local counted = redis.pcall('SET', KEYS[2], token)
  if counted.err then
    return {0, '0', '', 0, tried, before, refused, counted.err}
  end
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'token', token, 'instance', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1, token, ARGV[2], tonumber(ARGV[3]), tried, before, refused, ''}"
);

/// Ends the lease if it is the caller's, and publishes that.
const RESIGN: &str = "
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', KEYS[1], ARGV[2])
end";

/// See the [module](self).
pub(super) struct InRedis {
    target: Arc<RedisTarget>,
    identity: Identity,
    given_up: Arc<GivenUp>,
    connection: Option<Connection>,
    /// End of the lease that was last seen. If the lease disappears before then, Redis has lost it, and its holder may
    /// still act.
    not_before: SinceBoot,
    /// Signs that renewals carry; `None` if they can't.
    signs: Option<Arc<SignsOfLife>>,
}

/// The reply to [`TAKE`].
type Taken = (u8, u64, String, i64, u8, Option<String>, String, String);

impl InRedis {
    /// On a cluster the renewals carry no signs, because those are in other slots.
    pub(super) fn new(
        target: Arc<RedisTarget>,
        identity: Identity,
        given_up: Arc<GivenUp>,
        signs: Arc<SignsOfLife>,
    ) -> Self {
        let signs = (target.layout() == Layout::Single).then_some(signs);
        if let Some(signs) = &signs {
            signs.set_carried(Some(identity.lease.renew_every()));
        }
        Self { target, identity, given_up, connection: None, not_before: Duration::ZERO, signs }
    }

    async fn connected(&mut self) -> Result<&mut Connection, ElectionError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let connection = connect(&self.target, self.given_up.clone()).await?;
                if let Some(signs) = &self.signs {
                    signs.connected();
                }
                Ok(none.insert(connection))
            }
        }
    }

    /// Sends the script, with the signs of life if they are due.
    async fn send(&mut self, last_token: u64, wait: Duration) -> Result<Taken, ElectionError> {
        let signs = self.signs.as_ref().and_then(SignsOfLife::due);
        let script = self.script(last_token, wait, signs.as_ref());
        let taken: Result<Taken, RedisError> = script.query_async(self.connected().await?).await;
        let refused = taken.as_ref().is_err_and(|error| error.code() == Some("NOPERM"));
        match (taken, signs) {
            (Ok(taken), Some(signs)) => {
                signs.end((taken.4, taken.5.clone(), taken.6.clone()));
                Ok(taken)
            }
            // The user may have the right to the lease alone.
            (Err(_), Some(signs)) if refused => {
                drop(signs);
                if let Some(signs) = self.signs.take() {
                    signs.set_carried(None);
                }
                let script = self.script(last_token, wait, None);
                Ok(script.query_async(self.connected().await?).await?)
            }
            (taken, _) => Ok(taken?),
        }
    }

    /// Returns an error if the lease is on a server that is no longer the primary: the sentinels have made another one
    /// the primary, and this one does not know. There another autoscaler takes a lease, and two would lead.
    async fn confirm(&self) -> Result<(), ElectionError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        // Sentinels that do not answer must not cost the lease.
        let patience = self.identity.lease.patience() / 2;
        tokio::time::timeout(patience, connection.confirm_primary())
            .await
            .unwrap_or(Ok(()))
            .map_err(ElectionError::Deposed)
    }

    fn script(&self, last_token: u64, wait: Duration, signs: Option<&Signs>) -> Cmd {
        let layout = self.target.layout();
        let mut script = redis::cmd("EVAL");
        script.arg(TAKE).arg(if signs.is_some() { 4 } else { 2 });
        script.arg(&[layout.leader(), layout.leader_token()]);
        if signs.is_some() {
            script.arg(&[keys::SCALER_CANARY, keys::SCALER_ALIVE]);
        }
        script
            .arg(&[self.identity.holder.as_str(), self.identity.instance.as_str()])
            .arg(whole_milliseconds(self.identity.lease.length()))
            .arg(last_token)
            .arg(whole_milliseconds(wait));
        if let Some(signs) = signs {
            signs.add_arguments(&mut script);
        }
        script
    }
}

#[async_trait]
impl LeaseStore for InRedis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn take(&mut self, last_token: u64) -> Result<Held, ElectionError> {
        if self.given_up.take() {
            self.not_before = Duration::ZERO;
        }
        let wait = self.not_before.saturating_sub(since_boot());
        let (mine, token, instance, ends_in, .., refusal) = self.send(last_token, wait).await?;
        if !refusal.is_empty() {
            return Err(ElectionError::Refused(refusal));
        }
        if mine == 1 {
            self.confirm().await?;
        }
        let ends_in = milliseconds(ends_in);
        if mine == 0 {
            self.not_before = since_boot() + ends_in;
        }
        Ok(Held { mine: mine == 1, token, instance, ends_in })
    }

    async fn look(&mut self) -> Result<Held, ElectionError> {
        let mut look = redis::cmd("HMGET");
        look.arg(self.target.layout().leader()).arg(&["token", "instance"]);
        let (token, instance): (Option<u64>, Option<String>) = look.query_async(self.connected().await?).await?;
        let (token, instance) = (token.unwrap_or(0), instance.unwrap_or_default());
        Ok(Held { mine: false, token, instance, ends_in: LONGEST_PAUSE })
    }

    async fn give_up(&mut self) -> Result<bool, ElectionError> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let mut script = redis::cmd("EVAL");
        script
            .arg(RESIGN)
            .arg(1)
            .arg(self.target.layout().leader())
            .arg(&[self.identity.holder.as_str(), self.identity.instance.as_str()]);
        script.exec_async(connection).await?;
        Ok(true)
    }

    fn lost(&mut self) {
        self.connection = None;
        self.target.doubt();
    }
}

/// Returns a connection that is notified when a lease is given up. Without the right to subscribe, the candidate waits
/// for the lease to end.
pub(super) async fn connect(target: &RedisTarget, given_up: Arc<GivenUp>) -> Result<Connection, ElectionError> {
    let push = move |push: PushInfo| {
        if push.kind == PushKind::Message {
            given_up.tell();
        }
        Ok::<(), std::convert::Infallible>(())
    };
    let mut connection = target.connect_with_push(push).await?;
    let channel = target.layout().leader();
    if let Err(error) = connection.subscribe(&channel).await {
        tracing::warn!("the end of a leader is noticed late, SUBSCRIBE {channel}: {error}; allow the channel");
    }
    Ok(connection)
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
