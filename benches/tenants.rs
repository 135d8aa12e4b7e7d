//! Measures a worker type with ten thousand queues that a pattern finds, and one job to one of them at a time: commands
//! for each signal, the reaction, and what other clients of the server notice.
//! `cargo bench --bench tenants [-- --quick --json]`.
//!
//! A worker type with a hundred such queues, on a server of its own, gets its jobs by turns with the large one. Nothing
//! may grow with the number of queues. Sweeps are left out: they read every queue, which is their purpose.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/floor.rs"]
mod floor;
#[path = "support/load.rs"]
mod load;
#[path = "support/percentile.rs"]
mod percentile;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/scaler.rs"]
mod scaler;
#[path = "support/scaler_process.rs"]
mod scaler_process;
#[path = "support/server_info.rs"]
mod server_info;

use std::time::{Duration, Instant};

use clap::Args;
use fred::prelude::{Client, StreamsInterface};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    bench_options::BenchOptions,
    percentile::percentile,
    protocol::{Setup, type_name},
    redis_server::RedisServer,
    report::Finding,
    rounds::{FLOOR_QUEUE, Reactions, Rounds, Signal, make_queue, work_off},
    scaler::Scaler,
    server_info::commands,
};

/// Queues of the small worker type.
const FEW: usize = 100;

/// Step between the queues of two jobs, so that each is far from the last ones.
const STRIDE: usize = 6_997;

/// Warm-up rounds, which also show that the queues are known.
const WARM_UP: usize = 50;

/// Pause before and after each job outside of rounds.
const PAUSE: Duration = Duration::from_millis(2);

/// Longer than any run, so that no sweep falls into it.
const NO_SWEEP_SECONDS: u64 = 3_600;

#[derive(Debug, Args)]
struct Options {
    /// Queues of the large worker type
    #[arg(long, default_value_t = 10_000)]
    queues: usize,
    /// Rounds of one job to each worker type; with --quick 300
    #[arg(long, default_value_t = 3_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 300);
    let mut few = Tenants::start(FEW, rounds).await?;
    let mut many = Tenants::start(options.queues, rounds).await?;
    let (few_reactions, many_reactions) = reactions(&mut few, &mut many, rounds).await?;
    let (few_commands, many_commands) =
        (few.commands_per_signal(rounds).await?, many.commands_per_signal(rounds).await?);
    let pings = many.pings(rounds).await?;

    let (queues, name) = (options.queues, |count: usize, what: &str| format!("{count} queues: {what}"));
    let reaction = |count, reactions: &Reactions, (share, what, aim): (f64, &str, f64)| {
        reactions.finding(name(count, what), share, 0.0..=aim)
    };
    let (p50, p99) = ((0.5, "reaction p50", 1.5), (0.99, "reaction p99", 2.0));
    let (slow, fast) = (percentile(&many_reactions.products, 0.5), percentile(&few_reactions.products, 0.5));
    let (ping, bare_ping) = (percentile(&pings, 0.99), percentile(&many.bare_pings, 0.99));
    let findings = [
        Finding::new(name(FEW, "commands for each signal"), few_commands, "", None, 0.0..=20.0),
        Finding::new(name(queues, "commands for each signal"), many_commands, "", None, 0.0..=20.0),
        reaction(FEW, &few_reactions, p50),
        reaction(queues, &many_reactions, p50),
        reaction(FEW, &few_reactions, p99),
        reaction(queues, &many_reactions, p99),
        Finding::new(format!("reaction p50, {queues} queues against {FEW}"), slow, "µs", Some(fast), 0.0..=1.2),
        Finding::new("PING of another client p99, floor without a scaler", ping, "µs", Some(bare_ping), 0.0..=2.0),
    ];
    let title = format!(
        "tenants: one worker type, queues found by a pattern, one job to one of them at a time; {rounds} rounds, \
         hints by {}, debounce_ms = 0, no sweep",
        Signal::Keyspace.name()
    );
    report::print(&title, &findings, options.json)
}

/// Name of the queue of tenant N.
fn tenant(index: usize) -> String {
    format!("tenant-{index:05}:jobs")
}

/// One worker type with this many queues.
struct Tenants {
    server: RedisServer,
    client: Client,
    scaler: Scaler,
    queues: usize,
    /// Times of PINGs before the scaler was started.
    bare_pings: Vec<f64>,
}

impl Tenants {
    async fn start(queues: usize, jobs: usize) -> anyhow::Result<Self> {
        let server = RedisServer::start()?;
        let client = server.client().await?;
        make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
        let group = type_name(0);
        stream::iter(0..queues)
            .map(|index| {
                let (client, group) = (&client, &group);
                async move { make_queue(client, &tenant(index), group).await }
            })
            .buffer_unordered(128)
            .try_collect::<()>()
            .await?;
        let bare_pings = pings_during_jobs(&server, &client, queues, jobs).await?;
        let setup = Setup {
            extra_queues: vec!["tenant-*:jobs".to_owned()],
            debounce_ms: 0,
            sweep_interval_seconds: NO_SWEEP_SECONDS,
            ..Setup::new(server.url())
        };
        let mut scaler = Scaler::start(&setup).await?;
        // Its own queue is one more.
        scaler.until("aware of all queues", |status| status.queues > queues as u64).await?;
        Ok(Self { server, client, scaler, queues, bare_pings })
    }

    async fn rounds(&mut self) -> anyhow::Result<Rounds<'_>> {
        Rounds::start(&self.client, &mut self.scaler, &self.server.url(), Signal::Keyspace).await
    }

    /// Returns commands that the scaler sends for one job, with those within scripts. The pool is as the rule wants it
    /// after the first job, so this is what a look costs.
    async fn commands_per_signal(&mut self, jobs: usize) -> anyhow::Result<f64> {
        self.job(0).await?;
        let (before, begun) = (commands(&self.client).await?, Instant::now());
        for number in 1..=jobs {
            self.job(number * STRIDE % self.queues).await?;
        }
        let after = commands(&self.client).await?;
        // The same time without jobs: the lease and other things that no signal causes.
        tokio::time::sleep(begun.elapsed()).await;
        let at_rest = commands(&self.client).await? - after;
        let jobs = f64::from(u32::try_from(jobs)?);
        // Each job has an XADD and an XREADGROUP of the benchmark's, and both intervals one INFO.
        Ok((after - before - at_rest) / jobs - 2.0)
    }

    /// Sends a job, waits for its evaluation, and takes the job.
    async fn job(&mut self, index: usize) -> anyhow::Result<()> {
        let evaluations = self.scaler.status().await?.evaluations;
        let _: String = self.client.xadd(tenant(index), false, None, "*", ("json", "{}")).await?;
        self.scaler.until("evaluating", |status| status.evaluations > evaluations).await?;
        work_off(&self.client, &tenant(index), &type_name(0)).await
    }

    async fn pings(&self, jobs: usize) -> anyhow::Result<Vec<f64>> {
        pings_during_jobs(&self.server, &self.client, self.queues, jobs).await
    }
}

/// Sends and takes jobs, and returns the times of another client's PINGs meanwhile.
async fn pings_during_jobs(
    server: &RedisServer,
    client: &Client,
    queues: usize,
    jobs: usize,
) -> anyhow::Result<Vec<f64>> {
    let pings = load::pings(server.port())?;
    for number in 0..jobs {
        let queue = tenant(number * STRIDE % queues);
        let _: String = client.xadd(queue.as_str(), false, None, "*", ("json", "{}")).await?;
        tokio::time::sleep(PAUSE).await;
        work_off(client, &queue, &type_name(0)).await?;
        tokio::time::sleep(PAUSE).await;
    }
    pings.stop()
}

/// Measures both worker types by turns.
async fn reactions(few: &mut Tenants, many: &mut Tenants, rounds: usize) -> anyhow::Result<(Reactions, Reactions)> {
    let queues = [few.queues, many.queues];
    let mut by_turns = [few.rounds().await?, many.rounds().await?];
    let mut results = [Reactions::default(), Reactions::default()];
    for number in 0..WARM_UP + rounds {
        for at in 0..2 {
            let round = by_turns[at].round(&tenant(number * STRIDE % queues[at]), 0).await?;
            if number >= WARM_UP {
                results[at].push(round);
            }
        }
    }
    let [few, many] = results;
    Ok((few, many))
}
