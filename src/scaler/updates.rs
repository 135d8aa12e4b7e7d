//! Wakes whoever follows a worker type after each of its evaluations. Only types that somebody follows have a channel.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::model::WorkerType;

/// The followed worker types.
#[derive(Debug, Default)]
pub struct Updates(RwLock<HashMap<WorkerType, watch::Sender<()>>>);

impl Updates {
    /// Returns a receiver that changes after each evaluation of the worker type from now on, once its snapshot is
    /// shown.
    pub fn subscribe(&self, worker_type: &WorkerType) -> watch::Receiver<()> {
        let mut followed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.entry(worker_type.clone()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Wakes the followers of a worker type.
    pub(super) fn announce(&self, worker_type: &WorkerType) {
        let followed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = followed.get(worker_type) {
            sender.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_woken_for_their_type_and_forgotten_when_they_leave() {
        let updates = Updates::default();
        let (a, b) = (WorkerType::new("a"), WorkerType::new("b"));
        let (mut of_a, of_b) = (updates.subscribe(&a), updates.subscribe(&b));
        updates.announce(&a);
        assert!(of_a.has_changed().unwrap() && !of_b.has_changed().unwrap());
        of_a.mark_unchanged();
        drop(of_b);
        drop(updates.subscribe(&a));
        assert_eq!(updates.0.read().unwrap().len(), 1, "nobody follows b any more");
        updates.announce(&a);
        assert!(of_a.has_changed().unwrap());
    }
}
