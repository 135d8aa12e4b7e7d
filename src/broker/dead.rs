//! Dead letters: what was given up, why, and how to put it back or drop it. A dead letter is the original entry,
//! followed by fields of its own.

use std::borrow::Cow;

use redis::Value;
use serde::Serialize;

use super::{
    BrokerError, Delivery, Job,
    delivery::{Entry, entries},
};
use crate::{connection::Connection, model::Timestamp, telemetry::DeadReason};

const REVIVE: &str = include_str!("lua/revive.lua");
/// Dead letters of one read.
const PAGE: usize = 100;

/// What a dead letter records about the end of its job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burial<'a> {
    pub(super) reason: DeadReason,
    pub(super) error: &'a str,
    /// Attempts that were started.
    pub(super) attempts: u32,
}

impl Burial<'_> {
    /// Returns the fields that follow those of the entry. `left_out`: number of the entry's fields that are not copied.
    pub(super) fn fields(
        &self,
        group: &str,
        delivery: &Delivery,
        left_out: usize,
    ) -> Vec<(&'static str, Cow<'_, str>)> {
        let mut fields: Vec<(_, Cow<'_, str>)> = vec![
            ("dead_reason", self.reason.as_str().into()),
            ("dead_error", self.error.into()),
            ("dead_entry", delivery.entry.clone().into()),
            ("dead_group", group.to_owned().into()),
            ("dead_attempts", self.attempts.to_string().into()),
            ("dead_interruptions", delivery.interruptions.to_string().into()),
        ];
        if left_out > 0 {
            fields.push(("dead_fields_left_out", left_out.to_string().into()));
        }
        fields
    }
}

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeadLetter {
    /// Stream that the job was on.
    pub stream: String,
    /// Id among the dead letters.
    pub entry: String,
    /// When the job was given up: the time in that id.
    pub at: Timestamp,
    /// Id of the job; `None` if the entry is malformed.
    pub id: Option<String>,
    /// Type of the job; `None` if the entry is malformed.
    #[serde(rename = "type")]
    pub job_type: Option<String>,
    /// `malformed`, `failed`, `expired`, `attempts_exhausted` or `interruptions_exhausted`.
    pub reason: String,
    /// Last error, in words.
    pub error: String,
    /// Id that the entry had on the stream.
    pub source_entry: String,
    /// Consumer group that gave the job up.
    pub group: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// Number of interruptions.
    pub interruptions: u32,
    /// The job, to put it back.
    #[serde(skip)]
    job: Option<Job>,
}

/// Selection of dead letters; all given criteria must match.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// A job type (`browser.goto`), or the worker type before the dot.
    pub job_type: Option<String>,
    /// Job ids or dead letters' ids; any if empty.
    pub ids: Vec<String>,
}

impl DeadLetter {
    /// Returns the job; `None` if the entry is malformed.
    pub(super) fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }
}

impl DeadFilter {
    fn fits(&self, letter: &DeadLetter) -> bool {
        let of_type = |wanted: &String| {
            let rest = letter.job_type.as_deref().and_then(|name| name.strip_prefix(wanted.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let named = |id: &String| *id == letter.entry || Some(id) == letter.id.as_ref();
        self.job_type.as_ref().is_none_or(of_type) && (self.ids.is_empty() || self.ids.iter().any(named))
    }
}

/// The dead letters of one stream.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    stream: String,
    job_max_bytes: usize,
}

/// Result of putting a dead letter back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revived {
    /// The job is on its stream again, as this entry.
    As(String),
    /// Somebody else has put it back or dropped it.
    Gone,
    /// The entry is malformed, so it would become a dead letter again immediately.
    NoJob,
}

impl DeadLetters {
    /// Returns the dead letters of `stream`, whose jobs may have at most `job_max_bytes` bytes.
    pub fn of(stream: &str, job_max_bytes: usize) -> Self {
        Self { stream: stream.to_owned(), job_max_bytes }
    }

    /// Returns the oldest `limit` dead letters that match.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn list(
        &self,
        connection: &mut Connection,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut found = Vec::new();
        let mut from = "-".to_owned();
        while found.len() < limit {
            let mut command = redis::cmd("XRANGE");
            command.arg(connection.layout().dead_letters(&self.stream)).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let page: Value = command.query_async(connection).await.map_err(|cause| self.failed("read", cause))?;
            let page = entries(page);
            let Some((last, _)) = page.last() else { break };
            from = format!("({last}");
            let letters = page.into_iter().map(|entry| self.letter(entry));
            found.extend(letters.filter(|letter| filter.fits(letter)).take(limit - found.len()));
        }
        Ok(found)
    }

    /// Returns the newest `count` dead letters, newest first.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub(super) async fn newest(
        &self,
        connection: &mut Connection,
        count: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(connection.layout().dead_letters(&self.stream)).arg("+").arg("-").arg("COUNT").arg(count);
        let page: Value = command.query_async(connection).await.map_err(|cause| self.failed("read", cause))?;
        Ok(entries(page).into_iter().map(|entry| self.letter(entry)).collect())
    }

    /// Puts a job back on its stream as if it were new: without its attempts, its delay and its deadline. If several
    /// callers do this at the same time, the job is put back once.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn retry(
        &self,
        connection: &mut Connection,
        letter: &DeadLetter,
        channel: &str,
    ) -> Result<Revived, BrokerError> {
        let Some(job) = &letter.job else { return Ok(Revived::NoJob) };
        let job =
            Job { attempt: 0, interruptions: 0, deadline_ts: None, not_before_ts: None, group: None, ..job.clone() };
        let for_all = job.to_json();
        let for_group = Job { group: Some(letter.group.clone()), ..job }.to_json();
        let mut command = redis::cmd("EVAL");
        command
            .arg(REVIVE)
            .arg(2)
            .arg(connection.layout().dead_letters(&self.stream))
            .arg(&self.stream)
            .arg(&letter.entry);
        command.arg(for_all).arg(for_group).arg(channel);
        let entry: Option<String> =
            command.query_async(connection).await.map_err(|cause| self.failed("put back", cause))?;
        Ok(entry.map_or(Revived::Gone, Revived::As))
    }

    /// Drops a dead letter for good. Returns whether it existed.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn remove(&self, connection: &mut Connection, letter: &DeadLetter) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("XDEL");
        command.arg(connection.layout().dead_letters(&self.stream)).arg(&letter.entry);
        command.query_async(connection).await.map_err(|cause| self.failed("drop", cause))
    }

    fn letter(&self, (entry, fields): Entry) -> DeadLetter {
        // The dead letter's own fields are the last ones: a malformed entry may have had fields of the same names.
        let text = |name: &str| String::from_utf8_lossy(fields.last(name).unwrap_or_default()).into_owned();
        let job = fields.get("json").and_then(|json| Job::parse(json, self.job_max_bytes).ok());
        let at = entry.split('-').next().and_then(|at| at.parse().ok()).unwrap_or_default();
        DeadLetter {
            stream: self.stream.clone(),
            at: Timestamp(at),
            id: job.as_ref().map(|job| job.id.clone()),
            job_type: job.as_ref().map(|job| job.job_type.clone()),
            reason: text("dead_reason"),
            error: text("dead_error"),
            source_entry: text("dead_entry"),
            group: text("dead_group"),
            attempts: text("dead_attempts").parse().unwrap_or_default(),
            interruptions: text("dead_interruptions").parse().unwrap_or_default(),
            job,
            entry,
        }
    }

    fn failed(&self, doing: &str, cause: redis::RedisError) -> BrokerError {
        BrokerError::new(format!("{doing} dead letters of `{}`", self.stream), cause)
    }
}
