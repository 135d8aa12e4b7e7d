//! The open sessions, by name; the worker has claimed each of them. Releases sessions that were lost; opens none
//! itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::session::Session;
use crate::worker::Sessions;

/// The open sessions of one worker.
pub(super) struct OpenSessions {
    book: Mutex<HashMap<String, Arc<Session>>>,
    claims: Sessions,
}

impl OpenSessions {
    /// Returns an empty list.
    pub(super) fn new(claims: Sessions) -> Self {
        Self { book: Mutex::default(), claims }
    }

    /// Returns the claims of the sessions.
    pub(super) fn claims(&self) -> &Sessions {
        &self.claims
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
