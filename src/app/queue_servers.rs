//! The Redis servers that have queues, each with its listener and its prober: the top-level server, and those that
//! worker types have of their own. Everything else of the autoscaler is on the top-level server.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{app_shared::AppShared, spawn};
use crate::{
    config::{QueueServer, Settings, WorkerTypeSettings},
    connection::{ConnectionError, RedisTarget},
    model::WorkerType,
    probe::{Prober, ProberHandle, QueueSpec, SeveralSpec},
    scaler::{QueueServerParts, Shared},
    signal::{
        Directories, Directory, Listener, ListenerHandle, ListenerSettings, QueueFinder, Several, SourceStatus,
        Subscriptions, WatchedType,
    },
};

/// One server.
pub(super) struct RunningServer {
    pub(super) directory: Arc<Directory>,
    pub(super) listener: ListenerHandle,
    pub(super) prober: ProberHandle,
    planned: watch::Receiver<Option<Subscriptions>>,
    source_status: Arc<SourceStatus>,
}

/// All servers.
pub(super) struct RunningServers {
    /// The server that also has swarm's own keys.
    pub(super) top_level: RunningServer,
    own: Vec<RunningServer>,
}

/// Tokens that stop the tasks of a server.
pub(super) struct Stops<'a> {
    pub(super) sources: &'a CancellationToken,
    pub(super) probing: &'a CancellationToken,
}

/// What the actors need, by the server that has their queues.
pub(super) struct SharedParts(Vec<Arc<Shared>>);

impl SharedParts {
    /// Returns the index of a worker type in its directory, and the parts of its server.
    pub(super) fn of(&self, worker_type: &WorkerType) -> Option<(u32, &Arc<Shared>)> {
        self.0.iter().find_map(|shared| Some((shared.directory.index_of(worker_type)?, shared)))
    }
}

impl RunningServers {
    /// Starts the tasks of all servers. The directories are those of [`directories`] for the same settings.
    ///
    /// # Errors
    /// If a URL can't be used.
    pub(super) fn start(
        app_shared: &AppShared,
        settings: &Settings,
        directories: &Directories,
        tasks: &mut JoinSet<&'static str>,
        stops: &Stops<'_>,
    ) -> Result<Self, ConnectionError> {
        let mut own = Vec::new();
        let mut top_level = None;
        for (server, directory) in settings.queue_servers().iter().zip(directories.all()) {
            if top_level.is_none() {
                let (target, status) = (app_shared.target.clone(), app_shared.source_status.clone());
                top_level = Some(start(app_shared, settings, server, target, status, directory, tasks, stops));
            } else {
                let target = Arc::new(RedisTarget::new(server.url, settings.scaler.redis_timeout())?);
                let status = Arc::new(SourceStatus::of_server(target.display()));
                own.push(start(app_shared, settings, server, target, status, directory, tasks, stops));
            }
        }
        Ok(Self { top_level: top_level.expect("the top-level server is always the first"), own })
    }

    fn all(&self) -> impl Iterator<Item = &RunningServer> {
        std::iter::once(&self.top_level).chain(&self.own)
    }

    /// Waits until the sources and the prober of each server are connected, for at most `patience`.
    pub(super) async fn until_connected(&self, patience: Duration) {
        let connected = async {
            for server in self.all() {
                server.prober.until_tried(patience).await;
                if server.prober.redis_error().is_none() {
                    let _ = server.planned.clone().wait_for(Option::is_some).await;
                }
            }
        };
        let _ = tokio::time::timeout(patience, connected).await;
    }

    /// Returns what the actors need. `shared` makes the parts of a server.
    pub(super) fn shared(&self, shared: impl Fn(&RunningServer, bool) -> Shared) -> SharedParts {
        let own = self.own.iter().map(|server| Arc::new(shared(server, true)));
        SharedParts(std::iter::once(Arc::new(shared(&self.top_level, false))).chain(own).collect())
    }

    /// Returns what the fleet shows of the servers that worker types have of their own.
    pub(super) fn parts(&self) -> Vec<QueueServerParts> {
        let parts = |of: &RunningServer| QueueServerParts {
            server: of.source_status.server().unwrap_or_default().to_owned(),
            prober: of.prober.clone(),
            source_status: of.source_status.clone(),
            worker_types: of.directory.watched().iter().map(|watched| watched.worker_type.clone()).collect(),
        };
        self.own.iter().map(parts).collect()
    }

    /// Returns the names of the servers that worker types have of their own.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.own.iter().filter_map(|server| server.source_status.server()).map(str::to_owned).collect()
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one server, put together in one place")]
fn start(
    app_shared: &AppShared,
    settings: &Settings,
    server: &QueueServer<'_>,
    target: Arc<RedisTarget>,
    source_status: Arc<SourceStatus>,
    directory: &Arc<Directory>,
    tasks: &mut JoinSet<&'static str>,
    stops: &Stops<'_>,
) -> RunningServer {
    let listening = listener_settings(settings, source_status.server().is_some());
    let (listener, listener_handle, plan) =
        Listener::new(target.clone(), listening, directory.clone(), source_status.clone());
    let planned = plan.clone();
    let specs = server.types.iter().map(|(name, of)| of.queue_spec(name)).collect();
    let several = (0..).zip(&server.types).filter_map(|(index, (name, of))| several_spec(index, name, of)).collect();
    let (clock, status) = (app_shared.clock, source_status.clone());
    let (prober, prober_handle) = Prober::new(target.clone(), specs, several, directory.clone(), status, plan, clock);
    spawn(tasks, "prober", prober.run(stops.probing.clone()));
    spawn(tasks, "listener", listener.run(stops.sources.clone()));
    if let Some(finder) = QueueFinder::new(target, directory.clone(), settings.scaler.sweep_interval()) {
        spawn(tasks, "queue finder", finder.run(stops.sources.clone()));
    }
    RunningServer {
        directory: directory.clone(),
        listener: listener_handle,
        prober: prober_handle,
        planned,
        source_status,
    }
}

/// Returns the directories of the worker types in the settings, one for each server.
pub(super) fn directories(settings: &Settings) -> Arc<Directories> {
    let watched = |(name, of): &(&str, &WorkerTypeSettings)| {
        let several = || Box::new(Several { queues: of.queues(name), group: of.group(name).into() });
        WatchedType {
            worker_type: WorkerType::new(*name),
            queue: of.queue(name).into(),
            kind: of.queue_kind(),
            several: (!of.extra_queues.is_empty() && of.framework.is_none()).then(several),
            signals: of.framework_spec().map(|spec| Box::new(spec.signals())),
        }
    };
    let directory = |server: &QueueServer<'_>| Arc::new(Directory::new(server.types.iter().map(watched).collect()));
    Directories::new(settings.queue_servers().iter().map(directory).collect())
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

fn listener_settings(settings: &Settings, is_own: bool) -> ListenerSettings {
    ListenerSettings {
        keyspace: settings.signals.keyspace,
        channel: settings.signals.channel.clone(),
        tracking: settings.signals.tracking,
        is_own,
    }
}
