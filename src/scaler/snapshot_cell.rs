//! What an actor shows: one place, written by the actor and read by whoever asks. A `watch` channel would do the same
//! and also wake readers, at three hundred bytes for each of perhaps ten thousand worker types; nobody waits for a
//! snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::snapshot::TypeSnapshot;

/// The newest snapshot of one worker type. Copies show the same.
#[derive(Clone, Debug)]
pub struct SnapshotCell(Arc<Mutex<Arc<TypeSnapshot>>>);

impl SnapshotCell {
    /// Beginning with this one.
    pub fn new(snapshot: Arc<TypeSnapshot>) -> Self {
        Self(Arc::new(Mutex::new(snapshot)))
    }

    /// The newest one.
    pub fn get(&self) -> Arc<TypeSnapshot> {
        self.lock().clone()
    }

    /// From now on it is this one.
    pub(super) fn set(&self, snapshot: &Arc<TypeSnapshot>) {
        let mut shown = self.lock();
        if !Arc::ptr_eq(&shown, snapshot) {
            let old = std::mem::replace(&mut *shown, snapshot.clone());
            drop(shown);
            // It may be the last copy: freed without holding up a reader.
            drop(old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<TypeSnapshot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
