//! The sessions that are open on this worker: its handler opens and closes them, and they are claimed in Redis while
//! they are open. Knows when each session was last used and, for sessions that the handler has lost, which publishers
//! have not been told yet. Must not know what a session is.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    connection::Commands,
    status::{Phase, Status},
};
use crate::{
    broker::{MAX_SESSION_NAME, SessionClaims},
    model::WorkerId,
};

/// Why a session is not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Another worker holds the session.
    #[error("session `{name}` is open on worker `{holder}`")]
    HeldElsewhere {
        /// Name of the session.
        name: String,
        /// Worker that holds it.
        holder: WorkerId,
    },
    /// It is unknown whether another worker holds the session.
    #[error("session `{name}` can't be claimed: {cause}")]
    Unclaimed {
        /// Name of the session.
        name: String,
        /// What went wrong.
        cause: String,
    },
    /// The name is empty or too long.
    #[error("a session's name has 1 to {MAX_SESSION_NAME} bytes, this one has {0}")]
    Name(usize),
    /// The worker is leaving.
    #[error("session `{0}` can't be opened: this worker is about to leave; publish the job again")]
    Leaving(String),
}

/// The sessions open on one worker. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    book: Mutex<Book>,
    idle: Duration,
    claims: SessionClaims,
    commands: Arc<Commands>,
    status: watch::Sender<Status>,
    changed: Notify,
    /// Held while a claim is renewed or released. Otherwise a renewal after a release would claim a closed session.
    claiming: tokio::sync::Mutex<()>,
    /// Notified when a place may have become free.
    freed: Notify,
}

/// A taken place for one session.
pub(super) struct Place {
    sessions: Sessions,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.lock().opening.remove(&self.name);
        self.sessions.0.freed.notify_waiters();
    }
}

#[derive(Default)]
struct Book {
    /// The open sessions, and when each was last used.
    open: HashMap<String, Instant>,
    /// Sessions with a job in progress, open or not: they are not idle.
    in_use: HashSet<String>,
    /// Sessions that jobs are about to open: each has a place.
    opening: HashSet<String>,
    /// Sessions that the handler has lost, until the next job of each fails with the reason; with the reason and the
    /// time.
    lost: HashMap<String, (String, Instant)>,
}

impl Sessions {
    pub(super) fn new(
        claims: SessionClaims,
        idle: Duration,
        commands: Arc<Commands>,
        status: watch::Sender<Status>,
    ) -> Self {
        let book = Mutex::default();
        let (changed, claiming, freed) = (Notify::new(), tokio::sync::Mutex::default(), Notify::new());
        Self(Arc::new(Inner { book, idle, claims, commands, status, changed, claiming, freed }))
    }

    /// Opens session `name` here, or touches it if it is open. From then on its jobs come to this worker, and the
    /// scaler treats the worker as busy until the session is closed or idles out. Fails if another living worker holds
    /// the session: return that error, and the job is handed over to that worker.
    pub async fn open(&self, name: &str) -> Result<(), SessionError> {
        if name.is_empty() || name.len() > MAX_SESSION_NAME {
            return Err(SessionError::Name(name.len()));
        }
        if self.held(name) {
            self.touch(name);
            return Ok(());
        }
        if self.0.status.borrow().is_leaving() {
            return Err(SessionError::Leaving(name.to_owned()));
        }
        // Before the claim, so that no job finds the session claimed by this worker and not open here.
        self.change(|book| {
            book.lost.remove(name);
            book.open.insert(name.to_owned(), Instant::now());
        });
        let claimed = self.claim(name).await;
        if claimed.is_err() {
            self.forget(name);
        }
        claimed
    }

    /// Records that session `name` was used. Its jobs count as use without this call.
    pub fn touch(&self, name: &str) {
        if let Some(used) = self.lock().open.get_mut(name) {
            *used = Instant::now();
        }
    }

    /// Closes session `name`: the worker that gets a job of it next may open it again. Does nothing if the session is
    /// neither open here nor lost.
    pub async fn close(&self, name: &str) {
        if self.is_known(name) {
            self.forget(name);
            self.release(name).await;
        }
    }

    /// Records that session `name` is lost, and why: it no longer keeps the worker busy. Its next job is still
    /// delivered to this worker, and fails with `session lost: {why}`. Does nothing if the session is not open here.
    pub fn lose(&self, name: &str, why: &str) {
        let now = Instant::now();
        self.change(|book| {
            // Older claims have expired.
            book.lost.retain(|_, (_, since)| now - *since < self.0.idle);
            if book.open.remove(name).is_some() {
                book.lost.insert(name.to_owned(), (why.to_owned(), now));
            }
        });
    }

    /// Returns a place for session `name`, if fewer than `places` are taken. The place stays taken until it is dropped
    /// and, if the session is open by then, until the session closes.
    pub(super) fn try_place(&self, name: &str, places: usize) -> Option<Place> {
        let mut book = self.lock();
        let opening = book.opening.iter().filter(|opening| !book.open.contains_key(*opening)).count();
        let is_free = book.open.contains_key(name) || book.open.len() + opening < places;
        is_free.then(|| {
            book.opening.insert(name.to_owned());
            Place { sessions: self.clone(), name: name.to_owned() }
        })
    }

    /// Waits until a place may have become free.
    pub(super) async fn place_freed(&self) {
        self.0.freed.notified().await;
    }

    /// Returns the number of open sessions.
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Returns whether session `name` is open here.
    pub fn held(&self, name: &str) -> bool {
        self.lock().open.contains_key(name)
    }

    /// Returns whether session `name` is open here, or was lost and no job has been told yet.
    pub(super) fn is_known(&self, name: &str) -> bool {
        let book = self.lock();
        book.open.contains_key(name) || book.lost.contains_key(name)
    }

    /// Returns why session `name` was lost, once.
    pub(super) fn take_loss(&self, name: &str) -> Option<String> {
        self.lock().lost.remove(name).map(|(why, _)| why)
    }

    /// Returns the names of the open sessions.
    pub fn names(&self) -> Vec<String> {
        self.lock().open.keys().cloned().collect()
    }

    /// Records that a job of session `name` starts: until [`Sessions::end_use`] the session does not idle out.
    pub(super) fn begin_use(&self, name: &str) {
        self.lock().in_use.insert(name.to_owned());
    }

    pub(super) fn end_use(&self, name: &str) {
        self.lock().in_use.remove(name);
        self.touch(name);
        self.0.changed.notify_one();
    }

    /// Waits until a session has idled out, closes it, and returns its name.
    pub(super) async fn idled_out(&self) -> String {
        loop {
            match self.next_idle() {
                Some((at, name)) if at <= Instant::now() => {
                    self.close(&name).await;
                    return name;
                }
                Some((at, _)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.0.changed.notified() => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Returns the session that idles out first if it gets no job, and when.
    fn next_idle(&self) -> Option<(Instant, String)> {
        let book = self.lock();
        let unused = book.open.iter().filter(|(name, _)| !book.in_use.contains(*name));
        unused.min_by_key(|(_, used)| **used).map(|(name, used)| (*used + self.0.idle, name.clone()))
    }

    /// Renews every claim. Returns the sessions that other workers have claimed; they are no longer open here. Sessions
    /// that Redis can't be asked about stay.
    pub(super) async fn renew(&self) -> Vec<String> {
        let mut lost = Vec::new();
        for name in self.names() {
            let Ok(mut connection) = self.0.commands.get().await else { return lost };
            let _claiming = self.0.claiming.lock().await;
            // The session was closed after the names were read.
            if !self.held(&name) {
                continue;
            }
            match self.0.claims.renew(&mut connection, &name).await {
                Ok(true) => {}
                Ok(false) => {
                    self.forget(&name);
                    lost.push(name);
                }
                Err(error) => tracing::warn!(session = name, %error, "claim not renewed; trying again later"),
            }
        }
        lost
    }

    /// Returns the claims of the sessions.
    pub(super) fn claims(&self) -> &SessionClaims {
        &self.0.claims
    }

    async fn claim(&self, name: &str) -> Result<(), SessionError> {
        let unclaimed = |cause: String| SessionError::Unclaimed { name: name.to_owned(), cause };
        let mut connection = self.0.commands.get().await.map_err(|error| unclaimed(error.to_string()))?;
        let holder = self
            .0
            .claims
            .claim(&mut connection, name, || self.0.commands.may_judge())
            .await
            .map_err(|error| unclaimed(error.to_string()))?;
        if holder == *self.0.claims.id() {
            Ok(())
        } else {
            Err(SessionError::HeldElsewhere { name: name.to_owned(), holder })
        }
    }

    /// Releases a claim. Claims of a worker that has left stay, because they tell the next job of each session that the
    /// session is lost.
    async fn release(&self, name: &str) {
        if self.0.status.borrow().phase == Phase::Gone {
            return;
        }
        let _claiming = self.0.claiming.lock().await;
        let problem = match self.0.commands.get().await {
            Ok(mut connection) => self.0.claims.release(&mut connection, name).await.err().map(|e| e.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = problem {
            tracing::warn!(
                session = name,
                error,
                "session is closed and still claimed; its next job is told it is lost"
            );
        }
    }

    fn forget(&self, name: &str) {
        self.change(|book| {
            book.open.remove(name);
            book.lost.remove(name);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        let count = {
            let mut book = self.lock();
            change(&mut book);
            book.open.len()
        };
        self.0.status.send_modify(|status| status.sessions = count);
        self.0.changed.notify_one();
        self.0.freed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
