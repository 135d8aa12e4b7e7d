//! An autoscaler inside a program, which is also its own worker: publishes ten jobs to an empty pool, waits for the
//! results, and ends its workers.
//!
//! ```sh
//! export REDIS_URL=redis://localhost:6379/0
//! cargo run --no-default-features --features autoscaler --example embedded_autoscaler
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use swarm::{
    Autoscaler, AutoscalerConfig, CancellationToken, Client, Handler, Job, JobError, Worker, WorkerConfig, async_trait,
};

/// What a worker process of this program gets as its first argument.
const WORK: &str = "work";

struct Square;

#[async_trait]
impl Handler for Square {
    async fn handle(&self, _method: &str, job: &Job) -> Result<Value, JobError> {
        let [Value::Number(number)] = job.args.as_slice() else {
            return Err(JobError::arguments(job, "expects one number"));
        };
        let number = number.as_f64().unwrap_or_default();
        Ok(json!({ "square": number * number, "process": std::process::id() }))
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // The autoscaler starts this program again: as the guard of its workers, and as each worker's first moment.
    if let Some(code) = swarm::run_as_helper() {
        return Ok(code);
    }
    let redis_url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let runtime = tokio::runtime::Runtime::new()?;
    if std::env::args().nth(1).as_deref() == Some(WORK) {
        runtime.block_on(work(&redis_url))?;
    } else {
        runtime.block_on(scale(&redis_url))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One worker, until the autoscaler sends SIGTERM.
async fn work(redis_url: &str) -> Result<(), Box<dyn Error>> {
    let worker = Worker::open(redis_url, WorkerConfig::builder("square").build()?)?;
    let stop = CancellationToken::new();
    let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            asked.recv().await;
            stop.cancel();
        }
    });
    worker.run(Arc::new(Square), stop).await?;
    Ok(())
}

async fn scale(redis_url: &str) -> Result<(), Box<dyn Error>> {
    // The same settings as in swarm.toml. In a command, `swarm` stands for this program.
    let config = AutoscalerConfig::from_toml(&format!(
        r#"
        redis_url = "{redis_url}"
        http.listen = ""

        [worker_types.square]
        scaling = {{ min_workers = 0, max_workers = 3, scale_up_threshold = 2 }}
        process = {{ command = ["swarm", "{WORK}"] }}
        "#
    ))?;
    let stop = CancellationToken::new();
    let autoscaler = Autoscaler::start(config).await?;
    let running = tokio::spawn(autoscaler.run(stop.clone()));

    let client = Client::open(redis_url, &["square"])?;
    let calls = (1..=10).map(|number| {
        let (client, job) = (client.clone(), Job::new("square.of", vec![number.into()], Map::new()));
        tokio::spawn(async move { client.call(job, Duration::from_secs(60)).await })
    });
    for call in calls.collect::<Vec<_>>() {
        println!("result: {}", call.await??);
    }

    stop.cancel();
    running.await??;
    println!("stopped");
    Ok(())
}
