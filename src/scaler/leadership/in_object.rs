//! The lease as an object of the cluster, which is written only if nobody else has written it meanwhile.
//!
//! Whether the lease is over is never read from the times in it, which are those of other machines' clocks. It is over
//! when it has not changed for its length, by this machine's clock. So it ends for others later than for its holder.
//!
//! The object's count of transitions is the fencing token. Redis has the greatest token as well: records are written
//! there, and there it outlives a removed object. Redis also announces immediately that a leader has stopped; without
//! Redis, the next look at the object notices it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    in_redis::connect,
    lease::{SinceBoot, since_boot},
    lease_store::{ElectionError, GivenUp, Held, Identity, LONGEST_PAUSE, LeaseStore},
};
use crate::{
    backend::{LeaseObject, LeaseRecord},
    connection::{Connection, RedisTarget},
    model::Timestamp,
};

/// Separator in the holder's name, between the instance's name and the suffix that makes it unique.
const UNIQUE: char = '_';

/// Writes in one attempt, of which all but the last met another candidate's write.
const TRIES: usize = 2;

/// Pause before the next attempt after another candidate was faster each time.
const SOON: Duration = Duration::from_millis(50);

/// Raises the counter of tokens to at least the caller's token.
const RAISE: &str = "
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end";

/// See the [module](self).
pub(super) struct InObject {
    object: Arc<dyn LeaseObject>,
    redis: Redis,
    identity: Identity,
    holder: String,
    sight: Sight,
    /// Token that Redis does not know yet.
    untold: Option<u64>,
}

/// The last version of the object.
#[derive(Debug)]
struct Sight {
    seen: Option<Seen>,
    /// Assumed length of a lease that does not state one.
    usual: Duration,
}

#[derive(Debug)]
struct Seen {
    record: LeaseRecord,
    /// Time at which the lease is over unless it has changed by then.
    until: SinceBoot,
}

/// Next step with an object.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// This candidate holds the lease: renew it.
    Renew(LeaseRecord),
    /// The lease is free: overwrite this record, or create the object.
    Take(Option<LeaseRecord>),
    /// Another candidate holds the lease, or held it before the object disappeared: wait until then.
    Wait(Option<LeaseRecord>, SinceBoot),
}

impl Sight {
    /// Takes note of what was read or written at a time.
    fn see(&mut self, read: Option<LeaseRecord>, holder: &str, now: SinceBoot) -> Step {
        let Some(record) = read else {
            return match &self.seen {
                // Somebody has removed the object, and its holder may not know yet.
                Some(seen) if !seen.record.holder.is_empty() && seen.record.holder != holder && now < seen.until => {
                    Step::Wait(None, seen.until)
                }
                _ => {
                    self.seen = None;
                    Step::Take(None)
                }
            };
        };
        let until = match &self.seen {
            Some(seen) if is_same_renewal(&seen.record, &record) => seen.until,
            _ if record.length.is_zero() => now + self.usual,
            _ => now + record.length,
        };
        let step = match record.holder.as_str() {
            "" => Step::Take(Some(record.clone())),
            other if other == holder => Step::Renew(record.clone()),
            _ if now >= until => Step::Take(Some(record.clone())),
            _ => Step::Wait(Some(record.clone()), until),
        };
        self.seen = Some(Seen { record, until });
        step
    }

    /// Returns the last record if this candidate holds it: it can be renewed without reading it.
    fn ours(&self, holder: &str) -> Option<LeaseRecord> {
        self.seen.as_ref().filter(|seen| seen.record.holder == holder).map(|seen| seen.record.clone())
    }
}

/// Returns whether the holder has not renewed in between: a label that somebody sets makes another version, and not
/// another lease.
fn is_same_renewal(one: &LeaseRecord, other: &LeaseRecord) -> bool {
    let said = |of: &LeaseRecord| (of.holder.clone(), of.transitions, of.renewed, of.length);
    said(one) == said(other)
}

impl InObject {
    pub(super) fn new(
        object: Arc<dyn LeaseObject>,
        target: Arc<RedisTarget>,
        identity: Identity,
        given_up: Arc<GivenUp>,
    ) -> Self {
        let holder = format!("{}{UNIQUE}{}", identity.instance, identity.holder);
        let patience = identity.lease.patience() / 4;
        let redis = Redis { target, given_up, patience, connection: None };
        let sight = Sight { seen: None, usual: identity.lease.length() };
        Self { object, redis, identity, holder, sight, untold: None }
    }

    fn see(&mut self, read: Option<LeaseRecord>) -> Step {
        self.sight.see(read, &self.holder, since_boot())
    }

    async fn look_again(&mut self) -> Result<Step, ElectionError> {
        let read = self.object.read().await?;
        Ok(self.see(read))
    }

    /// Carries out the step. If another candidate has written meanwhile, the step may become another one.
    async fn write(&mut self, mut step: Step, last_token: u64) -> Result<Held, ElectionError> {
        for _ in 0..TRIES {
            let (wanted, is_new) = match step {
                Step::Wait(..) => break,
                Step::Renew(record) => (self.renewed(record), false),
                Step::Take(from) => (self.taken(from, last_token).await, true),
            };
            let Some(written) = self.object.write(&wanted).await? else {
                step = self.look_again().await?;
                continue;
            };
            let (token, ends_in) = (written.transitions, written.length);
            self.see(Some(written));
            self.untold = if is_new { Some(token) } else { self.untold };
            return Ok(Held { mine: true, token, instance: self.identity.instance.clone(), ends_in });
        }
        let Step::Wait(read, until) = step else { return Ok(Held::by_nobody(SOON)) };
        // Connects, to be notified when the lease is given up.
        self.redis.connected().await;
        Ok(held(read, until))
    }

    fn renewed(&self, record: LeaseRecord) -> LeaseRecord {
        LeaseRecord { length: self.identity.lease.length(), renewed: Timestamp::wall(), ..record }
    }

    async fn taken(&mut self, from: Option<LeaseRecord>, last_token: u64) -> LeaseRecord {
        let transitions = from.as_ref().map_or(0, |record| record.transitions);
        let told = self.redis.greatest_token().await.unwrap_or(0);
        let now = Timestamp::wall();
        LeaseRecord {
            holder: self.holder.clone(),
            transitions: transitions.max(told).max(last_token) + 1,
            length: self.identity.lease.length(),
            acquired: now,
            renewed: now,
            version: from.and_then(|record| record.version),
        }
    }

    /// Tells Redis the token that records will carry.
    async fn tell_token(&mut self) {
        if let Some(token) = self.untold
            && self.redis.raise_token(token).await.is_some()
        {
            self.untold = None;
        }
    }
}

#[async_trait]
impl LeaseStore for InObject {
    fn name(&self) -> &'static str {
        "the API server"
    }

    async fn take(&mut self, last_token: u64) -> Result<Held, ElectionError> {
        self.redis.given_up.take();
        let step = match self.sight.ours(&self.holder) {
            Some(record) => Step::Renew(record),
            None => self.look_again().await?,
        };
        let held = self.write(step, last_token).await?;
        self.tell_token().await;
        Ok(held)
    }

    async fn look(&mut self) -> Result<Held, ElectionError> {
        let read = self.object.read().await?;
        Ok(match self.see(read) {
            Step::Wait(Some(read), until) => Held { ends_in: LONGEST_PAUSE, ..held(Some(read), until) },
            _ => Held::by_nobody(LONGEST_PAUSE),
        })
    }

    async fn give_up(&mut self) -> Result<bool, ElectionError> {
        let Some(record) = self.sight.ours(&self.holder) else { return Ok(false) };
        let free = LeaseRecord { holder: String::new(), ..self.renewed(record) };
        let written = self.object.write(&free).await?;
        self.sight.seen = None;
        if written.is_some() {
            self.redis.say_given_up(&self.identity.instance).await;
        }
        Ok(written.is_some())
    }

    /// Forgets what may have been overwritten, also by this candidate.
    fn lost(&mut self) {
        self.redis.connection = None;
        if self.sight.ours(&self.holder).is_some() {
            self.sight.seen = None;
        }
    }
}

/// Returns the state of a lease that another candidate holds.
fn held(read: Option<LeaseRecord>, until: SinceBoot) -> Held {
    let ends_in = until.saturating_sub(since_boot());
    read.map_or(Held::by_nobody(ends_in), |record| {
        let instance = record.holder.rsplit_once(UNIQUE).map_or(record.holder.as_str(), |(instance, _)| instance);
        Held { mine: false, token: record.transitions, instance: instance.to_owned(), ends_in }
    })
}

/// What Redis contributes. Any of it may fail: then something happens later or is less certain.
struct Redis {
    target: Arc<RedisTarget>,
    given_up: Arc<GivenUp>,
    /// Timeout of one command; short enough that the lease can't run out.
    patience: Duration,
    connection: Option<Connection>,
}

impl Redis {
    async fn connected(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() {
            let connecting = connect(&self.target, self.given_up.clone());
            self.connection = tokio::time::timeout(self.patience, connecting).await.ok()?.ok();
        }
        self.connection.as_mut()
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Option<T> {
        let patience = self.patience;
        let connection = self.connected().await?;
        let answer = tokio::time::timeout(patience, command.query_async(connection)).await;
        match answer {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!("the fencing token: {error}");
                self.connection = None;
                None
            }
            Err(_) => {
                self.connection = None;
                None
            }
        }
    }

    async fn greatest_token(&mut self) -> Option<u64> {
        let key = self.target.layout().leader_token();
        self.ask::<Option<u64>>(redis::cmd("GET").arg(key)).await?
    }

    async fn raise_token(&mut self, token: u64) -> Option<()> {
        let key = self.target.layout().leader_token();
        self.ask(redis::cmd("EVAL").arg(RAISE).arg(1).arg(key).arg(token)).await
    }

    async fn say_given_up(&mut self, instance: &str) {
        let channel = self.target.layout().leader();
        let _: Option<i64> = self.ask(redis::cmd("PUBLISH").arg(channel).arg(instance)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn record(holder: &str, version: u64) -> LeaseRecord {
        LeaseRecord {
            holder: holder.to_owned(),
            transitions: 3,
            length: LENGTH,
            acquired: Timestamp(0),
            // Long ago by the wall clock, which must not matter.
            renewed: Timestamp(1),
            version: Some(version.to_string()),
        }
    }

    fn nothing_seen() -> Sight {
        Sight { seen: None, usual: Duration::from_secs(30) }
    }

    fn at(seconds: u64) -> SinceBoot {
        Duration::from_secs(seconds)
    }

    #[test]
    fn another_ones_lease_is_over_when_it_has_not_changed_for_as_long_as_it_lasts() {
        let mut sight = nothing_seen();
        let first = record("other", 1);
        let touched = LeaseRecord { version: Some("2".to_owned()), ..first.clone() };
        let second = LeaseRecord { renewed: Timestamp(2), ..record("other", 3) };
        assert_eq!(sight.see(Some(first.clone()), "me", at(100)), Step::Wait(Some(first.clone()), at(110)));
        assert_eq!(sight.see(Some(first.clone()), "me", at(109)), Step::Wait(Some(first), at(110)));
        assert_eq!(sight.see(Some(touched.clone()), "me", at(109)), Step::Wait(Some(touched), at(110)));
        assert_eq!(sight.see(Some(second.clone()), "me", at(109)), Step::Wait(Some(second.clone()), at(119)));
        assert_eq!(sight.see(Some(second.clone()), "me", at(119)), Step::Take(Some(second)));
    }

    #[test]
    fn one_that_does_not_say_how_long_it_lasts_lasts_as_long_as_ours() {
        let made_by_hand = LeaseRecord { length: Duration::ZERO, ..record("somebody", 1) };
        let step = nothing_seen().see(Some(made_by_hand.clone()), "me", at(100));
        assert_eq!(step, Step::Wait(Some(made_by_hand), at(130)));
    }

    #[test]
    fn one_that_was_given_up_or_never_was_is_taken_at_once() {
        assert_eq!(nothing_seen().see(None, "me", at(0)), Step::Take(None));
        let mut sight = nothing_seen();
        sight.see(Some(record("other", 1)), "me", at(100));
        let free = record("", 2);
        assert_eq!(sight.see(Some(free.clone()), "me", at(101)), Step::Take(Some(free)));
        assert_eq!(sight.see(None, "me", at(102)), Step::Take(None), "nobody held it");
    }

    #[test]
    fn one_that_was_removed_is_not_made_again_while_its_holder_may_act() {
        let mut sight = nothing_seen();
        sight.see(Some(record("other", 1)), "me", at(100));
        assert_eq!(sight.see(None, "me", at(105)), Step::Wait(None, at(110)));
        assert_eq!(sight.see(None, "me", at(110)), Step::Take(None));
    }

    #[test]
    fn ours_is_renewed_whoever_else_has_touched_it() {
        let mut sight = nothing_seen();
        let (first, touched) = (record("me", 1), record("me", 2));
        assert_eq!(sight.see(Some(first.clone()), "me", at(100)), Step::Renew(first.clone()));
        assert_eq!(sight.ours("me"), Some(first));
        assert_eq!(sight.see(Some(touched.clone()), "me", at(500)), Step::Renew(touched));
        assert_eq!(sight.see(None, "me", at(501)), Step::Take(None), "ours was removed");
        assert_eq!(sight.ours("me"), None, "and can't be renewed");
    }

    #[test]
    fn people_read_the_instance_s_name() {
        let told = held(Some(record("host-1_0192-x", 1)), at(u64::MAX / 2));
        assert_eq!((told.instance.as_str(), told.token, told.mine), ("host-1", 3, false));
        assert_eq!(held(Some(record("somebody", 1)), at(0)).instance, "somebody");
        assert_eq!(held(None, at(0)), Held::by_nobody(Duration::ZERO));
    }
}
