//! The handler of browser workers: sessions in Chromium, each an isolated page that belongs to a channel or user.
//! Owns the list of open sessions; `docs/browser.md` lists the jobs.

mod action_error;
mod browsers;
mod capacity;
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

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::{
    action_error::ActionError,
    browsers::Browsers,
    open::OpenSessions,
    proxy::{Dialer, SystemResolver},
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
    open: Arc<OpenSessions>,
    browsers: Arc<Browsers>,
}

impl BrowserHandler {
    /// Returns a handler. The first session starts Chromium.
    pub fn new(context: Context) -> Result<Self, HandlerError> {
        let settings = BrowserSettings::clone(&context.settings.browser);
        let wrong = |problem: String| HandlerError::Settings { worker_type: context.worker_type.clone(), problem };
        let allowed = settings.allowed().map_err(|error| wrong(format!("allow_private: {error}")))?;
        let upstream = settings.upstream().map_err(|error| wrong(format!("proxy: {error}")))?;
        profile::sweep(&std::env::temp_dir());
        let open = Arc::new(OpenSessions::new(context.sessions));
        let dialer = Dialer::new(AddressRule::new(allowed), Arc::new(SystemResolver), upstream);
        let browsers = Arc::new(Browsers::new(settings.clone(), dialer, Arc::clone(&open)));
        Ok(Self { settings, open, browsers })
    }

    async fn start(&self, name: &str) -> Result<(Arc<Session>, bool), JobError> {
        // A second `start` of the same session finds the first one's session.
        let opening = self.open.opening(name);
        let _opening = opening.lock().await;
        match self.open.find(name) {
            Some(session) if session.lost().is_none() => return Ok((session, true)),
            _ => drop(self.open.take(name)),
        }
        self.open.claims().open(name).await?;
        match self.browsers.session().await {
            Ok(session) => {
                let session = Arc::new(session);
                self.open.insert(name, Arc::clone(&session));
                self.end_in_time(&session);
                // The session may have been lost before it was recorded.
                self.open.let_go_of_lost();
                Ok((session, false))
            }
            Err(problem) => {
                self.open.close(name).await;
                Err(failed(problem))
            }
        }
    }

    /// Ends the session when it has been open for `session_max_seconds`, whatever it does then.
    fn end_in_time(&self, session: &Arc<Session>) {
        let (session, limit) = (Arc::downgrade(session), self.settings.session_max());
        tokio::spawn(async move {
            sleep(limit).await;
            if let Some(session) = session.upgrade() {
                session.expire();
            }
        });
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
            Request::Cookies => session.cookies().await,
            Request::SetCookies { cookies } => session.set_cookies(cookies).await,
            Request::SetHeaders { headers } => session.set_headers(headers).await,
            Request::Evaluate { .. } if !self.settings.evaluate => {
                return Err(failed("`evaluate` is off; set `evaluate = true` in the worker type's `browser` section"));
            }
            Request::Evaluate { expression } => session.evaluate(&expression).await,
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
        let (pages, max_pages, places) = (self.open.count(), self.settings.max_pages, self.browsers.places());
        let resident_bytes = self.browsers.resident_bytes();
        json!({ "pages": pages, "max_pages": max_pages, "places": places, "resident_bytes": resident_bytes })
    }

    async fn respond(&self, method: &str, job: &Job) -> Result<Value, JobError> {
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
}

#[async_trait]
impl Handler for BrowserHandler {
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError> {
        let done = self.respond(method, job).await;
        self.browsers.prepare_spare();
        done
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(METHODS)
    }

    fn keeps_sessions(&self) -> bool {
        true
    }

    fn places(&self) -> Option<usize> {
        Some(self.browsers.places())
    }

    fn opens_session(&self, method: &str) -> bool {
        method == "start"
    }

    async fn session_ended(&self, name: &str) {
        drop(self.open.take(name));
    }

    async fn shutdown(&self) {
        self.open.clear();
        self.browsers.stop().await;
    }

    fn resources(&self) -> Vec<(&'static str, String)> {
        let running = self.browsers.running();
        let mut fields = vec![
            ("pages", self.open.count().to_string()),
            ("browsers", running.len().to_string()),
            ("browser_rss_bytes", self.browsers.resident_bytes().to_string()),
        ];
        let sandbox = running.last().map(|chromium| chromium.has_sandbox());
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
