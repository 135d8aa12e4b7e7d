//! Random faults, and the record of what they hit and when.

use std::{
    collections::BTreeMap,
    fmt,
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
const WEIGHTS: [(Kind, u32); 6] = [
    (Kind::WorkerKilled, 30),
    (Kind::WorkerFrozen, 30),
    (Kind::RedisFrozen, 15),
    (Kind::RedisKilled, 10),
    (Kind::AutoscalerFrozen, 10),
    (Kind::AutoscalerKilled, 5),
];

/// Injects one fault after another until `end`. Frozen workers thaw while other faults happen.
#[expect(clippy::print_stderr, reason = "progress of a run of minutes")]
pub(crate) async fn inject(world: &mut World, random: &mut StdRng, end: Instant) -> anyhow::Result<Vec<Fault>> {
    let (mut faults, mut frozen) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..3_000))).await;
        let time = Duration::from_millis(random.random_range(300..10_000));
        let Ok((kind, _)) = WEIGHTS.choose_weighted(random, |(_, weight)| *weight) else { continue };
        let from = now();
        let workers = match kind {
            Kind::WorkerKilled | Kind::WorkerFrozen => {
                let workers: Vec<(String, u32)> = world.workers().into_iter().collect();
                let Some((id, process)) = workers.choose(random).cloned() else { continue };
                if *kind == Kind::WorkerKilled {
                    world::signal(process, Signal::KILL);
                } else {
                    world::signal(process, Signal::STOP);
                    frozen.push(tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        world::signal(process, Signal::CONT);
                    }));
                }
                vec![id]
            }
            Kind::RedisKilled => {
                world.kill_redis()?;
                tokio::time::sleep(time / 2).await;
                world.start_redis()?;
                Vec::new()
            }
            Kind::RedisFrozen => frozen_for(world.redis(), time).await,
            Kind::AutoscalerFrozen => frozen_for(world.autoscaler(), time).await,
            Kind::AutoscalerKilled => {
                let workers = world.workers().into_keys().collect();
                world.kill_autoscaler()?;
                tokio::time::sleep(time / 2).await;
                world.start_autoscaler()?;
                workers
            }
        };
        let until = if *kind == Kind::WorkerFrozen { from + time.as_millis() } else { now() };
        let fault = Fault { kind: *kind, workers, from, until };
        eprintln!("chaos: {fault}");
        faults.push(fault);
    }
    for thaw in frozen {
        thaw.await?;
    }
    Ok(faults)
}

async fn frozen_for(process: u32, time: Duration) -> Vec<String> {
    world::signal(process, Signal::STOP);
    tokio::time::sleep(time).await;
    world::signal(process, Signal::CONT);
    Vec::new()
}

/// Returns how many faults of each kind there were.
pub(crate) fn counts(faults: &[Fault]) -> impl Iterator<Item = (&'static str, usize)> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.kind).or_insert(0) += 1;
    }
    counts.into_iter().map(|(kind, count)| (kind.name(), count))
}
