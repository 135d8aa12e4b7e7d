//! A process group, which is the pool of one worker type, and the app that it belongs to; and what all of them share.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    api::Api,
    books::Books,
    failure::{permanent, retryable},
};
use crate::{
    backend::{BackendError, ErrorKind, OnChange},
    config::{FlyWorkerSettings, WorkerTypeSettings},
    model::{Clock, WorkerType},
};

/// How to run the workers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlySpec {
    /// The app, which must exist.
    pub app: String,
    /// The process group.
    pub group: String,
    /// What its machines are like.
    pub settings: FlyWorkerSettings,
    /// How long a worker may take to leave when the scaler stops and drains.
    pub drain_timeout: Duration,
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
            permanent(format!(
                "worker type `{name}` has no fly.io app; set `worker_types.{name}.fly.app` (on Fly.io, FLY_APP_NAME names it)"
            ))
        })?;
        let drain_timeout = settings.scaling.drain_timeout();
        Ok(Self { app, group: fly.process_group(name), settings: FlyWorkerSettings::clone(fly), drain_timeout })
    }
}

/// What all groups share.
pub(super) struct Shared {
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
    pub(super) settings: FlyWorkerSettings,
    pub(super) drain_timeout: Duration,
    pub(super) books: Books,
    /// Who changes the number of machines: one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// An app, and how the lists of its machines come along.
pub(super) struct App {
    pub(super) name: String,
    pub(super) listed: watch::Sender<Listed>,
    /// Asks for a list before it is time.
    pub(super) look: Notify,
    /// Volumes that were given to a machine, whether a list says so already or not.
    pub(super) claimed: Mutex<HashSet<String>>,
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
    /// Whether the books can be relied on, with lists that are to come every `poll`.
    ///
    /// One list that fails is bridged, since the next one is due in seconds. A refusal is not: it won't go away.
    pub(super) fn verdict(&self, app: &str, poll: Duration, now: Instant) -> Result<(), BackendError> {
        let fresh = self.is_fresh(poll, now);
        match &self.failure {
            Some(failure) if !fresh || failure.kind == ErrorKind::Permanent => Err(failure.clone()),
            _ if fresh => Ok(()),
            _ => Err(retryable(format!(
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
    /// However often lists come, one that is held up for a moment is no outage.
    const LEAST: Duration = Duration::from_secs(5);
    (poll * 3).max(LEAST)
}

/// An app's groups by name.
pub(super) type ByName = HashMap<String, Arc<Group>>;

/// The groups by worker type, and those of each app by name.
pub(super) struct Groups {
    pub(super) by_type: BTreeMap<WorkerType, Arc<Group>>,
    pub(super) by_app: Vec<(Arc<App>, ByName)>,
}

/// Makes them, with nothing known of them. Two worker types that share a group are an error: neither would know which
/// machines are its own.
pub(super) fn groups(types: &BTreeMap<WorkerType, FlySpec>) -> Result<Groups, BackendError> {
    let mut by_app: BTreeMap<&str, (Arc<App>, ByName)> = BTreeMap::new();
    let mut by_type = BTreeMap::new();
    for (worker_type, spec) in types {
        let (app, groups) = by_app.entry(&spec.app).or_insert_with(|| (Arc::new(App::new(&spec.app)), HashMap::new()));
        let group = Arc::new(Group {
            worker_type: worker_type.clone(),
            app: app.clone(),
            name: spec.group.clone(),
            settings: spec.settings.clone(),
            drain_timeout: spec.drain_timeout,
            books: Books::default(),
            turn: tokio::sync::Mutex::default(),
        });
        if let Some(other) = groups.insert(spec.group.clone(), group.clone()) {
            return Err(permanent(format!(
                "worker types `{}` and `{worker_type}` both have process group `{}` of fly.io app `{}`; give one another \
                 `fly.process_group`",
                other.worker_type, spec.group, spec.app
            )));
        }
        by_type.insert(worker_type.clone(), group);
    }
    Ok(Groups { by_type, by_app: by_app.into_values().collect() })
}

impl App {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            listed: watch::Sender::default(),
            look: Notify::default(),
            claimed: Mutex::default(),
        }
    }
}
