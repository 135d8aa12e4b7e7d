//! Deliveries: stream entries from Redis, and whether they hold a job that may be started now. Pure; does not trust the
//! reply's bytes.

use std::{sync::Arc, time::Instant};

use redis::Value;

use super::{EnvelopeError, Job};
use crate::{config::JobSettings, model::Timestamp};

/// A stream entry that was delivered and not yet acknowledged.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Stream of the entry.
    pub stream: Arc<str>,
    /// Id of the stream entry.
    pub entry: String,
    /// Number of this attempt: the failed attempts plus 1.
    pub attempts: u32,
    /// Number of interruptions.
    pub interruptions: u32,
    /// Number of this delivery. Together with the consumer it is the token of the claim: a worker that finds another
    /// number, or another consumer, has lost the job.
    pub number: u32,
    /// When Redis was asked for the entry: no other worker can have claimed it within a lapse after that.
    pub asked: Instant,
    /// The job in the entry, or why it must not be started: then [`Consumer::refuse`](super::Consumer::refuse) it.
    pub job: Result<Box<Job>, Refusal>,
    /// The original entry, for the dead letters.
    pub(super) fields: Fields,
}

/// A stream entry that was delivered and not yet parsed: [`Consumer::open`](super::Consumer::open) does that.
#[derive(Clone, Debug)]
pub struct RawEntry {
    /// Id of the stream entry.
    pub entry: String,
    /// Number of deliveries, including this one.
    pub number: u32,
    /// When Redis was asked for the entry.
    asked: Instant,
    fields: Fields,
}

/// Why a delivered entry must not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The entry does not hold a job.
    #[error(transparent)]
    Malformed(#[from] EnvelopeError),
    /// The deadline has passed.
    #[error("expired: the deadline was over for {} ms when a worker took the job", .late_ms)]
    Expired {
        /// Time since the deadline, in milliseconds.
        late_ms: u64,
    },
    /// No attempt is left; the worker of the last one died or lost its claim.
    #[error("given up after {attempts} attempts: the worker of the last one died or lost its claim before it was done")]
    AttemptsExhausted {
        /// Attempts that were started.
        attempts: u32,
    },
    /// The job was interrupted too many times.
    #[error("given up after {interruptions} interruptions: its workers were drained before it was done, or died")]
    InterruptionsExhausted {
        /// Number of interruptions.
        interruptions: u32,
    },
    /// Somebody has cancelled the job.
    #[error("cancelled")]
    Cancelled,
    /// The job is for another consumer group on the same stream.
    #[error("for group `{0}`")]
    OtherGroup(String),
}

/// Rules that decide whether an entry's job may be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission<'a> {
    pub(super) stream: &'a Arc<str>,
    pub(super) group: &'a str,
    pub(super) settings: &'a JobSettings,
    pub(super) job_max_bytes: usize,
    pub(super) now: Timestamp,
}

/// An entry's id and its fields.
pub(super) type Entry = (String, Fields);

/// Fields of an entry and their values, alternating, as Redis sent them: most entries are never looked into again.
#[derive(Clone, Debug)]
pub(super) struct Fields(Vec<Value>);

impl Fields {
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator {
        self.0.chunks_exact(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1])))
    }

    /// Returns the value of the first field of that name.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
    }

    /// Returns the value of the last field of that name.
    pub(super) fn last(&self, name: &str) -> Option<&[u8]> {
        self.iter().rfind(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
    }
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        _ => &[],
    }
}

impl Delivery {
    pub(super) fn new(RawEntry { entry, number, asked, fields }: RawEntry, admission: Admission<'_>) -> Self {
        let json = fields.get("json").ok_or(EnvelopeError::NoJson);
        let parsed = json.and_then(|json| Job::parse(json, admission.job_max_bytes)).map(Box::new);
        let (failed, interrupted) = parsed.as_ref().map_or((0, 0), |job| (job.attempt, job.interruptions));
        let (deaths, interruption) = earlier_deliveries(number);
        let attempts = failed.saturating_add(deaths).saturating_add(1);
        let interruptions = interrupted.saturating_add(interruption);
        let job =
            parsed.map_err(Refusal::from).and_then(|job| match admission.refuses(&job, attempts, interruptions) {
                Some(refusal) => Err(refusal),
                None => Ok(job),
            });
        Self { stream: admission.stream.clone(), entry, attempts, interruptions, number, asked, job, fields }
    }

    /// Returns whether the job may have killed an earlier worker: then no other such job is started beside it.
    pub fn is_suspect(&self) -> bool {
        is_suspect(self.number)
    }

    /// Returns the job in the entry, whether it is refused or not; `None` if there is none.
    pub(super) fn envelope(&self, job_max_bytes: usize) -> Option<Job> {
        self.fields.get("json").and_then(|json| Job::parse(json, job_max_bytes).ok())
    }
}

/// Returns whether a delivery of this number follows one whose worker died with the job, or lost it.
pub fn is_suspect(number: u32) -> bool {
    number > 1
}

/// Returns what the earlier deliveries were: failed attempts, and interruptions. The first death proves nothing,
/// because the worker had other jobs; after it the job is suspect and has no other suspect job beside it, so the next
/// death is its own.
pub(super) fn earlier_deliveries(number: u32) -> (u32, u32) {
    (number.saturating_sub(2), u32::from(is_suspect(number)))
}

impl Admission<'_> {
    fn refuses(self, job: &Job, attempts: u32, interruptions: u32) -> Option<Refusal> {
        if let Some(group) = job.group.as_ref().filter(|group| *group != self.group) {
            return Some(Refusal::OtherGroup(group.clone()));
        }
        if let Some(deadline) = job.deadline().filter(|deadline| *deadline < self.now) {
            return Some(Refusal::Expired { late_ms: self.now.0 - deadline.0 });
        }
        if attempts > job.attempts_allowed(self.settings) {
            return Some(Refusal::AttemptsExhausted { attempts: attempts - 1 });
        }
        (interruptions > self.settings.max_interruptions).then_some(Refusal::InterruptionsExhausted { interruptions })
    }
}

/// Returns the entries in the reply to XREADGROUP for one stream, all of them delivered for the first time.
pub(super) fn read(reply: Value, asked: Instant) -> Vec<RawEntry> {
    streams(reply).next().map(|(_, list)| raw_entries(list, 1, asked)).unwrap_or_default()
}

/// Returns the deliveries in a list of entries, all of them delivered for the first time.
pub(super) fn first(list: Value, asked: Instant, admission: Admission<'_>) -> Vec<Delivery> {
    raw_entries(list, 1, asked).into_iter().map(|entry| Delivery::new(entry, admission)).collect()
}

/// Returns the deliveries in the reply to XCLAIM of entries that had been delivered `before` times.
pub(super) fn claimed(reply: Value, before: u32, asked: Instant, admission: Admission<'_>) -> Vec<Delivery> {
    let entries = raw_entries(reply, before.saturating_add(1), asked);
    entries.into_iter().map(|entry| Delivery::new(entry, admission)).collect()
}

fn raw_entries(list: Value, number: u32, asked: Instant) -> Vec<RawEntry> {
    entries(list).into_iter().map(|(entry, fields)| RawEntry { entry, number, asked, fields }).collect()
}

/// Returns the streams in the reply to XREADGROUP, each with its entries. RESP2 sends an array of pairs, RESP3 a map,
/// and nothing is nil.
pub(super) fn streams(reply: Value) -> impl Iterator<Item = (Value, Value)> {
    let (pairs, map) = match reply {
        Value::Array(pairs) => (pairs, Vec::new()),
        Value::Map(map) => (Vec::new(), map),
        _ => Default::default(),
    };
    let pairs = pairs.into_iter().filter_map(|pair| match pair {
        Value::Array(pair) => <[Value; 2]>::try_from(pair).ok().map(|[stream, entries]| (stream, entries)),
        _ => None,
    });
    pairs.chain(map)
}

/// Parses `[[id, [field, value, …]], …]`. By hand, because a field's name need not be UTF-8 and one bad entry must not
/// hide the others. Entries deleted from the stream have no fields (before Redis 7) and are left out.
pub(super) fn entries(entries: Value) -> Vec<Entry> {
    let Value::Array(entries) = entries else { return Vec::new() };
    entries.into_iter().filter_map(entry).collect()
}

fn entry(entry: Value) -> Option<Entry> {
    let Value::Array(pair) = entry else { return None };
    let mut pair = pair.into_iter();
    let (Some(Value::BulkString(id)), Some(Value::Array(fields))) = (pair.next(), pair.next()) else { return None };
    Some((String::from_utf8(id).ok()?, Fields(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_is_an_interruption_and_each_further_one_an_attempt() {
        let told: Vec<_> = (1..=5).map(|number| (is_suspect(number), earlier_deliveries(number))).collect();
        assert_eq!(told, [(false, (0, 0)), (true, (0, 1)), (true, (1, 1)), (true, (2, 1)), (true, (3, 1))]);
    }
}
