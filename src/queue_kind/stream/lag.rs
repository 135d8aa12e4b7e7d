//! Derives the demand from what Redis reports about a stream and its group. Handles nil lag, phantom lag, a missing
//! stream, a missing group, and ids that are not times. Pure.

use crate::{
    model::{Counters, Demand, Reading, StreamId, Timestamp},
    queue_kind::{
        Bounds, ConsumerPending, Observed,
        counted_entries::{Backlog, CountedEntries, StreamState},
        explain,
    },
};

/// Why the age of a stream's jobs is permanently unknown.
pub(super) const NO_TIMES: &str = "the ids of its entries are not times";

/// Why the age is temporarily unknown.
const NOT_READ: &str = "the oldest waiting entry is not among what the probe reads";

/// Range of ids that are times in milliseconds: from 2001 to 2286.
const TIMES: std::ops::Range<u64> = 1_000_000_000_000..10_000_000_000_000;

/// The stream, from XINFO STREAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamInfo {
    pub(super) length: u64,
    pub(super) last_generated: StreamId,
    pub(super) first_entry: Option<StreamId>,
    /// Last entry that still exists.
    pub(super) last_entry: Option<StreamId>,
    /// Entries ever added; `None` before Redis 7.
    pub(super) added: Option<u64>,
    /// Largest id that XDEL ever removed; `None` before Redis 7.
    pub(super) max_deleted: Option<StreamId>,
    /// Bytes of the first entry.
    pub(super) first_bytes: u32,
    /// Bytes of the last entry; `None` if it was not read.
    pub(super) last_bytes: Option<u32>,
}

impl StreamInfo {
    /// Returns the largest id that an existing entry can have.
    fn last_id(&self) -> StreamId {
        self.last_entry.unwrap_or(self.last_generated)
    }
}

/// The group, from XINFO GROUPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) pending: u64,
    pub(super) last_delivered: StreamId,
    /// `None` if Redis does not know the lag, and before Redis 7.
    pub(super) lag: Option<u64>,
    /// Entries ever delivered to the group; `None` if Redis does not know, and before Redis 7.
    pub(super) read: Option<u64>,
}

/// The oldest pending id, and the pending jobs of each consumer.
type Holders = (Option<StreamId>, Vec<ConsumerPending>);

/// What one round trip reports about a stream. Errors are in the server's words.
#[derive(Debug)]
pub(super) struct RawStream {
    pub(super) stream: Result<Option<StreamInfo>, String>,
    pub(super) group: Result<Option<Group>, String>,
    pub(super) consumers: Result<Holders, String>,
}

impl RawStream {
    /// Returns the counters of the queue. A missing stream or group counts as 0.
    fn counters(&self) -> Counters {
        let Self { stream: Ok(stream), group: Ok(group), .. } = self else { return Counters::default() };
        let added = stream.as_ref().map_or(Some(0), |stream| stream.added);
        Counters { added, read: group.as_ref().map_or(Some(0), |group| group.read), ..Counters::default() }
    }
}

/// State of a stream between readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamMemory {
    surplus: Option<Surplus>,
    oldest: Option<OldestWaiting>,
    /// Boxed, because it is rare and there may be ten thousand streams.
    counted: Option<Box<CountedEntries>>,
    /// Bytes of the first entry in the last reading.
    pub(super) first_bytes: u32,
    /// Bytes of the last entry in the last reading that read it.
    pub(super) last_bytes: u32,
    /// Consumers of all groups of the stream.
    pub(super) consumers: u32,
    /// Whether the warning about ids was given.
    pub(super) warned: bool,
}

impl StreamMemory {
    /// Forgets all about the jobs of the stream.
    fn forget(&mut self) {
        *self = Self { warned: self.warned, ..Self::default() };
    }

    fn note_bytes(&mut self, stream: &StreamInfo) {
        self.first_bytes = stream.first_bytes;
        self.last_bytes = stream.last_bytes.unwrap_or(self.last_bytes);
    }

    /// Returns the bytes of the larger one of the first and last entry.
    pub(super) fn entry_bytes(&self) -> u32 {
        self.first_bytes.max(self.last_bytes)
    }
}

/// Difference between the lag that Redis reports and the real lag.
///
/// Redis computes lag as entries added minus entries read, so entries trimmed before they were read count forever. The
/// number of entries read can change without a read: by `XGROUP SETID … ENTRIESREAD`, a restart with another version,
/// or an estimate of Redis after an XDEL. So a surplus is valid only while the position of the group does not change;
/// a surplus of 0 also while the group reads on and loses no entry before it has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surplus {
    jobs: i64,
    last_delivered: StreamId,
    read: Option<u64>,
    added: Option<u64>,
    length: u64,
}

impl Surplus {
    fn of(reported: u64, real: u64, stream: &StreamInfo, group: &Group) -> Self {
        let (jobs, length) = (difference(reported, real), stream.length);
        Self { jobs, last_delivered: group.last_delivered, read: group.read, added: stream.added, length }
    }

    /// Returns the surplus as of this reading, if it is still valid. A surplus of 0 survives reads, because reads count
    /// correctly as long as no entry is removed before it is read.
    fn at(self, stream: &StreamInfo, group: &Group) -> Option<Self> {
        let went_on = group.last_delivered >= self.last_delivered && stream.added >= self.added;
        let stands = group.last_delivered == self.last_delivered && group.read == self.read;
        if went_on && stands {
            return Some(self);
        }
        let reads_on = self.jobs == 0 && went_on && !self.may_have_lost_unread(stream);
        reads_on.then_some(Self {
            last_delivered: group.last_delivered,
            read: group.read,
            added: stream.added,
            length: stream.length,
            ..self
        })
    }

    /// Returns whether an entry after the group's former position may have been trimmed or deleted since.
    fn may_have_lost_unread(&self, stream: &StreamInfo) -> bool {
        let removed = |added: Option<u64>, length| added.map(|added| added.saturating_sub(length));
        let is_read = |id: Option<StreamId>| id.is_some_and(|id| id <= self.last_delivered);
        removed(stream.added, stream.length) != removed(self.added, self.length)
            && !(is_read(stream.first_entry) && is_read(stream.max_deleted))
    }
}

/// The oldest entry after a group's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OldestWaiting {
    last_delivered: StreamId,
    id: StreamId,
}

/// A count that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// The entries after this id are counted.
    pub(super) after: StreamId,
    pub(super) limit: u64,
    pub(super) bounds: Bounds,
}

/// Result of the first request about a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is returned")]
pub(super) enum Sight {
    /// The result is complete.
    Clear(Observed),
    /// Entries have to be counted; with the result so far.
    Count(Count, Observed),
}

pub(super) fn look(raw: RawStream, key: &str, memory: &mut StreamMemory) -> Sight {
    let counters = raw.counters();
    let with_counters = |observed: Observed| Observed { counters, ..observed };
    match raw {
        RawStream { stream: Err(error), .. } | RawStream { group: Err(error), .. } => {
            let is_foreign = error.contains("WRONGTYPE");
            Sight::Clear(Observed { is_foreign, ..Observed::failed(&explain(key, &error)) })
        }
        RawStream { stream: Ok(None), .. } => {
            *memory = StreamMemory::default();
            Sight::Clear(with_counters(Observed::of(nothing(), Reading::Known(Vec::new()))))
        }
        RawStream { stream: Ok(Some(stream)), group: Ok(None), .. } => {
            memory.forget();
            memory.note_bytes(&stream);
            Sight::Clear(with_counters(Observed::of(untouched(&stream), Reading::Known(Vec::new()))))
        }
        RawStream { stream: Ok(Some(stream)), group: Ok(Some(group)), consumers } => {
            let (oldest_pending, consumers) = match consumers {
                Ok((oldest, consumers)) => (oldest, Reading::Known(consumers)),
                Err(error) => (None, Reading::Failed(explain(key, &error))),
            };
            match read(&stream, &group, oldest_pending, memory) {
                (demand, None) => Sight::Clear(with_counters(Observed::of(demand, consumers))),
                (demand, Some(count)) => Sight::Count(count, with_counters(Observed::of(demand, consumers))),
            }
        }
    }
}

/// Returns the demand of a stream with a group, and the count that is still needed.
fn read(
    stream: &StreamInfo,
    group: &Group,
    oldest_pending: Option<StreamId>,
    memory: &mut StreamMemory,
) -> (Demand, Option<Count>) {
    memory.note_bytes(stream);
    memory.surplus = memory.surplus.and_then(|surplus| surplus.at(stream, group));
    let all_delivered = stream.length == 0 || group.last_delivered >= stream.last_id();
    let none_delivered = stream.first_entry.is_some_and(|first| first > group.last_delivered);
    // Where the backlog is certain, the rest of the reported lag is surplus.
    let certain = if all_delivered {
        Some(0)
    } else if none_delivered {
        Some(stream.length)
    } else {
        None
    };
    // Replies from two different moments show nothing about a surplus, because an entry may have been added in between.
    let of_one_moment = match (stream.added, group.lag, group.read) {
        (Some(added), Some(lag), Some(read)) => added == lag.saturating_add(read),
        _ => true,
    };
    if let (Some(certain), Some(reported), true) = (certain, group.lag, of_one_moment) {
        memory.surplus = Some(Surplus::of(reported, certain, stream, group));
    }
    let never_removed = stream.added == Some(stream.length);
    let lag = match (certain, group.lag, memory.surplus) {
        (Some(certain), _, _) => Some(certain),
        (None, Some(reported), Some(surplus)) => Some(less(reported, surplus.jobs).min(stream.length)),
        (None, Some(reported), None) if never_removed => Some(reported),
        _ => None,
    };
    let bounds =
        Bounds { reported: group.lag, length: stream.length, stood: standing(stream, group), ..Bounds::default() };
    let (lag, uncounted) = match lag {
        Some(lag) => (Some(lag), None),
        None => by_earlier_count(stream, group, bounds, memory),
    };
    let oldest_waiting = oldest_waiting(stream, group, lag, none_delivered, memory);
    let demand = Demand {
        lag: lag.map_or_else(|| Reading::Unknown("redis does not tell the lag".to_owned()), Reading::Known),
        pending: Reading::Known(group.pending),
        oldest: oldest(lag, oldest_waiting, group.pending, oldest_pending),
    };
    let missing = match (lag, &demand.oldest) {
        (Some(1..), Reading::Unknown(why)) if why == NOT_READ => {
            Some(Count { after: group.last_delivered, limit: 1, bounds })
        }
        _ => uncounted,
    };
    (demand, missing)
}

/// Returns the lag by what was counted before, or else the count that is still needed.
fn by_earlier_count(
    stream: &StreamInfo,
    group: &Group,
    bounds: Bounds,
    memory: &mut StreamMemory,
) -> (Option<u64>, Option<Count>) {
    let state = StreamState {
        position: group.last_delivered,
        length: stream.length,
        last_generated: stream.last_generated,
        first_entry: stream.first_entry,
        added: stream.added,
        max_deleted: stream.max_deleted,
    };
    let counted = memory.counted.take().and_then(|counted| counted.at(state));
    let counted = counted.unwrap_or_else(|| CountedEntries::none(state));
    memory.counted = Some(Box::new(counted));
    if let Some(id) = counted.oldest {
        memory.oldest = Some(OldestWaiting { last_delivered: group.last_delivered, id });
    }
    let is_all = counted.last >= stream.last_id();
    match counted.left().filter(|_| !is_all) {
        Some(limit) => (None, Some(Count { after: counted.last, limit, bounds: Bounds { counted, ..bounds } })),
        None => (Some(lag_by_count(&counted, is_all, bounds, memory)), None),
    }
}

/// Returns the lag by a count. If the count ended at a limit, there may be more entries: then the reported lag, or else
/// the stream's length, is the upper bound, and too many is the safe side.
fn lag_by_count(counted: &CountedEntries, is_all: bool, bounds: Bounds, memory: &mut StreamMemory) -> u64 {
    let Bounds { reported, length, stood: (last_delivered, read, added), .. } = bounds;
    if !is_all {
        return reported.unwrap_or(length).min(length).max(counted.entries);
    }
    if let Some(reported) = reported {
        let jobs = difference(reported, counted.entries);
        memory.surplus = Some(Surplus { jobs, last_delivered, read, added, length });
    }
    counted.entries
}

/// Returns the oldest waiting entry, if it is known without a request.
fn oldest_waiting(
    stream: &StreamInfo,
    group: &Group,
    lag: Option<u64>,
    none_delivered: bool,
    memory: &mut StreamMemory,
) -> Option<StreamId> {
    memory.oldest = memory.oldest.filter(|oldest| {
        oldest.last_delivered == group.last_delivered && stream.first_entry.is_some_and(|first| first <= oldest.id)
    });
    let last = stream.last_entry.filter(|last| *last > group.last_delivered);
    let known = match lag {
        Some(1..) if none_delivered => stream.first_entry,
        // The only waiting entry is the last one.
        Some(1) => last,
        Some(1..) => memory.oldest.map(|oldest| oldest.id),
        _ => None,
    };
    if let Some(id) = known {
        memory.oldest = Some(OldestWaiting { last_delivered: group.last_delivered, id });
    }
    known
}

fn difference(reported: u64, real: u64) -> i64 {
    i64::try_from(i128::from(reported) - i128::from(real)).unwrap_or(i64::MAX)
}

/// Returns `reported` minus `jobs`, which may be negative; never below 0.
fn less(reported: u64, jobs: i64) -> u64 {
    if jobs < 0 { reported.saturating_add(jobs.unsigned_abs()) } else { reported.saturating_sub(jobs.unsigned_abs()) }
}

/// Returns the position of a group, in a form that a follow-up can carry.
fn standing(stream: &StreamInfo, group: &Group) -> (StreamId, Option<u64>, Option<u64>) {
    (group.last_delivered, group.read, stream.added)
}

/// Completes the result with the count.
pub(super) fn complete(
    backlog: Result<Backlog, String>,
    bounds: Bounds,
    mut observed: Observed,
    memory: &mut StreamMemory,
) -> Observed {
    let demand = &mut observed.demand;
    let backlog = match backlog {
        Ok(backlog) => backlog,
        Err(error) => {
            if demand.lag.known().is_none() {
                demand.lag = Reading::Failed(error);
            }
            return observed;
        }
    };
    let mut oldest = backlog.oldest;
    if demand.lag.known().is_none() {
        let counted = bounds.counted.with(&backlog);
        demand.lag = Reading::Known(lag_by_count(&counted, backlog.is_all, bounds, memory));
        oldest = counted.oldest;
        memory.counted = Some(Box::new(counted));
    }
    if let Some(id) = oldest {
        memory.oldest = Some(OldestWaiting { last_delivered: bounds.stood.0, id });
    }
    demand.oldest = match (oldest.map(time), demand.oldest.clone()) {
        (Some(Reading::Known(waiting)), Reading::Known(Some(pending))) => {
            Reading::Known(Some(waiting.map_or(pending, |waiting| waiting.min(pending))))
        }
        (Some(waiting), _) => waiting,
        (None, known @ Reading::Known(_)) => known,
        (None, _) => Reading::Known(None),
    };
    observed
}

/// Returns the time in an id; unknown if the id is not a time.
fn time(id: StreamId) -> Reading<Option<Timestamp>> {
    if TIMES.contains(&id.ms()) {
        Reading::Known(Some(Timestamp(id.ms())))
    } else {
        Reading::Unknown(NO_TIMES.to_owned())
    }
}

fn oldest(
    lag: Option<u64>,
    waiting: Option<StreamId>,
    pending: u64,
    oldest_pending: Option<StreamId>,
) -> Reading<Option<Timestamp>> {
    match (waiting, oldest_pending) {
        (Some(waiting), Some(pending)) => time(waiting.min(pending)),
        // Entries are delivered in the order of their ids, so a pending entry is older than any waiting one.
        (Some(id), None) | (None, Some(id)) => time(id),
        (None, None) if lag == Some(0) && pending == 0 => Reading::Known(None),
        (None, None) => Reading::Unknown(NOT_READ.to_owned()),
    }
}

fn nothing() -> Demand {
    Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) }
}

/// Returns the demand of a stream without the group: the group will be created at 0, so every entry counts.
fn untouched(stream: &StreamInfo) -> Demand {
    Demand {
        lag: Reading::Known(stream.length),
        pending: Reading::Known(0),
        oldest: stream.first_entry.map_or(Reading::Known(None), time),
    }
}

#[cfg(test)]
mod tests;
