//! The composition root: the only module that knows all parts. It wires them together, and starts and stops them in
//! order.

mod actor_set;
mod app_shared;
mod backends;
mod config;
mod control;
mod error;
mod external_scaler;
mod features;
mod http_port;
mod jobs;
mod notifications;
mod queue_servers;
mod quiet_watch;
mod reload;
mod service;
mod wiring;

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::bail;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::reload::Reload;
use self::{
    actor_set::{ActorSet, Past},
    app_shared::AppShared,
    external_scaler::ExternalScaler,
    http_port::HttpPort,
    jobs::Jobs,
    notifications::Notifications,
    quiet_watch::FrameworkQuietWatch,
    reload::Requests,
    wiring::Wiring,
};
use crate::{
    backend::{OnChange, ScalingBackend},
    config::{OnShutdown, Settings},
    connection::RedisTarget,
    http::HttpState,
    model::{
        Clock, Source, WorkerType,
        snapshot::{Change, StatusSource},
    },
    scaler::{
        Budget, CanaryState, Candidate, Election, EventBuffer, Fleet, FleetInfo, Leadership, Recorder, Reporter,
        SignWriter, SignsOfLife, load_changes,
    },
    signal::CurrentDirectory,
    telemetry::{ConfigLoaded, SignalsReceived},
};

pub use backends::check_backend;
pub use config::{AutoscalerConfig, AutoscalerConfigError};
pub use error::AutoscalerError;
pub use features::{UnsupportedSetting, unsupported_settings};

/// Longest time to write the last records when the scaler stops.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// Lease from which an observer without an election, which takes no lease, derives how long it waits for Redis.
const WITHOUT_LEASE: Duration = Duration::from_secs(10);

/// Returns the runtime of an autoscaler.
///
/// # Errors
/// If the system refuses a thread or a descriptor.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Constructor of the backend. It gets the callback for pools that change by themselves.
pub type MakeBackend<'a> = dyn FnOnce(OnChange, Clock) -> MadeBackend + Send + 'a;

/// A backend under construction.
pub type MadeBackend = futures_util::future::BoxFuture<'static, anyhow::Result<Arc<dyn ScalingBackend>>>;

/// A running autoscaler.
pub struct Autoscaler {
    settings: Arc<Settings>,
    app_shared: AppShared,
    wiring: Wiring,
    actors: ActorSet,
    /// Replaced wirings that have not ended yet.
    leaving: JoinSet<()>,
    fleet: Arc<Fleet>,
    jobs: Arc<Jobs>,
    notifications: Notifications,
    requests: Requests,
    http: Option<SocketAddr>,
    essential: JoinSet<&'static str>,
    recording: JoinSet<()>,
    candidacy: JoinSet<()>,
    stop: StopOrder,
}

/// One token for each stage of the shutdown, except for those of the wiring and the actors.
#[derive(Debug, Default)]
struct StopOrder {
    notice: CancellationToken,
    report: CancellationToken,
    recorder: CancellationToken,
    candidate: CancellationToken,
    http: CancellationToken,
}

impl Autoscaler {
    /// Starts with the backend that the settings name.
    ///
    /// # Errors
    /// If something is wrong that does not end by waiting: a port in use, an orchestrator that is unavailable.
    pub async fn start(config: AutoscalerConfig) -> Result<Self, AutoscalerError> {
        let make = backends::make(&config).map_err(|error| AutoscalerError::Start(error.into()))?;
        Self::start_with(config, make).await
    }

    /// Starts with any backend.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[doc(hidden)]
    pub async fn start_with(
        config: AutoscalerConfig,
        make_backend: Box<MakeBackend<'_>>,
    ) -> Result<Self, AutoscalerError> {
        Self::assemble(config, make_backend).await.map_err(|error| AutoscalerError::Start(error.into()))
    }

    async fn assemble(config: AutoscalerConfig, make_backend: Box<MakeBackend<'_>>) -> anyhow::Result<Self> {
        let AutoscalerConfig { settings, metrics, reload, .. } = config;
        check_settings(&settings)?;
        let http = HttpPort::bind(&settings).await?;
        let external_scaler = ExternalScaler::bind(&settings).await?;
        let clock = Clock::start();
        let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);

        let directories = queue_servers::directories(&settings);
        let current = CurrentDirectory::new(directories.clone());
        let backend = make_backend(post_changes(&current), clock).await?;
        let instance = instance_name();
        let (recorder, recorder_handle) =
            Recorder::new(target.clone(), instance.clone(), settings.scaler.events_max_len);
        let canary = Arc::<CanaryState>::default();
        let leadership = initial_leadership(&settings, &instance, clock);
        let signs = SignsOfLife::new(instance.clone(), leadership.clone(), clock, canary.clone());
        let candidate = stand_for_election(&settings, &target, &leadership, &signs, &current, &backend, clock).await?;
        let leads = leadership.clone();
        let quiet_watch = FrameworkQuietWatch::of(&*backend, &settings, clock);
        backend.act_only_while(Box::new(move || leads.permit().is_some()));
        let app_shared = AppShared {
            target: target.clone(),
            clock,
            source_status: Arc::default(),
            directory: current.clone(),
            controls: Arc::default(),
            updates: Arc::default(),
            budget: Arc::new(Budget::new(current)),
            canary,
            backend,
            quiet_watch,
            recorder: recorder_handle,
            leadership: leadership.clone(),
            trouble: Arc::default(),
        };
        let types = settings.enabled().map(|(name, _)| WorkerType::new(name)).collect();
        let remembered = remembered_changes(&target, types).await;
        let wiring = Wiring::start(&app_shared, &settings, directories).await?;
        let past = Past { remembered, ..Past::default() };
        let actors = ActorSet::start(&settings, &wiring.shared(&app_shared, &settings), &app_shared, past);
        let info = FleetInfo {
            instance,
            orchestrator: settings.orchestrator.as_str(),
            started_at: clock.now(),
            dry_run: settings.scaler.dry_run,
        };
        let fleet = Arc::new(Fleet::new(
            info,
            app_shared.source_status.clone(),
            leadership,
            app_shared.canary.clone(),
            wiring.parts(&settings, actors.shown()),
        ));

        let stop = StopOrder::default();
        let mut essential = JoinSet::new();
        // A dry run writes nothing: it does not announce itself as an autoscaler that starts workers.
        if !settings.scaler.dry_run {
            announce(&app_shared, &fleet, signs, &mut essential, &stop.report);
        }
        spawn(&mut essential, "metrics upkeep", metrics.clone().upkeep(stop.http.clone()));
        let http_addr = http.local_addr();
        let jobs = Arc::new(Jobs::new(&settings, &target));
        if matches!(http, HttpPort::Off) {
            service::notify(service::READY);
        } else {
            let events = Arc::new(EventBuffer::default());
            spawn(&mut essential, "history", events.clone().follow(target.clone(), stop.http.clone()));
            let control = control::http_control(&settings, &target, &fleet, &jobs);
            let access = control::http_access(&settings);
            let state = HttpState { status: fleet.clone(), events, metrics, control, access };
            spawn(&mut essential, "http", http.serve(state, stop.http.clone()));
        }
        external_scaler.serve(fleet.clone(), app_shared.updates.clone(), &mut essential, &stop.http);
        let notifications = Notifications::start(&settings, fleet.clone(), clock, &mut essential, &stop.notice);
        let requests = notice_changes(reload, &mut essential, &stop.notice);
        let mut recording = JoinSet::new();
        recording.spawn(recorder.run(stop.recorder.clone()));
        let mut candidacy = JoinSet::new();
        if let Some(candidate) = candidate {
            candidacy.spawn(candidate.run(stop.candidate.clone()));
        }
        ConfigLoaded.emit();
        Ok(Self {
            settings,
            app_shared,
            wiring,
            actors,
            leaving: JoinSet::new(),
            fleet,
            jobs,
            notifications,
            requests,
            http: http_addr,
            essential,
            recording,
            candidacy,
            stop,
        })
    }

    /// Returns the state that the autoscaler shows of itself.
    #[doc(hidden)]
    pub fn status(&self) -> Arc<dyn StatusSource> {
        self.fleet.clone()
    }

    /// Returns the address of the HTTP server; `None` if the server is turned off or waits for its port.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Runs until `cancel`, then stops in order. Reloads the settings on request.
    ///
    /// # Errors
    /// If an essential part has ended by itself.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), AutoscalerError> {
        let ended = loop {
            let trigger = tokio::select! {
                () = cancel.cancelled() => break None,
                Some(ended) = self.essential.join_next() => break Some(ended),
                Some(ended) = self.wiring.tasks.join_next() => break Some(ended),
                Some(ended) = self.actors.next_ended() => break Some(ended.map(|()| "actor")),
                Some(ended) = self.candidacy.join_next() => break Some(ended.map(|()| "election")),
                Some(trigger) = self.requests.next() => trigger,
            };
            if let Err(error) = self.reload(trigger, &cancel).await {
                self.shutdown().await;
                return Err(AutoscalerError::Reload(error.into()));
            }
        };
        self.shutdown().await;
        match ended {
            None => Ok(()),
            Some(Ok(name)) => Err(AutoscalerError::Ended(name)),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Shuts down in order: reports not ready, stops the sources, finishes effects in flight, writes the records, hands
    /// over the lead, drains the workers, closes the server.
    ///
    /// If the workers are to be drained and all autoscalers share them, this autoscaler keeps the lead until they are
    /// gone: the next leader would start them again.
    async fn shutdown(mut self) {
        self.fleet.begin_stop();
        service::notify(service::STOPPING);
        self.stop.notice.cancel();
        self.wiring.stop_sources();
        self.actors.finish().await;
        let Self {
            settings,
            app_shared,
            mut wiring,
            actors,
            mut leaving,
            mut essential,
            recording,
            candidacy,
            stop,
            ..
        } = self;
        // The recorder ends once all its senders are dropped.
        drop(actors);
        let AppShared { backend, leadership, recorder, .. } = app_shared;
        drop(recorder);
        let drain = settings.scaler.on_shutdown == OnShutdown::Drain && leadership.permit().is_some();
        let mut parting = Parting { candidacy, stop: stop.candidate };
        let hand_over = async {
            finish_records(recording, &stop.recorder).await;
            if !drain {
                parting.resign().await;
            }
        };
        tokio::join!(hand_over, backend.shutdown(drain));
        parting.resign().await;
        wiring.stop().await;
        while leaving.join_next().await.is_some() {}
        stop.report.cancel();
        stop.http.cancel();
        while essential.join_next().await.is_some() {}
    }
}

/// Gives up the lead.
struct Parting {
    candidacy: JoinSet<()>,
    stop: CancellationToken,
}

impl Parting {
    async fn resign(&mut self) {
        self.stop.cancel();
        while self.candidacy.join_next().await.is_some() {}
    }
}

/// Waits for the last records to be written, for at most [`LAST_RECORDS`].
async fn finish_records(mut recording: JoinSet<()>, give_up: &CancellationToken) {
    if tokio::time::timeout(LAST_RECORDS, recording.join_next()).await.is_err() {
        give_up.cancel();
        while recording.join_next().await.is_some() {}
    }
}

/// Starts the task that notices requests to reload the settings.
fn notice_changes(reload: Option<Reload>, essential: &mut JoinSet<&'static str>, stop: &CancellationToken) -> Requests {
    let Some(reload) = reload else {
        let (_, nobody) = mpsc::channel(1);
        return Requests::new(None, nobody);
    };
    let (notice, source, asked) = reload.split();
    let stop = stop.clone();
    spawn(essential, "configuration watch", async move {
        stop.run_until_cancelled(notice).await;
    });
    Requests::new(Some(source), asked)
}

/// Refuses settings that this build can't follow, and settings without an enabled worker type.
fn check_settings(settings: &Settings) -> anyhow::Result<()> {
    features::check_features(settings).map_err(anyhow::Error::msg)?;
    if settings.enabled().next().is_none() {
        bail!("no worker type is enabled; add a [worker_types.NAME] table to the configuration");
    }
    Ok(())
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// Starts to tell others what this autoscaler does, and that it lives.
fn announce(
    app_shared: &AppShared,
    fleet: &Arc<Fleet>,
    signs: Arc<SignsOfLife>,
    essential: &mut JoinSet<&'static str>,
    stop: &CancellationToken,
) {
    let target = || app_shared.target.clone();
    let reporter = Reporter::new(target(), fleet.clone(), app_shared.trouble.clone());
    spawn(essential, "report", reporter.run(stop.clone()));
    spawn(essential, "signs of life", SignWriter::new(target(), signs).run(stop.clone()));
}

/// Returns the leadership at the start. Without an election this autoscaler leads.
fn initial_leadership(settings: &Settings, instance: &str, clock: Clock) -> Arc<Leadership> {
    match settings.scaler.leader_lease() {
        _ if settings.scaler.dry_run => Leadership::observer(instance),
        Some(_) => Leadership::standby(instance),
        None => Leadership::unopposed(instance, clock.now()),
    }
}

/// Returns the candidate of the election; `None` without an election.
async fn stand_for_election(
    settings: &Settings,
    target: &Arc<RedisTarget>,
    leadership: &Arc<Leadership>,
    signs: &Arc<SignsOfLife>,
    directory: &Arc<CurrentDirectory>,
    backend: &Arc<dyn ScalingBackend>,
    clock: Clock,
) -> anyhow::Result<Option<Candidate>> {
    if !settings.scaler.dry_run && settings.scaler.leader_lease().is_none() {
        return Ok(None);
    }
    let election = Election {
        target: target.clone(),
        object: backends::lease(settings).await?,
        instance: signs.instance().to_owned(),
        lease: settings.scaler.leader_lease().unwrap_or(WITHOUT_LEASE),
        directory: directory.clone(),
        backend: backend.clone(),
        clock,
        signs: signs.clone(),
    };
    let mut candidate = Candidate::new(election, leadership.clone());
    candidate.attempt().await;
    Ok(Some(candidate))
}

/// Returns the callback that turns a change of a pool into a signal.
fn post_changes(current: &Arc<CurrentDirectory>) -> OnChange {
    let current = current.clone();
    Arc::new(move |worker_type| {
        if current.get().post(worker_type, Source::Backend) {
            SignalsReceived { source: Source::Backend, count: 1 }.emit();
        }
    })
}

/// Loads the last changes of these worker types. If Redis does not answer, the start itself counts as the last change,
/// which lowers nothing.
async fn remembered_changes(target: &RedisTarget, types: Vec<WorkerType>) -> HashMap<WorkerType, Change> {
    if types.is_empty() {
        return HashMap::new();
    }
    match load_changes(target, &types).await {
        Ok(changes) => types.into_iter().zip(changes).filter_map(|(name, change)| Some((name, change?))).collect(),
        Err(error) => {
            tracing::warn!("earlier cooldowns can't be read; they start again: {error}");
            HashMap::new()
        }
    }
}

/// Returns the name of this instance in records: host and process id, constant for the process.
fn instance_name() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}-{}", std::process::id())
    })
    .clone()
}
