//! Jobs as calls: publishes a job and waits for its result, in as many waits as the caller likes. A call that fails
//! returns an error and is not repeated. Owns the connection that waits.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    BrokerError, CallError, Client, Job, JobResult, Published, Subject,
    result::{wait_for_any, wait_shared},
};
use crate::{
    connection::Connection,
    model::{keys, progress::ReportedProgress},
};

/// A call in progress. Dropping it ends the waiting; the job is done in any case.
pub struct Call {
    client: Client,
    job: Job,
    subject: Subject,
    /// Whether other publishers may wait for the same result.
    shared: bool,
    /// `None` after a failure: the next wait opens another connection.
    connection: Option<Connection>,
}

impl Client {
    /// Publishes a job and waits for its result, for at most `timeout`.
    ///
    /// # Errors
    /// If the job could not be published, if the result is an error, or if there is no result in time.
    pub async fn call(&self, job: Job, timeout: Duration) -> Result<Value, CallError> {
        let job = if job.reply_by_ts.is_some() { job } else { job.with_reply_within(timeout) };
        let mut call = self.begin(job).await?;
        match call.wait(timeout).await? {
            Some(value) => Ok(value),
            None => Err(CallError::NoAnswer { id: call.id().to_owned(), timeout, why: call.why().await }),
        }
    }

    /// Publishes a job. The caller decides how long, and in how many waits, to wait for the result.
    ///
    /// # Errors
    /// If the job could not be published.
    pub async fn begin(&self, job: Job) -> Result<Call, CallError> {
        let job = job.with_reply();
        let connection = self.waiting_connection().await?;
        let published = self.publish(&job).await?;
        Ok(Call::new(self.clone(), job, &published, connection))
    }
}

impl Call {
    pub(super) fn new(client: Client, job: Job, published: &Published, connection: Connection) -> Self {
        let (id, shared) = match published {
            Published::Duplicate { of } => (of.as_str(), true),
            _ => (job.id.as_str(), job.idempotency_key.is_some()),
        };
        let subject = Subject::new(id, published);
        Self { client, subject, shared, job, connection: Some(connection) }
    }

    /// Returns the id of the job that counts: the published one, or the earlier one under the same idempotency key.
    pub fn id(&self) -> &str {
        &self.subject.id
    }

    /// Waits for the result, for at most `patience`; `None` if it has not arrived yet. If the connection breaks, the
    /// wait continues on another one. Must not be cancelled by a caller that wants to wait again, because the cancelled
    /// wait may take the result.
    ///
    /// # Errors
    /// If the result is an error, or Redis can't be asked; in the latter case the caller may wait again.
    pub async fn wait(&mut self, patience: Duration) -> Result<Option<Value>, CallError> {
        let until = Instant::now() + patience;
        let lost = |cause| CallError::Lost { id: self.subject.id.clone(), cause };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.waiting_connection().await?,
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // A frozen Redis does not even reply that there is nothing.
            let waiting = tokio::time::timeout(left + self.client.slack(), self.result(&mut connection, left));
            match waiting.await {
                Ok(Ok(Some(result))) => {
                    self.client.keep(connection);
                    return self.outcome(result).map(Some);
                }
                Ok(Ok(None)) => {
                    self.connection = Some(connection);
                    return Ok(None);
                }
                Ok(Err(cause)) if cause.is_connection_lost() && Instant::now() < until => {
                    connection = self.client.waiting_connection().await.map_err(|_| lost(cause))?;
                }
                Ok(Err(cause)) => return Err(lost(cause)),
                Err(_) => return Ok(None),
            }
        }
    }

    fn outcome(&self, result: JobResult) -> Result<Value, CallError> {
        if result.ok {
            return Ok(result.value.unwrap_or_default());
        }
        Err(CallError::Failed { id: self.subject.id.clone(), error: result.error.unwrap_or_default() })
    }

    async fn result(&self, connection: &mut Connection, patience: Duration) -> Result<Option<JobResult>, BrokerError> {
        let key = keys::result(&self.subject.id);
        if self.shared {
            return wait_shared(connection, &key, patience).await;
        }
        let taken = wait_for_any(connection, std::slice::from_ref(&key), patience).await?;
        Ok(taken.map(|(_, result)| result))
    }

    /// Returns the progress that the job's handler has reported last; `None` if it has reported none, the job does not
    /// run, or this Redis user may not read it. Each call asks Redis.
    ///
    /// # Errors
    /// If Redis can't be asked; the call may go on.
    pub async fn progress(&self) -> Result<Option<ReportedProgress>, CallError> {
        self.client.progress(&self.job.job_type, self.id()).await
    }

    /// Returns the visible reasons why there is no result, one line for each.
    pub async fn why(&self) -> String {
        self.client.why(&self.job, &self.subject).await
    }
}
