//! What a count of a stream's waiting entries has found, so that the next count goes on where it ended instead of
//! copying the same entries once more. Pure.

use crate::model::StreamId;

/// Maximum entries that are counted if Redis does not report the lag. Bounds the cost of a reading; for a larger
/// backlog, the stream's length is the upper bound.
const COUNT_LIMIT: u64 = 1_000;

/// Maximum bytes of entries that are counted while the position of the group stands, in all readings together.
const TOTAL_BYTES: u64 = 32 * 1024 * 1024;

/// Entries after the position of a group that have been counted, from the oldest on, and the state of the stream
/// before the last of them was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CountedEntries {
    pub(super) oldest: Option<StreamId>,
    /// Last counted entry; the position of the group if there is none.
    pub(super) last: StreamId,
    pub(super) entries: u64,
    bytes: u64,
    seen: StreamState,
}

/// State of a stream and its group as far as it shows what was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamState {
    /// Last delivered entry.
    pub(super) position: StreamId,
    pub(super) length: u64,
    pub(super) last_generated: StreamId,
    pub(super) first_entry: Option<StreamId>,
    /// Entries ever added; `None` before Redis 7.
    pub(super) added: Option<u64>,
    /// Largest id that XDEL ever removed; `None` before Redis 7.
    pub(super) max_deleted: Option<StreamId>,
}

impl StreamState {
    fn removed(&self) -> Option<u64> {
        self.added?.checked_sub(self.length)
    }
}

/// Entries after an id, counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) entries: u64,
    pub(super) oldest: Option<StreamId>,
    pub(super) last: Option<StreamId>,
    pub(super) bytes: u64,
    /// Whether the count is complete.
    pub(super) is_all: bool,
}

impl CountedEntries {
    /// Returns a count that has not begun.
    pub(super) fn none(now: StreamState) -> Self {
        Self { last: now.position, seen: now, ..Self::default() }
    }

    /// Returns the count as of this reading, if each of its entries still exists and waits: the group has not moved,
    /// and what was removed since was not counted. Redis reports how many entries were removed, but of their ids only
    /// the largest one that XDEL ever removed, and the first one left.
    pub(super) fn at(self, now: StreamState) -> Option<Self> {
        let (removed_before, removed) = (self.seen.removed()?, now.removed()?);
        let stands = now.position == self.seen.position;
        let went_on = now.added >= self.seen.added && now.last_generated >= self.last;
        let is_read = |id: Option<StreamId>| id.is_some_and(|id| id <= now.position);
        let only_read = removed > removed_before && is_read(now.first_entry) && is_read(now.max_deleted);
        let only_one = removed == removed_before + 1 && now.max_deleted != self.seen.max_deleted;
        let only_behind = only_one && now.max_deleted.is_some_and(|id| id > self.last);
        let is_valid = stands && went_on && (removed == removed_before || only_read || only_behind);
        is_valid.then_some(Self { seen: now, ..self })
    }

    /// Returns the count together with the entries found after its last one.
    pub(super) fn with(self, backlog: &Backlog) -> Self {
        Self {
            oldest: self.oldest.or(backlog.oldest),
            last: backlog.last.unwrap_or(self.last),
            entries: self.entries + backlog.entries,
            bytes: self.bytes + backlog.bytes,
            ..self
        }
    }

    /// Returns the maximum number of further entries to count; `None` if going on would cost too much.
    pub(super) fn left(&self) -> Option<u64> {
        let left = COUNT_LIMIT.saturating_sub(self.entries);
        (left > 0 && self.bytes < TOTAL_BYTES).then_some(left)
    }
}

#[cfg(test)]
mod tests;
