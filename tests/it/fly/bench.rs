//! A backend with one worker type, `browser`, on a fake of the API.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use swarm::{
    backend::{
        BackendError, Phase, Pool, ScaleReport, ScaleRequest, ScalingBackend,
        fly::{Access, FlyBackend, FlySpec, RateLimit},
    },
    config::FlyWorkerSettings,
    model::{Clock, StopSignal, WorkerId, WorkerType},
};
use tokio::sync::watch;

use crate::fake_fly::{APP, FakeFly, TOKEN, World};
use crate::support::wait::DEADLINE;

/// Between two lists, so that tests wait for little.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// The process group of the worker type.
pub(crate) const GROUP: &str = "worker-browser";

pub(crate) struct Bench {
    pub(crate) fake: FakeFly,
    pub(crate) backend: FlyBackend,
    changes: watch::Receiver<u64>,
}

pub(crate) fn browser() -> WorkerType {
    WorkerType::new("browser")
}

pub(crate) fn spec(settings: FlyWorkerSettings) -> FlySpec {
    let signal = StopSignal::Int;
    FlySpec { app: APP.to_owned(), group: GROUP.to_owned(), settings, drain_timeout: Duration::from_secs(10), signal }
}

/// Limits that no test runs into.
pub(crate) fn unhurried(url: &str) -> Access {
    Access {
        base_url: url.to_owned(),
        token: Some(TOKEN.into()),
        token_file: None,
        timeout: Duration::from_secs(5),
        rate_limit: RateLimit { every: Duration::from_millis(1), burst: NonZeroU32::new(100).unwrap() },
    }
}

impl Bench {
    /// With an image to start from.
    pub(crate) async fn with_image() -> Self {
        let image = Some("registry.fly.io/shop:v1".to_owned());
        Self::on(FakeFly::start().await, FlyWorkerSettings { image, ..FlyWorkerSettings::default() })
    }

    /// On a fake that has been prepared.
    pub(crate) fn on(fake: FakeFly, settings: FlyWorkerSettings) -> Self {
        let access = unhurried(&fake.url());
        Self::through(fake, settings, &access)
    }

    pub(crate) fn through(fake: FakeFly, settings: FlyWorkerSettings, access: &Access) -> Self {
        let (count, changes) = watch::channel(0);
        let on_change = Arc::new(move |worker_type: &WorkerType| {
            assert_eq!(*worker_type, browser());
            count.send_modify(|count| *count += 1);
        });
        let types = BTreeMap::from([(browser(), spec(settings))]);
        let backend = FlyBackend::start(&types, access, POLL, on_change, Clock::start()).unwrap();
        Self { fake, backend, changes }
    }

    pub(crate) async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    pub(crate) async fn scale(&self, target: u32, retire: &[WorkerId]) -> Result<ScaleReport, BackendError> {
        let drain_timeout = Duration::from_secs(120);
        let request = ScaleRequest { worker_type: browser(), target, retire: retire.to_vec(), drain_timeout };
        self.backend.scale(request).await
    }

    pub(crate) async fn pool(&self) -> Result<Pool, BackendError> {
        self.backend.observe(&browser()).await
    }

    /// Waits until the pool is as wanted, looking whenever the backend says that it changed.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Pool) -> bool) -> Pool {
        let wait = async {
            loop {
                if let Ok(pool) = self.pool().await
                    && wanted(&pool)
                {
                    return pool;
                }
                self.changed().await;
            }
        };
        if let Ok(pool) = tokio::time::timeout(DEADLINE, wait).await {
            return pool;
        }
        panic!("never: {what}\n{:#?}\n{:#?}", self.pool().await, self.fake.see(World::summary));
    }

    /// Waits until `count` workers are up.
    pub(crate) async fn until_up(&mut self, count: usize) -> Vec<WorkerId> {
        up(&self.until(&format!("{count} workers"), |pool| up(pool).len() == count).await)
    }
}

/// Workers that don't leave.
pub(crate) fn up(pool: &Pool) -> Vec<WorkerId> {
    let live = pool.instances.iter().filter(|instance| instance.phase != Phase::Draining);
    live.map(|instance| instance.id.clone()).collect()
}
