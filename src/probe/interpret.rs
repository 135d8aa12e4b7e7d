//! From Redis's answers to demand, with the traps there: nil lag, phantom lag, no stream, no group, wrong type. Pure.

use std::fmt;

use crate::model::{Counters, Demand, Reading, Timestamp};

/// A stream entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId {
    ms: u64,
    seq: u64,
}

impl StreamId {
    /// The first one of a millisecond.
    pub(super) fn at(ms: u64) -> Self {
        Self { ms, seq: 0 }
    }

    /// When it was made.
    pub(super) fn ms(self) -> u64 {
        self.ms
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A consumer and how many delivered jobs it has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPending {
    /// Its name: the worker's id.
    pub name: String,
    /// Jobs it holds.
    pub jobs: u64,
}

/// XINFO STREAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) length: u64,
    pub(super) last_generated: StreamId,
    pub(super) first_entry: Option<StreamId>,
    /// Entries ever added; not told before Redis 7.
    pub(super) added: Option<u64>,
}

/// Our group in XINFO GROUPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) pending: u64,
    pub(super) last_delivered: StreamId,
    /// nil when Redis can't tell; not told before Redis 7.
    pub(super) lag: Option<u64>,
    /// Entries ever delivered to the group; nil when Redis can't tell, not told before Redis 7.
    pub(super) read: Option<u64>,
}

/// Entries after the last delivered one, counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) entries: u64,
    pub(super) oldest: Option<StreamId>,
}

/// All that one round trip tells of a queue. Errors are the server's words.
#[derive(Debug)]
pub(super) enum RawQueue {
    List(Result<u64, String>),
    Stream {
        stream: Result<Option<Stream>, String>,
        group: Result<Option<Group>, String>,
        consumers: Result<(Option<StreamId>, Vec<ConsumerPending>), String>,
    },
}

impl RawQueue {
    /// Whether the key holds something else than what was asked for.
    pub(super) fn is_foreign(&self) -> bool {
        let (Self::List(Err(error)) | Self::Stream { stream: Err(error), .. }) = self else { return false };
        error.contains("WRONGTYPE")
    }

    /// What the queue counts by itself. A stream or group that is not there has counted up to nothing.
    pub(super) fn counters(&self) -> Counters {
        let Self::Stream { stream: Ok(stream), group: Ok(group), .. } = self else { return Counters::default() };
        let added = stream.as_ref().map_or(Some(0), |stream| stream.added);
        Counters { added, read: group.as_ref().map_or(Some(0), |group| group.read) }
    }
}

/// What is remembered of a queue between probes to see through phantom lag.
///
/// Redis computes lag as entries added minus entries read, so entries trimmed before they were read are counted for
/// ever. The surplus is constant until more are trimmed, and it shows whenever the true backlog is known otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagMemory {
    /// Surplus in the reported lag, once it has been seen.
    surplus: Option<u64>,
    /// The group's position then; a group that goes back was made again.
    last_delivered: StreamId,
}

/// The first look at a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interpretation {
    /// All there is to know.
    Clear(Demand, Reading<Vec<ConsumerPending>>),
    /// The lag has to be counted after this id; what is known so far.
    Count {
        after: StreamId,
        reported: Option<u64>,
        length: u64,
        demand: Demand,
        consumers: Reading<Vec<ConsumerPending>>,
    },
}

pub(super) fn look(raw: RawQueue, key: &str, memory: &mut LagMemory) -> Interpretation {
    match raw {
        RawQueue::List(length) => Interpretation::Clear(list(length, key), Reading::Known(Vec::new())),
        RawQueue::Stream { stream: Err(error), .. } | RawQueue::Stream { group: Err(error), .. } => {
            failed(explain(key, &error))
        }
        RawQueue::Stream { stream: Ok(None), .. } => {
            *memory = LagMemory::default();
            Interpretation::Clear(nothing(), Reading::Known(Vec::new()))
        }
        RawQueue::Stream { stream: Ok(Some(stream)), group: Ok(None), .. } => {
            *memory = LagMemory::default();
            Interpretation::Clear(untouched(&stream), Reading::Known(Vec::new()))
        }
        RawQueue::Stream { stream: Ok(Some(stream)), group: Ok(Some(group)), consumers } => {
            let (oldest_pending, consumers) = match consumers {
                Ok((oldest, consumers)) => (oldest, Reading::Known(consumers)),
                Err(error) => (None, Reading::Failed(explain(key, &error))),
            };
            read(&stream, &group, oldest_pending, consumers, memory)
        }
    }
}

fn failed(why: String) -> Interpretation {
    Interpretation::Clear(Demand::failed(&why), Reading::Failed(why))
}

/// A stream that our group reads.
fn read(
    stream: &Stream,
    group: &Group,
    oldest_pending: Option<StreamId>,
    consumers: Reading<Vec<ConsumerPending>>,
    memory: &mut LagMemory,
) -> Interpretation {
    if group.last_delivered < memory.last_delivered {
        *memory = LagMemory::default();
    }
    memory.last_delivered = group.last_delivered;

    let all_delivered = stream.length == 0 || group.last_delivered >= stream.last_generated;
    let none_delivered = stream.first_entry.is_some_and(|first| first > group.last_delivered);
    // Where the backlog is known for certain, what Redis reports beyond it is surplus.
    let certain = if all_delivered {
        Some(0)
    } else if none_delivered {
        Some(stream.length)
    } else {
        None
    };
    if let (Some(certain), Some(reported)) = (certain, group.lag) {
        memory.surplus = Some(reported.saturating_sub(certain));
    }
    let never_removed = stream.added == Some(stream.length);
    let lag = match (certain, group.lag, memory.surplus) {
        (Some(certain), _, _) => Some(certain),
        (None, Some(reported), Some(surplus)) => Some(reported.saturating_sub(surplus).min(stream.length)),
        (None, Some(reported), None) if never_removed => Some(reported),
        _ => None,
    };
    let oldest_waiting = if none_delivered { stream.first_entry } else { None };
    let demand = Demand {
        lag: lag.map_or_else(|| Reading::Unknown("redis does not tell the lag".to_owned()), Reading::Known),
        pending: Reading::Known(group.pending),
        oldest: oldest(lag, oldest_waiting, group.pending, oldest_pending),
    };
    match lag {
        Some(_) => Interpretation::Clear(demand, consumers),
        None => Interpretation::Count {
            after: group.last_delivered,
            reported: group.lag,
            length: stream.length,
            demand,
            consumers,
        },
    }
}

/// Completes a sight by the count. At the limit there may be more: then what Redis reports, or else the stream's
/// length, bounds it from above, and too many is the safe side.
pub(super) fn complete(
    backlog: Result<Backlog, String>,
    limit: u64,
    reported: Option<u64>,
    length: u64,
    mut demand: Demand,
    memory: &mut LagMemory,
) -> Demand {
    let backlog = match backlog {
        Ok(backlog) => backlog,
        Err(error) => return Demand { lag: Reading::Failed(error), ..demand },
    };
    let exact = backlog.entries < limit;
    let lag = if exact { backlog.entries } else { reported.unwrap_or(length).min(length).max(backlog.entries) };
    if let (true, Some(reported)) = (exact, reported) {
        memory.surplus = Some(reported.saturating_sub(backlog.entries));
    }
    demand.lag = Reading::Known(lag);
    let waiting = backlog.oldest.map(|id| Timestamp(id.ms));
    demand.oldest = match (waiting, demand.oldest) {
        (Some(waiting), Reading::Known(Some(pending))) => Reading::Known(Some(waiting.min(pending))),
        (Some(waiting), _) => Reading::Known(Some(waiting)),
        (None, known @ Reading::Known(_)) => known,
        (None, _) => Reading::Known(None),
    };
    demand
}

fn oldest(
    lag: Option<u64>,
    waiting: Option<StreamId>,
    pending: u64,
    oldest_pending: Option<StreamId>,
) -> Reading<Option<Timestamp>> {
    let time = |id: StreamId| Timestamp(id.ms);
    match (waiting, oldest_pending) {
        (Some(waiting), Some(pending)) => Reading::Known(Some(time(waiting.min(pending)))),
        (Some(waiting), None) => Reading::Known(Some(time(waiting))),
        // Delivered before anything that waits now was: entries are delivered in the order of their ids.
        (None, Some(pending)) => Reading::Known(Some(time(pending))),
        (None, None) if lag == Some(0) && pending == 0 => Reading::Known(None),
        (None, None) => Reading::Unknown("the oldest waiting entry is not among what the probe reads".to_owned()),
    }
}

fn list(length: Result<u64, String>, key: &str) -> Demand {
    match length {
        Ok(length) => Demand {
            lag: Reading::Known(length),
            // A list forgets what it gave away; busy workers are known by their heartbeats.
            pending: Reading::Known(0),
            oldest: if length == 0 {
                Reading::Known(None)
            } else {
                Reading::Unknown("a list does not tell how old its entries are".to_owned())
            },
        },
        Err(error) => Demand::failed(&explain(key, &error)),
    }
}

fn nothing() -> Demand {
    Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) }
}

/// A stream that our group does not exist on: whoever makes the group makes it at 0, so every entry is demand.
fn untouched(stream: &Stream) -> Demand {
    Demand {
        lag: Reading::Known(stream.length),
        pending: Reading::Known(0),
        oldest: Reading::Known(stream.first_entry.map(|id| Timestamp(id.ms))),
    }
}

/// Names the thing and the cure.
pub(super) fn explain(key: &str, error: &str) -> String {
    if error.contains("WRONGTYPE") {
        format!(
            "key `{key}` holds another type than configured; set `kind` of the worker type to what it holds, \"stream\" or \"list\""
        )
    } else if error.contains("NOPERM") {
        format!("no permission to read `{key}`: {error}; give the ACL user the rights listed in docs/redis.md")
    } else {
        format!("key `{key}`: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    fn stream(length: u64, first: Option<u64>, last: u64, added: u64) -> Stream {
        Stream { length, last_generated: id(last), first_entry: first.map(id), added: Some(added) }
    }

    fn sight(stream: Stream, delivered: u64, lag: Option<u64>, memory: &mut LagMemory) -> Interpretation {
        let group = Group { pending: 0, last_delivered: id(delivered), lag, read: None };
        let raw =
            RawQueue::Stream { stream: Ok(Some(stream)), group: Ok(Some(group)), consumers: Ok((None, Vec::new())) };
        look(raw, "q", memory)
    }

    fn lag_of(sight: Interpretation) -> Option<u64> {
        match sight {
            Interpretation::Clear(demand, _) => demand.lag.known().copied(),
            Interpretation::Count { .. } => None,
        }
    }

    #[test]
    fn an_untrimmed_stream_is_believed() {
        assert_eq!(lag_of(sight(stream(10, Some(1), 10, 10), 4, Some(6), &mut LagMemory::default())), Some(6));
    }

    #[test]
    fn phantom_lag_on_an_empty_stream_is_nothing() {
        assert_eq!(lag_of(sight(stream(0, None, 3, 3), 0, Some(3), &mut LagMemory::default())), Some(0));
    }

    #[test]
    fn phantom_lag_is_subtracted_once_seen() {
        let mut memory = LagMemory::default();
        // Three trimmed unread, one added and not read: Redis says 4.
        assert_eq!(lag_of(sight(stream(1, Some(4), 4, 4), 0, Some(4), &mut memory)), Some(1));
        // It was read, stays in the stream, and another came: Redis says 4 again (5 added, 1 read).
        assert_eq!(lag_of(sight(stream(2, Some(4), 5, 5), 4, Some(4), &mut memory)), Some(1));
    }

    #[test]
    fn lag_that_cannot_be_trusted_is_counted() {
        let mut memory = LagMemory::default();
        assert_eq!(lag_of(sight(stream(5, Some(1), 9, 9), 4, None, &mut memory)), None, "nil lag");
        assert_eq!(lag_of(sight(stream(5, Some(4), 9, 9), 4, Some(8), &mut memory)), None, "trimmed, never seen");
    }

    #[test]
    fn a_count_tells_the_surplus() {
        let mut memory = LagMemory::default();
        let backlog = Backlog { entries: 5, oldest: Some(id(5)) };
        let demand = complete(Ok(backlog), 1_000, Some(8), 6, Demand::failed("x"), &mut memory);
        assert_eq!(demand.lag, Reading::Known(5));
        assert_eq!(demand.oldest, Reading::Known(Some(Timestamp(5))));
        assert_eq!(memory.surplus, Some(3));
    }

    #[test]
    fn a_count_at_its_limit_errs_to_more() {
        let backlog = Backlog { entries: 1_000, oldest: Some(id(5)) };
        let demand = complete(Ok(backlog), 1_000, None, 4_000, Demand::failed("x"), &mut LagMemory::default());
        assert_eq!(demand.lag, Reading::Known(4_000));
    }

    #[test]
    fn a_group_made_again_forgets_the_surplus() {
        let mut memory = LagMemory { surplus: Some(3), last_delivered: id(9) };
        assert_eq!(lag_of(sight(stream(10, Some(1), 10, 10), 4, Some(6), &mut memory)), Some(6));
    }

    #[test]
    fn a_missing_stream_is_empty_and_a_missing_group_is_all_demand() {
        let none = RawQueue::Stream { stream: Ok(None), group: Ok(None), consumers: Ok((None, Vec::new())) };
        assert_eq!(lag_of(look(none, "q", &mut LagMemory::default())), Some(0));
        let raw = RawQueue::Stream {
            stream: Ok(Some(stream(7, Some(1), 7, 7))),
            group: Ok(None),
            consumers: Ok((None, Vec::new())),
        };
        assert_eq!(lag_of(look(raw, "q", &mut LagMemory::default())), Some(7));
    }

    #[test]
    fn counters_are_told_as_far_as_redis_counts() {
        let counters = |stream, group| {
            let counters = RawQueue::Stream { stream, group, consumers: Ok((None, Vec::new())) }.counters();
            (counters.added, counters.read)
        };
        let group = |read| Ok(Some(Group { pending: 1, last_delivered: id(4), lag: None, read }));
        let before_7 = Stream { added: None, ..stream(7, Some(1), 7, 0) };
        assert_eq!(counters(Ok(Some(stream(7, Some(1), 7, 9))), group(Some(6))), (Some(9), Some(6)));
        assert_eq!(counters(Ok(Some(stream(7, Some(1), 7, 9))), group(None)), (Some(9), None));
        assert_eq!(counters(Ok(Some(before_7)), group(None)), (None, None));
        assert_eq!(counters(Ok(None), Ok(None)), (Some(0), Some(0)), "nothing was ever added");
        assert_eq!(counters(Err("NOPERM".to_owned()), Ok(None)), (None, None));
        assert_eq!(RawQueue::List(Ok(3)).counters(), Counters::default());
    }

    #[test]
    fn wrong_type_is_a_failure_that_names_the_cure() {
        let Interpretation::Clear(demand, _) =
            look(RawQueue::List(Err("WRONGTYPE Operation".into())), "q", &mut LagMemory::default())
        else {
            panic!("a list is never counted")
        };
        assert!(demand.lag.why_not().is_some_and(|why| why.contains("set `kind`")), "{demand:?}");
    }
}
