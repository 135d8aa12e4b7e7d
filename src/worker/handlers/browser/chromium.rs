//! One run of Chromium, from its start to its end: watches over the process, its memory and its pages, and says what was
//! lost. It is never repaired: a new one is started when somebody needs it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chromiumoxide::{
    Browser, Handler,
    cdp::browser_protocol::browser::BrowserContextId,
    cdp::browser_protocol::target::{
        CloseTargetParams, CreateBrowserContextParams, DisposeBrowserContextParams, EventTargetCrashed,
        EventTargetCreated, TargetId,
    },
    error::CdpError,
    handler::{HandlerConfig, viewport::Viewport},
    listeners::EventStream,
};
use futures_util::StreamExt;
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    launch::{LaunchError, Launched, launch},
    memory,
    proxy::Proxy,
};
use crate::config::BrowserSettings;

/// Why everything is lost if Chromium ends unasked, or says nothing any more.
pub(super) const CRASHED: &str = "the browser crashed";
/// Between two looks whether the process lives.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Looks between two measurements of memory: one each second.
const LOOKS_A_MEASUREMENT: u32 = 10;
/// How long a command may take on which nobody waits.
const IN_PASSING: Duration = Duration::from_secs(5);

/// Why Chromium can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChromiumError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the browser does not take commands: {0}")]
    Commands(#[from] CdpError),
    #[error("the proxy for pages could not be started: {0}")]
    Proxy(#[from] std::io::Error),
    #[error("the browser's start was broken off")]
    BrokenOff,
}

/// What is lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Everything, and why.
    pub(super) all: Option<String>,
    /// Pages that crashed alone.
    pub(super) pages: HashSet<TargetId>,
}

/// A running Chromium. Ended when dropped, soon; by [`Chromium::stop`], for certain.
pub(super) struct Chromium {
    browser: Arc<Browser>,
    losses: watch::Receiver<Losses>,
    resident: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Chromium {
    /// Starts one. Goes on if the caller is dropped, and then ends it.
    pub(super) async fn start(settings: &BrowserSettings, nowhere: &Proxy) -> Result<Self, ChromiumError> {
        let (settings, proxy) = (settings.clone(), nowhere.url());
        let starting = tokio::spawn(async move { Self::launch(&settings, &proxy).await });
        starting.await.unwrap_or(Err(ChromiumError::BrokenOff))
    }

    async fn launch(settings: &BrowserSettings, proxy: &str) -> Result<Self, ChromiumError> {
        let tasks = TaskTracker::new();
        let launched = launch(settings, proxy, &tasks).await?;
        let config = HandlerConfig {
            ignore_https_errors: false,
            viewport: Some(Viewport { width: settings.width, height: settings.height, ..Viewport::default() }),
            // Actions have their own limit, and one that is over is not waited for any more.
            request_timeout: settings.action_timeout(),
            ..HandlerConfig::default()
        };
        let connecting = async {
            let (browser, handler) = Browser::connect_with_config(&launched.commands, config).await?;
            let pump = AbortOnDropHandle::new(tokio::spawn(pump(handler)));
            let pages = PageEvents::listen(&browser).await?;
            Ok::<_, CdpError>((Arc::new(browser), pump, pages))
        };
        let (browser, pump, pages) = match connecting.await {
            Ok(connected) => connected,
            Err(error) => {
                launched.child.stop().await?;
                return Err(error.into());
            }
        };
        let (lost, losses) = watch::channel(Losses::default());
        let keeper = ChromiumTask {
            browser: Arc::clone(&browser),
            limit: settings.max_memory_bytes(),
            resident: Arc::default(),
            stop: CancellationToken::new(),
            lost,
        };
        let (resident, stop) = (Arc::clone(&keeper.resident), keeper.stop.clone());
        tasks.spawn(keeper.run(launched, pages, pump));
        Ok(Self { browser, losses, resident, stop, tasks })
    }

    /// What is lost so far, and what will be.
    pub(super) fn losses(&self) -> watch::Receiver<Losses> {
        self.losses.clone()
    }

    /// Calls `look` after each loss, until everything is lost.
    pub(super) fn at_each_loss(&self, look: impl Fn() + Send + 'static) {
        let mut losses = self.losses();
        self.tasks.spawn(async move {
            while losses.changed().await.is_ok() {
                look();
            }
        });
    }

    /// Why it can't be used any more, if so.
    pub(super) fn ended(&self) -> Option<String> {
        self.losses.borrow().all.clone()
    }

    /// Memory that its processes hold, in bytes; 0 where that can't be told.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    pub(super) fn browser(&self) -> &Browser {
        &self.browser
    }

    /// A new profile within it: own cookies, own storage, own way out.
    pub(super) async fn context(&self, proxy: &Proxy) -> Result<BrowsingContext, CdpError> {
        let params = CreateBrowserContextParams::builder()
            .dispose_on_detach(true)
            .proxy_server(proxy.url())
            .proxy_bypass_list("<-loopback>")
            .build();
        let id = self.browser.create_browser_context(params).await?;
        Ok(BrowsingContext { id, browser: Arc::clone(&self.browser), tasks: self.tasks.clone() })
    }

    /// Ends it and waits for that.
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

/// A profile within Chromium. Dropping it closes its pages and forgets what they stored.
pub(super) struct BrowsingContext {
    pub(super) id: BrowserContextId,
    browser: Arc<Browser>,
    tasks: TaskTracker,
}

impl Drop for BrowsingContext {
    fn drop(&mut self) {
        let (browser, id) = (Arc::clone(&self.browser), self.id.clone());
        self.tasks.spawn(async move {
            // Fails if Chromium is gone, and the context with it.
            let _ = timeout(IN_PASSING, browser.execute(DisposeBrowserContextParams::new(id))).await;
        });
    }
}

/// Passes commands and events until the connection breaks.
async fn pump(mut handler: Handler) {
    while let Some(Ok(())) = handler.next().await {}
}

/// What is told of pages.
struct PageEvents {
    crashed: EventStream<EventTargetCrashed>,
    created: EventStream<EventTargetCreated>,
}

impl PageEvents {
    /// To be called before the first session, so that none of its pages is missed.
    async fn listen(browser: &Browser) -> Result<Self, CdpError> {
        Ok(Self { crashed: browser.event_listener().await?, created: browser.event_listener().await? })
    }
}

/// The task that has the process.
struct ChromiumTask {
    browser: Arc<Browser>,
    limit: u64,
    resident: Arc<AtomicU64>,
    stop: CancellationToken,
    lost: watch::Sender<Losses>,
}

impl ChromiumTask {
    async fn run(self, launched: Launched, pages: PageEvents, mut pump: AbortOnDropHandle<()>) {
        let Launched { child, profile, .. } = launched;
        let reason = tokio::select! {
            // Any end of it, a panic too: nothing can be asked of Chromium any more.
            _ = &mut pump => CRASHED.to_owned(),
            reason = self.watch(&child) => reason,
            () = self.watch_pages(pages) => CRASHED.to_owned(),
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
    }

    /// Watches process and memory; answers why it is over.
    async fn watch(&self, child: &crate::guard::GuardedChild) -> String {
        let mut looks = interval(POLL_INTERVAL);
        for look in 0_u32.. {
            looks.tick().await;
            if child.ended() {
                return CRASHED.to_owned();
            }
            if look % LOOKS_A_MEASUREMENT == 0 {
                let resident = memory::of_tree(child.id()).unwrap_or_default();
                self.resident.store(resident, Ordering::Relaxed);
                if resident > self.limit {
                    let (used, limit) = (resident >> 20, self.limit >> 20);
                    return format!("the browser used {used} MiB, more than max_memory_mib = {limit}, and was ended");
                }
            }
        }
        unreachable!("looks go on until one of them ends this")
    }

    /// Notes pages that crash, and closes those that pages open. Returns if it is told nothing any more.
    async fn watch_pages(&self, pages: PageEvents) {
        tokio::join!(self.note_crashes(pages.crashed), self.close_popups(pages.created));
    }

    async fn note_crashes(&self, mut crashed: EventStream<EventTargetCrashed>) {
        while let Some(event) = crashed.next().await {
            self.lost.send_modify(|losses| {
                losses.pages.insert(event.target_id.clone());
            });
        }
    }

    /// A session has one page: the first of its profile. Whether a page has an opener says less, since a link may hide that.
    async fn close_popups(&self, mut created: EventStream<EventTargetCreated>) {
        // As many as sessions were opened in this run.
        let mut with_page = HashSet::new();
        while let Some(event) = created.next().await {
            let target = &event.target_info;
            if target.r#type == "page" && !with_page.insert(target.browser_context_id.clone()) {
                let close = CloseTargetParams::new(target.target_id.clone());
                let _ = timeout(IN_PASSING, self.browser.execute(close)).await;
            }
        }
    }
}
