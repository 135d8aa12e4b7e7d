//! Measures jobs a second through publish, worker and result, and the time of one call, each against bare commands with
//! the same batch and concurrency. `cargo bench --bench throughput [-- --quick --json]`.
//!
//! The floor is one producer that sends XADD in pipelines of the product's batch, and one consumer that reads as many
//! entries as the product's worker has slots and acknowledges them: no envelope, result, claim or heartbeat. The same
//! with results (LPUSH and EXPIRE in one transaction with the XACK, as the protocol asks) shows the share that any
//! client would pay for results; it is not an aim. The floor of a call is three sequential round trips: XADD,
//! XREADGROUP, XACK.

#[path = "support/bare.rs"]
mod bare;
#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/percentile.rs"]
mod percentile;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use clap::Args;
use fred::prelude::{Client as Fred, KeysInterface, StreamsInterface};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use swarm::{
    broker::{Client, Job, JobPolicy, Publisher},
    config::{BrokerSettings, Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
    worker::{self, Handler, JobError, WorkerConfig},
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    bare::Bare, bench_options::BenchOptions, percentile::percentile, redis_server::RedisServer, report::Finding,
};

const QUEUE: &str = "bench:jobs";
const GROUP: &str = "bench";
const JOB: &str = "bench.answer";
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
struct Options {
    /// Jobs in one round
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Rounds of the floor and of the product, by turns; with --quick 5
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// Calls, by turns with three bare round trips; with --quick 1,000
    #[arg(long, default_value_t = 5_000)]
    calls: usize,
    /// Slots of the worker, and entries that the floor takes at once
    #[arg(long, default_value_t = 256)]
    concurrency: usize,
}

fn main() -> anyhow::Result<()> {
    bench_options::run(swarm::app::runtime(), bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let (rounds, count) = options.sized((options.rounds, options.calls), (5, 1_000));
    let server = RedisServer::start()?;
    let target = RedisTarget::new(&SecretString::from(server.url()), Duration::from_secs(10))?;
    let fred = server.client().await?;
    let mut bare = Bare::connect(&server.url(), options.concurrency).await?;

    let mut worker = start_worker(&target, options.concurrency);
    let (mut floors, mut answered, mut waited, mut unwaited) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let json = sample(true).to_json();
        floors.push(bare.round(options.jobs, &json, false).await?);
        answered.push(bare.round(options.jobs, &json, true).await?);
        waited.push(round(&target, &fred, &worker.handler, options.jobs, true).await?);
        unwaited.push(round(&target, &fred, &worker.handler, options.jobs, false).await?);
    }
    worker.stop().await?;
    worker = start_worker(&target, 1);
    let (trips, calls) = call_rounds(&server, &target, &mut bare, count).await?;
    worker.stop().await?;

    let (floor, least) = (median(&floors), 0.8..=f64::INFINITY);
    let microseconds = |values: &[f64], share: f64| percentile(values, share) * 1e6;
    let findings = [
        Finding::new("jobs with a result", median(&waited), "/s", Some(floor), least.clone()),
        Finding::new("jobs without a waiter", median(&unwaited), "/s", Some(floor), least),
        Finding::new("bare jobs with a result", median(&answered), "/s", Some(floor), 0.0..=f64::INFINITY),
        Finding::new(
            "jobs with a result, of bare ones",
            median(&waited),
            "/s",
            Some(median(&answered)),
            0.0..=f64::INFINITY,
        ),
        Finding::new("call, p50", microseconds(&calls, 0.5), "µs", Some(microseconds(&trips, 0.5)), 0.0..=2.0),
        Finding::new("call, p99", microseconds(&calls, 0.99), "µs", Some(microseconds(&trips, 0.99)), 0.0..=4.0),
    ];
    let title = format!(
        "throughput: medians of {rounds} rounds of {} jobs, {} at a time; {count} calls of an idle worker",
        options.jobs, options.concurrency
    );
    report::print(&title, &findings, options.json)
}

fn sample(reply: bool) -> Job {
    let job = Job::new(JOB, vec![json!("hello"), json!(42)], Map::new());
    if reply { job.with_reply() } else { job }
}

/// Answers the arguments, and signals when the given number of jobs is done.
#[derive(Default)]
struct Answers {
    left: AtomicUsize,
    done: Notify,
}

#[async_trait]
impl Handler for Answers {
    async fn handle(&self, _method: &str, job: &Job) -> Result<Value, JobError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
        Ok(Value::Array(job.args.clone()))
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(&["answer"])
    }
}

/// Worker in this process.
struct Worker {
    handler: Arc<Answers>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<worker::WorkerReport, worker::WorkerError>>,
}

fn start_worker(target: &RedisTarget, concurrency: usize) -> Worker {
    let settings = WorkerTypeSettings { job_queue: Some(QUEUE.to_owned()), ..WorkerTypeSettings::default() };
    let mut config = WorkerConfig::new(WorkerType::new(GROUP), WorkerId::new("w1"), &settings);
    config.concurrency = concurrency;
    config.policy = JobPolicy::default();
    let (stop, handler) = (CancellationToken::new(), Arc::new(Answers::default()));
    let handling: Arc<dyn Handler> = handler.clone();
    let task = tokio::spawn(worker::run(config, target.clone(), handling, stop.clone()));
    Worker { handler, stop, task }
}

impl Worker {
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let report = self.task.await??;
        ensure!(report.failed == 0 && report.abandoned == 0, "jobs failed: {report:?}");
        Ok(())
    }
}

/// Publishes `count` jobs, waits until all are acknowledged, and returns jobs a second. Then checks that each result
/// exists.
///
/// Asks whether the jobs are acknowledged only when the last one is done, because asking takes time from the workers.
async fn round(target: &RedisTarget, fred: &Fred, answers: &Answers, count: usize, reply: bool) -> anyhow::Result<f64> {
    let jobs: Vec<Job> = (0..count).map(|_| sample(reply)).collect();
    let mut publisher = Publisher::new(target.connect().await?, "jobs:published", BrokerSettings::default());
    answers.left.store(count, Ordering::Relaxed);
    let started = Instant::now();
    publisher.publish(QUEUE, &jobs).await?;
    timeout(PATIENCE, answers.done.notified()).await.context("not every job is done")?;
    bare::until_acknowledged(fred, QUEUE, GROUP, PATIENCE).await?;
    let rate = rate(count, started.elapsed());
    // Empties the stream like the floor does: a growing stream costs the server more for each job.
    let _: usize = fred.xtrim(QUEUE, ("MAXLEN", "=", 0, None)).await?;
    for some in jobs.chunks(1_000) {
        let keys: Vec<String> = some.iter().filter_map(|job| job.reply_to.clone()).collect();
        if !keys.is_empty() {
            let there: usize = fred.del(keys).await?;
            ensure!(there == some.len(), "{there} of {} results are there", some.len());
        }
    }
    Ok(rate)
}

/// Returns the seconds of each three bare round trips, and of each call.
async fn call_rounds(
    server: &RedisServer,
    target: &RedisTarget,
    bare: &mut Bare,
    count: usize,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut settings = Settings { redis_url: SecretString::from(server.url()), ..Settings::default() };
    settings.worker_types.insert(GROUP.to_owned(), WorkerTypeSettings::default());
    let client = Client::new(Arc::new(settings), target.clone());
    client.call(sample(true), PATIENCE).await.context("the first call")?;
    let (mut trips, mut calls) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let json = sample(true).to_json();
    for _ in 0..count {
        trips.push(bare.three_round_trips(&json).await?.as_secs_f64());
        let started = Instant::now();
        client.call(sample(true), PATIENCE).await?;
        calls.push(started.elapsed().as_secs_f64());
    }
    Ok((trips, calls))
}

#[expect(clippy::cast_precision_loss, reason = "some ten thousand jobs")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}
