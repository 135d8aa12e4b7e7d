//! Faults, one after another: random ones, or outages of Redis; and the record of what they hit and when.

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use rustix::process::Signal;

use crate::{
    journal::now,
    world::{self, World},
};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    WorkerKilled,
    WorkerFrozen,
    RedisKilled,
    RedisFrozen,
    RedisStopped,
    NetworkCut,
    AutoscalerKilled,
    AutoscalerFrozen,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker killed",
            Self::WorkerFrozen => "worker frozen",
            Self::RedisKilled => "Redis killed, started again",
            Self::RedisFrozen => "Redis frozen",
            Self::RedisStopped => "Redis stopped, started again",
            Self::NetworkCut => "network to Redis cut",
            Self::AutoscalerKilled => "autoscaler killed, started again",
            Self::AutoscalerFrozen => "autoscaler frozen",
        }
    }
}

/// One fault.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// The workers that it hit: the killed or frozen one, or all that a killed autoscaler takes along.
    pub(crate) workers: Vec<String>,
    /// Unix time in milliseconds of its begin and end.
    pub(crate) from: u128,
    pub(crate) until: u128,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = i64::try_from(self.from).ok().and_then(|from| jiff::Timestamp::from_millisecond(from).ok());
        let length = self.until.saturating_sub(self.from);
        write!(f, "{} {} for {length} ms", at.unwrap_or_default(), self.kind.name())?;
        match &self.workers[..] {
            [worker] => write!(f, ": {worker}"),
            _ => Ok(()),
        }
    }
}

/// Share of each kind, in percent.
const WEIGHTS: [(Kind, u32); 7] = [
    (Kind::WorkerKilled, 30),
    (Kind::WorkerFrozen, 25),
    (Kind::RedisFrozen, 15),
    (Kind::RedisKilled, 10),
    (Kind::NetworkCut, 5),
    (Kind::AutoscalerFrozen, 10),
    (Kind::AutoscalerKilled, 5),
];

/// Kinds of outages, which happen in turn.
const OUTAGES: [Kind; 3] = [Kind::RedisStopped, Kind::NetworkCut, Kind::RedisFrozen];

/// Injects one random fault after another until `end`. Frozen workers thaw while other faults happen.
pub(crate) async fn inject(world: &mut World, random: &mut StdRng, end: Instant) -> anyhow::Result<Vec<Fault>> {
    let (mut faults, mut frozen) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..3_000))).await;
        let time = Duration::from_millis(random.random_range(300..10_000));
        let Ok((kind, _)) = WEIGHTS.choose_weighted(random, |(_, weight)| *weight) else { continue };
        match kind {
            Kind::WorkerKilled | Kind::WorkerFrozen => {
                let workers: Vec<(String, u32)> = world.workers().into_iter().collect();
                let Some((id, process)) = workers.choose(random).cloned() else { continue };
                let from = now();
                let mut until = from;
                if *kind == Kind::WorkerKilled {
                    world::signal(process, Signal::KILL);
                } else {
                    until += time.as_millis();
                    world::signal(process, Signal::STOP);
                    frozen.push(tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        world::signal(process, Signal::CONT);
                    }));
                }
                record(&mut faults, Fault { kind: *kind, workers: vec![id], from, until });
            }
            Kind::RedisKilled | Kind::AutoscalerKilled => strike(world, *kind, time / 2, &mut faults).await?,
            _ => strike(world, *kind, time, &mut faults).await?,
        }
    }
    for thaw in frozen {
        thaw.await?;
    }
    Ok(faults)
}

/// Injects `count` outages of Redis or of the network to it, each of a random length in seconds. The pool works
/// between them for at least as long as a heartbeat and a sweep take.
pub(crate) async fn inject_outages(
    world: &mut World,
    random: &mut StdRng,
    (count, lengths): (usize, RangeInclusive<u64>),
) -> anyhow::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for kind in OUTAGES.into_iter().cycle().take(count) {
        tokio::time::sleep(Duration::from_millis(random.random_range(8_000..16_000))).await;
        strike(world, kind, Duration::from_secs(random.random_range(lengths.clone())), &mut faults).await?;
    }
    Ok(faults)
}

/// Injects a fault that hits no single worker, and waits for its end.
async fn strike(world: &mut World, kind: Kind, time: Duration, faults: &mut Vec<Fault>) -> anyhow::Result<()> {
    let (from, mut workers) = (now(), Vec::new());
    match kind {
        Kind::RedisKilled | Kind::RedisStopped => {
            if kind == Kind::RedisKilled {
                world.kill_redis()?;
            } else {
                world.stop_redis()?;
            }
            tokio::time::sleep(time).await;
            world.start_redis()?;
        }
        Kind::RedisFrozen => freeze(world.redis(), time).await,
        Kind::NetworkCut => {
            world.network.cut();
            tokio::time::sleep(time).await;
            world.network.mend();
        }
        Kind::AutoscalerFrozen => freeze(world.autoscaler(), time).await,
        Kind::AutoscalerKilled => {
            workers = world.workers().into_keys().collect();
            world.kill_autoscaler()?;
            tokio::time::sleep(time).await;
            world.start_autoscaler()?;
        }
        Kind::WorkerKilled | Kind::WorkerFrozen => anyhow::bail!("a worker has to be chosen for this fault"),
    }
    record(faults, Fault { kind, workers, from, until: now() });
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress of a run of minutes")]
fn record(faults: &mut Vec<Fault>, fault: Fault) {
    eprintln!("chaos: {fault}");
    faults.push(fault);
}

async fn freeze(process: u32, time: Duration) {
    world::signal(process, Signal::STOP);
    tokio::time::sleep(time).await;
    world::signal(process, Signal::CONT);
}

/// Returns how many faults of each kind there were.
pub(crate) fn counts(faults: &[Fault]) -> impl Iterator<Item = (&'static str, usize)> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.kind).or_insert(0) += 1;
    }
    counts.into_iter().map(|(kind, count)| (kind.name(), count))
}
