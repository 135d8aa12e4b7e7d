//! One run of Chromium, from its start to its end: watches the process, its memory and its pages, and reports losses. A
//! run is never repaired: a new one is started when a job needs it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{interval, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    devtools::{CommandError, DevTools, Event},
    launch::{LaunchError, Launched, launch},
    memory::MemoryMeter,
    proxy::Proxy,
};
use crate::config::BrowserSettings;

/// Reason of a loss if Chromium exits unexpectedly, or no longer answers.
pub(super) const CRASHED: &str = "the browser crashed";
/// Why a page is lost whose own process crashed.
const PAGE_CRASHED: &str = "the page crashed";
/// Why a page is lost that takes no commands any more.
const HANGS: &str = "the page hangs";
/// Why a page is lost that was open for too long.
const EXPIRED: &str = "it was open for `session_max_seconds`";
/// Why a page is lost that has closed its own window.
const CLOSED_ITSELF: &str = "the page closed itself";
/// Maximum time for Chromium to start; it takes about a second, and more on a busy machine.
const START: Duration = Duration::from_secs(30);
/// Time between two checks whether the process lives.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Checks per measurement of memory: one measurement every second.
const LOOKS_A_MEASUREMENT: u32 = 10;
/// Timeout of a command whose answer nothing waits for.
const IN_PASSING: Duration = Duration::from_secs(5);

/// Why Chromium can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChromiumError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the browser does not take commands: {0}")]
    Commands(#[from] CommandError),
    #[error("the proxy for pages could not be started: {0}")]
    Proxy(#[from] std::io::Error),
    #[error("the browser's start was broken off")]
    BrokenOff,
}

/// Losses of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Reason, if everything is lost.
    pub(super) all: Option<String>,
    /// Pages that were lost alone, by their target, and why.
    pub(super) pages: HashMap<String, &'static str>,
}

/// What a Chromium holds until its processes and its profile are gone.
pub(super) struct Held {
    /// Proxy for requests that belong to no session.
    pub(super) nowhere: Proxy,
    /// The place of its session, if it has only one.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// Shows that it is not gone.
    pub(super) token: TaskTrackerToken,
}

impl Held {
    fn release(self) {
        let Self { nowhere, place, token } = self;
        drop((nowhere, place, token));
    }
}

/// A running Chromium. It is ended soon after a drop, and for certain by [`Chromium::stop`].
pub(super) struct Chromium {
    devtools: DevTools,
    has_sandbox: bool,
    lost: watch::Sender<Losses>,
    resident: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Chromium {
    /// Starts Chromium. The start continues if the caller is dropped, and then ends the process.
    pub(super) async fn start(
        settings: &BrowserSettings,
        meter: Arc<MemoryMeter>,
        held: Held,
    ) -> Result<Self, ChromiumError> {
        let settings = settings.clone();
        let starting = tokio::spawn(async move { Self::launch(&settings, meter, held).await });
        starting.await.unwrap_or(Err(ChromiumError::BrokenOff))
    }

    async fn launch(settings: &BrowserSettings, meter: Arc<MemoryMeter>, held: Held) -> Result<Self, ChromiumError> {
        let tasks = TaskTracker::new();
        let mut launched = launch(settings, &held.nowhere.url(), &tasks).await?;
        let (devtools, pump) = launched.connect()?;
        let pump = AbortOnDropHandle::new(tokio::spawn(async {
            // A broken pipe means that Chromium has ended; the state of the process shows why.
            let _ = pump.await;
        }));
        let events = devtools.listen("");
        let ready = devtools.call("", "Target.setDiscoverTargets", json!({ "discover": true }));
        if !matches!(timeout(START, ready).await, Ok(Ok(_))) {
            let failure = launched.failure(START).await;
            launched.child.stop().await?;
            return Err(failure.into());
        }
        let has_sandbox = launched.has_sandbox();
        let lost = watch::Sender::new(Losses::default());
        let keeper = ChromiumTask {
            devtools: devtools.clone(),
            limit: settings.max_memory_bytes(),
            meter,
            resident: Arc::default(),
            stop: CancellationToken::new(),
            lost: lost.clone(),
        };
        let (resident, stop) = (Arc::clone(&keeper.resident), keeper.stop.clone());
        tasks.spawn(keeper.run(launched, events, pump, held));
        Ok(Self { devtools, has_sandbox, lost, resident, stop, tasks })
    }

    /// Returns a receiver of the losses, past and future.
    pub(super) fn losses(&self) -> watch::Receiver<Losses> {
        self.lost.subscribe()
    }

    /// Calls `look` after each loss, until everything is lost.
    pub(super) fn at_each_loss(&self, look: impl Fn() + Send + 'static) {
        let mut losses = self.losses();
        self.tasks.spawn(async move {
            while losses.changed().await.is_ok() {
                let is_last = losses.borrow_and_update().all.is_some();
                look();
                if is_last {
                    break;
                }
            }
        });
    }

    /// Returns why Chromium can no longer be used; `None` if it can.
    pub(super) fn ended(&self) -> Option<String> {
        self.lost.borrow().all.clone()
    }

    /// Returns the memory that its processes hold, in bytes; 0 where that is unknown.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Returns whether its pages run in Chromium's own sandbox.
    pub(super) fn has_sandbox(&self) -> bool {
        self.has_sandbox
    }

    /// Returns the connection for commands.
    pub(super) fn devtools(&self) -> &DevTools {
        &self.devtools
    }

    /// Opens a new profile: own cookies, own storage, own proxy.
    pub(super) async fn context(&self, proxy: &Proxy) -> Result<BrowsingContext, CommandError> {
        let params = json!({ "disposeOnDetach": true, "proxyServer": proxy.url(), "proxyBypassList": "<-loopback>" });
        let creating = self.devtools.call("", "Target.createBrowserContext", params);
        let late = || CommandError::Refused("the browser opens no profile".to_owned());
        let created = timeout(START, creating).await.unwrap_or_else(|_| Err(late()))?;
        let id = created["browserContextId"].as_str().unwrap_or_default().to_owned();
        let context = BrowsingContext { id, devtools: self.devtools.clone(), tasks: self.tasks.clone() };
        let downloads = json!({ "behavior": "deny", "browserContextId": context.id });
        self.devtools.call("", "Browser.setDownloadBehavior", downloads).await?;
        Ok(context)
    }

    /// Marks a page that no longer reacts as lost.
    pub(super) fn give_up(&self, page: &str) {
        lose(&self.lost, page, HANGS);
    }

    /// Takes a page that was open for as long as it may be for lost.
    pub(super) fn close_expired(&self, page: &str) {
        lose(&self.lost, page, EXPIRED);
    }

    /// Ends Chromium and waits for the end.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// A profile within Chromium. Dropping it closes its pages and deletes what they stored.
pub(super) struct BrowsingContext {
    pub(super) id: String,
    devtools: DevTools,
    tasks: TaskTracker,
}

impl Drop for BrowsingContext {
    fn drop(&mut self) {
        let (devtools, id) = (self.devtools.clone(), self.id.clone());
        self.tasks.spawn(async move {
            let dispose = devtools.call("", "Target.disposeBrowserContext", json!({ "browserContextId": id }));
            // Fails if Chromium is gone, and the context with it.
            let _ = timeout(IN_PASSING, dispose).await;
        });
    }
}

/// The task that owns the process.
struct ChromiumTask {
    devtools: DevTools,
    limit: u64,
    meter: Arc<MemoryMeter>,
    resident: Arc<AtomicU64>,
    stop: CancellationToken,
    lost: watch::Sender<Losses>,
}

impl ChromiumTask {
    async fn run(
        self,
        launched: Launched,
        events: mpsc::UnboundedReceiver<Event>,
        mut pump: AbortOnDropHandle<()>,
        held: Held,
    ) {
        let Launched { child, profile, .. } = launched;
        let reason = tokio::select! {
            // The connection ended, possibly by a panic: Chromium can't be asked any more.
            _ = &mut pump => CRASHED.to_owned(),
            reason = self.watch(&child) => reason,
            () = self.watch_pages(events) => CRASHED.to_owned(),
            () = self.stop.cancelled() => "the browser was closed".to_owned(),
        };
        if !self.stop.is_cancelled() {
            tracing::warn!(reason, "browser is lost, and its sessions with it");
        }
        self.lost.send_modify(|losses| losses.all = Some(reason));
        pump.abort();
        self.resident.store(0, Ordering::Relaxed);
        if let Err(error) = child.stop().await {
            tracing::warn!(%error, "could not reap the browser");
        }
        drop(profile);
        held.release();
    }

    /// Watches process and memory; returns why the run is over.
    async fn watch(&self, child: &crate::guard::GuardedChild) -> String {
        let mut looks = interval(POLL_INTERVAL);
        for look in 0_u32.. {
            looks.tick().await;
            if child.ended() {
                return CRASHED.to_owned();
            }
            if look % LOOKS_A_MEASUREMENT == 0 {
                let resident = self.meter.of_tree(child.id()).unwrap_or_default();
                self.resident.store(resident, Ordering::Relaxed);
                if resident > self.limit {
                    let (used, limit) = (resident >> 20, self.limit >> 20);
                    return format!("the browser used {used} MiB, more than max_memory_mib = {limit}, and was ended");
                }
            }
        }
        unreachable!("looks go on until one of them ends this")
    }

    /// Records lost pages, and closes pages that pages open. Returns when the events end. A session has one page: the
    /// first one of its profile. The opener of a page does not tell the two apart, because a link may hide it.
    async fn watch_pages(&self, mut events: mpsc::UnboundedReceiver<Event>) {
        // One entry for each session that was opened in this run.
        let (mut with_page, mut pages) = (HashSet::new(), HashSet::new());
        while let Some(event) = events.recv().await {
            let target = event.params["targetId"].as_str().unwrap_or_default();
            match event.method.as_str() {
                "Target.targetCreated" => {
                    let target = &event.params["targetInfo"];
                    if target["type"] != "page" {
                        continue;
                    }
                    let id = target["targetId"].as_str().unwrap_or_default().to_owned();
                    if with_page.insert(target["browserContextId"].to_string()) {
                        pages.insert(id);
                    } else {
                        self.devtools.tell("", "Target.closeTarget", json!({ "targetId": id }));
                    }
                }
                "Target.targetCrashed" if pages.contains(target) => lose(&self.lost, target, PAGE_CRASHED),
                "Target.targetDestroyed" if pages.remove(target) => lose(&self.lost, target, CLOSED_ITSELF),
                _ => {}
            }
        }
    }
}

fn lose(lost: &watch::Sender<Losses>, page: &str, why: &'static str) {
    lost.send_modify(|losses| {
        losses.pages.entry(page.to_owned()).or_insert(why);
    });
}
