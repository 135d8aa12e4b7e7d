//! Takes jobs from a stream through its consumer group.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{RedisError, Value};

use super::{
    BrokerError, JobPolicy,
    delivery::{self, Admission, Delivery, RawEntry},
};
use crate::connection::Connection;
use crate::model::{Layout, Timestamp};

/// A member of a consumer group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Key of the stream.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// Name of the consumer: the worker's id.
    pub name: String,
    /// Rules for its jobs.
    pub policy: JobPolicy,
}

/// Result of a read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The new entries.
    pub entries: Vec<RawEntry>,
    /// Whether any job of the stream is cancelled: [`Consumer::note_cancelled`] tells whether one of these is.
    pub some_cancelled: bool,
}

/// An id after every possible entry. Not the highest id, which Redis treats like `>` and delivers new entries for.
const LAST_ID: &str = "18446744073709551615-0";

impl Consumer {
    /// Registers this consumer with the group before it has a job: other workers search the group's consumers for a
    /// worker with room. Reads nothing.
    ///
    /// # Errors
    /// If Redis did not carry it out.
    pub async fn introduce(&self, connection: &mut Connection) -> Result<(), BrokerError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(1);
        command.arg("STREAMS").arg(&self.stream).arg(LAST_ID);
        command.exec_async(connection).await.map_err(|cause| self.failed("join the group", cause))
    }

    /// Returns the member of the same name, of the group of the same name, on another stream.
    pub fn on(&self, stream: &str) -> Cow<'_, Self> {
        if stream == self.stream {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { stream: stream.to_owned(), ..self.clone() })
    }

    /// Creates the stream and the group if they are missing. The group starts at 0, so earlier jobs count.
    pub async fn ensure_group(&self, connection: &mut Connection) -> Result<(), BrokerError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg(0).arg("MKSTREAM");
        match command.exec_async(connection).await {
            Err(cause) if cause.code() != Some("BUSYGROUP") => {
                Err(self.failed(&format!("create group `{}`", self.group), cause))
            }
            _ => Ok(()),
        }
    }

    /// Takes up to `count` new jobs; waits for the first one for at most `block`. The response timeout of `connection`
    /// must not be shorter. Returns no job if none arrives in time.
    ///
    /// After an error, jobs may have been delivered: [`Consumer::recover_own`] finds them.
    pub async fn read(
        &self,
        connection: &mut Connection,
        count: usize,
        block: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let Read { entries, .. } = self.read_raw(connection, connection.layout(), count, block).await?;
        Ok(self.open(entries).collect())
    }

    /// Like [`Consumer::read`], without parsing the entries, which can be done elsewhere. Also returns whether jobs of
    /// the stream are cancelled: that costs no round trip. `layout` is that of the whole target, because `connection`
    /// may be to one server of a cluster.
    pub async fn read_raw(
        &self,
        connection: &mut Connection,
        layout: Layout,
        count: usize,
        block: Duration,
    ) -> Result<Read, BrokerError> {
        let mut pipeline = redis::pipe();
        let command = pipeline.cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(count);
        // BLOCK 0 would wait without a limit.
        command.arg("BLOCK").arg(block.as_millis().max(1).to_string()).arg("STREAMS").arg(&self.stream).arg(">");
        pipeline.cmd("EXISTS").arg(layout.cancelled(&self.stream));
        let asked = Instant::now();
        // Each reply by itself: without the right to the second key, the worker still reads.
        let replies = connection.each(&pipeline).await.and_then(|replies| {
            let mut replies = replies.into_iter();
            let jobs = replies.next().unwrap_or(Value::Nil).extract_error()?;
            Ok((jobs, matches!(replies.next(), Some(Value::Int(1)))))
        });
        let (jobs, some_cancelled) = replies.map_err(|cause| self.failed("read jobs", cause))?;
        Ok(Read { entries: delivery::read(jobs, asked), some_cancelled })
    }

    /// Parses the entries that were delivered from this stream; each job may be started now.
    pub fn open(&self, entries: impl IntoIterator<Item = RawEntry>) -> impl Iterator<Item = Delivery> {
        let own: Arc<str> = self.stream.as_str().into();
        entries.into_iter().map(move |entry| Delivery::new(entry, self.admission(&own)))
    }

    /// Returns the rules by which an entry of `stream` that is delivered now is judged.
    pub(super) fn admission<'a>(&'a self, stream: &'a Arc<str>) -> Admission<'a> {
        Admission {
            stream,
            group: &self.group,
            settings: &self.policy.jobs,
            job_max_bytes: self.policy.job_max_bytes(),
            now: Timestamp::wall(),
        }
    }

    pub(super) fn failed(&self, doing: &str, cause: RedisError) -> BrokerError {
        BrokerError::new(format!("{doing} of `{}`", self.stream), cause)
    }
}
