//! A stand-in platform, of programs or a service, and the backend over it.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{fake_platform::FakePlatform, support::wait::DEADLINE};
use async_trait::async_trait;
use swarm::{
    backend::{
        BackendError, DrainControl, DrainError, DrainState, Pool, ScaleReport, ScaleRequest, ScalingBackend,
        command::{CommandBackend, CommandSpec},
    },
    config::CommandSettings,
    model::{Clock, WorkerId, WorkerType},
};
use tempfile::TempDir;
use tokio::sync::watch;

const PLATFORM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/command/platform");

/// Workers that drain when they are asked to, except for those that are busy.
#[derive(Default)]
pub(crate) struct Drains {
    pub(crate) busy: Mutex<HashSet<WorkerId>>,
    pub(crate) asked: Mutex<HashSet<WorkerId>>,
}

#[async_trait]
impl DrainControl for Drains {
    async fn request(&self, _: &WorkerType, ids: &[WorkerId], _: Duration) -> Result<(), DrainError> {
        self.asked.lock().unwrap().extend(ids.iter().cloned());
        Ok(())
    }

    async fn cancel(&self, _: &WorkerType, ids: &[WorkerId]) -> Result<(), DrainError> {
        self.asked.lock().unwrap().retain(|id| !ids.contains(id));
        Ok(())
    }

    async fn states(&self, _: &WorkerType, ids: &[WorkerId]) -> Result<Vec<DrainState>, DrainError> {
        let (busy, asked) = (self.busy.lock().unwrap(), self.asked.lock().unwrap());
        let state = |id: &WorkerId| match (asked.contains(id), busy.contains(id)) {
            (false, _) => DrainState::Working,
            (true, true) => DrainState::Draining,
            (true, false) => DrainState::Drained,
        };
        Ok(ids.iter().map(state).collect())
    }
}

/// The backend over the programs that work in a directory, or over a service.
pub(crate) struct Bench<P = TempDir> {
    pub(crate) backend: CommandBackend,
    pub(crate) drains: Arc<Drains>,
    pub(crate) stand_in: P,
    changes: watch::Receiver<u64>,
}

fn words(words: &[&str]) -> Vec<String> {
    std::iter::once(PLATFORM).chain(words.iter().copied()).map(str::to_owned).collect()
}

/// The usual commands, for one worker in each run.
pub(crate) fn one_by_one() -> CommandSettings {
    CommandSettings {
        list: words(&["list"]),
        start: words(&["run", "{type}", "{worker_id}"]),
        stop: words(&["stop", "{id}"]),
        watch: words(&["watch"]),
        poll_seconds: 1,
        ..CommandSettings::default()
    }
}

/// For a platform that makes up the ids.
pub(crate) fn counted() -> CommandSettings {
    CommandSettings { start: words(&["run-many", "{count}"]), ..one_by_one() }
}

/// For a platform that has only a number.
pub(crate) fn by_number(order: &str) -> CommandSettings {
    let scale = words(&["scale", "{target}", order]);
    CommandSettings { scale, start: Vec::new(), stop: Vec::new(), ..one_by_one() }
}

/// The worker type of all tests here.
pub(crate) fn mail() -> WorkerType {
    WorkerType::new("mail")
}

impl Bench {
    pub(crate) fn start(settings: impl FnOnce() -> CommandSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.environment.insert("PLATFORM_DIR".to_owned(), directory.path().display().to_string());
        Self::over(directory, settings)
    }

    pub(crate) fn path(&self) -> &Path {
        self.stand_in.path()
    }

    /// What somebody else does to the platform.
    pub(crate) fn platform(&self, arguments: &[&str]) {
        let done = Command::new(PLATFORM).args(arguments).env("PLATFORM_DIR", self.path()).status().unwrap();
        assert!(done.success(), "{arguments:?}: {done}");
    }

    pub(crate) fn allow_starts(&self, allowed: bool) {
        let file = self.path().join("refuse");
        if allowed { std::fs::remove_file(file).unwrap() } else { std::fs::write(file, "").unwrap() }
    }

    /// Ids of the workers that the platform runs.
    pub(crate) fn running(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.path().join("workers")) else { return Vec::new() };
        let mut ids: Vec<String> = files
            .filter_map(|file| {
                let file = file.unwrap();
                let text = std::fs::read_to_string(file.path()).ok()?;
                text.contains("\"running\"").then(|| file.file_name().to_string_lossy().into_owned())
            })
            .collect();
        ids.sort();
        ids
    }
}

impl Bench<FakePlatform> {
    /// Over a service; `settings` get its URL.
    pub(crate) async fn over_http(settings: impl FnOnce(CommandSettings) -> CommandSettings) -> Self {
        let service = FakePlatform::start().await;
        let url = Some(service.url());
        let settings = settings(CommandSettings { url, poll_seconds: 1, ..CommandSettings::default() });
        Self::over(service, settings)
    }
}

impl<P> Bench<P> {
    fn over(stand_in: P, settings: CommandSettings) -> Self {
        let spec = CommandSpec { settings, drains: true, drain_timeout: Duration::from_secs(5) };
        let (count, changes) = watch::channel(0);
        let on_change = Arc::new(move |_: &WorkerType| count.send_modify(|count| *count += 1));
        let drains = Arc::new(Drains::default());
        let types = BTreeMap::from([(mail(), spec)]);
        let backend = CommandBackend::start(&types, drains.clone(), on_change, Clock::start());
        Self { backend, drains, stand_in, changes }
    }

    pub(crate) async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    pub(crate) async fn scale(&self, target: u32, retire: &[&str]) -> Result<ScaleReport, BackendError> {
        let retire = retire.iter().map(|id| WorkerId::new(*id)).collect();
        let request = ScaleRequest { worker_type: mail(), target, retire, drain_timeout: Duration::from_secs(600) };
        self.backend.scale(request).await
    }

    /// Waits until the pool is as wanted, looking whenever the backend says that it changed.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Pool) -> bool) -> Pool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let seen = self.backend.observe(&mail()).await;
            if let Ok(pool) = &seen
                && wanted(pool)
            {
                return pool.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let told = tokio::time::timeout(left, self.changed()).await;
            assert!(told.is_ok(), "not within {DEADLINE:?}: {what}; last seen: {seen:#?}");
        }
    }
}
