//! Measures what an idle swarm costs Redis, in commands a minute and by role: an autoscaler of two worker types and one
//! worker with default settings, then each further worker. `cargo bench --bench idle_cost [-- --quick --json]`.
//!
//! Runs the program as it is shipped. Each role has a Redis user of its own, so that each command can be attributed.
//! The floor is what no design can go below: one renewal of the lease every 2 s, and one heartbeat of each worker every
//! 5 s.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/command_count.rs"]
mod command_count;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::bail;
use fred::{
    prelude::Client,
    types::{ClusterHash, CustomCommand},
};

use crate::{
    bench_options::BenchOptions,
    command_count::{Counts, UNKNOWN, commands_by_user, total},
    redis_server::RedisServer,
    report::{ANY, Finding},
};

/// Renewals of the lease and heartbeats of a worker, a minute.
const FLOOR: (f64, f64) = (30.0, 12.0);
/// Until workers have a heartbeat.
const START: Duration = Duration::from_secs(60);
/// Until what happens once after a start is over.
const SETTLE: Duration = Duration::from_secs(40);

/// The autoscaler with its workers, killed when dropped.
struct Autoscaler(Child);

impl Drop for Autoscaler {
    fn drop(&mut self) {
        // Its guard ends the workers.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> anyhow::Result<()> {
    bench_options::run(swarm::app::runtime(), bench)
}

async fn bench(options: &BenchOptions<()>) -> anyhow::Result<()> {
    let time = Duration::from_secs(options.sized(60, 20));
    let server = RedisServer::start()?;
    let client = server.client().await?;
    for role in ["scaler", "worker"] {
        let _: String = ask(&client, "ACL", &["SETUSER", role, "on", ">secret", "~*", "&*", "+@all"]).await?;
    }
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("swarm.toml");
    write_settings(&config, &server, 1)?;
    let _autoscaler = Autoscaler(
        Command::new(env!("CARGO_BIN_EXE_swarm"))
            .args(["autoscaler", "--config"])
            .arg(&config)
            .env("SWARM_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()?,
    );
    let mut counts = Vec::new();
    for workers in [1, 2] {
        write_settings(&config, &server, workers)?;
        until_workers(&client, workers).await?;
        tokio::time::sleep(SETTLE).await;
        let port = server.port();
        counts.push(tokio::task::spawn_blocking(move || commands_by_user(port, time)).await??);
    }
    let findings = findings(&counts[0], &counts[1], time);
    if !options.json {
        tell(&counts[1]);
    }
    let seconds = time.as_secs();
    report::print(
        &format!("idle_cost: commands a minute at rest, two worker types, defaults, counted for {seconds} s"),
        &findings,
        options.json,
    )
}

/// Returns the findings of a run with one worker and one with two.
fn findings(one: &Counts, two: &Counts, time: Duration) -> Vec<Finding> {
    // Few enough to be exact.
    let a_minute = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) * 60.0 / time.as_secs_f64();
    // Commands of the autoscaler that are counted without their user.
    let autoscaler = |counts: &Counts| a_minute(total(counts, "scaler") + total(counts, UNKNOWN));
    let workers = |counts: &Counts| a_minute(total(counts, "worker"));
    let finding = |what: &str, value, aim| Finding::new(what, value, "", None, aim);
    vec![
        finding("autoscaler and one worker", autoscaler(one) + workers(one), 0.0..=90.0),
        finding("of those, the autoscaler", autoscaler(one), ANY),
        finding("of those, the worker", workers(one), ANY),
        finding(
            "each further worker, with what it costs the autoscaler",
            further(one, two, &autoscaler, &workers),
            0.0..=30.0,
        ),
        finding("floor of an autoscaler and one worker", FLOOR.0 + FLOOR.1, ANY),
        finding("floor of each further worker", FLOOR.1, ANY),
    ]
}

fn further(one: &Counts, two: &Counts, autoscaler: &impl Fn(&Counts) -> f64, workers: &impl Fn(&Counts) -> f64) -> f64 {
    // A worker costs what half of two do, whichever second each of them began in.
    workers(two) / 2.0 + (autoscaler(two) - autoscaler(one)).max(0.0)
}

#[expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]
fn tell(counts: &Counts) {
    for (user, commands) in counts {
        let commands: Vec<_> = commands.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("{user}, with two workers: {}", commands.join(", "));
    }
}

fn write_settings(path: &Path, server: &RedisServer, workers: u64) -> anyhow::Result<()> {
    let url = |role: &str| server.url().replace("//", &format!("//{role}:secret@"));
    let settings = format!(
        "redis_url = \"{}\"\nworker_redis_url = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [worker_types.one.scaling]\nmin_workers = {workers}\n[worker_types.two]\n",
        url("scaler"),
        url("worker"),
    );
    Ok(fs::write(path, settings)?)
}

async fn until_workers(client: &Client, workers: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let found: Vec<String> = ask(client, "KEYS", &["worker:heartbeat:*"]).await?;
        if found.len() as u64 == workers {
            return Ok(());
        }
        if begun.elapsed() > START {
            bail!("{} instead of {workers} workers after {START:?}", found.len());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ask<R: fred::types::FromValue>(client: &Client, command: &'static str, args: &[&str]) -> anyhow::Result<R> {
    use fred::interfaces::ClientLike;
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    Ok(client.custom(command, args.to_vec()).await?)
}
