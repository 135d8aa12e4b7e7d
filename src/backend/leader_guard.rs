//! Whether changes may be made still. An order is given by an autoscaler that leads; carried out step by step, behind a
//! slow server or after a drain, its last step may come when another one leads.

use std::sync::{Arc, OnceLock};

use super::BackendError;

/// Says whether changes may be made now; asked right before each.
pub type MayAct = Box<dyn Fn() -> bool + Send + Sync>;

/// Error of a change that was requested by an autoscaler that no longer leads.
pub(super) const NOT_LEADING: &str =
    "this autoscaler does not lead any more: what was under way is left to the one that does";

/// Checked by a backend before each change. Allows everything until [`set`](Self::set) is called.
#[derive(Clone, Default)]
pub(super) struct LeaderGuard(Arc<OnceLock<MayAct>>);

impl LeaderGuard {
    /// From now on this one is asked; the first one stays.
    pub(super) fn set(&self, may_act: MayAct) {
        let _ = self.0.set(may_act);
    }

    pub(super) fn holds(&self) -> bool {
        self.0.get().is_none_or(|may_act| may_act())
    }

    /// Right before a change.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        if self.holds() {
            return Ok(());
        }
        Err(BackendError::retryable(NOT_LEADING))
    }
}

impl std::fmt::Debug for LeaderGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeaderGuard").field(&self.holds()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::backend::ErrorKind;

    #[test]
    fn it_is_asked_each_time_by_every_copy() {
        let (leader_guard, leads) = (LeaderGuard::default(), Arc::new(AtomicBool::new(true)));
        let copy = leader_guard.clone();
        assert!(copy.check().is_ok(), "nobody has said otherwise");
        let asked = leads.clone();
        leader_guard.set(Box::new(move || asked.load(Ordering::Relaxed)));
        assert!(copy.holds());
        leads.store(false, Ordering::Relaxed);
        assert_eq!(copy.check().map_err(|error| error.kind), Err(ErrorKind::Retryable));
    }
}
