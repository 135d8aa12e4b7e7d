//! The snapshot that an actor shows: one cell, written by the actor and read on request. A `watch` channel would do the
//! same and also wake readers, at three hundred bytes for each of perhaps ten thousand worker types, although no reader
//! waits for a snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::snapshot::TypeSnapshot;

/// The newest snapshot of one worker type. Clones show the same.
#[derive(Clone, Debug)]
pub struct SnapshotCell(Arc<Mutex<Arc<TypeSnapshot>>>);

impl SnapshotCell {
    /// Returns a cell with this snapshot.
    pub fn new(snapshot: Arc<TypeSnapshot>) -> Self {
        Self(Arc::new(Mutex::new(snapshot)))
    }

    /// Returns the newest snapshot.
    pub fn get(&self) -> Arc<TypeSnapshot> {
        self.lock().clone()
    }

    /// Replaces the snapshot.
    pub(super) fn set(&self, snapshot: &Arc<TypeSnapshot>) {
        let mut shown = self.lock();
        if !Arc::ptr_eq(&shown, snapshot) {
            let old = std::mem::replace(&mut *shown, snapshot.clone());
            drop(shown);
            // This may be the last copy; it is freed without delaying a reader.
            drop(old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<TypeSnapshot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
