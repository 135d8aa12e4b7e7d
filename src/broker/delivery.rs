//! What Redis hands out: stream entries, and whether there is a job in them that may be begun now. Pure; the reply's bytes
//! are not trusted.

use std::{sync::Arc, time::Instant};

use redis::Value;

use super::{EnvelopeError, Job};
use crate::model::Timestamp;

/// A stream entry that was delivered and not yet acknowledged.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The stream that it is on.
    pub stream: Arc<str>,
    /// The stream entry's id.
    pub entry: String,
    /// The number of this attempt: 1 more than have failed.
    pub attempts: u32,
    /// How often it was interrupted.
    pub interruptions: u32,
    /// The number of this delivery. With the consumer it is the token of the claim: who finds another number, or another
    /// consumer, has lost the job.
    pub number: u32,
    /// When Redis was asked for it: nobody can have taken it over within a lapse after that.
    pub asked: Instant,
    /// The job in it, or why there is none to be done: then [`Consumer::refuse`](super::Consumer::refuse) it.
    pub job: Result<Box<Job>, Refusal>,
    /// The entry as it was, for the dead letters.
    pub(super) fields: Fields,
}

/// A stream entry that was delivered and not yet looked into: [`Consumer::open`](super::Consumer::open) does so.
#[derive(Clone, Debug)]
pub struct RawEntry {
    /// The stream entry's id.
    pub entry: String,
    /// How often Redis has handed it out, this time included.
    pub number: u32,
    /// When Redis was asked for it.
    asked: Instant,
    fields: Fields,
}

/// Why a delivered entry must not be worked on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no job.
    #[error(transparent)]
    Malformed(#[from] EnvelopeError),
    /// Its deadline is over.
    #[error("expired: the deadline was over for {} ms when a worker took the job", .late_ms)]
    Expired {
        /// For how long, in milliseconds.
        late_ms: u64,
    },
    /// It was begun too often, the last time by a worker that died or lost its claim.
    #[error("given up after {attempts} attempts: the worker of the last one died or lost its claim before it was done")]
    AttemptsExhausted {
        /// How often it was begun.
        attempts: u32,
    },
    /// It was interrupted too often.
    #[error("given up after {interruptions} interruptions: its workers were drained before it was done, or died")]
    InterruptionsExhausted {
        /// How often.
        interruptions: u32,
    },
    /// It is for another consumer group on the same stream.
    #[error("for group `{0}`")]
    OtherGroup(String),
}

/// What decides whether an entry's job may be begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission<'a> {
    pub(super) stream: &'a Arc<str>,
    pub(super) group: &'a str,
    pub(super) max_attempts: u32,
    pub(super) max_interruptions: u32,
    pub(super) job_max_bytes: usize,
    pub(super) now: Timestamp,
}

/// An entry's id and its fields.
pub(super) type Entry = (String, Fields);

/// The fields of an entry and their values, by turns, as Redis sent them: most entries are never looked into again.
#[derive(Clone, Debug)]
pub(super) struct Fields(Vec<Value>);

impl Fields {
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator {
        self.0.chunks_exact(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1])))
    }

    /// The value of the first field of that name.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of the last field of that name.
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

    /// Whether an earlier worker may have died of it: then it is begun without another such job beside it.
    pub fn is_suspect(&self) -> bool {
        is_suspect(self.number)
    }

    /// The job in the entry, be it refused or not; `None` if there is none.
    pub(super) fn envelope(&self, job_max_bytes: usize) -> Option<Job> {
        self.fields.get("json").and_then(|json| Job::parse(json, job_max_bytes).ok())
    }
}

/// Whether a delivery of this number comes after one whose worker died with the job, or lost it.
pub fn is_suspect(number: u32) -> bool {
    number > 1
}

/// What the deliveries before this one were: attempts that failed, and interruptions. The first death says nothing, since the
/// worker had other jobs; after it the job is suspect and has no other suspect beside it, so the next death is its own.
fn earlier_deliveries(number: u32) -> (u32, u32) {
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
        if attempts > self.max_attempts {
            return Some(Refusal::AttemptsExhausted { attempts: attempts - 1 });
        }
        (interruptions > self.max_interruptions).then_some(Refusal::InterruptionsExhausted { interruptions })
    }
}

/// What is in the reply to XREADGROUP for one stream, all of it delivered for the first time.
pub(super) fn read(reply: Value, asked: Instant) -> Vec<RawEntry> {
    streams(reply).next().map(|(_, list)| raw_entries(list, 1, asked)).unwrap_or_default()
}

/// The deliveries in a list of entries, all for the first time.
pub(super) fn first(list: Value, asked: Instant, admission: Admission<'_>) -> Vec<Delivery> {
    raw_entries(list, 1, asked).into_iter().map(|entry| Delivery::new(entry, admission)).collect()
}

/// The deliveries in the reply to XCLAIM of entries that had been delivered `before` times.
pub(super) fn claimed(reply: Value, before: u32, asked: Instant, admission: Admission<'_>) -> Vec<Delivery> {
    let entries = raw_entries(reply, before.saturating_add(1), asked);
    entries.into_iter().map(|entry| Delivery::new(entry, admission)).collect()
}

fn raw_entries(list: Value, number: u32, asked: Instant) -> Vec<RawEntry> {
    entries(list).into_iter().map(|(entry, fields)| RawEntry { entry, number, asked, fields }).collect()
}

/// The streams in the reply to XREADGROUP, each with its entries: RESP2 answers an array of pairs, RESP3 a map, nothing is nil.
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

/// Reads `[[id, [field, value, …]], …]`. By hand, since a field's name need not be UTF-8 and one bad entry must not hide the
/// others. Entries deleted from the stream have no fields (before Redis 7) and are left out.
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
