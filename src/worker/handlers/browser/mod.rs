//! The handler of browser workers: sessions in one Chromium, each an isolated page that belongs to a channel or user.
//! Owns the list of open sessions, and when Chromium is started; `docs/browser.md` lists the jobs.

mod action_error;
mod chromium;
mod devtools;
mod launch;
mod loading;
mod memory;
mod open;
mod page;
mod profile;
mod proxy;
mod request;
mod session;

use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use self::{
    action_error::ActionError,
    chromium::{Chromium, ChromiumError},
    open::OpenSessions,
    proxy::{Dialer, Proxy, SystemResolver},
    request::{METHODS, Request},
    session::Session,
};
use super::{Context, Handler, HandlerError, JobError};
use crate::{
    broker::{Job, session_of},
    config::BrowserSettings,
    egress::AddressRule,
    worker::{JobContext, Progress},
};

/// Executes browser jobs.
pub struct BrowserHandler {
    settings: BrowserSettings,
    dialer: Dialer,
    slots: Arc<Semaphore>,
    open: Arc<OpenSessions>,
    engine: Mutex<Option<Engine>>,
    /// The running Chromium, for the heartbeat, which can't wait for a start.
    running: StdMutex<Option<Arc<Chromium>>>,
}

/// A Chromium, and the proxy for requests that belong to no session; that proxy connects to public addresses only.
struct Engine {
    chromium: Arc<Chromium>,
    _proxy: Proxy,
}

impl BrowserHandler {
    /// Returns a handler. The first session starts Chromium.
    pub fn new(context: Context) -> Result<Self, HandlerError> {
        let settings = BrowserSettings::clone(&context.settings.browser);
        let wrong = |problem: String| HandlerError::Settings { worker_type: context.worker_type.clone(), problem };
        let allowed = settings.allowed().map_err(|error| wrong(format!("allow_private: {error}")))?;
        let upstream = settings.upstream().map_err(|error| wrong(format!("proxy: {error}")))?;
        profile::sweep(&std::env::temp_dir());
        Ok(Self {
            dialer: Dialer::new(AddressRule::new(allowed), Arc::new(SystemResolver), upstream),
            slots: Arc::new(Semaphore::new(settings.max_pages)),
            settings,
            open: Arc::new(OpenSessions::new(context.sessions)),
            engine: Mutex::default(),
            running: StdMutex::default(),
        })
    }

    async fn start(&self, name: &str) -> Result<(Arc<Session>, bool), JobError> {
        // One start at a time: a second `start` of the same session finds the first one's session.
        let mut engine = self.engine.lock().await;
        match self.open.find(name) {
            Some(session) if session.lost().is_none() => return Ok((session, true)),
            _ => drop(self.open.take(name)),
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let pages = self.settings.max_pages;
            failed(format!(
                "this worker has {pages} pages open, and no more are allowed; close one, or raise `max_pages`"
            ))
        })?;
        let chromium = self.chromium(&mut engine).await.map_err(failed)?;
        self.open.claims().open(name).await?;
        let session = Session::open(Arc::clone(&chromium), self.dialer.clone(), &self.settings, slot).await;
        match session {
            Ok(session) => {
                let session = Arc::new(session);
                self.open.insert(name, Arc::clone(&session));
                // The session may have been lost before it was recorded.
                self.open.let_go_of_lost();
                Ok((session, false))
            }
            Err(error) => {
                self.open.close(name).await;
                // The reason of the browser's end says more than the error of the command that it interrupted.
                Err(failed(chromium.ended().unwrap_or_else(|| error.to_string())))
            }
        }
    }

    /// Returns the running Chromium, or starts a new one.
    async fn chromium(&self, engine: &mut Option<Engine>) -> Result<Arc<Chromium>, String> {
        if let Some(Engine { chromium, .. }) = engine
            && chromium.ended().is_none()
        {
            let (used, limit) = (chromium.resident_bytes(), self.settings.max_memory_bytes());
            if used < limit / 5 * 4 {
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
        if let Some(old) = engine.take() {
            old.chromium.stop().await;
        }
        JobContext::current().progress(Progress::new("starting the browser"));
        let started = self.launch().await.map_err(|error| error.to_string())?;
        let chromium = Arc::clone(&started.chromium);
        let open = Arc::clone(&self.open);
        chromium.at_each_loss(move || open.let_go_of_lost());
        *self.running() = Some(Arc::clone(&chromium));
        *engine = Some(started);
        Ok(chromium)
    }

    async fn launch(&self) -> Result<Engine, ChromiumError> {
        let dialer = Dialer::new(AddressRule::default(), Arc::new(SystemResolver), None);
        let proxy = Proxy::start(dialer).await?;
        let chromium = Arc::new(Chromium::start(&self.settings, &proxy).await?);
        Ok(Engine { chromium, _proxy: proxy })
    }

    /// Carries out a request on an open session.
    async fn act(&self, name: &str, request: Request) -> Result<Value, JobError> {
        let Some(session) = self.open.find(name) else {
            return Err(failed(format!("session `{name}` is not open; begin with `start`")));
        };
        let done = match request {
            Request::Goto { url } => {
                // The host alone: the rest may hold secrets.
                let host = url.host_str().unwrap_or_default();
                JobContext::current().progress(Progress::new(format!("loading {host}")));
                session.goto(&url).await
            }
            Request::Click { selector } => session.click(&selector).await,
            Request::Fill { selector, text } => session.fill(&selector, &text).await,
            Request::WaitFor { selector, timeout } => session.wait_for(&selector, timeout).await,
            Request::Screenshot { full_page } => session.screenshot(full_page).await,
            Request::Content => session.content().await,
            Request::Pdf => session.pdf().await,
            _ => session.status().await,
        };
        match done {
            Err(error @ ActionError::Lost(_)) => {
                self.open.close(name).await;
                Err(failed(error))
            }
            done => done.map_err(failed),
        }
    }

    async fn begin(&self, name: &str, request: Request) -> Result<Value, JobError> {
        let (_, already_open) = self.start(name).await?;
        let page = match request {
            Request::Start { url: Some(url) } => self.act(name, Request::Goto { url }).await,
            _ => self.act(name, Request::Status).await,
        };
        match page {
            Ok(page) => Ok(json!({ "session": name, "already_open": already_open, "page": page })),
            Err(error) => {
                // The caller then has no session, unless there was one before.
                if !already_open {
                    self.open.close(name).await;
                }
                Err(error)
            }
        }
    }

    /// Closes the sessions whose name matches; returns how many.
    async fn close_those(&self, fits: impl Fn(&str) -> bool) -> Value {
        let names = self.open.names(fits);
        for name in &names {
            self.open.close(name).await;
        }
        json!({ "closed": names.len() })
    }

    fn overall(&self) -> Value {
        let (pages, max_pages) = (self.open.count(), self.settings.max_pages);
        json!({ "pages": pages, "max_pages": max_pages, "resident_bytes": self.resident_bytes() })
    }

    fn resident_bytes(&self) -> u64 {
        self.running().as_ref().map_or(0, |chromium| chromium.resident_bytes())
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Chromium>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Handler for BrowserHandler {
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError> {
        let request = Request::read(method, job)?;
        let session = session_of(job);
        match (request, session) {
            (Request::CloseAll, _) => Ok(self.close_those(|_| true).await),
            (Request::CloseChannel { channel }, session) => {
                let Some(channel) = channel.as_deref().or(session) else { return Err(nameless(job)) };
                let below = format!("{channel}:");
                Ok(self.close_those(|name| name == channel || name.starts_with(&below)).await)
            }
            (Request::Status, None) => Ok(self.overall()),
            (_, None) => Err(nameless(job)),
            (request @ Request::Start { .. }, Some(name)) => self.begin(name, request).await,
            (Request::Close, Some(name)) => Ok(json!({ "closed": usize::from(self.open.close(name).await) })),
            (request, Some(name)) => self.act(name, request).await,
        }
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(METHODS)
    }

    fn keeps_sessions(&self) -> bool {
        true
    }

    /// While Chromium uses too much memory, the places are limited to the open sessions.
    fn places(&self) -> Option<usize> {
        let open = self.open.count();
        let has_memory = self.resident_bytes() < self.settings.max_memory_bytes() / 5 * 4;
        Some(if open == 0 || has_memory { self.settings.max_pages } else { open.min(self.settings.max_pages) })
    }

    fn opens_session(&self, method: &str) -> bool {
        method == "start"
    }

    async fn session_ended(&self, name: &str) {
        drop(self.open.take(name));
    }

    async fn shutdown(&self) {
        self.open.clear();
        let engine = self.engine.lock().await.take();
        if let Some(engine) = engine {
            engine.chromium.stop().await;
        }
    }

    fn resources(&self) -> Vec<(&'static str, String)> {
        let pages = self.open.count();
        let mut fields = vec![("pages", pages.to_string()), ("browser_rss_bytes", self.resident_bytes().to_string())];
        let sandbox = self.running().as_ref().map(|chromium| chromium.has_sandbox());
        fields.extend(sandbox.map(|sandbox| ("sandbox", u8::from(sandbox).to_string())));
        fields
    }
}

fn nameless(job: &Job) -> JobError {
    JobError::arguments(job, "whose browser? name its session: `\"session\": \"CHANNEL-OR-USER\"` in the job")
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn failed(problem: impl ToString) -> JobError {
    JobError::Failed(problem.to_string())
}
