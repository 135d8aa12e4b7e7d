//! Reads for the backend what workers that take no more jobs say about themselves: in their framework's own keys, on a
//! connection of its own, so that it works while the autoscaler stops, and whoever leads.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    backend::{QuietWatch, ScalingBackend},
    config::Settings,
    connection::{Connection, RedisTarget},
    model::{Clock, WorkerId, WorkerType},
    probe::{FrameworkReading, Occupation, SingleReader},
};

/// Age up to which a reading answers for the next worker, too: many may leave at the same time.
const FRESH: Duration = Duration::from_millis(500);

/// See the [module](self).
pub(super) struct FrameworkQuietWatch {
    clock: Clock,
    /// Worker types that were removed stay, because their workers may be leaving.
    types: SyncMutex<BTreeMap<WorkerType, Arc<Mutex<WatchedPool>>>>,
}

/// One worker type.
struct WatchedPool {
    target: RedisTarget,
    reader: SingleReader,
    connection: Option<Connection>,
    last: Option<(Instant, Occupation)>,
    /// Whether the last attempt to read has failed.
    has_failed: bool,
}

impl FrameworkQuietWatch {
    /// Gives a backend a watch for the worker types of these settings. Connects to nothing yet.
    pub(super) fn of(backend: &dyn ScalingBackend, settings: &Settings, clock: Clock) -> Arc<Self> {
        let watch = Arc::new(Self { clock, types: SyncMutex::default() });
        watch.reconfigure(settings);
        backend.watch_quiet(watch.clone());
        watch
    }

    /// From now on these settings hold.
    pub(super) fn reconfigure(&self, settings: &Settings) {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, of) in settings.enabled().filter(|(_, of)| of.stop_policy().quiet.is_some()) {
            // A URL that can't be used has been refused before.
            let Ok(target) = RedisTarget::new(settings.queue_redis_url(of), settings.scaler.redis_timeout()) else {
                continue;
            };
            let reader = SingleReader::new(of.queue_spec(name), self.clock);
            let pool = WatchedPool { target, reader, connection: None, last: None, has_failed: false };
            types.insert(WorkerType::new(name), Arc::new(Mutex::new(pool)));
        }
    }

    fn pool(&self, worker_type: &WorkerType) -> Option<Arc<Mutex<WatchedPool>>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner).get(worker_type).cloned()
    }
}

#[async_trait]
impl QuietWatch for FrameworkQuietWatch {
    async fn is_done(&self, worker_type: &WorkerType, id: &WorkerId, asked_for: Duration) -> bool {
        let asked_at = Instant::now().checked_sub(asked_for);
        let Some((pool, asked_at)) = self.pool(worker_type).zip(asked_at) else { return false };
        let mut pool = pool.lock().await;
        match pool.occupation(worker_type).await {
            Some((read_at, occupation)) => occupation.is_done(id.as_str(), read_at.saturating_duration_since(asked_at)),
            None => false,
        }
    }
}

impl WatchedPool {
    /// Returns what the workers say, and when that was asked; `None` if it can't be read.
    async fn occupation(&mut self, worker_type: &WorkerType) -> Option<(Instant, &Occupation)> {
        if self.last.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            // Before the question: what happens during it is as old as that at most.
            let at = Instant::now();
            let read = self.read().await;
            if let (Err(error), false) = (&read, self.has_failed) {
                tracing::warn!(%worker_type, "whether workers that take no more jobs have some left can't be read: {error}");
            }
            self.has_failed = read.is_err();
            self.last = read.ok().map(|occupation| (at, occupation));
        }
        self.last.as_ref().map(|(at, occupation)| (*at, occupation))
    }

    async fn read(&mut self) -> Result<Occupation, String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect().await.map_err(|error| error.to_string())?,
        };
        let observed = self.reader.read(&mut connection).await.map_err(|error| error.to_string())?;
        self.connection = Some(connection);
        let reading = observed.framework.map(|reading| *reading);
        match reading {
            Some(FrameworkReading { occupation, .. }) => Ok(occupation),
            None => Err(observed.demand.lag.why_not().unwrap_or("it has no framework").to_owned()),
        }
    }
}
