//! The methods that every worker type has: `echo` and `sleep`, for trials.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::{Handler, JobError};
use crate::broker::Job;

/// `TYPE.echo ARG…` returns its arguments as an array; `TYPE.sleep SECONDS` sleeps and returns the seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltIn;

#[async_trait]
impl Handler for BuiltIn {
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError> {
        match method {
            "echo" => Ok(Value::Array(job.args.clone())),
            "sleep" => sleep(job).await,
            _ => Err(JobError::unknown_method(job, method, &[])),
        }
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(&[])
    }
}

async fn sleep(job: &Job) -> Result<Value, JobError> {
    let [seconds] = job.args.as_slice() else { return Err(not_seconds(job)) };
    let time = seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    tokio::time::sleep(time.ok_or_else(|| not_seconds(job))?).await;
    Ok(seconds.clone())
}

fn not_seconds(job: &Job) -> JobError {
    JobError::arguments(job, "expects one argument, the seconds to sleep as a number from 0")
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    async fn answer(method: &str, args: Vec<Value>) -> Result<Value, String> {
        let job = Job::new(format!("browser.{method}"), args, Map::new());
        BuiltIn.handle(method, &job).await.map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn answers() {
        assert_eq!(answer("echo", vec![json!(1), json!("a")]).await, Ok(json!([1, "a"])));
        assert_eq!(answer("sleep", vec![json!(2.5)]).await, Ok(json!(2.5)));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_say_what_would_be_right() {
        for args in [vec![], vec![json!("x")], vec![json!(-1)], vec![json!(1e300)], vec![json!(1), json!(2)]] {
            assert!(answer("sleep", args).await.unwrap_err().contains("seconds to sleep"));
        }
        assert!(answer("fly", vec![]).await.unwrap_err().contains("knows echo, sleep"));
    }
}
