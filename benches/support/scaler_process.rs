//! The scaler's process: the real autoscaler with a [`RecordingBackend`], on the runtime that `swarm autoscaler` uses,
//! logging as it does by default. Obeys [`Command`]s on stdin, ends with it, and tells [`Event`]s on stdout.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write, stdin, stdout},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use swarm::{
    app::{Autoscaler, AutoscalerConfig, runtime},
    backend::{OnChange, ScalingBackend},
    config::{ScalingSettings, Settings, WorkerTypeSettings},
    model::{
        WorkerType,
        snapshot::{Role, StatusSource},
    },
    telemetry::{LogFormat, MetricsHandle, init_logging, install_metrics},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bench_options::{self, BenchOptions},
    protocol::{Command, Event, SCALER_ARGUMENT, Setup, Status, type_name},
    recording::RecordingBackend,
};

/// How long nothing may happen until the scaler counts as at rest. Longer than any reaction.
const REST: Duration = Duration::from_millis(2);

/// How often to look whether it rests.
const LOOK: Duration = Duration::from_micros(500);

/// `main` of a benchmark that runs itself once more as its scaler.
pub(crate) fn or_bench<Own: clap::Args>(
    bench: impl AsyncFnOnce(&BenchOptions<Own>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Some(setup) = requested() {
        return run(&setup);
    }
    bench_options::run(bench_options::one_thread(), bench)
}

/// What follows the hidden argument, if this process is to be the scaler.
fn requested() -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != SCALER_ARGUMENT);
    arguments.nth(1)
}

/// Runs until stdin ends.
fn run(setup: &str) -> anyhow::Result<()> {
    let setup: Setup = serde_json::from_str(setup).context("the scaler's set-up")?;
    init_logging(LogFormat::Text, "info")?;
    let metrics = install_metrics()?;
    let (events, to_tell) = channel();
    let backend = Arc::new(RecordingBackend::new(events.clone()));
    let on_change: Arc<OnceLock<OnChange>> = Arc::default();
    let options = AutoscalerConfig {
        settings: Arc::new(settings(&setup)),
        config_file: None,
        program: PathBuf::new(),
        metrics: metrics.clone(),
        reload: None,
    };
    runtime()?.block_on(async {
        let (made, noted) = (backend.clone(), on_change.clone());
        let autoscaler = Autoscaler::start_with(
            options,
            Box::new(move |on_change, _| {
                noted.get_or_init(|| on_change);
                Box::pin(async move { Ok(made as Arc<dyn ScalingBackend>) })
            }),
        )
        .await?;
        let cancel = CancellationToken::new();
        let control = Control { status: autoscaler.status(), backend, on_change, metrics: metrics.clone(), events };
        // Plain threads: what is asked here must not take turns with the tasks that are measured.
        std::thread::spawn(move || tell(&to_tell));
        let stop = cancel.clone();
        std::thread::spawn(move || {
            control.obey();
            stop.cancel();
        });
        tokio::spawn(metrics.upkeep(cancel.clone()));
        Ok(autoscaler.run(cancel).await?)
    })
}

fn settings(setup: &Setup) -> Settings {
    let mut settings = Settings { redis_url: setup.redis_url.as_str().into(), ..Settings::default() };
    settings.scaler.debounce_ms = setup.debounce_ms;
    settings.scaler.sweep_interval_seconds = setup.sweep_interval_seconds;
    settings.signals.keyspace = setup.keyspace;
    settings.signals.tracking = setup.tracking;
    settings.signals.channel.clone_from(&setup.channel);
    settings.http.listen = String::new();
    let scaling = ScalingSettings {
        min_workers: setup.min_workers,
        max_workers: setup.max_workers,
        scale_up_threshold: setup.scale_up_threshold,
        ..ScalingSettings::default()
    };
    let worker_type = WorkerTypeSettings { scaling, ..WorkerTypeSettings::default() };
    settings.worker_types =
        (0..setup.types).map(|index| (type_name(index), worker_type.clone())).collect::<BTreeMap<_, _>>();
    if let Some(first) = settings.worker_types.get_mut(&type_name(0)) {
        first.extra_queues.clone_from(&setup.extra_queues);
    }
    settings
}

fn tell(events: &Receiver<Event>) {
    for event in events {
        let Ok(line) = serde_json::to_string(&event) else { return };
        if writeln!(stdout(), "{line}").is_err() {
            return;
        }
    }
}

struct Control {
    status: Arc<dyn StatusSource>,
    backend: Arc<RecordingBackend>,
    on_change: Arc<OnceLock<OnChange>>,
    metrics: MetricsHandle,
    events: Sender<Event>,
}

impl Control {
    fn obey(&self) {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let Ok(command) = serde_json::from_str(&line) else { return };
            let reply = match command {
                Command::Status => Event::Status(self.status()),
                Command::Clear(index) => self.clear(index),
            };
            if self.events.send(reply).is_err() {
                return;
            }
        }
    }

    fn status(&self) -> Status {
        let ready = self.status.not_ready().is_empty();
        if !ready {
            return Status::default();
        }
        let fleet = self.status.fleet();
        let leadership = &fleet.leadership;
        // Every piece is made, as for a reader of `/metrics`; only what is asked for below is kept.
        let pieces = self.metrics.clone().render(fleet.worker_types.clone(), fleet.dead_letters.clone());
        let of_sweeps = |piece: &String| piece.contains("swarm_sweep_seconds");
        let metrics: String = pieces.filter(of_sweeps).collect();
        let metric = |name: &str| {
            let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            value.unwrap_or_default()
        };
        Status {
            ready,
            evaluations: fleet.worker_types.iter().map(|seen| seen.evaluations).sum(),
            desired: fleet.worker_types.iter().map(|seen| u64::from(seen.desired)).sum(),
            ready_workers: fleet.worker_types.iter().filter_map(|seen| Some(u64::from(seen.pool.known()?.ready))).sum(),
            queues: fleet.worker_types.iter().filter_map(|seen| Some(seen.queues.as_ref()?.count as u64)).sum(),
            token: leadership.token.filter(|_| leadership.role == Role::Leader).unwrap_or_default(),
            sweeps: metric("swarm_sweep_seconds_count"),
            sweep_seconds: metric("swarm_sweep_seconds_sum"),
        }
    }

    /// Returns when an evaluation has seen that there is no worker and no job, and none has followed it.
    fn clear(&self, index: usize) -> Event {
        let evaluations = || self.status.fleet().worker_types.get(index).map_or(0, |seen| seen.evaluations);
        let before = evaluations();
        let worker_type = WorkerType::new(type_name(index));
        self.backend.clear(&worker_type);
        if let Some(on_change) = self.on_change.get() {
            on_change(&worker_type);
        }
        let (mut last, mut since) = (before, Instant::now());
        loop {
            std::thread::sleep(LOOK);
            let Some(seen) = self.status.fleet().worker_types.get(index).cloned() else { return Event::Settled };
            let empty =
                seen.pool.known().is_some_and(|pool| pool.current() == 0) && seen.demand.depth().known() == Some(&0);
            if seen.evaluations != last {
                (last, since) = (seen.evaluations, Instant::now());
            } else if empty && last > before && since.elapsed() >= REST {
                return Event::Settled;
            }
        }
    }
}
