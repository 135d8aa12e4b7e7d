//! How a job ends that did not succeed: retried, answered with its error, or a dead letter. Each is one atomic step on
//! Redis, so that a job is never both or neither; repeating a step whose reply was lost is harmless.

use std::{borrow::Cow, time::Duration};

use super::{BrokerError, Consumer, Delivery, Job, JobResult, Refusal, dead::Burial};
use crate::{
    connection::Connection,
    model::{Timestamp, keys},
    telemetry::{DeadReason, JobBuried, JobRetried},
};

const RETRY: &str = include_str!("lua/retry.lua");
const BURY: &str = include_str!("lua/bury.lua");
/// Reply of the script that retries a job, if the job was cancelled.
const CANCELLED: u64 = 0;
/// Maximum fields of an entry that its dead letter keeps: no job has more than a few, and a script takes at most 8,000
/// values.
const MAX_FIELDS: usize = 1_000;

/// Whether a failed job is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The job would fail in the same way.
    Never,
    /// After the wait from the settings, which grows with each attempt.
    Backoff,
    /// After this time.
    After(Duration),
}

/// Result of handling a failed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The job is going to be retried.
    Retried {
        /// When the job is due.
        due: Timestamp,
    },
    /// The job is not retried; the waiting publisher got the error.
    Answered,
    /// The job is a dead letter; a waiting publisher, if there is one, got the error.
    Dead,
    /// Somebody has cancelled the job meanwhile; a waiting publisher was told so.
    Cancelled,
    /// Another worker has claimed the job meanwhile, and completes it.
    TakenOver,
}

impl Consumer {
    /// Handles a job that failed: retries it if that is worth it and an attempt is left, else answers with `error`. The
    /// job becomes a dead letter if it has used up its attempts or its time, or if no publisher waits for the result.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn fail(
        &self,
        connection: &mut Connection,
        delivery: &Delivery,
        error: &str,
        retry: Retry,
    ) -> Result<Failed, BrokerError> {
        let Ok(job) = &delivery.job else { return Ok(Failed::TakenOver) };
        match job.wait_before_next(&self.policy.jobs, delivery.attempts, retry, Timestamp::wall()) {
            Some(wait) => self.retry(connection, delivery, job, wait).await,
            None if retry == Retry::Never && job.reply_to.is_some() => {
                let result = JobResult::new(&job.id, Err(error.to_owned()));
                let lost = self.complete(connection, &[(delivery, &result)]).await?;
                Ok(if lost.is_empty() { Failed::Answered } else { Failed::TakenOver })
            }
            None => {
                let burial = Burial { reason: DeadReason::Failed, error, attempts: delivery.attempts };
                self.bury(connection, delivery, Some(job), burial).await
            }
        }
    }

    /// Handles an entry that must not be started: buries it and answers its waiting publisher. An entry for another
    /// group is only acknowledged.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn refuse(
        &self,
        connection: &mut Connection,
        delivery: &Delivery,
        refusal: &Refusal,
    ) -> Result<(), BrokerError> {
        let (reason, attempts) = match refusal {
            Refusal::OtherGroup(_) => return self.acknowledge(connection, &delivery.entry).await,
            Refusal::Cancelled => return self.withdraw(connection, delivery).await,
            Refusal::Malformed(_) => (DeadReason::Malformed, 0),
            Refusal::Expired { .. } => (DeadReason::Expired, delivery.attempts.saturating_sub(1)),
            Refusal::AttemptsExhausted { attempts } => (DeadReason::AttemptsExhausted, *attempts),
            Refusal::InterruptionsExhausted { .. } => {
                (DeadReason::InterruptionsExhausted, delivery.attempts.saturating_sub(1))
            }
        };
        let job = delivery.envelope(self.policy.job_max_bytes());
        let burial = Burial { reason, error: &refusal.to_string(), attempts };
        self.bury(connection, delivery, job.as_ref(), burial).await.map(drop)
    }

    /// Renews the claims on these entries, each with the number of its delivery, so that they do not count as
    /// abandoned. Returns the entries that are still this consumer's.
    ///
    /// # Errors
    /// If Redis did not carry it out.
    pub async fn extend(
        &self,
        connection: &mut Connection,
        entries: &[(&str, u32)],
    ) -> Result<Vec<String>, BrokerError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("EVAL");
        command.arg(include_str!("lua/extend.lua")).arg(1).arg(&self.stream).arg(&self.group).arg(&self.name);
        for (entry, number) in entries {
            command.arg(entry).arg(number);
        }
        command.query_async(connection).await.map_err(|cause| self.failed("renew claims on jobs", cause))
    }

    async fn retry(
        &self,
        connection: &mut Connection,
        delivery: &Delivery,
        job: &Job,
        wait: Duration,
    ) -> Result<Failed, BrokerError> {
        let (attempt, interruptions) = (delivery.attempts, delivery.interruptions);
        let mut again = Job { attempt, interruptions, ..job.clone() };
        let for_all = again.to_json();
        again.group = Some(self.group.clone());
        let mut command = redis::cmd("EVAL");
        command.arg(RETRY).arg(3).arg(&self.stream).arg(connection.layout().delayed(&self.stream));
        command.arg(connection.layout().cancelled(&self.stream));
        command
            .arg(&self.group)
            .arg(&self.name)
            .arg(&delivery.entry)
            .arg(delivery.number)
            .arg(wait.as_millis().to_string());
        command.arg(for_all).arg(again.to_json()).arg(keys::DELAYED_CHANNEL).arg(&job.id);
        let due: Option<u64> =
            command.query_async(connection).await.map_err(|cause| self.failed("put a job aside", cause))?;
        let Some(due) = due else { return Ok(Failed::TakenOver) };
        if due == CANCELLED {
            return self.withdraw(connection, delivery).await.map(|()| Failed::Cancelled);
        }
        JobRetried { stream: &self.stream, job: &job.id, attempts: delivery.attempts, wait }.emit();
        Ok(Failed::Retried { due: Timestamp(due) })
    }

    async fn bury(
        &self,
        connection: &mut Connection,
        delivery: &Delivery,
        job: Option<&Job>,
        burial: Burial<'_>,
    ) -> Result<Failed, BrokerError> {
        let waiter = job.and_then(|job| Some((job.reply_to.as_ref()?, &job.id)));
        let answer = waiter.map(|(_, id)| JobResult::new(id, Err(burial.error.to_owned())).to_json());
        let dead = connection.layout().dead_letters(&self.stream);
        // On a cluster the publisher's list may be on another node than the stream: then the answer is a step of its
        // own.
        let apart = connection.is_cluster();
        let mut command = redis::cmd("EVAL");
        command
            .arg(BURY)
            .arg(3)
            .arg(&self.stream)
            .arg(&dead)
            .arg(waiter.filter(|_| !apart).map_or(&self.stream, |(key, _)| key));
        command.arg(&self.group).arg(&self.name).arg(&delivery.entry).arg(delivery.number);
        let ttl = self.policy.result_ttl_of(job).as_secs();
        command.arg(answer.as_deref().filter(|_| !apart).unwrap_or_default()).arg(ttl);
        for (field, value) in delivery.fields.iter().take(MAX_FIELDS) {
            command.arg(field).arg(value);
        }
        for (field, value) in
            burial.fields(&self.group, delivery, delivery.fields.iter().len().saturating_sub(MAX_FIELDS))
        {
            command.arg(field).arg(Cow::into_owned(value));
        }
        let moved: bool = command
            .query_async(connection)
            .await
            .map_err(|cause| self.failed(&format!("move entry {} to `{dead}`", delivery.entry), cause))?;
        if !moved {
            return Ok(Failed::TakenOver);
        }
        if let (true, Some((key, _)), Some(answer)) = (apart, waiter, answer) {
            let mut push = redis::pipe();
            push.atomic().cmd("LPUSH").arg(key).arg(answer).ignore().cmd("EXPIRE").arg(key).arg(ttl).ignore();
            if let Err(error) = push.exec_async(connection).await {
                tracing::warn!(key, %error, "the publisher waiting for a buried job could not be notified");
            }
        }
        let job = job.map_or("", |job| &job.id);
        JobBuried { stream: &self.stream, entry: &delivery.entry, job, reason: burial.reason, error: burial.error }
            .emit();
        Ok(Failed::Dead)
    }

    pub(super) async fn acknowledge(&self, connection: &mut Connection, entry: &str) -> Result<(), BrokerError> {
        let mut command = redis::cmd("XACK");
        command.arg(&self.stream).arg(&self.group).arg(entry);
        command.exec_async(connection).await.map_err(|cause| self.failed("acknowledge an entry", cause))
    }
}
