//! The handler of tankpit workers: game sessions, each a WebSocket that stays open between jobs. Knows nothing about
//! the game itself: it forwards text and counts frames. See `docs/tankpit.md`.

mod session;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use self::session::{Session, SessionProblem};
use super::{Context, Handler, JobError};
use crate::{
    broker::{Job, session_of, to_string},
    config::TankpitSettings,
    worker::Sessions,
};

const METHODS: &[&str] = &["spawn", "send", "status", "stop"];
/// Named arguments with the owner of the job; they are not part of the greeting.
const OWNERS: [&str; 3] = ["session", "channel", "user"];

/// Executes tankpit jobs.
pub struct TankpitHandler {
    settings: TankpitSettings,
    claims: Sessions,
    open: StdMutex<HashMap<String, Arc<Session>>>,
    /// Held while a session is opened: a second `spawn` of the same name waits and finds the session.
    opening: Mutex<()>,
}

impl TankpitHandler {
    /// Returns a handler. Does not connect yet.
    pub fn new(context: Context) -> Self {
        Self {
            settings: TankpitSettings::clone(&context.settings.tankpit),
            claims: context.sessions,
            open: StdMutex::default(),
            opening: Mutex::default(),
        }
    }

    async fn spawn(&self, name: &str, job: &Job) -> Result<Value, JobError> {
        let hello = greeting(job)?;
        if self.settings.url.is_empty() {
            let cure = "no game is configured; set `url = \"wss://…\"` in [worker_types.NAME.tankpit]";
            return Err(JobError::Failed(cure.to_owned()));
        }
        let _opening = self.opening.lock().await;
        if let Some(session) = self.find(name) {
            if session.ended().is_none() {
                return Ok(json!({ "session": name, "already_open": true, "report": session.report() }));
            }
            self.lock().remove(name);
        }
        if self.lock().len() >= self.settings.max_sessions {
            let most = self.settings.max_sessions;
            return Err(JobError::Failed(format!(
                "this worker has {most} sessions open, and no more are allowed; stop one, or raise `max_sessions`"
            )));
        }
        self.claims.open(name).await?;
        match Session::open(&self.settings, hello).await {
            Ok(session) => {
                let report = session.report();
                self.lock().insert(name.to_owned(), Arc::new(session));
                Ok(json!({ "session": name, "already_open": false, "report": report }))
            }
            Err(error) => {
                self.claims.close(name).await;
                Err(failed(&error))
            }
        }
    }

    async fn send(&self, name: &str, job: &Job) -> Result<Value, JobError> {
        let text = match job.args.as_slice() {
            [Value::String(text)] => text.clone(),
            [value] => to_string(value),
            _ => {
                let problem = "expects one argument: the text to send, or anything else to send as JSON";
                return Err(JobError::arguments(job, problem));
            }
        };
        if text.len() > self.settings.max_frame_bytes {
            let most = self.settings.max_frame_bytes;
            let problem = format!("{} bytes are too many for one frame; `max_frame_bytes` is {most}", text.len());
            return Err(JobError::arguments(job, problem));
        }
        let session = self.session(name)?;
        match session.send(text).await {
            Ok(()) => Ok(json!(session.report())),
            Err(error @ SessionProblem::Ended(_)) => {
                self.lock().remove(name);
                self.claims.close(name).await;
                Err(failed(&error))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    async fn stop(&self, name: &str) -> Value {
        let session = self.lock().remove(name);
        self.claims.close(name).await;
        match session {
            Some(session) => json!(session.stop().await),
            None => Value::Null,
        }
    }

    fn session(&self, name: &str) -> Result<Arc<Session>, JobError> {
        let missing = || JobError::Failed(format!("session `{name}` is not open; begin with `spawn`"));
        self.find(name).ok_or_else(missing)
    }

    fn find(&self, name: &str) -> Option<Arc<Session>> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Handler for TankpitHandler {
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError> {
        if !METHODS.contains(&method) {
            return Err(JobError::UnknownMethod {
                job_type: job.job_type.clone(),
                method: method.to_owned(),
                known: METHODS.join(", "),
            });
        }
        match (method, session_of(job)) {
            ("status", None) => {
                Ok(json!({ "sessions": self.lock().len(), "max_sessions": self.settings.max_sessions }))
            }
            (_, None) => {
                Err(JobError::arguments(job, "whose game? name its session: `\"session\": \"NAME\"` in the job"))
            }
            ("spawn", Some(name)) => self.spawn(name, job).await,
            ("send", Some(name)) => self.send(name, job).await,
            ("status", Some(name)) => Ok(json!(self.session(name)?.report())),
            (_, Some(name)) => Ok(self.stop(name).await),
        }
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(METHODS)
    }

    fn keeps_sessions(&self) -> bool {
        true
    }

    fn places(&self) -> Option<usize> {
        Some(self.settings.max_sessions)
    }

    fn opens_session(&self, method: &str) -> bool {
        method == "spawn"
    }

    async fn session_ended(&self, name: &str) {
        let session = self.lock().remove(name);
        if let Some(session) = session {
            session.stop().await;
        }
    }

    async fn shutdown(&self) {
        let sessions: Vec<_> = self.lock().drain().map(|(_, session)| session).collect();
        futures_util::future::join_all(sessions.iter().map(|session| session.stop())).await;
    }

    fn resources(&self) -> Vec<(&'static str, String)> {
        let sessions = self.lock();
        let reports = sessions.values().map(|session| session.report());
        let (sent, received) = reports
            .fold((0, 0), |(sent, received), report| (sent + report.frames_sent, received + report.frames_received));
        vec![("frames_sent", sent.to_string()), ("frames_received", received.to_string())]
    }
}

/// Returns the first frame: the job's named arguments as one JSON object, if there are any.
fn greeting(job: &Job) -> Result<Option<String>, JobError> {
    if !job.args.is_empty() {
        let problem = "takes named arguments only; they are sent to the game as one JSON object";
        return Err(JobError::arguments(job, problem));
    }
    let named = job.kwargs.iter().filter(|(name, _)| !OWNERS.contains(&name.as_str()));
    let greeting: Map<String, Value> = named.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok((!greeting.is_empty()).then(|| to_string(&greeting)))
}

fn failed(problem: &SessionProblem) -> JobError {
    JobError::Failed(problem.to_string())
}
