//! Puts jobs on streams and announces them on the channel, in one round trip. Never retries: if a reply is lost, it is
//! unknown whether the job was written, and only the caller knows whether doing it twice is harmless. With an
//! idempotency key it is.

use redis::{Cmd, FromRedisValue, Pipeline, RedisWrite, Value};

use super::{BrokerError, EnvelopeError, Job};
use crate::{
    config::BrokerSettings,
    connection::Connection,
    model::{Timestamp, keys},
    telemetry::{Publishing, TRACEPARENT},
};

const PUBLISH: &str = include_str!("lua/publish.lua");
/// Maximum jobs in one pipeline: enough that the round trip no longer counts, few enough for the timeout of one reply.
const BATCH: usize = 500;
/// Bytes that are enough for most jobs' JSON; for larger jobs the command is allocated twice.
const USUAL_JSON: usize = 400;
/// Bytes of an XADD without its key and its JSON, so that it is allocated once.
const COMMAND: usize = 16;

/// Publishes jobs over one connection.
#[derive(Clone)]
pub struct Publisher {
    connection: Connection,
    channel: String,
    limits: BrokerSettings,
}

/// Result of publishing a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The job is on its stream.
    Entry {
        /// Id of the stream entry.
        entry: String,
    },
    /// The job is delayed.
    Delayed {
        /// When the job is due.
        due: Timestamp,
    },
    /// A job was published under the same idempotency key before: that job counts, and this one was not written.
    Duplicate {
        /// Id of the first job, which is also the name of its result.
        of: String,
    },
}

/// Why jobs could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A worker would refuse a job; none was published.
    #[error("job {id} can't be published: {cause}")]
    Invalid {
        /// Id of the job.
        id: String,
        /// What is wrong with the job.
        cause: EnvelopeError,
    },
    /// Redis did not accept the jobs, or the connection broke: some may have been published.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Publisher {
    /// Publishes over `connection` and names each stream written to on `channel`; on none if it is empty.
    pub fn new(connection: Connection, channel: impl Into<String>, limits: BrokerSettings) -> Self {
        Self { connection, channel: channel.into(), limits }
    }

    /// Puts `jobs` on `stream` in order, except for delayed jobs, and returns the result for each. The result of a job
    /// with an idempotency key is always kept, because a second publisher may wait for it.
    ///
    /// ```no_run
    /// # use swarm::{broker::{Job, Published, Publisher}, config::BrokerSettings, connection::RedisTarget};
    /// # async fn publish(target: RedisTarget) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut publisher = Publisher::new(target.connect().await?, "jobs:published", BrokerSettings::default());
    /// let job = Job::new("mail.send", vec!["someone@example.org".into()], Default::default());
    /// let job = job.with_idempotency_key("order-4711").with_delay(std::time::Duration::from_secs(60));
    /// if let [Published::Duplicate { of }] = &publisher.publish("mail:jobs", &[job]).await?[..] {
    ///     println!("was published before, as job {of}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a worker would refuse one of the jobs: then none was published. If Redis did not accept them: then earlier
    /// batches of 500 were published, and some jobs of the last one may have been.
    pub async fn publish(&mut self, stream: &str, jobs: &[Job]) -> Result<Vec<Published>, PublishError> {
        let limit = self.limits.job_max_bytes();
        let mut written = Vec::with_capacity(jobs.len());
        let mut spans = Vec::new();
        for job in jobs {
            let parent = job.extra.get(TRACEPARENT).and_then(serde_json::Value::as_str);
            let span = Publishing::begin(stream, &job.job_type, &job.id, parent);
            let json = match (&job.idempotency_key, &job.reply_to, &span) {
                (Some(_), None, _) | (.., Some(_)) => prepared(job, span.as_ref()).encode(limit).map(Some),
                _ => job.validate(limit),
            };
            spans.extend(span);
            written.push(json.map_err(|cause| PublishError::Invalid { id: job.id.clone(), cause })?);
        }
        let published = self.send(stream, jobs, written).await;
        let error = published.as_ref().err().map(ToString::to_string);
        for span in spans {
            span.end(error.as_deref());
        }
        published
    }

    /// Sends jobs, some of which are `written` already, in batches. Prepares the next batch while Redis handles one.
    async fn send(
        &mut self,
        stream: &str,
        jobs: &[Job],
        mut written: Vec<Option<String>>,
    ) -> Result<Vec<Published>, PublishError> {
        let failed = |cause| BrokerError::new(format!("publish to `{stream}`"), cause);
        let mut published = Vec::with_capacity(jobs.len());
        let mut connection = self.connection.clone();
        let mut batches = jobs.chunks(BATCH).zip(written.chunks_mut(BATCH));
        let mut make = || batches.next().map(|(jobs, written)| (jobs.len(), self.pipeline(stream, jobs, written)));
        let mut next = make();
        while let Some((count, pipeline)) = next {
            let sent = pipeline.query_async::<Vec<Value>>(&mut connection);
            let (replies, following) = tokio::join!(sent, async { make() });
            // After them comes the reply to PUBLISH.
            for reply in replies.map_err(failed)?.into_iter().take(count) {
                published.push(read(reply).map_err(failed)?);
            }
            next = following;
        }
        Ok(published)
    }

    fn pipeline(&self, stream: &str, jobs: &[Job], written: &mut [Option<String>]) -> Pipeline {
        let layout = self.connection.layout();
        let mut pipeline = Pipeline::with_capacity(jobs.len() + 1);
        for (job, written) in jobs.iter().zip(written) {
            if job.idempotency_key.is_none() && job.not_before_ts.is_none() {
                let json = written.as_ref().map_or(USUAL_JSON, String::len);
                let mut add = Cmd::with_capacity(5, COMMAND + stream.len() + json);
                add.arg("XADD").arg(stream).arg("*").arg("json");
                match written {
                    Some(json) => drop(add.arg(json.as_str())),
                    None => job.write_json(add.writer_for_next_arg()),
                }
                pipeline.add_command(add);
                continue;
            }
            let json = written.take().unwrap_or_else(|| job.to_json());
            let due = job.not_before();
            let delayed = due.map_or_else(|| stream.to_owned(), |_| layout.delayed(stream));
            let key = job.idempotency_key.as_ref();
            let once = key.map_or_else(|| stream.to_owned(), |key| layout.once(stream, key));
            let window = key.map(|_| self.limits.idempotency_window().as_millis().to_string());
            let script = pipeline.cmd("EVAL").arg(PUBLISH).arg(3).arg(stream).arg(delayed).arg(once);
            script.arg(json).arg(&job.id).arg(due.map(|due| due.0.to_string()).unwrap_or_default());
            script.arg(window.unwrap_or_default()).arg(keys::DELAYED_CHANNEL);
        }
        if !self.channel.is_empty() {
            pipeline.cmd("PUBLISH").arg(&self.channel).arg(stream);
        }
        pipeline
    }
}

/// Returns the job as it is sent: it requests its result if a second publisher may want it, and names its trace.
fn prepared(job: &Job, span: Option<&Publishing>) -> Job {
    let mut job = job.clone();
    if job.idempotency_key.is_some() && job.reply_to.is_none() {
        job = job.with_reply();
    }
    job.extra.extend(span.map(|span| (TRACEPARENT.to_owned(), span.traceparent().into())));
    job
}

/// Parses the reply to XADD, an id, or the reply of the script.
fn read(reply: Value) -> redis::RedisResult<Published> {
    if !matches!(reply, Value::Array(_)) {
        return Ok(Published::Entry { entry: String::from_redis_value(reply)? });
    }
    let (what, value): (String, String) = redis::from_redis_value(reply)?;
    Ok(match what.as_str() {
        "first" => Published::Duplicate { of: value },
        "due" => Published::Delayed { due: Timestamp(value.parse().unwrap_or(u64::MAX)) },
        _ => Published::Entry { entry: value },
    })
}
