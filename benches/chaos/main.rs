//! Runs a pool under random faults and counts what went wrong: `cargo bench --bench chaos [-- --minutes 10 --seed 7]`.
//!
//! The real `redis-server` (append-only file, synced at every write), the real autoscaler and its worker processes run
//! at a constant load while faults hit them one after another: workers are killed or frozen, Redis is killed and
//! started again or frozen, the autoscaler is killed and started again or frozen. Every job writes down when it begins
//! and ends, and in which worker. At the end the faults stop, the pool finishes its work, and the journal is judged:
//! see [`judge`].
//!
//! With `--outages 20` there are outages of Redis instead, of 5 to 60 s, in turn a planned restart (with data that are
//! saved at the stop), a cut of everybody's network to it, and a Redis that stands still. They excuse nothing.

#[path = "../support/bench_options.rs"]
mod bench_options;
mod faults;
mod journal;
mod judge;
mod network;
#[path = "../support/report.rs"]
mod report;
mod world;

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use rand::{SeedableRng, rngs::StdRng};
use report::Finding;
use swarm::{
    broker::{Job, Publisher},
    config::BrokerSettings,
    connection::RedisTarget,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    bench_options::BenchOptions,
    judge::Judgement,
    world::{Saves, World},
};

/// How long the pool may take to finish its work after the last fault.
const FINISH: Duration = Duration::from_secs(180);
/// Interval between two batches of jobs.
const BATCH: Duration = Duration::from_millis(250);
/// Lines of the log that are shown of a worker.
const LOG_LINES: usize = 12;

#[derive(Debug, Args)]
struct Options {
    /// Minutes of faults; with --quick 0.5
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Workers of the pool; with --quick 4
    #[arg(long, default_value_t = 8)]
    workers: u32,
    /// Jobs per second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// This many outages of Redis of 5 to 60 s instead of random faults; with --quick of 5 to 8 s. Take a --rate at
    /// which the jobs that wait meanwhile are soon done: 10 for 8 workers
    #[arg(long, conflicts_with = "minutes")]
    outages: Option<usize>,
    /// Seed of the random faults; printed, to repeat a run with the same faults
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(journal::ARGUMENT) {
        return journal::do_job();
    }
    bench_options::run(swarm::app::runtime(), bench)
}

#[expect(clippy::print_stderr, reason = "progress of a run of minutes")]
async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let (minutes, workers) = options.sized((options.minutes, options.workers), (0.5, 4));
    let lengths = options.sized(5..=60, 5..=8);
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let (faults, saves) = match options.outages {
        Some(count) => (format!("{count} outages"), Saves::AtStop),
        None => (format!("{minutes} minutes"), Saves::Always),
    };
    let title = format!("chaos: {faults}, {workers} workers, seed {seed}");
    eprintln!("{title}");
    let mut world = World::start(workers, saves).await?;
    world.until_workers(workers, FINISH).await?;

    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publish(world.target()?, options.rate, stop.clone()));
    let mut random = StdRng::seed_from_u64(seed);
    let faults = if let Some(count) = options.outages {
        faults::inject_outages(&mut world, &mut random, (count, lengths)).await?
    } else {
        let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
        faults::inject(&mut world, &mut random, end).await?
    };
    stop.cancel();
    let published = timeout(FINISH, publishing).await.context("jobs can't be published")??;
    eprintln!("chaos: {} faults done; waiting for {published} jobs", faults.len());

    let finished = world.until_ended(published, FINISH).await?;
    let alive = world.workers().into_keys().collect();
    let judgement = Judgement::new(&journal::read(&world.journal())?, &faults, published, &alive);
    let dead_letters = world.dead_letters().await?;
    let log = world.log();
    world.stop()?;

    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let told = |what: &str, number| Finding::new(what, count(number), "", None, report::ANY);
    let none = |what: &str, number| Finding::new(what, count(number), "", None, 0.0..=0.0);
    let mut findings = vec![
        told("jobs published", published),
        told("jobs done", judgement.done),
        none("jobs lost", judgement.lost),
        none("jobs in the dead letters", dead_letters),
        told("begun again, a worker dead or frozen", judgement.repeated),
        none("begun again, both workers well", judgement.doubled),
        told("workers that did jobs", judgement.workers),
        none("workers replaced without need", judgement.unneeded.len()),
    ];
    findings.extend(faults::counts(&faults).map(|(kind, times)| told(&format!("fault: {kind}"), times)));
    report::print(&title, &findings, options.json)?;
    for line in &judgement.details {
        eprintln!("chaos: {line}");
    }
    for worker in &judgement.unneeded {
        eprintln!("chaos: {worker} was replaced, and no fault explains it; the autoscaler's log says of it:");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(worker)).collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).for_each(|line| eprintln!("    {line}"));
    }
    anyhow::ensure!(finished, "the pool did not finish its work within {FINISH:?} of the last fault");
    Ok(())
}

/// Publishes numbered jobs until `stop`, each under its number as idempotency key, so that a repeated call is harmless.
async fn publish(target: RedisTarget, rate: f64, stop: CancellationToken) -> usize {
    let (begin, mut number) = (Instant::now(), 0_usize);
    let mut ticks = tokio::time::interval(BATCH);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let mut batch = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "counts of jobs are small")]
        while ((number + batch.len()) as f64) < begin.elapsed().as_secs_f64() * rate {
            batch.push(journal::job(number + batch.len()));
        }
        // Again and again while Redis is away.
        while publish_batch(&target, &batch).await.is_err() {
            sleep(BATCH).await;
        }
        number += batch.len();
    }
    number
}

async fn publish_batch(target: &RedisTarget, batch: &[Job]) -> anyhow::Result<()> {
    let mut publisher = Publisher::new(target.connect().await?, "jobs:published", BrokerSettings::default());
    publisher.publish(world::QUEUE, batch).await?;
    Ok(())
}
