//! Results: one list for each job, written by the worker, popped by whoever waits.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BrokerError;

/// How long a result waits to be fetched. A waiter that has not come by then has given up.
pub const RESULT_TTL: Duration = Duration::from_secs(3_600);

/// How a job ended: `{"id","ok":true,"value":…}` or `{"id","ok":false,"error":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The job's id.
    pub id: String,
    /// Whether it was done.
    pub ok: bool,
    /// What the handler answered, if it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Why it was not, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl JobResult {
    /// The result of a job whose handler gave `outcome`.
    pub fn new(id: impl Into<String>, outcome: Result<Value, String>) -> Self {
        let id = id.into();
        match outcome {
            Ok(value) => Self { id, ok: true, value: Some(value), error: None },
            Err(error) => Self { id, ok: false, value: None, error: Some(error) },
        }
    }

    /// As it is pushed to the list.
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("keys are strings and values are JSON already")
    }
}

/// Waits up to `timeout` for a result in any of the lists `keys`. Answers the key and its result; `None` if none came.
/// A result that is no JSON of the right shape becomes a failed one that says so. `connection` is held up meanwhile, and
/// must have no response time-out shorter than `timeout`.
pub async fn wait_for_any(
    connection: &mut MultiplexedConnection,
    keys: &[String],
    timeout: Duration,
) -> Result<Option<(String, JobResult)>, BrokerError> {
    // 0 means for ever.
    let seconds = timeout.as_secs_f64().max(0.001);
    let popped: Option<(String, Vec<u8>)> = redis::cmd("BLPOP")
        .arg(keys)
        .arg(seconds)
        .query_async(connection)
        .await
        .map_err(|cause| BrokerError::new("wait for results", cause))?;
    Ok(popped.map(|(key, json)| {
        let result = serde_json::from_slice(&json).unwrap_or_else(|error| {
            JobResult::new(key.clone(), Err(format!("the worker's result can't be read: {error}")))
        });
        (key, result)
    }))
}
