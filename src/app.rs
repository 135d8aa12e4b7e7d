//! The composition root: the only place that knows all parts and wires them together, starts them in order and stops
//! them in order.

mod checks;
mod control;
mod kubernetes;

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{
        OnChange, ScalingBackend,
        docker::{self, DockerBackend, DockerSpec, Endpoint},
        fly::{Access, FlyBackend, FlySpec},
        process::{ProcessBackend, ProcessSpec, Surroundings},
    },
    broker::DelayedMover,
    config::{OnShutdown, Orchestrator, QueueKind, ScalerSettings, Settings, WorkerTypeSettings, process_environment},
    connection::RedisTarget,
    http::{HttpServer, HttpState},
    model::{
        Clock, Source, WorkerType,
        snapshot::{Change, DelayedCounts, StatusSource, TypeSnapshot},
    },
    probe::{Prober, QueueSpec},
    scaler::{
        Actor, ActorContext, Candidate, ControlWatch, Controls, Election, EventRing, Expected, Fleet, FleetInfo,
        Leadership, Recorder, Reporter, Shared, load_changes, run_actor,
    },
    signal::{Directory, Listener, ListenerSettings, SourceBoard, SweepMonitor, Watched, run_sweep},
    telemetry::{MetricsHandle, SignalsReceived},
};

pub use checks::check_backend;

/// How long the last records may take to be written when the scaler stops.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// The lease of an observer, who takes none, where there is no election: how long it waits for Redis follows from it.
const WITHOUT_LEASE: Duration = Duration::from_secs(10);

/// The runtime that an autoscaler runs on.
///
/// # Errors
/// If the system refuses a thread or a descriptor.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// What an autoscaler is started with.
#[derive(Debug)]
pub struct Options {
    /// Validated settings.
    pub settings: Arc<Settings>,
    /// The file they came from, handed on to the workers.
    pub config_file: Option<PathBuf>,
    /// The `swarm` binary, for workers and the process guard.
    pub program: PathBuf,
    /// Renders `/metrics`.
    pub metrics: MetricsHandle,
}

/// Makes the backend; given what to call when a pool changes by itself.
pub type MakeBackend<'a> = dyn FnOnce(OnChange, Clock) -> MadeBackend + Send + 'a;

/// A backend in the making.
pub type MadeBackend = futures_util::future::BoxFuture<'static, anyhow::Result<Arc<dyn ScalingBackend>>>;

/// A running autoscaler.
pub struct Autoscaler {
    fleet: Arc<Fleet>,
    http: Option<SocketAddr>,
    backend: Arc<dyn ScalingBackend>,
    drain: bool,
    essential: JoinSet<&'static str>,
    actors: JoinSet<()>,
    recording: JoinSet<()>,
    candidacy: JoinSet<()>,
    leadership: Arc<Leadership>,
    stop: StopOrder,
}

/// One token for each stage of the shutdown.
#[derive(Debug, Default)]
struct StopOrder {
    sources: CancellationToken,
    actors: CancellationToken,
    prober: CancellationToken,
    recorder: CancellationToken,
    candidate: CancellationToken,
    http: CancellationToken,
}

impl Autoscaler {
    /// Starts with the backend that the settings name.
    ///
    /// # Errors
    /// If something is wrong that waiting won't mend: a port in use, an orchestrator that can't be had.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let settings = options.settings.clone();
        let surroundings = Surroundings {
            swarm: options.program.clone(),
            redis_url: settings.redis_url.clone(),
            config_file: options.config_file.clone(),
        };
        let make: Box<MakeBackend<'_>> = match settings.orchestrator {
            Orchestrator::Process => Box::new(move |on_change, clock| {
                let specs: BTreeMap<WorkerType, ProcessSpec> = enabled(&settings)
                    .map(|(name, worker_type)| (WorkerType::new(name), ProcessSpec::from_settings(name, worker_type)))
                    .collect();
                Box::pin(async move {
                    let backend = ProcessBackend::start(&specs, surroundings, on_change, clock).await?;
                    Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
                })
            }),
            Orchestrator::Kubernetes => kubernetes::make(settings)?,
            Orchestrator::Docker => {
                let surroundings = docker_surroundings(&settings)?;
                Box::new(move |on_change, clock| {
                    let specs: BTreeMap<WorkerType, DockerSpec> = enabled(&settings)
                        .map(|(name, worker_type)| {
                            (WorkerType::new(name), DockerSpec::from_settings(name, worker_type))
                        })
                        .collect();
                    Box::pin(async move {
                        let backend = DockerBackend::start(&specs, surroundings, on_change, clock)?;
                        Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
                    })
                })
            }
            Orchestrator::Fly => Box::new(move |on_change, clock| {
                Box::pin(async move { Ok(Arc::new(fly(&settings, on_change, clock)?) as Arc<dyn ScalingBackend>) })
            }),
        };
        Self::start_with(options, make).await
    }

    /// Starts with any backend.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(options: Options, make_backend: Box<MakeBackend<'_>>) -> anyhow::Result<Self> {
        let Options { settings, metrics, .. } = options;
        let http = bind_http(&settings).await?;
        let clock = Clock::start();
        let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);
        let types: Vec<_> = enabled(&settings).map(|(name, settings)| (WorkerType::new(name), settings)).collect();
        if types.is_empty() {
            bail!("no worker type is enabled; add a [worker_types.NAME] table to the configuration");
        }

        let directory = Arc::new(Directory::new(types.iter().map(watched).collect()));
        let board = Arc::new(SourceBoard::default());
        let backend = make_backend(post_changes(&directory), clock).await?;
        let (listener, listener_handle, plan) =
            Listener::new(target.clone(), listener_settings(&settings), directory.clone(), board.clone());
        let specs = types.iter().map(queue_spec).collect();
        let (prober, prober_handle) = Prober::new(target.clone(), specs, directory.clone(), board.clone(), plan);
        let instance = instance_name();
        let (recorder, recorder_handle) =
            Recorder::new(target.clone(), instance.clone(), settings.scaler.events_max_len);

        let (leadership, candidate) =
            stand_for_election(&settings, &target, &instance, &directory, &backend, clock).await;
        let controls = Arc::new(Controls::default());
        let mut watch = ControlWatch::new(target.clone(), directory.clone(), controls.clone(), clock);
        if let Err(error) = watch.read().await {
            tracing::warn!("whether worker types are paused or pinned can't be read yet: {error}");
        }
        let stop = StopOrder::default();
        let sweep = Arc::new(SweepMonitor::default());
        let trouble = Arc::<AtomicBool>::default();
        let shared = Arc::new(Shared {
            patience: settings.scaler.redis_timeout(),
            directory: directory.clone(),
            listener: listener_handle,
            prober: prober_handle.clone(),
            backend: backend.clone(),
            recorder: recorder_handle,
            clock,
            sweep: sweep.clone(),
            leadership: leadership.clone(),
            controls: controls.clone(),
            trouble: trouble.clone(),
        });
        let remembered = remembered_changes(&target, &types).await;
        let (actors, snapshots) = spawn_actors(&types, remembered, &shared, &settings.scaler, &stop.actors);
        let info = FleetInfo {
            instance,
            orchestrator: settings.orchestrator.as_str(),
            started_at: clock.now(),
            dry_run: settings.scaler.dry_run,
        };
        let (mover, delayed) = delayed_mover(&target, &types, &settings);
        let fleet = Arc::new(Fleet::new(info, board, prober_handle, leadership.clone(), snapshots, delayed));

        let mut essential = JoinSet::new();
        spawn(&mut essential, "prober", prober.run(stop.prober.clone()));
        spawn(&mut essential, "listener", listener.run(stop.sources.clone()));
        spawn(&mut essential, "control", watch.run(stop.sources.clone()));
        let interval = settings.scaler.sweep_interval();
        spawn(&mut essential, "sweep", run_sweep(directory, sweep, interval, stop.sources.clone()));
        // A dry run writes nothing: it moves no job, and tells nobody that it is there to start workers.
        if !settings.scaler.dry_run {
            spawn(&mut essential, "delayed jobs", mover.run(stop.sources.clone()));
            spawn(
                &mut essential,
                "report",
                Reporter::new(target.clone(), fleet.clone(), trouble).run(stop.prober.clone()),
            );
        }
        spawn(&mut essential, "metrics upkeep", metrics.clone().upkeep(stop.http.clone()));
        let http_addr = http.as_ref().map(HttpServer::local_addr);
        if let Some(server) = http {
            let events = Arc::new(EventRing::default());
            spawn(&mut essential, "history", events.clone().follow(target.clone(), stop.http.clone()));
            let control = control::http_control(&settings, &target, &fleet);
            let state = HttpState { status: fleet.clone(), events, metrics, control };
            spawn(&mut essential, "http", serve(server, state, stop.http.clone()));
        }
        let mut recording = JoinSet::new();
        recording.spawn(recorder.run(stop.recorder.clone()));

        let mut candidacy = JoinSet::new();
        if let Some(candidate) = candidate {
            candidacy.spawn(candidate.run(stop.candidate.clone()));
        }

        let drain = settings.scaler.on_shutdown == OnShutdown::Drain;
        Ok(Self { fleet, http: http_addr, backend, drain, essential, actors, recording, candidacy, leadership, stop })
    }

    /// What it shows of itself.
    pub fn status(&self) -> Arc<dyn StatusSource> {
        self.fleet.clone()
    }

    /// Where its HTTP server listens; `None` if it is turned off.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Runs until `cancel`, then stops in order.
    ///
    /// # Errors
    /// If a part without which it can't work has ended by itself.
    pub async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            Some(ended) = self.essential.join_next() => Some(ended),
            Some(ended) = self.actors.join_next() => Some(ended.map(|()| "actor")),
            Some(ended) = self.candidacy.join_next() => Some(ended.map(|()| "election")),
        };
        self.shutdown().await;
        match ended {
            None => Ok(()),
            Some(Ok(name)) => bail!("the {name} task ended by itself; this is a bug, please report it with the log"),
            Some(Err(error)) => bail!("a task failed: {error}; this is a bug, please report it with the log"),
        }
    }

    /// Unready, sources off, effects in flight finished, records written, lead handed over, workers drained, server closed.
    ///
    /// The lead is kept until the workers are gone if all autoscalers share them and they are to be drained: the next
    /// leader would start them again.
    async fn shutdown(mut self) {
        self.fleet.begin_stop();
        self.stop.sources.cancel();
        self.stop.actors.cancel();
        while self.actors.join_next().await.is_some() {}
        let drain = self.drain && self.leadership.permit().is_some();
        let backend = self.backend.clone();
        let hand_over = async {
            if tokio::time::timeout(LAST_RECORDS, self.recording.join_next()).await.is_err() {
                self.stop.recorder.cancel();
                while self.recording.join_next().await.is_some() {}
            }
            if !drain {
                self.resign().await;
            }
        };
        tokio::join!(hand_over, backend.shutdown(drain));
        self.resign().await;
        self.stop.prober.cancel();
        self.stop.http.cancel();
        while self.essential.join_next().await.is_some() {}
    }

    async fn resign(&mut self) {
        self.stop.candidate.cancel();
        while self.candidacy.join_next().await.is_some() {}
    }
}

/// The engine and the project, as Docker's own tools are told.
fn docker_surroundings(settings: &Settings) -> anyhow::Result<docker::Surroundings> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(docker::Surroundings {
        endpoint: Endpoint::from_environment(variable)?,
        limits: docker::Limits::default(),
        redis_url: settings.redis_url.clone(),
        project: variable("COMPOSE_PROJECT_NAME").filter(|project| !project.is_empty()),
        sweep_interval: settings.scaler.sweep_interval(),
    })
}

/// The backend of `orchestrator = "fly"`, with the token and the app that the environment names.
fn fly(settings: &Settings, on_change: OnChange, clock: Clock) -> anyhow::Result<FlyBackend> {
    let own_app = process_environment("FLY_APP_NAME");
    let spec = |(name, worker_type)| {
        Ok((WorkerType::new(name), FlySpec::from_settings(name, worker_type, own_app.as_deref())?))
    };
    let types = enabled(settings).map(spec).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let access = Access::from_settings(&settings.fly, process_environment("FLY_API_TOKEN"));
    Ok(FlyBackend::start(&types, &access, settings.fly.poll(), on_change, clock)?)
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

async fn serve(server: HttpServer, state: HttpState, cancelled: CancellationToken) {
    if let Err(error) = server.serve(state, cancelled).await {
        tracing::error!("http server: {error}");
    }
}

/// Who leads, as far as it can be told at once: the only autoscaler there is leads from the start.
async fn stand_for_election(
    settings: &Settings,
    target: &Arc<RedisTarget>,
    instance: &str,
    directory: &Arc<Directory>,
    backend: &Arc<dyn ScalingBackend>,
    clock: Clock,
) -> (Arc<Leadership>, Option<Candidate>) {
    let leadership = match settings.scaler.leader_lease() {
        _ if settings.scaler.dry_run => Leadership::observer(instance),
        Some(_) => Leadership::standby(instance),
        None => return (Leadership::unopposed(instance, clock.now()), None),
    };
    let election = Election {
        target: target.clone(),
        instance: instance.to_owned(),
        lease: settings.scaler.leader_lease().unwrap_or(WITHOUT_LEASE),
        directory: directory.clone(),
        backend: backend.clone(),
        clock,
    };
    let mut candidate = Candidate::new(election, leadership.clone());
    candidate.attempt().await;
    (leadership, Some(candidate))
}

/// One actor for each worker type, in the order of the directory, with what it shows.
fn spawn_actors(
    types: &[TypeEntry<'_>],
    remembered: Vec<Option<Change>>,
    shared: &Arc<Shared>,
    scaler: &ScalerSettings,
    stop: &CancellationToken,
) -> (JoinSet<()>, Vec<watch::Receiver<Arc<TypeSnapshot>>>) {
    let mut actors = JoinSet::new();
    let mut snapshots = Vec::with_capacity(types.len());
    for (index, ((worker_type, settings), last_change)) in (0_u32..).zip(types.iter().zip(remembered)) {
        let scaling = Arc::new(settings.scaling.clone());
        let context = ActorContext {
            index,
            worker_type: worker_type.clone(),
            expected: Expected { start_grace: scaling.start_grace(), heartbeats: settings.worker.heartbeats },
            shared: shared.clone(),
        };
        let actor = Actor::new(
            worker_type.clone(),
            &shared.directory.watched()[index as usize].queue,
            scaling,
            scaler.debounce(),
            scaler.dry_run,
            last_change,
            shared.clock.now(),
        );
        let (sender, receiver) = watch::channel(actor.snapshot().clone());
        snapshots.push(receiver);
        actors.spawn(run_actor(context, actor, sender, stop.clone()));
    }
    (actors, snapshots)
}

type TypeEntry<'a> = (WorkerType, &'a WorkerTypeSettings);

/// The worker types that are not turned off.
fn enabled(settings: &Settings) -> impl Iterator<Item = (&str, &WorkerTypeSettings)> {
    settings.worker_types.iter().filter(|(_, entry)| entry.enabled).map(|(name, entry)| (name.as_str(), entry))
}

fn watched((worker_type, settings): &TypeEntry<'_>) -> Watched {
    Watched {
        worker_type: worker_type.clone(),
        queue: settings.queue(worker_type.as_str()).into(),
        list: settings.kind == QueueKind::List,
    }
}

fn queue_spec((worker_type, settings): &TypeEntry<'_>) -> QueueSpec {
    QueueSpec {
        key: settings.queue(worker_type.as_str()).into(),
        group: settings.group(worker_type.as_str()).into(),
        list: settings.kind == QueueKind::List,
    }
}

/// Looks after the streams of these types.
fn delayed_mover(
    target: &Arc<RedisTarget>,
    types: &[TypeEntry<'_>],
    settings: &Settings,
) -> (DelayedMover, watch::Receiver<DelayedCounts>) {
    let streams = types.iter().filter(|(_, entry)| entry.kind == QueueKind::Stream);
    let streams = streams.map(|(name, entry)| entry.queue(name.as_str())).collect();
    DelayedMover::new(target.clone(), streams, settings.signals.channel.clone(), settings.scaler.sweep_interval())
}

fn listener_settings(settings: &Settings) -> ListenerSettings {
    ListenerSettings {
        keyspace: settings.signals.keyspace,
        channel: settings.signals.channel.clone(),
        tracking: settings.signals.tracking,
    }
}

/// A change in a pool is a signal like any other.
fn post_changes(directory: &Arc<Directory>) -> OnChange {
    let directory = directory.clone();
    Arc::new(move |worker_type| {
        if let Some(index) = directory.index_of(worker_type) {
            directory.post(index, Source::Backend);
            SignalsReceived { source: Source::Backend, count: 1 }.emit();
        }
    })
}

async fn bind_http(settings: &Settings) -> anyhow::Result<Option<HttpServer>> {
    if settings.http.listen.is_empty() {
        return Ok(None);
    }
    let listen = settings.http.listen.parse().with_context(|| {
        format!("http.listen = \"{}\" is not an address and port such as 127.0.0.1:9000", settings.http.listen)
    })?;
    Ok(Some(HttpServer::bind(listen).await?))
}

/// Without Redis nothing is remembered: then the start itself counts as the last change, which lowers nothing.
async fn remembered_changes(target: &RedisTarget, types: &[TypeEntry<'_>]) -> Vec<Option<Change>> {
    let names: Vec<_> = types.iter().map(|(worker_type, _)| worker_type.clone()).collect();
    match load_changes(target, &names).await {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!("cooldowns from before can't be read, they start anew: {error}");
            vec![None; names.len()]
        }
    }
}

/// Names this instance in records: host and process id, once per process.
fn instance_name() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}-{}", std::process::id())
    })
    .clone()
}
