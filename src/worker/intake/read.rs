//! Reads new jobs. A worker with one queue waits for all that it has room for. With several it takes what there is, in turn and
//! evenly, and only if there is nothing waits for the first job of any: a read of several streams would bring it so many of
//! each.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Batch, Intake, TakeError};
use crate::{
    broker::{BrokerError, Delivery, RawEntry},
    connection::{Connection, ConnectionError, RedisTarget},
    worker::{by_stream::by_stream, connection::Commands},
};

/// How long one read waits for a job. Bounds how late lost jobs are looked for, and how long a drain takes where the user
/// may not run CLIENT UNBLOCK.
const BLOCK: Duration = Duration::from_secs(2);
/// Between two looks at queues in several slots of a cluster, which can't be waited for together. What is published with a
/// message is seen at once.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The connection that waits for jobs.
pub(super) struct Blocking {
    connection: Connection,
    /// For CLIENT UNBLOCK; `None` if this user may not ask.
    id: Option<u64>,
}

impl Intake {
    /// Up to `room` new jobs, or in rare cases some more; none if there are none in a while, or `interrupted` ends before.
    pub(in crate::worker) async fn read(
        &mut self,
        room: usize,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Batch, TakeError> {
        self.took_new = true;
        if self.queues.configured().is_one() {
            return self.read_one(room, interrupted).await.map(Batch::Unopened);
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
            self.read_one(room, interrupted).await.map(Batch::Unopened)
        } else {
            self.read_multi_stream(&streams, room, interrupted).await.map(Batch::Opened)
        }
    }

    /// How long a read waits: less than a job that it brings at its end may be begun unseen.
    fn block(&self) -> Duration {
        BLOCK.min(self.config.lapse() / 2)
    }

    async fn read_one(
        &mut self,
        room: usize,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<RawEntry>, TakeError> {
        let (consumer, block) = (Arc::clone(&self.consumer), self.block());
        let read = async |connection: &mut Connection| consumer.read_raw(connection, room, block).await;
        match self.waiting(read, interrupted).await {
            Ok(entries) => Ok(entries),
            Err(error) => {
                let own = consumer.stream.as_str().into();
                self.mend(&own, error).await.map(|()| Vec::new())
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

    /// Those of `all` that are not broken, of which there must be one. `whole`: all of them were looked at.
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
        let (consumer, block) = (Arc::clone(&self.consumer), self.block());
        let wait = async |connection: &mut Connection| consumer.wait(connection, &streams, block).await;
        match self.waiting(wait, interrupted).await {
            // One has gone, or is no stream any more. The next look tells which.
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

    /// Does a `read` that waits, on the connection for that, and ends it at once if it is interrupted.
    async fn waiting<T>(
        &mut self,
        read: impl AsyncFnOnce(&mut Connection) -> Result<T, BrokerError>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<T, TakeError> {
        if self.blocking.is_none() {
            self.blocking = Some(connect(&self.target, &self.consumer.stream).await?);
        }
        let limit = self.block() + self.target.response_timeout();
        let blocking = self.blocking.as_mut().expect("it was set just above");
        let id = blocking.id;
        let read = timeout(limit, read(&mut blocking.connection));
        tokio::pin!(read);
        let answer = tokio::select! {
            biased;
            answer = &mut read => answer,
            () = interrupted => {
                // The read is ended, not dropped: a job delivered in this moment is ours to do.
                unblock(&self.commands, &self.consumer.stream, id).await;
                read.await
            }
        };
        Ok(answer.map_err(|_| TakeError::NoAnswer(limit))??)
    }
}

/// The connection is to the one server that has the stream, which is the one that has to be asked to end a read.
async fn connect(target: &RedisTarget, stream: &str) -> Result<Blocking, TakeError> {
    let unreachable = |cause| ConnectionError::Unreachable { target: target.display(), cause };
    let mut connection = target.connect_without_timeout().await?.at(stream).await.map_err(unreachable)?;
    let mut ask = redis::cmd("CLIENT");
    ask.arg("ID");
    let answer = timeout(target.response_timeout(), ask.query_async(&mut connection)).await;
    let id = answer.map_err(|_| TakeError::NoAnswer(target.response_timeout()))?.ok();
    Ok(Blocking { connection, id })
}

/// Ends a blocked read at once. Where that is not allowed it ends by itself.
async fn unblock(commands: &Commands, stream: &str, id: Option<u64>) {
    if let (Some(id), Ok(connection)) = (id, commands.get().await)
        && let Ok(mut connection) = connection.at(stream).await
    {
        let mut unblock = redis::cmd("CLIENT");
        unblock.arg("UNBLOCK").arg(id);
        if let Err(error) = unblock.exec_async(&mut connection).await {
            tracing::debug!(%error, "can't end the blocked read; waiting for it");
        }
    }
}
