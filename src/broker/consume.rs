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
use crate::model::Timestamp;

/// One member of a consumer group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// The stream's key.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// The consumer's name: the worker's id.
    pub name: String,
    /// The rules for its jobs.
    pub policy: JobPolicy,
}

impl Consumer {
    /// The same member of the group of the same name on another stream.
    pub fn on(&self, stream: &str) -> Cow<'_, Self> {
        if stream == self.stream {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { stream: stream.to_owned(), ..self.clone() })
    }

    /// Makes the stream and the group if they are missing, at 0: jobs published before count.
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

    /// Takes up to `count` new jobs, waiting for the first for up to `block`. `connection` must have no response time-out
    /// shorter than that. None in time is an empty answer.
    ///
    /// After an error, jobs may have been delivered all the same: [`Consumer::recover_own`] finds them.
    pub async fn read(
        &self,
        connection: &mut Connection,
        count: usize,
        block: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let entries = self.read_raw(connection, count, block).await?;
        Ok(self.open(entries).collect())
    }

    /// As [`Consumer::read`], without a look into what came: that may be done elsewhere.
    pub async fn read_raw(
        &self,
        connection: &mut Connection,
        count: usize,
        block: Duration,
    ) -> Result<Vec<RawEntry>, BrokerError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(count);
        // BLOCK 0 means for ever.
        command.arg("BLOCK").arg(block.as_millis().max(1).to_string()).arg("STREAMS").arg(&self.stream).arg(">");
        let asked = Instant::now();
        let reply: Value = command.query_async(connection).await.map_err(|cause| self.failed("read jobs", cause))?;
        Ok(delivery::read(reply, asked))
    }

    /// Looks for the jobs in what was delivered of this stream; each may be begun now.
    pub fn open(&self, entries: impl IntoIterator<Item = RawEntry>) -> impl Iterator<Item = Delivery> {
        let own: Arc<str> = self.stream.as_str().into();
        entries.into_iter().map(move |entry| Delivery::new(entry, self.admission(&own)))
    }

    /// By what an entry of `stream` that is delivered now is judged.
    pub(super) fn admission<'a>(&'a self, stream: &'a Arc<str>) -> Admission<'a> {
        Admission {
            stream,
            group: &self.group,
            max_attempts: self.policy.jobs.max_attempts,
            max_interruptions: self.policy.jobs.max_interruptions,
            job_max_bytes: self.policy.job_max_bytes(),
            now: Timestamp::wall(),
        }
    }

    pub(super) fn failed(&self, doing: &str, cause: RedisError) -> BrokerError {
        BrokerError::new(format!("{doing} of `{}`", self.stream), cause)
    }
}
