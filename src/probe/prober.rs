//! The task that owns the probe connection: batches requests into pipelines, keeps a bounded number of them under way,
//! hears the invalidations that its own reads armed, and reconnects.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Heartbeat, ProberHandle, QueueSpec, command,
    handle::{Asked, MAX_BATCH, REQUEST_CAPACITY, SeveralTypes},
    interpret::{self, ConsumerPending, Interpretation, LagMemory, StreamId},
    several::SeveralSpec,
};
use crate::{
    connection::{Connection, RedisTarget, Session, is_lost, keep_connected},
    model::{Counters, Demand, Reading, Source, snapshot::SourceState},
    signal::{Directory, KeyEvent, SourceStatus, Subscriptions},
    telemetry::{RedisReachable, RedisUnreachable, SignalsReceived},
};

/// Pipelines under way at once: one being answered, one being sent, and room for latency.
const MAX_IN_FLIGHT: usize = 4;

/// Entries counted when Redis can't tell the lag. Bounds the cost of a probe; a larger backlog is bounded from above by
/// the stream's length.
const COUNT_LIMIT: u64 = 1_000;

/// Owns the probe connection.
#[derive(Debug)]
pub struct Prober {
    target: Arc<RedisTarget>,
    specs: Vec<QueueSpec>,
    memories: Vec<LagMemory>,
    directory: Arc<Directory>,
    source_status: Arc<SourceStatus>,
    plan: watch::Receiver<Option<Subscriptions>>,
    requests: mpsc::Receiver<Asked>,
    redis_error: watch::Sender<Option<String>>,
}

/// A pipeline's outcome with what is needed to answer.
struct AnsweredBatch {
    asked: Vec<Asked>,
    armed: bool,
    replies: Result<Vec<Value>, RedisError>,
}

/// A probe whose lag has to be counted.
struct Uncounted {
    asked: Asked,
    after: StreamId,
    reported: Option<u64>,
    length: u64,
    demand: Demand,
    counters: Counters,
    consumers: Reading<Vec<ConsumerPending>>,
    heartbeats: Reading<Vec<Option<Heartbeat>>>,
}

/// Counts under way, with their outcome.
struct Counts {
    uncounted: Vec<Uncounted>,
    replies: Result<Vec<Value>, RedisError>,
}

enum Done {
    AnsweredBatch(AnsweredBatch),
    Counts(Counts),
    /// What [`Connection::check`] says.
    Checked(Result<u64, RedisError>),
}

type Running = FuturesUnordered<futures_util::future::BoxFuture<'static, Done>>;

impl Prober {
    /// A prober and its handle. `specs`, which are of the worker types' own queues, and the directory share their indices;
    /// `several` has the other queues of those worker types that have some.
    pub fn new(
        target: Arc<RedisTarget>,
        specs: Vec<QueueSpec>,
        several: Vec<SeveralSpec>,
        directory: Arc<Directory>,
        source_status: Arc<SourceStatus>,
        plan: watch::Receiver<Option<Subscriptions>>,
    ) -> (Self, ProberHandle) {
        let (sender, requests) = mpsc::channel(REQUEST_CAPACITY);
        let (redis_error, errors) = watch::channel(Some("not connected yet".to_owned()));
        let memories = vec![LagMemory::default(); specs.len()];
        let several = SeveralTypes::new(several, &directory);
        let handle = ProberHandle { requests: sender, redis_error: errors, several };
        (Self { target, specs, memories, directory, source_status, plan, requests, redis_error }, handle)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        keep_connected(&mut self, &cancel).await;
    }

    fn report_unreachable(&self, error: &str) {
        let news = self.redis_error.send_if_modified(|current| {
            let news = current.as_deref() != Some(error);
            *current = Some(error.to_owned());
            news
        });
        if news {
            RedisUnreachable { error }.emit();
            // What can be decided without Redis is: `min_workers` holds in an outage too, also in one at the start.
            self.directory.post_all(Source::Resync);
        }
        if self.plan.borrow().is_some_and(|plan| plan.tracking) {
            self.source_status.set(Source::Tracking, SourceState::Down, error);
        }
    }

    /// Answers everything with the error for that long: nobody waits for a server that is not there.
    async fn refuse_for(&mut self, pause: Duration, error: &str) {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(asked) = self.requests.recv() => { let _ = asked.reply.send(Answer::failed(error)); }
            }
        }
    }

    async fn answer_until_lost(&mut self) -> Result<std::convert::Infallible, String> {
        let disconnected = Arc::new(Notify::new());
        let handler = push_handler(self.directory.clone(), disconnected.clone());
        let mut connection = self.target.connect_with_push(handler).await.map_err(|error| error.to_string())?;
        self.plan.mark_unchanged();
        let mut seen = connection.check().await.map_err(|error| describe(&error, &self.target))?;
        let mut armed = self.arm(&connection).await?;
        self.redis_error.send_replace(None);
        RedisReachable.emit();
        self.directory.post_all(Source::Resync);

        let mut running = Running::new();
        // Bounds how long a dead server goes unnoticed between sweeps.
        let interval = self.target.check_interval();
        let mut check = tokio::time::interval_at(Instant::now() + interval, interval);
        let mut checking = false;
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                () = disconnected.notified() => {
                    if !connection.is_cluster() {
                        return Err("redis closed the connection".to_owned());
                    }
                    check.reset_immediately();
                }
                Some(done) = running.next() => match done {
                    Done::Checked(now) => {
                        checking = false;
                        let now = now.map_err(|error| describe(&error, &self.target))?;
                        if std::mem::replace(&mut seen, now) != now {
                            armed = self.arm(&connection).await?;
                            self.directory.post_all(Source::Resync);
                        }
                    }
                    done => self.finish(done, &connection, &mut running)?,
                },
                _ = self.requests.recv_many(&mut waiting, MAX_BATCH), if running.len() < MAX_IN_FLIGHT => {
                    for (_, asked) in self.by_place(std::mem::take(&mut waiting), &connection) {
                        running.push(Box::pin(self.send(asked, connection.clone(), armed)));
                    }
                }
                Ok(()) = self.plan.changed() => {
                    armed = self.arm(&connection).await?;
                    self.directory.post_all(Source::Resync);
                }
                _ = check.tick(), if !checking => {
                    checking = true;
                    let mut connection = connection.clone();
                    running.push(Box::pin(async move { Done::Checked(connection.check().await) }));
                }
            }
        }
    }

    /// Turns invalidations on or off as planned. Returns whether probes are to arm them.
    async fn arm(&self, connection: &Connection) -> Result<bool, String> {
        let planned = *self.plan.borrow();
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING");
        match planned {
            Some(Subscriptions { tracking: true, .. }) => tracking.arg("ON").arg("OPTIN"),
            _ => tracking.arg("OFF"),
        };
        let mut outcome = Ok(());
        for mut server in connection.primaries().await.map_err(|error| describe(&error, &self.target))?.open {
            match tracking.exec_async(&mut server).await {
                // One of a cluster that went away is armed when it is back.
                Err(error) if is_lost(&error) && connection.is_cluster() => {}
                answer => outcome = outcome.and(answer),
            }
        }
        match (planned, outcome) {
            (Some(plan), Err(error)) if plan.tracking && !is_lost(&error) => {
                let why =
                    format!("CLIENT TRACKING is refused: {error}; give the ACL user +client|tracking +client|caching");
                self.source_status.set(Source::Tracking, SourceState::Down, why);
                Ok(false)
            }
            (_, Err(error)) if is_lost(&error) => Err(error.to_string()),
            (Some(plan), Ok(())) if plan.tracking => {
                self.source_status.set(Source::Tracking, SourceState::Up, "armed by each probe");
                Ok(true)
            }
            (Some(plan), _) => {
                let why = if plan.keyspace {
                    "not needed beside keyspace notifications"
                } else {
                    "turned off by signals.tracking"
                };
                self.source_status.set(Source::Tracking, SourceState::Off, why);
                Ok(false)
            }
            (None, _) => Ok(false),
        }
    }

    /// What depends on the same server goes together: one that does not answer holds up no queue of another.
    fn by_place(&self, asked: Vec<Asked>, connection: &Connection) -> BTreeMap<Option<String>, Vec<Asked>> {
        let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in asked {
            places.entry(connection.place(&self.spec(&one).key)).or_default().push(one);
        }
        places
    }

    /// Sends one pipeline for all of `asked`.
    fn send(
        &self,
        asked: Vec<Asked>,
        mut connection: Connection,
        armed: bool,
    ) -> impl Future<Output = Done> + Send + use<> {
        let mut pipeline = Pipeline::with_capacity(asked.len() * 4);
        for asked in &asked {
            command::add(&mut pipeline, self.spec(asked), &asked.request.heartbeats, armed);
        }
        async move {
            let replies = connection.each(&pipeline).await;
            Done::AnsweredBatch(AnsweredBatch { asked, armed, replies })
        }
    }

    fn spec<'a>(&'a self, asked: &'a Asked) -> &'a QueueSpec {
        asked.part.as_ref().map_or_else(|| &self.specs[asked.request.index as usize], |part| &part.spec)
    }

    /// Lends what is remembered of a queue.
    fn with_memory<T>(&mut self, asked: &Asked, with: impl FnOnce(&mut LagMemory) -> T) -> T {
        match &asked.part {
            Some(part) => with(&mut part.remembered().lag),
            None => with(&mut self.memories[asked.request.index as usize]),
        }
    }

    /// Answers what can be answered; an error means that the connection is of no more use.
    fn finish(&mut self, done: Done, connection: &Connection, running: &mut Running) -> Result<(), String> {
        match done {
            Done::AnsweredBatch(AnsweredBatch { asked, replies: Err(error), .. }) => {
                let error = describe(&error, &self.target);
                for asked in asked {
                    let _ = asked.reply.send(Answer::failed(&error));
                }
                Err(error)
            }
            Done::AnsweredBatch(AnsweredBatch { asked, armed, replies: Ok(replies) }) => {
                let uncounted = self.answer(asked, armed, replies);
                if !uncounted.is_empty() {
                    running.push(Box::pin(self.count(uncounted, connection.clone())));
                }
                Ok(())
            }
            Done::Counts(Counts { uncounted, replies }) => {
                let failure = replies.as_ref().err().map(|error| describe(error, &self.target));
                let mut replies = replies.unwrap_or_default().into_iter();
                for one in uncounted {
                    let backlog = match (replies.next(), &failure) {
                        (Some(value), _) => command::counted(value),
                        (None, failure) => Err(failure.clone().unwrap_or_else(|| "no reply to XRANGE".to_owned())),
                    };
                    let demand = self.with_memory(&one.asked, |memory| {
                        interpret::complete(backlog, COUNT_LIMIT, one.reported, one.length, one.demand, memory)
                    });
                    let (counters, consumers) = (one.counters, one.consumers);
                    let answer = Answer { demand, queues: None, counters, consumers, heartbeats: one.heartbeats };
                    let _ = one.asked.reply.send(answer);
                }
                failure.map_or(Ok(()), Err)
            }
            Done::Checked(outcome) => outcome.map(drop).map_err(|error| describe(&error, &self.target)),
        }
    }

    /// Answers a batch; returns those whose lag has to be counted first.
    fn answer(&mut self, asked: Vec<Asked>, armed: bool, replies: Vec<Value>) -> Vec<Uncounted> {
        let mut replies = replies.into_iter();
        let mut uncounted = Vec::new();
        for asked in asked {
            let spec = self.spec(&asked);
            let key = spec.key.clone();
            let (raw, heartbeats) = command::take(&mut replies, spec, asked.request.heartbeats.len(), armed);
            let heartbeats = heartbeats.map_or_else(Reading::Failed, Reading::Known);
            let counters = raw.counters();
            if let Some(part) = &asked.part {
                part.remembered().is_foreign = raw.is_foreign();
            }
            match self.with_memory(&asked, |memory| interpret::look(raw, &key, memory)) {
                Interpretation::Clear(demand, consumers) => {
                    let _ = asked.reply.send(Answer { demand, queues: None, counters, consumers, heartbeats });
                }
                Interpretation::Count { after, reported, length, demand, consumers } => {
                    let one = Uncounted { asked, after, reported, length, demand, counters, consumers, heartbeats };
                    uncounted.push(one);
                }
            }
        }
        uncounted
    }

    fn count(
        &self,
        uncounted: Vec<Uncounted>,
        mut connection: Connection,
    ) -> impl Future<Output = Done> + Send + use<> {
        let mut pipeline = Pipeline::with_capacity(uncounted.len());
        for one in &uncounted {
            command::add_count(&mut pipeline, self.spec(&one.asked), one.after, COUNT_LIMIT);
        }
        async move {
            let replies = connection.each(&pipeline).await;
            Done::Counts(Counts { uncounted, replies })
        }
    }
}

impl Session for Prober {
    type Error = String;

    async fn run_session(&mut self) -> Result<std::convert::Infallible, String> {
        self.answer_until_lost().await
    }

    async fn failed(&mut self, error: String, pause: Duration) {
        self.report_unreachable(&error);
        self.refuse_for(pause, &error).await;
    }
}

/// Hears invalidations: a key, or nothing at all after FLUSHALL.
fn push_handler(
    directory: Arc<Directory>,
    disconnected: Arc<Notify>,
) -> impl Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static {
    move |push| {
        match push.kind {
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(keys)) => {
                    for key in keys {
                        if let Value::BulkString(key) = key {
                            directory.fed_by(key, KeyEvent::Change, |index| directory.post(index, Source::Tracking));
                            SignalsReceived { source: Source::Tracking, count: 1 }.emit();
                        }
                    }
                }
                _ => directory.post_all(Source::Resync),
            },
            PushKind::Disconnection => disconnected.notify_one(),
            _ => {}
        }
        Ok(())
    }
}

fn describe(error: &RedisError, target: &RedisTarget) -> String {
    if error.is_timeout() {
        format!("redis at {} did not answer within scaler.redis_timeout_ms", target.display())
    } else {
        format!("redis at {}: {error}", target.display())
    }
}
