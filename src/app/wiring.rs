//! The parts that depend on the worker types, their queues and the signals: the signal sources, the prober, the watch
//! on overrides, the scheduler of delayed jobs, the counter of dead letters. They are made together, and remade
//! together when any of these settings change. The parts in [`AppShared`] last.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    app_shared::AppShared,
    queue_servers::{RunningServer, RunningServers, SharedParts, Stops},
    spawn,
};
use crate::{
    broker::{Client, DeadLetterCounter, DelayedScheduler},
    config::{Settings, WorkerTypeSettings},
    connection::{ConnectionError, RedisTarget},
    model::{
        Queues, WorkerType,
        snapshot::{DeadLetterCounts, DelayedCounts},
    },
    scaler::{ControlWatch, FleetParts, Outages, Shared, SnapshotCell},
    signal::{Directories, SweepMonitor, run_sweep},
};

/// Longest time that a new wiring waits for its connections before it takes over anyway. Redis is down then, for the
/// old wiring too.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// See the [module](self).
pub(super) struct Wiring {
    directories: Arc<Directories>,
    servers: RunningServers,
    sweep: Arc<SweepMonitor>,
    delayed: watch::Receiver<DelayedCounts>,
    dead_letters: watch::Receiver<DeadLetterCounts>,
    /// Tasks of the wiring. They end only on request.
    pub(super) tasks: JoinSet<&'static str>,
    sources: CancellationToken,
    probing: CancellationToken,
}

impl Wiring {
    /// Starts the parts for the worker types of the directories, which are those of the settings.
    ///
    /// # Errors
    /// If the URL of a worker type's own Redis server can't be used.
    pub(super) async fn start(
        app_shared: &AppShared,
        settings: &Arc<Settings>,
        directories: Arc<Directories>,
    ) -> Result<Self, ConnectionError> {
        let AppShared { target, clock, controls, .. } = app_shared;
        let (mut tasks, sources, probing) = (JoinSet::new(), CancellationToken::new(), CancellationToken::new());
        let mut orders = ControlWatch::new(target.clone(), directories.clone(), controls.clone(), *clock);
        if let Err(error) = orders.read().await {
            tracing::warn!("whether worker types are paused or pinned can't be read yet: {error}");
        }
        let (scheduler, delayed) = delayed_scheduler(target, settings);
        let (sweep, interval) = (Arc::new(SweepMonitor::default()), settings.scaler.sweep_interval());
        let client = Client::new(settings.clone(), RedisTarget::clone(target));
        let (counter, dead_letters) = DeadLetterCounter::new(client, interval);

        let stops = Stops { sources: &sources, probing: &probing };
        let servers = RunningServers::start(app_shared, settings, &directories, &mut tasks, &stops)?;
        spawn(&mut tasks, "control", orders.run(sources.clone()));
        spawn(&mut tasks, "sweep", run_sweep(directories.clone(), sweep.clone(), interval, sources.clone()));
        spawn(&mut tasks, "dead letters", counter.run(sources.clone()));
        // A dry run writes nothing: it moves no job.
        if !settings.scaler.dry_run {
            spawn(&mut tasks, "delayed jobs", scheduler.run(sources.clone()));
        }
        Ok(Self { directories, servers, sweep, delayed, dead_letters, tasks, sources, probing })
    }

    /// Waits until the sources and the probers are connected, or until [`CONNECT_TIMEOUT`].
    pub(super) async fn until_connected(&self) {
        self.servers.until_connected(CONNECT_TIMEOUT).await;
    }

    /// Returns what actors need of the wiring.
    pub(super) fn shared(&self, app_shared: &AppShared, settings: &Settings) -> SharedParts {
        let outages = Arc::<Outages>::default();
        self.servers.shared(|server: &RunningServer, is_own_server| Shared {
            is_own_server,
            patience: settings.scaler.redis_timeout(),
            directory: server.directory.clone(),
            listener: server.listener.clone(),
            prober: server.prober.clone(),
            backend: app_shared.backend.clone(),
            recorder: app_shared.recorder.clone(),
            clock: app_shared.clock,
            sweep: self.sweep.clone(),
            leadership: app_shared.leadership.clone(),
            controls: app_shared.controls.clone(),
            updates: app_shared.updates.clone(),
            budget: app_shared.budget.clone(),
            canary: app_shared.canary.clone(),
            outages: outages.clone(),
            trouble: app_shared.trouble.clone(),
        })
    }

    /// Returns what the fleet shows together with these actors.
    pub(super) fn parts(&self, settings: &Settings, snapshots: Vec<SnapshotCell>) -> FleetParts {
        let bounds = |(name, of): (&str, &WorkerTypeSettings)| {
            (WorkerType::new(name), (of.scaling.min_workers, of.scaling.max_workers))
        };
        let bounds = settings.enabled().map(bounds).collect();
        FleetParts {
            prober: self.servers.top_level.prober.clone(),
            queue_servers: self.servers.parts(),
            bounds,
            max_total_workers: settings.scaler.max_total_workers,
            snapshots,
            delayed: self.delayed.clone(),
            dead_letters: self.dead_letters.clone(),
        }
    }

    /// Returns the directories that the sources post to.
    pub(super) fn directories(&self) -> &Arc<Directories> {
        &self.directories
    }

    /// Returns the names of the Redis servers that worker types have of their own.
    pub(super) fn server_names(&self) -> BTreeSet<String> {
        self.servers.names()
    }

    /// Stops the signal sources. Queues can still be probed.
    pub(super) fn stop_sources(&self) {
        self.sources.cancel();
    }

    /// Stops all parts.
    pub(super) async fn stop(&mut self) {
        self.sources.cancel();
        self.probing.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Returns whether a wiring made for `one` fits `other` too.
pub(super) fn is_same(one: &Settings, other: &Settings) -> bool {
    let queues = |settings: &Settings| -> Vec<_> {
        settings
            .enabled()
            .map(|(name, of)| {
                let framework = of.framework_spec();
                let group = (of.group(name), of.queue_kind(), framework);
                let server = settings.queue_redis_url(of).expose_secret().to_owned();
                (name.to_owned(), server, of.queues(name), of.combine, group, of.idleness())
            })
            .collect()
    };
    one.signals == other.signals
        && one.scaler.sweep_interval_seconds == other.scaler.sweep_interval_seconds
        && queues(one) == queues(other)
}

/// Returns the scheduler for the delayed jobs of all streams, including those that patterns find.
fn delayed_scheduler(
    target: &Arc<RedisTarget>,
    settings: &Settings,
) -> (DelayedScheduler, watch::Receiver<DelayedCounts>) {
    let streams = settings.enabled().filter(|(_, of)| of.queue_kind().is_native());
    let queues: Vec<Queues> = streams.map(|(name, of)| of.queues(name)).collect();
    let named: BTreeSet<String> = queues.iter().flat_map(Queues::named).map(str::to_owned).collect();
    let patterns = queues.into_iter().flat_map(|queues| queues.patterns).collect();
    DelayedScheduler::new(
        target.clone(),
        named,
        patterns,
        settings.signals.channel.clone(),
        settings.scaler.sweep_interval(),
    )
}
