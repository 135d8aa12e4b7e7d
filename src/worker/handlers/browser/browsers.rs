//! Which Chromium serves which session: one for each session, or one for all. Owns the places, the spare session that
//! waits for the next `start`, and all Chromiums that run. Knows no session's name.

use std::{
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    capacity,
    chromium::{Chromium, ChromiumError, Held},
    memory::MemoryMeter,
    open::OpenSessions,
    proxy::{Dialer, Proxy, SystemResolver},
    session::Session,
};
use crate::{
    config::{BrowserIsolation, BrowserSettings},
    egress::AddressRule,
    worker::{JobContext, Progress},
};

/// Maximum time for a place to become free: that of a closed session is taken until its Chromium has ended.
const PLACE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between a job and the start of a spare Chromium, which would slow down the session's next job: most `start`s
/// are followed by a `screenshot` within milliseconds.
const SPARE_DELAY: Duration = Duration::from_secs(1);

/// The Chromiums of one worker.
pub(super) struct Browsers {
    settings: BrowserSettings,
    dialer: Dialer,
    open: Arc<OpenSessions>,
    max_places: usize,
    free_places: Arc<Semaphore>,
    /// The Chromium of all sessions. Unused if each session has its own.
    shared: Mutex<Option<Arc<Chromium>>>,
    /// A session that nobody has yet. Locked while it is opened.
    spare: Mutex<Option<Session>>,
    /// Whether a task is about to open a spare session.
    is_preparing: AtomicBool,
    /// Whether the worker has logged that there is no sandbox.
    has_warned: AtomicBool,
    running: StdMutex<Vec<Weak<Chromium>>>,
    /// Has a token for each Chromium that is not gone.
    processes: TaskTracker,
    meter: Arc<MemoryMeter>,
}

impl Browsers {
    /// Returns the browsers of a worker, of which none runs. `open` are the sessions.
    pub(super) fn new(settings: BrowserSettings, dialer: Dialer, open: Arc<OpenSessions>) -> Self {
        let max_places = capacity::places(&settings);
        Self {
            dialer,
            open,
            max_places,
            free_places: Arc::new(Semaphore::new(max_places)),
            shared: Mutex::default(),
            spare: Mutex::default(),
            is_preparing: AtomicBool::default(),
            has_warned: AtomicBool::default(),
            running: StdMutex::default(),
            processes: TaskTracker::new(),
            meter: Arc::default(),
            settings,
        }
    }

    /// Returns how many sessions there may be now. While a shared Chromium uses too much memory, the places are limited
    /// to the open sessions.
    pub(super) fn places(&self) -> usize {
        let open = self.open.count();
        let is_full = self.is_shared() && !self.has_memory(self.resident_bytes());
        if is_full && open > 0 { open.min(self.max_places) } else { self.max_places }
    }

    /// Opens a session, or returns the spare one. The error is for the publisher of the job.
    pub(super) async fn session(&self) -> Result<Session, String> {
        if self.is_shared() {
            let place = self.place().await?;
            let chromium = self.shared().await?;
            return self.open(chromium, Some(place)).await;
        }
        let spare = self.spare.lock().await.take();
        if let Some(spare) = spare
            && spare.reacts().await
        {
            return Ok(spare.taken());
        }
        let place = self.place().await?;
        report_start();
        self.isolated(place).await
    }

    /// Opens a spare session a little later, unless there is one or there is no place for it. Called after each job;
    /// does nothing before the first session.
    pub(super) fn prepare_spare(self: &Arc<Self>) {
        let keeps_spare = self.settings.spare_browser && !self.is_shared() && !self.lock().is_empty();
        if !keeps_spare || self.is_preparing.swap(true, Ordering::SeqCst) {
            return;
        }
        let browsers = Arc::clone(self);
        tokio::spawn(async move {
            sleep(SPARE_DELAY).await;
            browsers.open_spare().await;
            browsers.is_preparing.store(false, Ordering::SeqCst);
        });
    }

    async fn open_spare(&self) {
        let mut spare = self.spare.lock().await;
        if spare.as_ref().is_some_and(|spare| spare.lost().is_none()) {
            return;
        }
        *spare = None;
        let Ok(place) = Arc::clone(&self.free_places).try_acquire_owned() else { return };
        match self.isolated(place).await {
            Ok(session) => *spare = Some(session),
            Err(problem) => tracing::warn!(problem, "spare browser not started"),
        }
    }

    /// Returns the Chromiums that run, the newest one last.
    pub(super) fn running(&self) -> Vec<Arc<Chromium>> {
        let alive = |chromium: Arc<Chromium>| chromium.ended().is_none().then_some(chromium);
        self.lock().iter().filter_map(Weak::upgrade).filter_map(alive).collect()
    }

    /// Returns the memory that all of them hold, in bytes; 0 where that is unknown.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.running().iter().map(|chromium| chromium.resident_bytes()).sum()
    }

    /// Ends all of them and waits for the end. The sessions must be closed before.
    pub(super) async fn stop(&self) {
        self.free_places.close();
        drop(self.spare.lock().await.take());
        drop(self.shared.lock().await.take());
        self.processes.close();
        self.processes.wait().await;
    }

    fn is_shared(&self) -> bool {
        self.settings.isolation == BrowserIsolation::Shared
    }

    fn has_memory(&self, used: u64) -> bool {
        used < self.settings.max_memory_bytes() / 5 * 4
    }

    /// Returns a free place. The worker gives a `start` only to a handler that has one.
    async fn place(&self) -> Result<OwnedSemaphorePermit, String> {
        match timeout(PLACE_TIMEOUT, Arc::clone(&self.free_places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err("this worker is leaving; publish the job again".to_owned()),
            Err(_) => {
                let pages = self.max_places;
                Err(format!(
                    "this worker has {pages} pages open, and no more are allowed; close one, or raise `max_pages`"
                ))
            }
        }
    }

    /// Opens a session in a Chromium of its own, which holds the place.
    async fn isolated(&self, place: OwnedSemaphorePermit) -> Result<Session, String> {
        let chromium = self.launch(Some(place)).await?;
        self.open(chromium, None).await
    }

    async fn open(&self, chromium: Arc<Chromium>, place: Option<OwnedSemaphorePermit>) -> Result<Session, String> {
        let opened = Session::open(Arc::clone(&chromium), self.dialer.clone(), &self.settings, place).await;
        // The reason of the browser's end says more than the error of the command that it interrupted.
        opened.map_err(|error| chromium.ended().unwrap_or_else(|| error.to_string()))
    }

    /// Returns the Chromium of all sessions, or starts a new one.
    async fn shared(&self) -> Result<Arc<Chromium>, String> {
        let mut shared = self.shared.lock().await;
        if let Some(chromium) = &*shared
            && chromium.ended().is_none()
        {
            let (used, limit) = (chromium.resident_bytes(), self.settings.max_memory_bytes());
            if self.has_memory(used) {
                return Ok(Arc::clone(chromium));
            }
            if self.open.count() > 0 {
                let (used, limit) = (used >> 20, limit >> 20);
                return Err(format!(
                    "the browser uses {used} of {limit} MiB; try again when sessions were closed, or raise `max_memory_mib`"
                ));
            }
            tracing::info!(used_bytes = used, "restarting the browser because it uses too much memory");
        }
        if let Some(old) = shared.take() {
            old.stop().await;
        }
        report_start();
        Ok(Arc::clone(shared.insert(self.launch(None).await?)))
    }

    async fn launch(&self, place: Option<OwnedSemaphorePermit>) -> Result<Arc<Chromium>, String> {
        let dialer = Dialer::new(AddressRule::default(), Arc::new(SystemResolver), None);
        let nowhere = Proxy::start(dialer).await.map_err(|error| ChromiumError::from(error).to_string())?;
        let held = Held { nowhere, place, token: self.processes.token() };
        let started = Chromium::start(&self.settings, Arc::clone(&self.meter), held).await;
        let chromium = Arc::new(started.map_err(|error| error.to_string())?);
        let open = Arc::clone(&self.open);
        chromium.at_each_loss(move || open.let_go_of_lost());
        if !chromium.has_sandbox() && !self.has_warned.swap(true, Ordering::SeqCst) {
            tracing::warn!(told = self.settings.no_sandbox, "the browser runs without its sandbox");
        }
        let mut running = self.lock();
        running.retain(|chromium| chromium.strong_count() > 0);
        running.push(Arc::downgrade(&chromium));
        Ok(chromium)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Chromium>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the job's publisher what takes the time.
fn report_start() {
    JobContext::current().progress(Progress::new("starting the browser"));
}
