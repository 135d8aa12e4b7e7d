//! Which queues of a worker type may have changed since they were read. Every signal that names a key marks it before
//! it is posted, so a reader that takes the marks and then reads misses nothing.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Marked keys beyond which all queues count as changed: then reading them all costs little more, and memory is
/// bounded.
const MAX_MARKED: usize = 1_024;

/// The queues that may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DirtyQueues {
    /// These queues.
    Keys(HashSet<Box<str>>),
    /// Any queue.
    #[default]
    All,
}

/// Marks of one worker type. At the start everything is unread.
#[derive(Debug, Default)]
pub(super) struct DirtyMarks(Mutex<DirtyQueues>);

impl DirtyMarks {
    /// Marks one key. A key that is not valid UTF-8 can't be one of the queues.
    pub(super) fn mark(&self, key: &[u8]) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        let mut dirty = self.dirty();
        let DirtyQueues::Keys(keys) = &mut *dirty else { return };
        if keys.contains(key) {
            return;
        }
        if keys.len() < MAX_MARKED {
            keys.insert(key.into());
        } else {
            *dirty = DirtyQueues::All;
        }
    }

    pub(super) fn mark_all(&self) {
        *self.dirty() = DirtyQueues::All;
    }

    /// Takes the marks. The caller has to read these queues.
    pub(super) fn take(&self) -> DirtyQueues {
        std::mem::replace(&mut *self.dirty(), DirtyQueues::Keys(HashSet::new()))
    }

    fn dirty(&self) -> MutexGuard<'_, DirtyQueues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_once_and_many_of_them_mean_all() {
        let marks = DirtyMarks::default();
        assert_eq!(marks.take(), DirtyQueues::All, "nothing was read yet");
        marks.mark(b"a");
        marks.mark(b"a");
        marks.mark(b"\xff");
        assert_eq!(marks.take(), DirtyQueues::Keys(["a".into()].into()));
        assert_eq!(marks.take(), DirtyQueues::Keys(HashSet::new()));
        (0..=MAX_MARKED).for_each(|number| marks.mark(number.to_string().as_bytes()));
        assert_eq!(marks.take(), DirtyQueues::All);
        marks.mark_all();
        marks.mark(b"a");
        assert_eq!(marks.take(), DirtyQueues::All);
    }
}
