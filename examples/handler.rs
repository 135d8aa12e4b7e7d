//! A worker with a handler of its own: `resize.scale WIDTH HEIGHT FACTOR` answers the scaled size.
//!
//! ```sh
//! REDIS_URL=redis://localhost:6379/0 cargo run --no-default-features --example handler
//! ```
//!
//! It needs none of swarm's features. `cargo run --example producer` publishes a job for it.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, sync::Arc, time::Duration};

use serde_json::{Value, json};
use swarm::{CancellationToken, Handler, Job, JobError, Worker, WorkerConfig, async_trait};

struct Resize;

#[async_trait]
impl Handler for Resize {
    async fn handle(&self, _method: &str, job: &Job) -> Result<Value, JobError> {
        let numbers: Option<Vec<f64>> = job.args.iter().map(Value::as_f64).collect();
        let Some([width, height, factor]) = numbers.as_deref() else {
            return Err(JobError::arguments(job, "expects three numbers: width, height, factor"));
        };
        Ok(json!({ "width": width * factor, "height": height * factor }))
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(&["scale"])
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let redis_url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let config = WorkerConfig::builder("resize").concurrency(4).job_timeout(Duration::from_secs(30)).build()?;
    let worker = Worker::open(&redis_url, config)?;

    // Ctrl-C: the worker takes no more jobs, finishes those in progress, and leaves.
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let _ = tokio::signal::ctrl_c().await;
            stop.cancel();
        }
    });
    let report = worker.run(Arc::new(Resize), stop).await?;
    println!("completed {} jobs, {} of them failed", report.processed, report.failed);
    Ok(())
}
