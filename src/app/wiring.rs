//! The parts that depend on the worker types, their queues and the signals: the signal sources, the prober, the watch
//! on overrides, the scheduler of delayed jobs. They are made together, and remade together when any of these settings
//! change. The parts in [`AppShared`] last.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::{
    backend::ScalingBackend,
    broker::DelayedScheduler,
    config::{Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{Clock, Queues, WorkerType, snapshot::DelayedCounts},
    probe::{Prober, ProberHandle, QueueSpec, SeveralSpec},
    scaler::{
        CanaryState, ControlWatch, Controls, FleetParts, Leadership, Outages, RecorderHandle, Shared, SnapshotCell,
    },
    signal::{
        CurrentDirectory, Directory, Listener, ListenerHandle, ListenerSettings, QueueFinder, Several, SourceStatus,
        Subscriptions, SweepMonitor, WatchedType, run_sweep,
    },
};

/// Longest time that a new wiring waits for its connections before it takes over anyway. Redis is down then, for the
/// old wiring too.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Parts that live as long as the autoscaler.
#[derive(Clone)]
pub(super) struct AppShared {
    pub(super) target: Arc<RedisTarget>,
    pub(super) clock: Clock,
    pub(super) source_status: Arc<SourceStatus>,
    pub(super) directory: Arc<CurrentDirectory>,
    pub(super) controls: Arc<Controls>,
    pub(super) canary: Arc<CanaryState>,
    pub(super) backend: Arc<dyn ScalingBackend>,
    pub(super) recorder: RecorderHandle,
    pub(super) leadership: Arc<Leadership>,
    pub(super) trouble: Arc<AtomicBool>,
}

/// See the [module](self).
pub(super) struct Wiring {
    directory: Arc<Directory>,
    listener: ListenerHandle,
    prober: ProberHandle,
    planned: watch::Receiver<Option<Subscriptions>>,
    sweep: Arc<SweepMonitor>,
    delayed: watch::Receiver<DelayedCounts>,
    /// Tasks of the wiring. They end only on request.
    pub(super) tasks: JoinSet<&'static str>,
    sources: CancellationToken,
    probing: CancellationToken,
}

impl Wiring {
    /// Starts the parts for the worker types of the directory, which are those of the settings.
    pub(super) async fn start(app_shared: &AppShared, settings: &Settings, directory: Arc<Directory>) -> Self {
        let AppShared { target, source_status, clock, controls, .. } = app_shared;
        let (listener, listener_handle, plan) =
            Listener::new(target.clone(), listener_settings(settings), directory.clone(), source_status.clone());
        let planned = plan.clone();
        let specs = settings.enabled().map(|(name, of)| of.queue_spec(name)).collect();
        let several = (0..).zip(settings.enabled()).filter_map(|(index, (name, of))| several_spec(index, name, of));
        let several = several.collect();
        let (prober, prober_handle) =
            Prober::new(target.clone(), specs, several, directory.clone(), source_status.clone(), plan, *clock);
        let mut orders = ControlWatch::new(target.clone(), directory.clone(), controls.clone(), *clock);
        if let Err(error) = orders.read().await {
            tracing::warn!("whether worker types are paused or pinned can't be read yet: {error}");
        }
        let (scheduler, delayed) = delayed_scheduler(target, settings);
        let (sweep, interval) = (Arc::new(SweepMonitor::default()), settings.scaler.sweep_interval());

        let (mut tasks, sources, probing) = (JoinSet::new(), CancellationToken::new(), CancellationToken::new());
        spawn(&mut tasks, "prober", prober.run(probing.clone()));
        spawn(&mut tasks, "listener", listener.run(sources.clone()));
        spawn(&mut tasks, "control", orders.run(sources.clone()));
        spawn(&mut tasks, "sweep", run_sweep(directory.clone(), sweep.clone(), interval, sources.clone()));
        if let Some(finder) = QueueFinder::new(target.clone(), directory.clone(), interval) {
            spawn(&mut tasks, "queue finder", finder.run(sources.clone()));
        }
        // A dry run writes nothing: it moves no job.
        if !settings.scaler.dry_run {
            spawn(&mut tasks, "delayed jobs", scheduler.run(sources.clone()));
        }
        Self {
            directory,
            listener: listener_handle,
            prober: prober_handle,
            planned,
            sweep,
            delayed,
            tasks,
            sources,
            probing,
        }
    }

    /// Waits until the sources and the prober are connected, or until [`CONNECT_TIMEOUT`].
    pub(super) async fn until_connected(&self) {
        let connected = async {
            self.prober.until_tried(CONNECT_TIMEOUT).await;
            if self.prober.redis_error().is_none() {
                let _ = self.planned.clone().wait_for(Option::is_some).await;
            }
        };
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, connected).await;
    }

    /// Returns what actors need of the wiring.
    pub(super) fn shared(&self, app_shared: &AppShared, settings: &Settings) -> Arc<Shared> {
        Arc::new(Shared {
            patience: settings.scaler.redis_timeout(),
            directory: self.directory.clone(),
            listener: self.listener.clone(),
            prober: self.prober.clone(),
            backend: app_shared.backend.clone(),
            recorder: app_shared.recorder.clone(),
            clock: app_shared.clock,
            sweep: self.sweep.clone(),
            leadership: app_shared.leadership.clone(),
            controls: app_shared.controls.clone(),
            canary: app_shared.canary.clone(),
            outages: Outages::default(),
            trouble: app_shared.trouble.clone(),
        })
    }

    /// Returns what the fleet shows together with these actors.
    pub(super) fn parts(&self, settings: &Settings, snapshots: Vec<SnapshotCell>) -> FleetParts {
        let bounds = |(name, of): (&str, &WorkerTypeSettings)| {
            (WorkerType::new(name), (of.scaling.min_workers, of.scaling.max_workers))
        };
        let bounds = settings.enabled().map(bounds).collect();
        FleetParts { prober: self.prober.clone(), bounds, snapshots, delayed: self.delayed.clone() }
    }

    /// Returns the directory that the sources post to.
    pub(super) fn directory(&self) -> &Arc<Directory> {
        &self.directory
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
                (name.to_owned(), of.queues(name), of.combine, group, of.idleness())
            })
            .collect()
    };
    one.signals == other.signals
        && one.scaler.sweep_interval_seconds == other.scaler.sweep_interval_seconds
        && queues(one) == queues(other)
}

/// Returns a directory of the worker types in the settings.
pub(super) fn directory(settings: &Settings) -> Arc<Directory> {
    let watched = |(name, of): (&str, &WorkerTypeSettings)| {
        let several = || Box::new(Several { queues: of.queues(name), group: of.group(name).into() });
        WatchedType {
            worker_type: WorkerType::new(name),
            queue: of.queue(name).into(),
            kind: of.queue_kind(),
            several: (!of.extra_queues.is_empty() && of.framework.is_none()).then(several),
            signals: of.framework_spec().map(|spec| Box::new(spec.signals())),
        }
    };
    Arc::new(Directory::new(settings.enabled().map(watched).collect()))
}

/// Returns the queues of a worker type that has more than its own; else `None`.
fn several_spec(index: u32, name: &str, settings: &WorkerTypeSettings) -> Option<SeveralSpec> {
    let queues = settings.queues(name);
    // The queues of a framework are read together.
    if queues.is_one() || settings.framework.is_some() {
        return None;
    }
    let own = settings.queue_spec(name);
    let named = queues.named().map(|key| QueueSpec { key: key.into(), ..own.clone() }).collect();
    Some(SeveralSpec { index, combine: settings.combine, named })
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

fn listener_settings(settings: &Settings) -> ListenerSettings {
    ListenerSettings {
        keyspace: settings.signals.keyspace,
        channel: settings.signals.channel.clone(),
        tracking: settings.signals.tracking,
    }
}
