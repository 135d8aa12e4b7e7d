//! Results: one list for each job, written by the worker, popped by the waiting publisher.

use std::time::Duration;

use redis::RedisResult;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::{BrokerError, exact};
use crate::connection::Connection;

/// Time between two looks for results that are on several nodes of a cluster.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How a job ended: `{"id","ok":true,"value":…}` or `{"id","ok":false,"error":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Id of the job.
    pub id: String,
    /// Whether the job succeeded.
    pub ok: bool,
    /// Value that the handler returned, if the job succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Error, if the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl JobResult {
    /// Returns the result of a job whose handler returned `outcome`.
    pub fn new(id: impl Into<String>, outcome: Result<Value, String>) -> Self {
        let id = id.into();
        match outcome {
            Ok(value) => Self { id, ok: true, value: Some(value), error: None },
            Err(error) => Self { id, ok: false, value: None, error: Some(error) },
        }
    }

    /// Returns the JSON that is pushed to the list.
    pub fn to_json(&self) -> String {
        exact::to_string(self)
    }
}

/// Returns the JSON of a result or, if it is too large, of an error that says so.
pub(super) fn bounded(result: &JobResult, limit: usize) -> String {
    let json = result.to_json();
    if json.len() <= limit {
        return json;
    }
    let bytes = json.len();
    let error = format!(
        "the result has {bytes} bytes, more than `broker.result_max_bytes` = {limit}; have the job answer less, for \
         example where the result was put, or raise the limit"
    );
    JobResult::new(&result.id, Err(error)).to_json()
}

/// Waits for a result in any of the lists `keys` for at most `timeout`, and takes it. Returns the key and its result;
/// `None` if none came. A malformed result becomes a failed one that says so. The call blocks `connection`, whose
/// response timeout must not be shorter than `timeout`.
pub async fn wait_for_any(
    connection: &mut Connection,
    keys: &[String],
    timeout: Duration,
) -> Result<Option<(String, JobResult)>, BrokerError> {
    let popped = if connection.is_cluster() && keys.len() > 1 {
        look_for_any(connection, keys, Instant::now() + timeout).await
    } else {
        redis::cmd("BLPOP").arg(keys).arg(seconds(timeout)).query_async(connection).await
    };
    let popped: Option<(String, Vec<u8>)> = popped.map_err(|cause| BrokerError::new("wait for results", cause))?;
    Ok(popped.map(|(key, json)| {
        let result = read(&key, &json);
        (key, result)
    }))
}

/// Looks at lists on several nodes of a cluster repeatedly, because one command can't wait for them.
async fn look_for_any(
    connection: &mut Connection,
    keys: &[String],
    deadline: Instant,
) -> RedisResult<Option<(String, Vec<u8>)>> {
    loop {
        let mut lengths = redis::pipe();
        for key in keys {
            lengths.cmd("LLEN").arg(key);
        }
        let lengths: Vec<u64> = lengths.query_async(connection).await?;
        for (key, _) in keys.iter().zip(lengths).filter(|(_, length)| *length > 0) {
            if let Some(json) = redis::cmd("LPOP").arg(key).query_async(connection).await? {
                return Ok(Some((key.clone(), json)));
            }
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Like [`wait_for_any`] for one list, but leaves the result there until it expires: for jobs that several publishers
/// may have published under one idempotency key.
pub async fn wait_shared(
    connection: &mut Connection,
    key: &str,
    timeout: Duration,
) -> Result<Option<JobResult>, BrokerError> {
    let mut command = redis::cmd("BLMOVE");
    command.arg(key).arg(key).arg("LEFT").arg("LEFT").arg(seconds(timeout));
    let seen: Option<Vec<u8>> =
        command.query_async(connection).await.map_err(|cause| BrokerError::new("wait for a result", cause))?;
    Ok(seen.map(|json| read(key, &json)))
}

/// Returns the timeout of a blocking command; 0 would wait without a limit.
fn seconds(timeout: Duration) -> f64 {
    timeout.as_secs_f64().max(0.001)
}

fn read(key: &str, json: &[u8]) -> JobResult {
    exact::from_slice(json)
        .unwrap_or_else(|error| JobResult::new(key, Err(format!("the worker's result can't be read: {error}"))))
}
