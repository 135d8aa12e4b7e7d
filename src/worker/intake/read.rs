//! Reads new jobs. A worker with one queue waits for as many jobs as it has room for. With several queues it takes what
//! there is, in turn and evenly, and waits for a first job of any queue only if there is none: a read of several
//! streams would return the whole number for each.

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{Batch, Intake, TakeError};
use crate::{
    broker::{BrokerError, Delivery, Read},
    connection::{Connection, ConnectionError, RedisTarget},
    worker::{by_stream::by_stream, connection::Commands},
};

/// Longest wait of one read. An idle worker sends a read each time. Proxies close connections that are silent for ten
/// seconds, and some earlier.
const BLOCK: Duration = Duration::from_secs(7);
/// The same for a user that may not run CLIENT UNBLOCK: bounds how long a drain takes, and how late lost jobs are
/// searched for.
const BLOCK_UNTIL_ITS_END: Duration = Duration::from_secs(2);
/// Pause until a read that did not wait yet, or whose reply is on its way, is ended again.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(20);
/// Time between two looks at queues in several slots of a cluster, which one read can't wait for. A job that is
/// announced on the channel is noticed immediately.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The connection that waits for jobs.
pub(super) struct Blocking {
    connection: Connection,
    /// Client id for CLIENT UNBLOCK; `None` if this user may not run it.
    id: Option<u64>,
}

impl Intake {
    /// Reads up to `room` new jobs, in rare cases some more. Returns none if none arrive for a while, or if
    /// `interrupted` ends before.
    pub(in crate::worker) async fn read(
        &mut self,
        room: usize,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Batch, TakeError> {
        self.took_new = true;
        if self.queues.configured().is_one() {
            return self.read_one(room, interrupted).await;
        }
        let mut news = self.queues.news();
        let interrupted = async {
            tokio::select! {
                () = interrupted => {}
                _ = news.changed() => {}
            }
        };
        let streams = self.queues.streams();
        if streams.len() == 1 {
            self.read_one(room, interrupted).await
        } else {
            let deliveries = self.read_multi_stream(&streams, room, interrupted).await?;
            self.noted(deliveries).await.map(Batch::Opened)
        }
    }

    /// Returns how long a read waits that can be ended, or can't. The wait is short enough that a job which arrives at
    /// its end can be started without checking the claim.
    fn block(&self, can_be_ended: bool) -> Duration {
        let longest = if can_be_ended { BLOCK } else { BLOCK_UNTIL_ITS_END };
        longest.min(self.config.lapse() * 3 / 5)
    }

    async fn read_one(&mut self, room: usize, interrupted: impl Future<Output = ()>) -> Result<Batch, TakeError> {
        let (consumer, layout) = (Arc::clone(&self.consumer), self.target.layout());
        let read = async |connection: &mut Connection, block: Duration| {
            consumer.read_raw(connection, layout, room, block).await
        };
        match self.waiting(read, interrupted).await {
            Ok(Read { entries, some_cancelled: false }) => Ok(Batch::Unopened(entries)),
            Ok(Read { entries, .. }) => self.noted(consumer.open(entries).collect()).await.map(Batch::Opened),
            Err(error) => {
                let own = consumer.stream.as_str().into();
                self.mend(&own, error).await.map(|()| Batch::Opened(Vec::new()))
            }
        }
    }

    async fn read_multi_stream(
        &mut self,
        streams: &[Arc<str>],
        room: usize,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<Delivery>, TakeError> {
        let order = self.turns.order(streams);
        let layout = self.target.layout();
        let parts = by_stream(order.clone(), |stream| layout.part(stream));
        let mut deliveries: Vec<Delivery> = Vec::new();
        let (mut broken, mut mended) = (Vec::new(), false);
        for part in &parts {
            let left = room - deliveries.len();
            if left == 0 {
                break;
            }
            let take = async |connection: &mut Connection| self.consumer.take(connection, part, left).await;
            let take = self.commands.step::<_, TakeError>(take).await?;
            deliveries.extend(take.deliveries);
            for (stream, error) in take.broken {
                match self.mend(&stream, error.into()).await {
                    Ok(()) => mended = true,
                    Err(error) => broken.push((stream, error)),
                }
            }
        }
        let last = deliveries.iter().filter_map(|taken| order.iter().position(|stream| *stream == taken.stream)).max();
        if let Some(last) = last {
            self.turns.had(order[last].clone());
        }
        let whole = deliveries.len() < room;
        let readable = self.readable(&order, broken, whole)?;
        if mended || !deliveries.is_empty() {
            return Ok(deliveries);
        }
        if parts.len() > 1 {
            tokio::select! {
                () = interrupted => {}
                () = sleep(POLL_INTERVAL) => {}
            }
            return Ok(deliveries);
        }
        self.wait_for_any(readable, interrupted).await
    }

    /// Returns those of `all` that are not broken; there must be one. `whole`: all of them were tried.
    fn readable(
        &mut self,
        all: &[Arc<str>],
        broken: Vec<(Arc<str>, TakeError)>,
        whole: bool,
    ) -> Result<Vec<Arc<str>>, TakeError> {
        let now: BTreeSet<Arc<str>> = broken.iter().map(|(stream, _)| stream.clone()).collect();
        if whole {
            self.broken.retain(|stream| now.contains(stream));
        }
        for (stream, error) in &broken {
            self.tell_broken(stream, error);
        }
        let readable: Vec<_> = all.iter().filter(|stream| !now.contains(*stream)).cloned().collect();
        match broken.into_iter().next() {
            Some((_, error)) if readable.is_empty() => Err(error),
            _ => Ok(readable),
        }
    }

    async fn wait_for_any(
        &mut self,
        streams: Vec<Arc<str>>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<Delivery>, TakeError> {
        let consumer = Arc::clone(&self.consumer);
        let wait =
            async |connection: &mut Connection, block: Duration| consumer.wait(connection, &streams, block).await;
        match self.waiting(wait, interrupted).await {
            // A queue is gone, or is not a stream any more. The next look shows which one.
            Err(TakeError::Broker(error)) if error.is_missing_group() || error.is_wrong_type() => Ok(Vec::new()),
            Err(error) => {
                if error.is_connection_lost() {
                    self.commands.discard().await;
                }
                Err(error)
            }
            Ok(deliveries) => {
                if let Some(first) = deliveries.first() {
                    self.turns.had(first.stream.clone());
                }
                Ok(deliveries)
            }
        }
    }

    /// Runs a blocking `read` on its connection, and ends it immediately if it is interrupted.
    async fn waiting<T>(
        &mut self,
        read: impl AsyncFnOnce(&mut Connection, Duration) -> Result<T, BrokerError>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<T, TakeError> {
        if self.blocking.is_none() {
            self.blocking = Some(connect(&self.target, &self.consumer.stream).await?);
        }
        let block = self.block(self.blocking.as_ref().is_some_and(|blocking| blocking.id.is_some()));
        let limit = block + self.target.response_timeout();
        let blocking = self.blocking.as_mut().expect("it was set just above");
        let id = blocking.id;
        let read = timeout(limit, read(&mut blocking.connection, block));
        tokio::pin!(read);
        let answer = tokio::select! {
            biased;
            answer = &mut read => answer,
            () = interrupted => {
                // The read is ended, not dropped: a job that is delivered in this moment belongs to this worker.
                let ending = async {
                    unblock(&self.commands, &self.target, &self.consumer.stream, id).await;
                    sleep(self.target.response_timeout()).await;
                };
                tokio::select! {
                    biased;
                    answer = &mut read => answer,
                    // Redis has ended the read, or knows nothing of it.
                    () = ending => return Err(TakeError::NoAnswer(self.target.response_timeout())),
                }
            }
        };
        Ok(answer.map_err(|_| TakeError::NoAnswer(limit))??)
    }
}

/// Connects to the one server that has the stream; that server is also the one that can end a read.
async fn connect(target: &RedisTarget, stream: &str) -> Result<Blocking, TakeError> {
    let unreachable = |cause| ConnectionError::Unreachable { target: target.display(), cause };
    let mut connection = target.connect_without_timeout().await?.at(stream).await.map_err(unreachable)?;
    let mut ask = redis::cmd("CLIENT");
    ask.arg("ID");
    let no_answer = |_| TakeError::NoAnswer(target.response_timeout());
    let answer = timeout(target.response_timeout(), ask.query_async::<u64>(&mut connection)).await;
    let Ok(id) = answer.map_err(no_answer)? else { return Ok(Blocking { connection, id: None }) };
    // Ends nothing yet: the reply tells whether this user may do so.
    let answer = timeout(target.response_timeout(), unblock_command(id).exec_async(&mut connection)).await;
    let may_unblock = answer.map_err(no_answer)?.is_ok();
    Ok(Blocking { connection, id: may_unblock.then_some(id) })
}

fn unblock_command(id: u64) -> redis::Cmd {
    let mut unblock = redis::cmd("CLIENT");
    unblock.arg("UNBLOCK").arg(id);
    unblock
}

/// Ends a blocked read, and returns when the server has done so, when it did not find the read for a response timeout,
/// or when it can't be asked. Without the right to do so, never returns: the read ends by itself.
async fn unblock(commands: &Commands, target: &RedisTarget, stream: &str, id: Option<u64>) {
    let Some(id) = id else { return pending().await };
    let begun = Instant::now();
    loop {
        let ended = match commands.get().await {
            Ok(connection) => end_read(connection, stream, id).await,
            Err(error) => Err(error.to_string()),
        };
        match ended {
            // 0: the read has not reached the server, or its reply is on the way.
            Ok(0) if begun.elapsed() < target.response_timeout() => sleep(UNBLOCK_INTERVAL).await,
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(error, "can't end the blocked read");
                return;
            }
        }
    }
}

async fn end_read(connection: Connection, stream: &str, id: u64) -> Result<u64, String> {
    let mut connection = connection.at(stream).await.map_err(|error| error.to_string())?;
    unblock_command(id).query_async(&mut connection).await.map_err(|error| error.to_string())
}
