//! The open sessions, by name; the worker has claimed each of them. Releases sessions that were lost; opens none
//! itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Mutex as AsyncMutex;

use super::session::Session;
use crate::worker::Sessions;

/// The open sessions of one worker.
pub(super) struct OpenSessions {
    book: Mutex<HashMap<String, Arc<Session>>>,
    /// Locks of the sessions that are being opened.
    opening: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
    claims: Sessions,
}

impl OpenSessions {
    /// Returns an empty list.
    pub(super) fn new(claims: Sessions) -> Self {
        Self { book: Mutex::default(), opening: Mutex::default(), claims }
    }

    /// Returns the claims of the sessions.
    pub(super) fn claims(&self) -> &Sessions {
        &self.claims
    }

    /// Returns the lock that whoever opens session `name` holds, so that two jobs do not open it twice.
    pub(super) fn opening(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        opening.retain(|_, lock| lock.strong_count() > 0);
        opening.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let lock = Arc::default();
            opening.insert(name.to_owned(), Arc::downgrade(&lock));
            lock
        })
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Session>> {
        self.lock().get(name).cloned()
    }

    /// Adds a session whose claim this worker has.
    pub(super) fn insert(&self, name: &str, session: Arc<Session>) {
        self.lock().insert(name.to_owned(), session);
    }

    /// Removes a session, and leaves its claim as it is.
    pub(super) fn take(&self, name: &str) -> Option<Arc<Session>> {
        self.lock().remove(name)
    }

    /// Removes all sessions, as [`OpenSessions::take`] does.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Closes a session; returns whether it was open.
    pub(super) async fn close(&self, name: &str) -> bool {
        let was_open = self.take(name).is_some();
        self.claims.close(name).await;
        was_open
    }

    /// Returns the names that match.
    pub(super) fn names(&self, fits: impl Fn(&str) -> bool) -> Vec<String> {
        self.lock().keys().filter(|name| fits(name)).cloned().collect()
    }

    /// Releases the sessions whose page is gone; the next job of each session gets an error with the reason.
    pub(super) fn let_go_of_lost(&self) {
        let mut lost = Vec::new();
        self.lock().retain(|name, session| {
            let why = session.lost();
            lost.extend(why.iter().map(|why| (name.clone(), why.clone())));
            why.is_none()
        });
        for (name, why) in lost {
            self.claims.lose(&name, &why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
