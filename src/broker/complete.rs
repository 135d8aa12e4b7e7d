//! Completes jobs: acknowledges them and sends their results together, each only if the claim on it still holds.

use std::{borrow::Borrow, sync::Arc};

use redis::{Cmd, Pipeline, make_extension_error};
use serde_json::Value;

use super::{BrokerError, Consumer, Delivery, Job, JobResult, result::bounded};
use crate::{connection::Connection, model::StreamId};

const COMPLETE: &str = include_str!("lua/complete.lua");
/// Maximum jobs in one step: enough that its round trip no longer counts.
const JOBS_AT_ONCE: usize = 500;
/// Bytes of results after which a step is sent.
const BYTES_AT_ONCE: usize = 4 << 20;
/// Bytes of a command without its key and its JSON, so that it is allocated once.
const COMMAND: usize = 32;

/// A finished job in the form that is sent to Redis.
#[derive(Clone, Debug)]
pub struct Done {
    stream: Arc<str>,
    entry: String,
    number: u32,
    /// Result for a waiting publisher.
    answer: Option<Answer>,
}

/// Result in the form that is sent to Redis.
#[derive(Clone, Debug)]
struct Answer {
    /// List that the result is pushed to.
    key: String,
    json: String,
    /// Seconds for which the result is kept.
    ttl: u64,
}

impl Done {
    /// Returns the stream of the entry.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Returns the id of the stream entry.
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// Returns the approximate bytes of the job in a command.
    fn weight(&self) -> usize {
        COMMAND + self.answer.as_ref().map_or(0, |answer| answer.key.len() + answer.json.len())
    }
}

/// A finished job that could not be completed.
#[derive(Debug)]
pub struct Unsettled {
    /// Index among the jobs that were to be completed.
    pub index: usize,
    /// Why the job is not completed.
    pub why: Refused,
}

/// Why a job is not completed.
#[derive(Debug)]
pub enum Refused {
    /// The claim on the job was lost: another worker has it, or had it. Its result was not sent.
    ClaimLost,
    /// Redis does not accept the result.
    Result(BrokerError),
}

impl Consumer {
    /// Returns a successful job with its result `value`. If the result is too large, a waiting publisher gets an error
    /// that says so.
    pub fn done(&self, delivery: Delivery, value: Value) -> Done {
        let Delivery { stream, entry, number, job, .. } = delivery;
        let answer = job.ok().and_then(|job| self.answer_to(&job, &JobResult::new(&job.id, Ok(value))));
        Done { stream, entry, number, answer }
    }

    /// Returns the result for the publisher of a job; `None` if it does not wait.
    fn answer_to(&self, job: &Job, result: &JobResult) -> Option<Answer> {
        let key = job.reply_to.clone()?;
        let ttl = self.policy.result_ttl_of(Some(job)).as_secs();
        Some(Answer { key, json: bounded(result, self.policy.result_max_bytes()), ttl })
    }

    /// Acknowledges finished jobs and pushes their results for waiting publishers. Returns the entries whose claim was
    /// lost; their results were not sent. A result that is too large is replaced by an error that says so.
    ///
    /// ```no_run
    /// # use swarm::broker::{BrokerError, Consumer, JobResult};
    /// # use std::time::Duration;
    /// # async fn work(consumer: Consumer, mut connection: swarm::connection::Connection) -> Result<(), BrokerError> {
    /// for delivery in consumer.read(&mut connection, 1, Duration::from_secs(2)).await? {
    ///     match &delivery.job {
    ///         Ok(job) => {
    ///             let result = JobResult::new(&job.id, Ok("done".into()));
    ///             consumer.complete(&mut connection, &[(&delivery, &result)]).await?;
    ///         }
    ///         Err(refusal) => consumer.refuse(&mut connection, &delivery, refusal).await?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn complete(
        &self,
        connection: &mut Connection,
        done: &[(&Delivery, &JobResult)],
    ) -> Result<Vec<String>, BrokerError> {
        let done = done.iter().map(|(delivery, result)| {
            let answer = delivery.job.as_ref().ok().and_then(|job| self.answer_to(job, result));
            let (stream, entry) = (delivery.stream.clone(), delivery.entry.clone());
            Done { stream, entry, number: delivery.number, answer }
        });
        let mut done: Vec<Done> = done.collect();
        let mut lost = Vec::new();
        for Unsettled { index, why } in self.complete_all(connection, &done).await? {
            match why {
                Refused::ClaimLost => lost.push(std::mem::take(&mut done[index].entry)),
                Refused::Result(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Like [`Consumer::complete`], for jobs whose results are serialized. Returns the jobs that are not completed.
    ///
    /// # Errors
    /// As for [`Consumer::complete`].
    pub async fn complete_all<D: Borrow<Done>>(
        &self,
        connection: &mut Connection,
        done: &[D],
    ) -> Result<Vec<Unsettled>, BrokerError> {
        let (mut from, mut unsettled) = (0, Vec::new());
        while from < done.len() {
            let some: Vec<&Done> = done[from..].iter().map(Borrow::borrow).take(fitting(&done[from..])).collect();
            let refused = self.complete_some(connection, &some).await?;
            unsettled.extend(refused.into_iter().map(|one| Unsettled { index: from + one.index, ..one }));
            from += some.len();
        }
        Ok(unsettled)
    }

    async fn complete_some(&self, connection: &mut Connection, done: &[&Done]) -> Result<Vec<Unsettled>, BrokerError> {
        if connection.is_cluster() && done.iter().any(|one| one.answer.is_some()) {
            return self.complete_in_steps(connection, done).await;
        }
        match self.complete_fenced(connection, done, true).await {
            Err(error) if error.is_missing_group() => {
                // All claims are gone with the group: no other worker has these jobs, and waiting publishers get the
                // results.
                self.answer(connection, done).await.map(|()| Vec::new())
            }
            Err(error) if error.is_denied() => self.complete_unfenced(connection, done).await,
            outcome => outcome,
        }
    }

    /// Completes jobs on a cluster, where results are on other nodes than the stream. First checks and renews the
    /// claims, so that no other worker can claim the jobs meanwhile; then pushes the results; then acknowledges the
    /// entries that are still this consumer's.
    async fn complete_in_steps(
        &self,
        connection: &mut Connection,
        done: &[&Done],
    ) -> Result<Vec<Unsettled>, BrokerError> {
        let claims: Vec<_> = done.iter().map(|one| (one.entry.as_str(), one.number)).collect();
        let ours = match self.extend(connection, &claims).await {
            Err(error) if error.is_missing_group() => return self.answer(connection, done).await.map(|()| Vec::new()),
            ours => ours?,
        };
        let is_ours = |one: &&Done| ours.contains(&one.entry);
        self.answer(connection, &done.iter().copied().filter(is_ours).collect::<Vec<_>>()).await?;
        self.complete_fenced(connection, done, false).await
    }

    /// Completes jobs with one script: acknowledges each entry, and sends its result if `answers`, only if the entry is
    /// still this consumer's.
    async fn complete_fenced(
        &self,
        connection: &mut Connection,
        done: &[&Done],
        answers: bool,
    ) -> Result<Vec<Unsettled>, BrokerError> {
        let bytes: usize = done.iter().map(|one| one.weight()).sum();
        let mut command = Cmd::with_capacity(8 + 5 * done.len(), COMPLETE.len() + bytes);
        let lists = done.iter().filter_map(|one| one.answer.as_ref()).filter(|_| answers);
        command.arg("EVAL").arg(COMPLETE).arg(1 + lists.clone().count()).arg(&self.stream);
        for answer in lists {
            command.arg(&answer.key);
        }
        let ids = || done.iter().map(|one| one.entry.as_str());
        let (first, last) = (ids().min_by_key(|id| StreamId::parse(id)), ids().max_by_key(|id| StreamId::parse(id)));
        command.arg(&self.group).arg(&self.name);
        command.arg(first.unwrap_or("-")).arg(last.unwrap_or("+"));
        for one in done {
            let answer = one.answer.as_ref().filter(|_| answers).map_or(("", 0), |answer| (&answer.json, answer.ttl));
            command.arg(&one.entry).arg(one.number).arg(answer.0).arg(answer.1);
        }
        let refused: Vec<(usize, String)> =
            command.query_async(connection).await.map_err(|cause| self.failed("complete jobs", cause))?;
        Ok(refused.into_iter().filter_map(|(index, why)| Some(Unsettled { index, why: self.refused(&why)? })).collect())
    }

    /// Returns what the script says about a job; `None` if the job is completed nevertheless.
    fn refused(&self, why: &str) -> Option<Refused> {
        if why.is_empty() {
            return Some(Refused::ClaimLost);
        }
        let (code, words) = why.trim_start_matches('-').split_once(' ').unwrap_or((why, ""));
        if code == "WRONGTYPE" {
            tracing::warn!(stream = self.stream, "a result could not be delivered: its key is not a list");
            return None;
        }
        let cause = make_extension_error(code.to_owned(), Some(words.to_owned()));
        Some(Refused::Result(self.failed("deliver a result", cause)))
    }

    /// Completes jobs for a user without the right to run scripts. A lost claim goes unnoticed.
    async fn complete_unfenced(
        &self,
        connection: &mut Connection,
        done: &[&Done],
    ) -> Result<Vec<Unsettled>, BrokerError> {
        let mut pipeline = Self::answers(done);
        pipeline.atomic();
        let entries: Vec<&str> = done.iter().map(|one| one.entry()).collect();
        pipeline.cmd("XACK").arg(&self.stream).arg(&self.group).arg(entries);
        self.tolerating_other_keys(pipeline.exec_async(connection).await).map(|()| Vec::new())
    }

    async fn answer(&self, connection: &mut Connection, done: &[&Done]) -> Result<(), BrokerError> {
        let pipeline = Self::answers(done);
        if pipeline.is_empty() {
            return Ok(());
        }
        self.tolerating_other_keys(pipeline.exec_async(connection).await)
    }

    fn answers(done: &[&Done]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * done.len() + 1);
        for Answer { key, json, ttl } in done.iter().filter_map(|one| one.answer.as_ref()) {
            let mut push = Cmd::with_capacity(3, COMMAND + key.len() + json.len());
            push.arg("LPUSH").arg(key).arg(json);
            let mut expire = Cmd::with_capacity(3, COMMAND + key.len());
            expire.arg("EXPIRE").arg(key).arg(ttl);
            pipeline.add_command(push).add_command(expire);
        }
        pipeline
    }

    /// Tolerates keys of another type: only a result key can be one, because the stream was read from. The other
    /// commands have been carried out.
    fn tolerating_other_keys(&self, outcome: redis::RedisResult<()>) -> Result<(), BrokerError> {
        match outcome.map_err(|cause| self.failed("acknowledge jobs", cause)) {
            Err(error) if error.is_wrong_type() => {
                tracing::warn!(stream = self.stream, "a result could not be delivered: its key is not a list");
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// Returns how many of the first jobs fit into one step; at least one.
fn fitting<D: Borrow<Done>>(done: &[D]) -> usize {
    let mut bytes = 0;
    let fits = |one: &&D| {
        let fits = bytes < BYTES_AT_ONCE;
        bytes += Borrow::<Done>::borrow(*one).weight();
        fits
    };
    done.iter().take(JOBS_AT_ONCE).take_while(fits).count()
}
