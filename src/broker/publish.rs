//! Puts jobs on streams and says so on the channel, in one round trip. Never retries: whether a lost reply's job was
//! written can't be known, and only the caller knows if doing it twice is harmless.

use redis::{Pipeline, aio::MultiplexedConnection};

use super::{BrokerError, Job};

/// Jobs in one pipeline: many enough that the round trip no longer counts, few enough to fit the time-out of one reply.
const BATCH: usize = 500;

/// Publishes jobs over one connection.
#[derive(Clone)]
pub struct Publisher {
    connection: MultiplexedConnection,
    channel: String,
}

impl Publisher {
    /// Publishes over `connection` and names each stream written to on `channel`; on none if it is empty.
    pub fn new(connection: MultiplexedConnection, channel: impl Into<String>) -> Self {
        Self { connection, channel: channel.into() }
    }

    /// Puts `jobs` on `stream` in order and returns their entries' ids. After an error, those of earlier batches of 500
    /// are there and some of the last one may be.
    pub async fn publish(&mut self, stream: &str, jobs: &[Job]) -> Result<Vec<String>, BrokerError> {
        let mut entries = Vec::with_capacity(jobs.len());
        for batch in jobs.chunks(BATCH) {
            let ids: Vec<String> = self
                .pipeline(stream, batch)
                .query_async(&mut self.connection)
                .await
                .map_err(|cause| BrokerError::new(format!("publish to `{stream}`"), cause))?;
            entries.extend(ids);
        }
        Ok(entries)
    }

    fn pipeline(&self, stream: &str, jobs: &[Job]) -> Pipeline {
        let mut pipeline = redis::pipe();
        for job in jobs {
            pipeline.cmd("XADD").arg(stream).arg("*").arg("json").arg(job.to_json());
        }
        if !self.channel.is_empty() {
            pipeline.cmd("PUBLISH").arg(&self.channel).arg(stream).ignore();
        }
        pipeline
    }
}
