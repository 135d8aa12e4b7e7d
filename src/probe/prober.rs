//! The task that owns the probe connection: batches requests into pipelines, keeps a bounded number of them in flight,
//! receives the invalidations that its own reads armed, and reconnects.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, ProberHandle, QueueSpec,
    handle::{Asked, MAX_BATCH, REQUEST_CAPACITY, SeveralTypes},
    heartbeat::ReadWorkers,
    several::SeveralSpec,
    transaction::{self, add_commands},
};
use crate::{
    connection::{Connection, RedisTarget, Session, is_lost, keep_connected},
    model::{Clock, Source, snapshot::SourceState},
    queue_kind::{FollowUp, Heard, Interpretation, Observed, QueueReader, Scripts, reply::missing},
    signal::{Directory, KeyEvent, SourceStatus, Subscriptions},
    telemetry::{RedisReachable, RedisUnreachable, SignalsReceived},
};

/// Maximum pipelines in flight: one being answered, one being sent, and room for latency.
const MAX_IN_FLIGHT: usize = 4;

/// Owns the probe connection.
#[derive(Debug)]
pub struct Prober {
    target: Arc<RedisTarget>,
    specs: Vec<QueueSpec>,
    readers: Vec<Box<dyn QueueReader>>,
    /// How scripts are sent on this connection.
    scripts: Scripts,
    directory: Arc<Directory>,
    source_status: Arc<SourceStatus>,
    plan: watch::Receiver<Option<Subscriptions>>,
    requests: mpsc::Receiver<Asked>,
    redis_error: watch::Sender<Option<String>>,
    /// Whether the outage in progress was reported.
    is_outage_told: bool,
    clock: Clock,
}

/// One probe in a pipeline.
struct Probe {
    asked: Asked,
    /// Number of commands that read the queue.
    commands: usize,
    /// Whether they are one transaction.
    one_transaction: bool,
}

/// Result of a pipeline, with what is needed to answer.
struct AnsweredBatch {
    probes: Vec<Probe>,
    armed: bool,
    scripts: Scripts,
    replies: Result<Vec<Value>, RedisError>,
}

/// Result of a follow-up, with what is needed to answer.
struct AnsweredFollowUp {
    asked: Asked,
    follow_up: FollowUp,
    workers: ReadWorkers,
    reply: Result<Vec<Value>, RedisError>,
}

enum Done {
    Batch(AnsweredBatch),
    FollowUp(Box<AnsweredFollowUp>),
    /// Result of [`Connection::check`].
    Checked(Result<u64, RedisError>),
}

type Running = FuturesUnordered<futures_util::future::BoxFuture<'static, Done>>;

impl Prober {
    /// Returns a prober and its handle. `specs` describes the worker types' own queues, with the indices of the
    /// directory; `several` describes the other queues of worker types that have some.
    pub fn new(
        target: Arc<RedisTarget>,
        specs: Vec<QueueSpec>,
        several: Vec<SeveralSpec>,
        directory: Arc<Directory>,
        source_status: Arc<SourceStatus>,
        plan: watch::Receiver<Option<Subscriptions>>,
        clock: Clock,
    ) -> (Self, ProberHandle) {
        let (sender, requests) = mpsc::channel(REQUEST_CAPACITY);
        let (redis_error, errors) = watch::channel(Some("not connected yet".to_owned()));
        let readers = specs.iter().map(|spec| spec.kind.reader(spec)).collect();
        let several = SeveralTypes::new(several, &directory);
        let handle = ProberHandle { requests: sender, redis_error: errors, several };
        let scripts = Scripts::ReadOnly;
        let prober = Self {
            target,
            specs,
            readers,
            scripts,
            directory,
            source_status,
            plan,
            requests,
            redis_error,
            is_outage_told: false,
            clock,
        };
        (prober, handle)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        keep_connected(&mut self, &cancel).await;
    }

    fn report_unreachable(&mut self, error: &str) {
        let news = self.redis_error.send_if_modified(|current| {
            let news = current.as_deref() != Some(error);
            *current = Some(error.to_owned());
            news
        });
        if news {
            // Of a worker type's own server, another error in the same outage is not news.
            let server = self.source_status.server();
            if server.is_none() || !self.is_outage_told {
                RedisUnreachable { server, error }.emit();
            }
            self.is_outage_told = true;
            // Decides what can be decided without Redis: `min_workers` applies in an outage too, also in one at the
            // start.
            self.directory.post_all(Source::Resync);
        }
        if self.plan.borrow().is_some_and(|plan| plan.tracking) {
            self.source_status.lost(Source::Tracking, error);
        }
    }

    /// Answers all requests with the error during the pause: nobody waits for a server that is down.
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
        self.scripts = Scripts::ReadOnly;
        self.plan.mark_unchanged();
        let mut seen = connection.check().await.map_err(|error| describe(&error, &self.target))?;
        let mut armed = self.arm(&connection).await?;
        self.redis_error.send_replace(None);
        self.is_outage_told = false;
        RedisReachable { server: self.source_status.server() }.emit();
        self.directory.post_all(Source::Resync);

        let mut running = Running::new();
        // Bounds how long a dead server goes unnoticed between sweeps.
        let interval = self.target.check_interval();
        let mut check = tokio::time::interval_at(Instant::now() + interval, interval);
        let mut doubts = self.target.doubts();
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
                    done => {
                        let is_batch = matches!(done, Done::Batch(_));
                        self.finish(done, &connection, &mut running, armed)?;
                        if is_batch && !connection.is_cluster() {
                            // The server has just answered, so the next check can wait.
                            check.reset();
                        }
                    }
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
                Ok(()) = doubts.changed() => check.reset_immediately(),
                _ = check.tick(), if !checking => {
                    checking = true;
                    let mut connection = connection.clone();
                    running.push(Box::pin(async move { Done::Checked(connection.check().await) }));
                }
            }
        }
    }

    /// Turns invalidations on or off as planned. Returns whether probes must arm them.
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
                // A lost primary of a cluster is armed when it is back.
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

    /// Groups requests by server, so that a server that does not answer delays only its own queues.
    fn by_place(&self, asked: Vec<Asked>, connection: &Connection) -> BTreeMap<Option<String>, Vec<Asked>> {
        let mut places: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in asked {
            places.entry(connection.place(&self.spec(&one).key)).or_default().push(one);
        }
        places
    }

    /// Sends one pipeline for all of `asked`.
    fn send(
        &mut self,
        asked: Vec<Asked>,
        mut connection: Connection,
        armed: bool,
    ) -> impl Future<Output = Done> + Send + use<> {
        let scripts = self.scripts;
        let mut pipeline = Pipeline::with_capacity(asked.len() * 4);
        let mut probes = Vec::with_capacity(asked.len());
        for asked in asked {
            if armed {
                // In OPTIN mode only the next command's keys are tracked: the queue, not the heartbeats.
                pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
            }
            let commands = self.with_reader(&asked, |reader, spec| reader.commands(spec, scripts));
            let one_transaction = self.spec(&asked).kind.is_one_transaction();
            probes.push(Probe { commands: commands.len(), one_transaction, asked });
            add_commands(&mut pipeline, commands, one_transaction);
            if let Some(probe) = probes.last() {
                ReadWorkers::add_commands(&mut pipeline, &probe.asked.request.workers, connection.is_cluster());
            }
        }
        async move {
            let replies = connection.each(&pipeline).await;
            Done::Batch(AnsweredBatch { probes, armed, scripts, replies })
        }
    }

    fn spec<'a>(&'a self, asked: &'a Asked) -> &'a QueueSpec {
        asked.part.as_ref().map_or_else(|| &self.specs[asked.request.index as usize], |part| &part.spec)
    }

    /// Lends the reader of a queue.
    fn with_reader<T>(&mut self, asked: &Asked, with: impl FnOnce(&mut dyn QueueReader, &QueueSpec) -> T) -> T {
        let now = self.clock.now();
        let heard = self.directory.heard(asked.request.index);
        if let Some(part) = &asked.part {
            let reader = &mut part.remembered().reader;
            reader.note_time(now);
            with(&mut **reader, &part.spec)
        } else {
            let index = asked.request.index as usize;
            self.readers[index].note_time(now);
            if let Some(heard) = heard {
                let is_hearing = self.source_status.hears_changes();
                self.readers[index].note_heard(Heard { is_hearing, ..heard });
            }
            with(&mut *self.readers[index], &self.specs[index])
        }
    }

    /// Sends the answers that are complete. An error means that the connection is unusable.
    fn finish(
        &mut self,
        done: Done,
        connection: &Connection,
        running: &mut Running,
        armed: bool,
    ) -> Result<(), String> {
        match done {
            Done::Batch(AnsweredBatch { probes, replies: Err(error), .. }) => {
                let error = describe(&error, &self.target);
                for probe in probes {
                    let _ = probe.asked.reply.send(Answer::failed(&error));
                }
                Err(error)
            }
            Done::Batch(AnsweredBatch { probes, armed: was_armed, scripts, replies: Ok(replies) }) => {
                let again = self.answer(probes, was_armed, scripts, replies, connection, running);
                self.read_again(again, scripts, connection, running, armed);
                Ok(())
            }
            Done::FollowUp(done) => {
                let AnsweredFollowUp { asked, follow_up, workers, reply } = *done;
                // A late reply says nothing about the connection or about other queues.
                let lost = reply.as_ref().err().filter(|error| is_lost(error) && !error.is_timeout());
                let lost = lost.map(|error| describe(error, &self.target));
                let reply = match reply {
                    // The last reply is that of the transaction.
                    Ok(replies) => replies.into_iter().next_back().ok_or_else(missing),
                    Err(error) => Err(describe(&error, &self.target)),
                };
                let scripts = self.scripts;
                match self.with_reader(&asked, |reader, spec| reader.complete(spec, follow_up, reply)) {
                    Interpretation::Complete(observed) => self.reply(asked, observed, workers),
                    Interpretation::Ask(_) | Interpretation::ScriptRefused => {
                        self.read_again(vec![asked], scripts, connection, running, armed);
                    }
                    Interpretation::Again => running.push(Box::pin(self.send(vec![asked], connection.clone(), armed))),
                }
                lost.map_or(Ok(()), Err)
            }
            Done::Checked(outcome) => outcome.map(drop).map_err(|error| describe(&error, &self.target)),
        }
    }

    /// Reads queues whose script was refused again, in the next way.
    fn read_again(
        &mut self,
        asked: Vec<Asked>,
        refused: Scripts,
        connection: &Connection,
        running: &mut Running,
        armed: bool,
    ) {
        if !asked.is_empty() {
            self.scripts = self.scripts.max(refused.next());
            running.push(Box::pin(self.send(asked, connection.clone(), armed)));
        }
    }

    /// Answers a batch, and sends the follow-ups that have to come first. Returns the requests whose script was
    /// refused.
    fn answer(
        &mut self,
        probes: Vec<Probe>,
        armed: bool,
        scripts: Scripts,
        replies: Vec<Value>,
        connection: &Connection,
        running: &mut Running,
    ) -> Vec<Asked> {
        let mut replies = replies.into_iter();
        let mut again = Vec::new();
        for Probe { asked, commands, one_transaction } in probes {
            if armed {
                replies.next();
            }
            let of_queue = transaction::replies(&mut replies, commands, one_transaction);
            let workers = ReadWorkers::take(&mut replies, &asked.request.workers, connection.is_cluster());
            match self.with_reader(&asked, |reader, spec| reader.interpret(spec, of_queue, scripts)) {
                Interpretation::Complete(observed) => self.reply(asked, observed, workers),
                Interpretation::Ask(follow_up) => {
                    running.push(Box::pin(ask(asked, *follow_up, workers, armed, one_transaction, connection.clone())));
                }
                Interpretation::ScriptRefused => again.push(asked),
                Interpretation::Again => running.push(Box::pin(self.send(vec![asked], connection.clone(), armed))),
            }
        }
        again
    }

    fn reply(&self, asked: Asked, observed: Observed, workers: ReadWorkers) {
        if let Some(part) = &asked.part {
            part.remembered().is_foreign = observed.is_foreign;
        }
        if let Some(warning) = observed.warning {
            tracing::warn!(queue = %self.spec(&asked).key, "{warning}");
        }
        let _ = asked.reply.send(Answer::of(observed, workers));
    }
}

/// Sends a follow-up by itself, so that it does not delay other queues.
async fn ask(
    asked: Asked,
    follow_up: FollowUp,
    workers: ReadWorkers,
    armed: bool,
    one_transaction: bool,
    mut connection: Connection,
) -> Done {
    let mut pipeline = Pipeline::new();
    if armed && one_transaction {
        // Changes of a framework's workers are signals, like those of its queues.
        pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    }
    add_commands(&mut pipeline, follow_up.commands.clone(), one_transaction);
    let reply = connection.each(&pipeline).await;
    Done::FollowUp(Box::new(AnsweredFollowUp { asked, follow_up, workers, reply }))
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

/// Handles invalidations: of a key, or of everything after FLUSHALL.
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
