//! A process group, which is the pool of one worker type, and the app that it belongs to; and what all of them share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{api::Api, registry::MachineRegistry, volumes::ClaimedVolumes};
use crate::{
    backend::{BackendError, ErrorKind, OnChange},
    config::{FlyWorkerSettings, Settings, WorkerTypeSettings},
    model::{Clock, StopSignal, WorkerType},
};

/// How to run the workers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlySpec {
    /// The app, which must exist.
    pub app: String,
    /// The process group.
    pub group: String,
    /// Settings of its machines.
    pub settings: FlyWorkerSettings,
    /// How long a worker may take to leave when the scaler stops and drains.
    pub drain_timeout: Duration,
    /// Signal that asks a worker to finish its jobs and leave.
    pub signal: StopSignal,
}

impl FlySpec {
    /// What the settings of worker type `name` say. `own_app` is the app that the scaler itself runs in, if any.
    pub fn from_settings(
        name: &str,
        settings: &WorkerTypeSettings,
        own_app: Option<&str>,
    ) -> Result<Self, BackendError> {
        let fly = &settings.fly;
        let app = fly.app.clone().or_else(|| own_app.map(str::to_owned)).ok_or_else(|| {
            BackendError::permanent(format!(
                "worker type `{name}` has no fly.io app; set `worker_types.{name}.fly.app` (on Fly.io, FLY_APP_NAME names it)"
            ))
        })?;
        let drain_timeout = settings.scaling.drain_timeout();
        let (group, signal) = (fly.process_group(name), settings.stop_policy().signal);
        Ok(Self { app, group, settings: FlyWorkerSettings::clone(fly), drain_timeout, signal })
    }

    /// Those of all worker types that are enabled.
    ///
    /// # Errors
    /// If one has no app.
    pub fn all(settings: &Settings, own_app: Option<&str>) -> Result<BTreeMap<WorkerType, Self>, BackendError> {
        let spec = |(name, of)| Ok((WorkerType::new(name), Self::from_settings(name, of, own_app)?));
        settings.enabled().map(spec).collect()
    }
}

/// State shared by all groups.
pub(super) struct FlyShared {
    pub(super) api: Api,
    pub(super) on_change: OnChange,
    pub(super) clock: Clock,
    /// Time between two lists of an app.
    pub(super) poll: Duration,
    /// Everything that runs beside the calls of the scaler.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The pool of one worker type.
pub(super) struct Group {
    pub(super) worker_type: WorkerType,
    pub(super) app: Arc<App>,
    pub(super) name: String,
    spec: RwLock<Arc<FlySpec>>,
    pub(super) registry: MachineRegistry,
    /// Who changes the number of machines: one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Group {
    fn new(worker_type: &WorkerType, app: &Arc<App>, spec: FlySpec) -> Self {
        Self {
            worker_type: worker_type.clone(),
            app: app.clone(),
            name: spec.group.clone(),
            spec: RwLock::new(Arc::new(spec)),
            registry: MachineRegistry::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the present settings of its machines.
    pub(super) fn spec(&self) -> Arc<FlySpec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the machines of `spec` are its own.
    fn is_of(&self, spec: &FlySpec) -> bool {
        self.app.name == spec.app && self.name == spec.group
    }

    fn respec(&self, spec: FlySpec) {
        *self.spec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spec);
    }
}

/// An app, and how the lists of its machines come along.
pub(super) struct App {
    pub(super) name: String,
    /// Those that are looked after.
    groups: RwLock<Arc<ByName>>,
    /// No group of it is looked after any more.
    pub(super) left: CancellationToken,
    pub(super) listed: watch::Sender<Listed>,
    /// Asks for a list before it is time.
    pub(super) look: Notify,
    /// Volumes that were given to a machine, which no list may say yet.
    pub(super) claimed: Mutex<ClaimedVolumes>,
}

/// How the lists of an app come along.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed {
    /// When the last one that came was asked for.
    pub(super) last: Option<Instant>,
    /// Why the newest one did not come.
    pub(super) failure: Option<BackendError>,
}

impl Listed {
    /// Whether the registry can be relied on, with lists that are to come every `poll`.
    ///
    /// One list that fails is bridged, since the next one is due in seconds. A refusal is not: it won't go away.
    pub(super) fn verdict(&self, app: &str, poll: Duration, now: Instant) -> Result<(), BackendError> {
        let fresh = self.is_fresh(poll, now);
        match &self.failure {
            Some(failure) if !fresh || failure.kind == ErrorKind::Permanent => Err(failure.clone()),
            _ if fresh => Ok(()),
            _ => Err(BackendError::retryable(format!(
                "fly.io app `{app}`: no list of its machines for {} s, so how many there are is not known; see \
                 https://status.flyio.net and `fly.base_url`",
                stale_after(poll).as_secs()
            ))),
        }
    }

    /// Whether there is a list that says something about now.
    pub(super) fn is_fresh(&self, poll: Duration, now: Instant) -> bool {
        self.last.is_some_and(|last| now.duration_since(last) < stale_after(poll))
    }
}

/// From which age on a list says nothing about now.
fn stale_after(poll: Duration) -> Duration {
    /// Lower bound: a list that is delayed for a moment is not an outage.
    const LEAST: Duration = Duration::from_secs(5);
    (poll * 3).max(LEAST)
}

/// An app's groups by name.
pub(super) type ByName = HashMap<String, Arc<Group>>;

/// The groups by worker type.
pub(super) type Groups = BTreeMap<WorkerType, Arc<Group>>;

/// The groups of `types`: those of `known` where they are the same, with what is known of them, and new ones, of which
/// nothing is. Two worker types that share a group are an error: neither would know which machines are its own.
pub(super) fn groups(types: BTreeMap<WorkerType, FlySpec>, known: &Groups) -> Result<Groups, BackendError> {
    check_groups(&types)?;
    let mut apps: BTreeMap<String, Arc<App>> =
        known.values().map(|group| (group.app.name.clone(), group.app.clone())).collect();
    apps.retain(|_, app| !app.left.is_cancelled());
    let group_of = |(worker_type, spec): (WorkerType, FlySpec)| {
        let same = known.get(&worker_type).filter(|group| group.is_of(&spec) && !group.app.left.is_cancelled());
        let group = if let Some(group) = same {
            group.respec(spec);
            group.clone()
        } else {
            let app = apps.entry(spec.app.clone()).or_insert_with(|| Arc::new(App::new(&spec.app)));
            Arc::new(Group::new(&worker_type, app, spec))
        };
        (worker_type, group)
    };
    Ok(types.into_iter().map(group_of).collect())
}

fn check_groups(types: &BTreeMap<WorkerType, FlySpec>) -> Result<(), BackendError> {
    let mut owners = BTreeMap::new();
    for (worker_type, spec) in types {
        if let Some(other) = owners.insert((&spec.app, &spec.group), worker_type) {
            return Err(BackendError::permanent(format!(
                "worker types `{other}` and `{worker_type}` both have process group `{}` of fly.io app `{}`; give one another \
                 `fly.process_group`",
                spec.group, spec.app
            )));
        }
    }
    Ok(())
}

impl App {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            groups: RwLock::default(),
            left: CancellationToken::new(),
            listed: watch::Sender::default(),
            look: Notify::default(),
            claimed: Mutex::default(),
        }
    }

    /// Its groups that are looked after, by name.
    pub(super) fn groups(&self) -> Arc<ByName> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these are looked after.
    pub(super) fn look_after(&self, groups: ByName) {
        *self.groups.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(groups);
        self.look.notify_one();
    }
}
