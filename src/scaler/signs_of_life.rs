//! What an autoscaler writes every 2 s to show that it runs: `scaler:alive`, and while it leads the
//! [canary](super::canary). The renewal of the lease carries both where it is written as often and on the same server;
//! [`SignWriter`] writes what nobody carries.
//!
//! At most one write is under way, so that each one can tell whether Redis still had the one before.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Value};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::CanaryState;
use crate::{
    connection::{Connection, RedisTarget},
    evidence::CANARY_INTERVAL,
    model::{Clock, keys},
    telemetry::RedisWrites,
};

/// Writes the signs alone. `KEYS`: canary, sign. `ARGV`: as [`Signs::add_arguments`] adds them.
const SCRIPT: &str = concat!(
    include_str!("signs_of_life.lua"),
    "return {write_signs(KEYS[1], KEYS[2], ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])}"
);
/// TTL of the canary: several intervals, so that a slow server does not look like one that lost the key.
const CANARY_TTL: Duration = Duration::from_secs(30);
/// TTL of `scaler:alive`: without a new sign for this long, the autoscaler counts as gone.
const ALIVE_TTL: Duration = Duration::from_secs(10);
/// How long a carried sign may take longer than an interval before the writer steps in. Short enough that the canary
/// does not lapse: one time-out is left.
const CARRIER_DELAY: Duration = Duration::from_secs(2);
/// Time between two looks whether this autoscaler leads, and whether a write under way has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Names that are tried to find one on each primary of a cluster. With 256 names, a primary with 1 slot in 50 is almost
/// certain to get one.
const NAMES: u32 = 256;

/// Knows whether this autoscaler leads.
pub trait Leads: fmt::Debug + Send + Sync {
    /// Returns whether it leads now.
    fn leads(&self) -> bool;
}

/// The signs of one autoscaler, and when they were written.
#[derive(Debug)]
pub struct SignsOfLife {
    instance: String,
    leader: Arc<dyn Leads>,
    clock: Clock,
    canary: Arc<CanaryState>,
    /// Whether the renewals of the lease carry them.
    carried: AtomicBool,
    progress: Mutex<Progress>,
    /// A write failed, or was not answered.
    missed: Notify,
}

#[derive(Debug, Default)]
struct Progress {
    under_way: bool,
    /// Nothing more is written.
    closed: bool,
    /// When the last write ended.
    written: Option<Instant>,
    /// Whether it was sent by the leader.
    led: bool,
    /// Value of the canary's previous write.
    last: String,
    /// Since when Redis has refused the writes.
    refused_since: Option<Instant>,
}

/// Signs that are being written. Dropped without an outcome, they count as missed.
pub(super) struct Signs {
    of: Arc<SignsOfLife>,
    leads: bool,
    at: String,
    since: String,
    ended: bool,
}

/// Why signs were not written.
#[derive(Debug)]
enum Failure {
    /// The server answered, and refused the write.
    Refused(String),
    /// The server did not answer.
    Away(String),
}

/// The reply to a script: whether the canary was tried, its value before, and why Redis refused something.
pub(super) type SignsReply = (u8, Option<String>, String);

impl SignsOfLife {
    /// Returns the signs of this autoscaler; nothing is written yet.
    pub fn new(instance: String, leader: Arc<dyn Leads>, clock: Clock, canary: Arc<CanaryState>) -> Arc<Self> {
        let (carried, progress, missed) = Default::default();
        Arc::new(Self { instance, leader, clock, canary, carried, progress, missed })
    }

    /// Returns the name of the autoscaler.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Records whether the renewals of the lease, one each `interval`, carry the signs. A slower renewal carries them
    /// only now and then.
    pub(super) fn set_carried(&self, interval: Option<Duration>) {
        self.carried.store(interval.is_some_and(|interval| interval <= CANARY_INTERVAL), Ordering::Relaxed);
    }

    /// Returns whether the renewals of the lease carry the signs.
    pub(super) fn is_carried(&self) -> bool {
        self.carried.load(Ordering::Relaxed)
    }

    /// Records that the connection that carries them is a new one.
    pub(super) fn connected(&self) {
        self.canary.connected(self.clock.now());
    }

    /// Returns the signs to write now; `None` if that is not due, or another write is under way.
    pub(super) fn due(self: &Arc<Self>) -> Option<Signs> {
        // A renewal that comes a little early carries them, too.
        self.begin(CANARY_INTERVAL * 3 / 4)
    }

    fn begin(self: &Arc<Self>, age: Duration) -> Option<Signs> {
        let mut progress = self.progress();
        // The canary of a new leader does not wait.
        let leads = self.leader.leads();
        let begins_to_lead = leads && !progress.led;
        let is_due = begins_to_lead || progress.written.is_none_or(|written| written.elapsed() >= age);
        if !is_due || progress.under_way || progress.closed {
            return None;
        }
        progress.under_way = true;
        let now = self.clock.now();
        let since = self.canary.channel(now).writable_since.map_or(String::new(), |since| since.0.to_string());
        Some(Signs { of: self.clone(), leads, at: format!("{}:{}", self.instance, now.0), since, ended: false })
    }

    /// Returns when the writer is to write them; `None` means now.
    fn due_at(&self) -> Option<Instant> {
        let delay = if self.is_carried() { CARRIER_DELAY } else { Duration::ZERO };
        self.progress().written.map(|written| written + CANARY_INTERVAL + delay)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signs {
    /// Adds the arguments of the script: whether the canary is written, its values, and the TTLs.
    pub(super) fn add_arguments(&self, script: &mut Cmd) {
        script.arg(u8::from(self.leads)).arg(&self.at).arg(&self.of.instance).arg(&self.since);
        script.arg(milliseconds(CANARY_TTL)).arg(milliseconds(ALIVE_TTL));
    }

    /// Ends the write with the script's reply.
    pub(super) fn end(self, reply: SignsReply) {
        let outcome = self.outcome(reply);
        self.finish(outcome);
    }

    /// Returns what the script's reply says: whether Redis still had the canary's previous write; `None` if the canary
    /// was not written, because another autoscaler leads.
    fn outcome(&self, (tried, before, refused): SignsReply) -> Result<Option<bool>, Failure> {
        if !refused.is_empty() {
            return Err(Failure::Refused(refused));
        }
        Ok((tried == 1).then(|| before.as_deref() == Some(self.of.progress().last.as_str())))
    }

    /// Ends the write with its [outcome](Self::outcome). Logs when a refusal begins and when it ends.
    fn finish(mut self, outcome: Result<Option<bool>, Failure>) {
        self.ended = true;
        let (of, mut progress) = (&self.of, self.of.progress());
        progress.under_way = false;
        progress.written = Some(Instant::now());
        progress.led = self.leads;
        match outcome {
            Ok(kept) => {
                match kept {
                    Some(kept) => {
                        progress.last = std::mem::take(&mut self.at);
                        of.canary.written(kept, of.clock.now());
                    }
                    None => of.canary.failed(None),
                }
                if let Some(since) = progress.refused_since.take() {
                    RedisWrites { refused: None }.emit();
                    tracing::debug!(lasted_seconds = since.elapsed().as_secs(), "redis had refused writes");
                }
            }
            // Whoever leads or not: a refusal is often why nobody does.
            Err(Failure::Refused(error)) => {
                if progress.refused_since.is_none() {
                    progress.refused_since = Some(Instant::now());
                    RedisWrites { refused: Some(&error) }.emit();
                }
                of.canary.failed(Some(error));
            }
            Err(Failure::Away(error)) => {
                tracing::debug!(error, "signs of life were not written");
                of.canary.failed(None);
            }
        }
    }
}

impl Drop for Signs {
    fn drop(&mut self) {
        if !self.ended {
            self.of.progress().under_way = false;
            self.of.missed.notify_one();
        }
    }
}

/// Writes the signs that nothing carries.
pub struct SignWriter {
    target: Arc<RedisTarget>,
    signs: Arc<SignsOfLife>,
    connection: Option<Connection>,
    /// Whether Redis refuses the script; then single commands are sent.
    script_refused: bool,
}

impl SignWriter {
    /// Returns a writer of these signs.
    pub fn new(target: Arc<RedisTarget>, signs: Arc<SignsOfLife>) -> Self {
        Self { target, signs, connection: None, script_refused: false }
    }

    /// Writes until cancelled, and then deletes `scaler:alive`.
    pub async fn run(mut self, cancel: CancellationToken) {
        let started = Instant::now();
        while cancel.run_until_cancelled(self.until_due(started)).await.is_some() {
            match self.signs.begin(Duration::ZERO) {
                Some(signs) => {
                    let outcome = self.write(&signs).await;
                    if matches!(outcome, Err(Failure::Away(_))) {
                        self.connection = None;
                        self.target.doubt();
                    }
                    signs.finish(outcome);
                }
                None => sleep(LOOK_INTERVAL).await,
            }
        }
        self.farewell().await;
    }

    async fn until_due(&mut self, started: Instant) {
        let signs = self.signs.clone();
        loop {
            // The first renewal has the time that every other one has.
            let at = signs.due_at();
            let carried = signs.is_carried();
            let at = at.or_else(|| carried.then(|| started + CANARY_INTERVAL + CARRIER_DELAY));
            let Some(at) = at.filter(|at| *at > Instant::now()) else { return };
            if carried {
                // A connection that is not used would stay open without being noticed when it is lost.
                self.connection = None;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                () = signs.missed.notified() => return,
            }
        }
    }

    async fn write(&mut self, signs: &Signs) -> Result<Option<bool>, Failure> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let connected = self.target.connect().await.map_err(|error| Failure::Away(error.to_string()))?;
            self.signs.connected();
            connected
        };
        if !connection.is_cluster() && !self.script_refused {
            let mut script = redis::cmd("EVAL");
            script.arg(SCRIPT).arg(2).arg(&[keys::SCALER_CANARY, keys::SCALER_ALIVE]);
            signs.add_arguments(&mut script);
            let mut pipeline = redis::pipe();
            pipeline.add_command(script);
            let reply = connection.each(&pipeline).await.map_err(|error| Failure::Away(error.to_string()))?;
            if let Some(Ok(reply)) = reply.into_iter().next().map(SignsReply::from_redis_value) {
                self.connection = Some(connection);
                return signs.outcome(reply);
            }
            // Single commands tell whether scripts are refused, or writes.
            tracing::debug!("the script of the signs of life was refused");
            self.script_refused = true;
        }
        let outcome = self.write_singly(&mut connection, signs).await;
        self.connection = Some(connection);
        outcome
    }

    /// Writes with single commands: on a cluster, the canary once on each primary.
    async fn write_singly(&mut self, connection: &mut Connection, signs: &Signs) -> Result<Option<bool>, Failure> {
        let mut pipeline = redis::pipe();
        let canaries = if signs.leads { canaries(connection) } else { Vec::new() };
        for key in &canaries {
            pipeline.cmd("HMGET").arg(key).arg("at");
            pipeline.cmd("HSET").arg(key).arg(&[
                ("at", &signs.at),
                ("instance", &self.signs.instance),
                ("unbroken_since", &signs.since),
            ]);
            pipeline.cmd("PEXPIRE").arg(key).arg(milliseconds(CANARY_TTL));
        }
        pipeline.cmd("SET").arg(keys::SCALER_ALIVE).arg(&self.signs.instance).arg("PX").arg(milliseconds(ALIVE_TTL));
        let replies = connection.each(&pipeline).await.map_err(|error| Failure::Away(error.to_string()))?;
        let last = self.signs.progress().last.clone();
        kept(replies, canaries.len(), &last).map(|kept| signs.leads.then_some(kept))
    }

    /// Deletes the sign, once no write is under way.
    async fn farewell(mut self) {
        self.signs.progress().closed = true;
        let ended = async {
            while self.signs.progress().under_way {
                sleep(LOOK_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout(self.target.response_timeout(), ended).await;
        let delete = async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.target.connect().await.map_err(|error| error.to_string())?,
            };
            let deleted = redis::cmd("DEL").arg(keys::SCALER_ALIVE).exec_async(&mut connection).await;
            deleted.map_err(|error| error.to_string())
        };
        if let Err(error) = delete.await {
            tracing::debug!(error, "the sign of life expires by itself");
        }
    }
}

fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}

/// Returns the keys of the canary: one, or on a cluster one on each primary.
fn canaries(connection: &Connection) -> Vec<String> {
    if !connection.is_cluster() {
        return vec![keys::SCALER_CANARY.to_owned()];
    }
    let names = (0..NAMES).map(|number| format!("{}:{number}", keys::SCALER_CANARY));
    let placed: BTreeMap<String, String> =
        names.filter_map(|key| connection.place(&key).map(|place| (place, key))).collect();
    placed.into_values().collect()
}

/// Returns whether each server still had the previous write of the canary, and accepted this one. `replies` begin with
/// three for each of `canaries`.
fn kept(replies: Vec<Value>, canaries: usize, last: &str) -> Result<bool, Failure> {
    let refusal = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(format!("{} {}", error.code(), error.details().unwrap_or_default())),
        _ => None,
    });
    if let Some(refusal) = refusal {
        return Err(Failure::Refused(refusal.trim().to_owned()));
    }
    let mut before = replies.into_iter().step_by(3).take(canaries).map(<(Option<String>,)>::from_redis_value);
    Ok(before.all(|it| it.is_ok_and(|(before,)| before.as_deref() == Some(last))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Timestamp, scaler::Leadership};

    fn leading() -> Arc<SignsOfLife> {
        let leadership = Leadership::unopposed("here", Timestamp(1));
        SignsOfLife::new("here".to_owned(), leadership, Clock::start(), Arc::default())
    }

    fn writable(signs: &SignsOfLife) -> bool {
        signs.canary.channel(signs.clock.now()).writable_since.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn one_write_at_a_time_and_one_for_each_interval() {
        let signs = leading();
        let first = signs.due().expect("nothing was written yet");
        assert!(signs.due().is_none(), "one is under way");
        first.end((1, None, String::new()));
        assert!(writable(&signs));
        assert!(signs.due().is_none(), "it was just written");
        tokio::time::advance(CANARY_INTERVAL).await;
        let second = signs.due().expect("it is due");
        signs.progress().closed = true;
        drop(second);
        assert!(signs.due().is_none(), "the autoscaler stops");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_outcome_wakes_the_writer() {
        let signs = leading();
        drop(signs.due());
        signs.missed.notified().await;
        assert!(signs.due().is_some(), "it is still due");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_canary_is_told_and_a_kept_one_goes_on() {
        let signs = leading();
        let next = async |reply: fn(&str) -> SignsReply| {
            let last = signs.progress().last.clone();
            signs.due().expect("it is due").end(reply(&last));
            tokio::time::advance(CANARY_INTERVAL).await;
            (writable(&signs), signs.canary.refused())
        };
        let kept = |last: &str| (1, Some(last.to_owned()), String::new());
        assert_eq!(next(kept).await, (true, None));
        assert_eq!(next(|_| (1, None, "OOM no".to_owned())).await, (false, Some("OOM no".to_owned())));
        assert_eq!(next(kept).await, (true, None));
        assert_eq!(next(|_| (0, None, String::new())).await, (false, None), "another autoscaler leads");
        let refused = Some("NOREPLICAS no".to_owned());
        assert_eq!(next(|_| (0, None, "NOREPLICAS no".to_owned())).await, (false, refused), "nobody leads");
        assert_eq!(next(|_| (0, None, String::new())).await, (false, None), "the sign is accepted again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_writer_leaves_a_renewal_its_time() {
        let signs = leading();
        assert_eq!(signs.due_at(), None, "never written");
        signs.due().expect("it is due").end((1, None, String::new()));
        let now = Instant::now();
        assert_eq!(signs.due_at(), Some(now + CANARY_INTERVAL));
        signs.set_carried(Some(CANARY_INTERVAL));
        assert_eq!(signs.due_at(), Some(now + CANARY_INTERVAL + CARRIER_DELAY));
        signs.set_carried(Some(CANARY_INTERVAL * 2));
        assert_eq!(signs.due_at(), Some(now + CANARY_INTERVAL), "too slow a carrier");
    }
}
