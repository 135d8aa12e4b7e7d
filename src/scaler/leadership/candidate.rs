//! Takes, renews and gives up the lease. Each step is one script in Redis, so that nobody comes in between.
//!
//! The lease is the hash `scaler:leader`, which expires. Whoever finds none makes one, with a token that is greater than
//! every token before: the counter in Redis, or what was seen of it if Redis has lost it. A leader that stops gives its
//! lease up and says so on a channel, so the next one need not wait for the end of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, PushKind};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Leadership, Term,
    lease::{Lease, since_boot},
};
use crate::{
    backend::ScalingBackend,
    connection::{Connection, ConnectionError, RedisTarget, backoff},
    model::{Clock, Source, snapshot::Role},
    scaler::load_changes,
    signal::CurrentDirectory,
    telemetry::LeadershipChanged,
};

/// Renews the caller's lease, or takes it if there is none: `{1, token, instance, ms}`. Else who holds it: `{0, …}`, with
/// token 0 for nobody. `ARGV`: holder, instance, length in ms, the greatest token seen, ms to wait before it takes one.
const TAKE: &str = "
local held = redis.call('HMGET', KEYS[1], 'holder', 'token', 'instance')
if held[1] and held[1] ~= ARGV[1] then
  return {0, held[2], held[3], redis.call('PTTL', KEYS[1])}
end
local token = held[2]
if not held[1] then
  if tonumber(ARGV[5]) > 0 then
    return {0, '0', '', tonumber(ARGV[5])}
  end
  local last = tonumber(redis.call('GET', KEYS[2]) or 0)
  token = string.format('%.0f', math.max(last, tonumber(ARGV[4])) + 1)
  redis.call('SET', KEYS[2], token)
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'token', token, 'instance', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1, token, ARGV[2], tonumber(ARGV[3])}";

/// Ends the lease if it is the caller's, and says so.
const RESIGN: &str = "
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', KEYS[1], ARGV[2])
end";

/// After the end of somebody's lease: Redis counts in whole milliseconds.
const JUST_AFTER: Duration = Duration::from_millis(2);

/// The longest pause after a failure, if the lease is long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What an autoscaler stands for election with.
pub struct Election {
    /// Where the lease is.
    pub target: Arc<RedisTarget>,
    /// Names this autoscaler to people.
    pub instance: String,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Whose last changes a new leader reads, and who is woken then.
    pub directory: Arc<CurrentDirectory>,
    /// What has to give up its own workers when somebody else leads.
    pub backend: Arc<dyn ScalingBackend>,
    /// Tells the time.
    pub clock: Clock,
}

/// Stands for election until it is told to resign.
pub struct Candidate {
    election: Election,
    leadership: Arc<Leadership>,
    lease: Lease,
    /// Names this process and no other: an instance's name may come back after a crash.
    holder: String,
    connection: Option<Connection>,
    given_up: Arc<GivenUp>,
    /// Since boot: when the lease that was last seen ends. If it is not there before then, Redis has lost it, and its
    /// holder may still act.
    not_before: Duration,
    last_token: u64,
    next: Duration,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

/// A leader has said that it gave up its lease.
#[derive(Default)]
struct GivenUp {
    wake: Notify,
    told: AtomicBool,
}

/// Who holds the lease.
struct Held {
    mine: bool,
    token: u64,
    instance: String,
    ends_in: Duration,
}

#[derive(Debug, thiserror::Error)]
enum ElectionError {
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    #[error("the lease `scaler:leader` can't be had ({0}); give the redis user the rights listed in docs/redis.md")]
    Redis(#[from] redis::RedisError),
    #[error("redis does not answer in time")]
    Timeout,
}

impl Candidate {
    /// Stands for election on behalf of `leadership`.
    pub fn new(election: Election, leadership: Arc<Leadership>) -> Self {
        Self {
            lease: Lease::of(election.lease),
            holder: uuid::Uuid::now_v7().to_string(),
            election,
            leadership,
            connection: None,
            given_up: Arc::default(),
            not_before: Duration::ZERO,
            last_token: 0,
            next: Duration::ZERO,
            pauses: Box::new(backoff()),
        }
    }

    /// Tries to renew the lease or to take it, and looks who has it otherwise.
    pub async fn attempt(&mut self) {
        let sent_at = since_boot();
        let asked = tokio::time::timeout(self.lease.patience(), self.ask()).await;
        match asked.unwrap_or(Err(ElectionError::Timeout)) {
            Ok(held) => {
                self.pauses = Box::new(backoff());
                self.last_token = self.last_token.max(held.token);
                if held.mine {
                    self.next = self.lease.renew_every();
                    self.lead(held.token, sent_at).await;
                } else {
                    self.not_before = since_boot() + held.ends_in;
                    self.next = (held.ends_in + JUST_AFTER).min(self.lease.renew_every());
                    self.follow(held).await;
                }
            }
            Err(error) => {
                self.connection = None;
                self.next = self.pauses.next().unwrap_or(LONGEST_PAUSE).min(self.lease.renew_every());
                self.fail(&error);
            }
        }
    }

    /// Goes on until `resign`, then gives up the lease.
    pub async fn run(mut self, resign: CancellationToken) {
        loop {
            let given_up = self.given_up.clone();
            let pause = self.leadership.left(since_boot()).map_or(self.next, |left| left.min(self.next));
            tokio::select! {
                () = resign.cancelled() => break,
                () = given_up.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            self.attempt().await;
        }
        self.resign().await;
    }

    async fn ask(&mut self) -> Result<Held, ElectionError> {
        if self.connection.is_none() {
            self.connection = Some(connect(&self.election.target, self.given_up.clone()).await?);
        }
        let Some(connection) = &mut self.connection else { return Err(ElectionError::Timeout) };
        if self.leadership.snapshot().role == Role::Observer {
            return look(connection).await;
        }
        if self.given_up.told.swap(false, Ordering::AcqRel) {
            self.not_before = Duration::ZERO;
        }
        let layout = connection.layout();
        let wait = self.not_before.saturating_sub(since_boot());
        let (mine, token, instance, ends_in): (u8, u64, String, i64) = redis::cmd("EVAL")
            .arg(TAKE)
            .arg(2)
            .arg(&[layout.leader(), layout.leader_token()])
            .arg(&[self.holder.as_str(), self.election.instance.as_str()])
            .arg(whole_milliseconds(self.lease.length()))
            .arg(self.last_token)
            .arg(whole_milliseconds(wait))
            .query_async(connection)
            .await?;
        Ok(Held { mine: mine == 1, token, instance, ends_in: milliseconds(ends_in) })
    }

    async fn lead(&mut self, token: u64, sent_at: Duration) {
        let usable_until = self.lease.usable_until(sent_at);
        if self.leadership.extend(token, usable_until, since_boot()) {
            return;
        }
        let Election { target, directory, clock, instance, .. } = &self.election;
        let names: Vec<_> = directory.get().watched().iter().map(|watched| watched.worker_type.clone()).collect();
        let changes = match tokio::time::timeout(self.lease.patience(), load_changes(target, &names)).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => self.forget(&error.to_string()),
            Err(_) => self.forget("redis does not answer in time"),
        };
        let changes = names.into_iter().zip(changes).filter_map(|(name, change)| Some((name, change?))).collect();
        let since = clock.now();
        self.leadership.begin(Term { token, usable_until, since, changes });
        LeadershipChanged { role: Role::Leader, leader: Some(instance), token: Some(token), problem: None }.emit();
        directory.get().post_all(Source::Leadership);
    }

    #[expect(clippy::unused_self, reason = "says what this candidate does without")]
    fn forget<T>(&self, error: &str) -> Vec<T> {
        tracing::warn!("what the leader before did can't be read, cooldowns start anew: {error}");
        Vec::new()
    }

    async fn follow(&mut self, held: Held) {
        let before = self.leadership.snapshot();
        let leader = Some((held.instance.clone(), held.token)).filter(|_| held.token > 0);
        let led = self.leadership.follow(leader, None);
        if led || before.token != Some(held.token) || before.problem.is_some() {
            self.tell();
        }
        if led {
            self.election.backend.stand_down().await;
        }
    }

    /// Redis can't be asked: the term under way goes on until its time is over.
    fn fail(&self, error: &ElectionError) {
        if self.leadership.left(since_boot()).is_some() {
            tracing::debug!("the lease was not renewed: {error}");
            return;
        }
        let news = self.leadership.snapshot().problem.is_none();
        self.leadership.lapse(error.to_string());
        if news {
            self.tell();
        }
    }

    fn tell(&self) {
        let now = self.leadership.snapshot();
        let (leader, problem) = (now.leader.as_deref(), now.problem.as_deref());
        LeadershipChanged { role: now.role, leader, token: now.token, problem }.emit();
    }

    /// Gives up the lease, if it is ours. If that fails, it ends by itself.
    async fn resign(mut self) {
        let led = self.leadership.follow(None, None);
        let Some(connection) = self.connection.as_mut().filter(|_| led) else { return };
        let mut script = redis::cmd("EVAL");
        script
            .arg(RESIGN)
            .arg(1)
            .arg(connection.layout().leader())
            .arg(&[self.holder.as_str(), self.election.instance.as_str()]);
        match tokio::time::timeout(self.lease.patience(), script.exec_async(connection)).await {
            Ok(Ok(())) => self.tell(),
            Ok(Err(error)) => tracing::warn!("the lease could not be given up, it ends by itself: {error}"),
            Err(_) => tracing::warn!("the lease could not be given up, it ends by itself: redis does not answer"),
        }
    }
}

/// A connection that is told when a lease is given up. Without the right to hear of it, one waits for its end.
async fn connect(target: &RedisTarget, given_up: Arc<GivenUp>) -> Result<Connection, ElectionError> {
    let push = move |push: PushInfo| {
        if push.kind == PushKind::Message {
            given_up.told.store(true, Ordering::Release);
            given_up.wake.notify_one();
        }
        Ok::<(), std::convert::Infallible>(())
    };
    let mut connection = target.connect_with_push(push).await?;
    let channel = target.layout().leader();
    if let Err(error) = connection.subscribe(&channel).await {
        tracing::warn!("a leader's end is noticed late: SUBSCRIBE {channel}: {error}; allow the channel");
    }
    Ok(connection)
}

/// Who leads, for one that is no candidate.
async fn look(connection: &mut Connection) -> Result<Held, ElectionError> {
    let (token, instance): (Option<u64>, Option<String>) = redis::cmd("HMGET")
        .arg(connection.layout().leader())
        .arg(&["token", "instance"])
        .query_async(connection)
        .await?;
    let (token, instance) = (token.unwrap_or(0), instance.unwrap_or_default());
    Ok(Held { mine: false, token, instance, ends_in: LONGEST_PAUSE })
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
