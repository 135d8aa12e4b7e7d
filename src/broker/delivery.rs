//! What Redis hands out: stream entries, and whether there is a job in them that may be begun now. Pure; the reply's bytes
//! are not trusted.

use std::sync::Arc;

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
    /// How often it has been begun, this time included: 1 for the first time.
    pub attempts: u32,
    /// The job in it, or why there is none to be done: then [`Consumer::refuse`](super::Consumer::refuse) it.
    pub job: Result<Job, Refusal>,
    /// The entry as it was, for the dead letters.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
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
    WornOut {
        /// How often it was begun.
        attempts: u32,
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
    pub(super) job_max_bytes: usize,
    pub(super) now: Timestamp,
}

/// An entry's id, and its fields with their values.
pub(super) type Entry = (String, Vec<(Vec<u8>, Vec<u8>)>);

impl Delivery {
    /// `delivered`: how often Redis has handed out the entry, this time included.
    fn new((entry, fields): Entry, delivered: u32, admission: Admission<'_>) -> Self {
        let json = fields.iter().find(|(field, _)| field == b"json").ok_or(EnvelopeError::NoJson);
        let parsed = json.and_then(|(_, json)| Job::parse(json, admission.job_max_bytes));
        let carried = parsed.as_ref().map_or(0, |job| job.attempt);
        let attempts = delivered.saturating_add(carried);
        let job = parsed.map_err(Refusal::from).and_then(|job| match admission.refuses(&job, attempts) {
            Some(refusal) => Err(refusal),
            None => Ok(job),
        });
        Self { stream: admission.stream.clone(), entry, attempts, job, fields }
    }

    /// The job in the entry, be it refused or not; `None` if there is none.
    pub(super) fn envelope(&self, job_max_bytes: usize) -> Option<Job> {
        let json = self.fields.iter().find(|(field, _)| field == b"json");
        json.and_then(|(_, json)| Job::parse(json, job_max_bytes).ok())
    }
}

impl Admission<'_> {
    fn refuses(self, job: &Job, attempts: u32) -> Option<Refusal> {
        if let Some(group) = job.group.as_ref().filter(|group| *group != self.group) {
            return Some(Refusal::OtherGroup(group.clone()));
        }
        if let Some(deadline) = job.deadline().filter(|deadline| *deadline < self.now) {
            return Some(Refusal::Expired { late_ms: self.now.0 - deadline.0 });
        }
        (attempts > self.max_attempts).then_some(Refusal::WornOut { attempts: attempts - 1 })
    }
}

/// The deliveries in the reply to XREADGROUP for one stream, all for the first time.
pub(super) fn read(reply: Value, admission: Admission<'_>) -> Vec<Delivery> {
    let entries = streams(reply).next().map(|(_, entries)| entries);
    entries.map(|entries| first(entries, admission)).unwrap_or_default()
}

/// The deliveries in a list of entries, all for the first time.
pub(super) fn first(list: Value, admission: Admission<'_>) -> Vec<Delivery> {
    entries(list).into_iter().map(|entry| Delivery::new(entry, 1, admission)).collect()
}

/// The deliveries in the reply to XCLAIM of entries that had been delivered `before` times.
pub(super) fn claimed(reply: Value, before: u32, admission: Admission<'_>) -> Vec<Delivery> {
    entries(reply).into_iter().map(|entry| Delivery::new(entry, before.saturating_add(1), admission)).collect()
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
    let (Some(Value::BulkString(id)), Some(Value::Array(flat))) = (pair.next(), pair.next()) else { return None };
    let mut flat = flat.into_iter().map(|value| match value {
        Value::BulkString(bytes) => bytes,
        _ => Vec::new(),
    });
    let mut fields = Vec::new();
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        fields.push((field, value));
    }
    Some((String::from_utf8_lossy(&id).into_owned(), fields))
}
