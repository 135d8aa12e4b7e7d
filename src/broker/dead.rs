//! Dead letters: what was given up, why, and how to put it back or drop it. A dead letter is the original entry,
//! followed by fields of its own.

use std::borrow::Cow;

use redis::Value;

use super::{
    BrokerError, Delivery, Job,
    delivery::{Entry, entries},
};
use crate::{
    connection::Connection,
    model::{
        StreamId, Timestamp,
        dead_letter::{DeadFilter, DeadLetter, DeadLetterOutcome},
    },
    telemetry::DeadReason,
};

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

/// A dead letter with the job that it holds.
#[derive(Clone, Debug)]
pub struct DeadEntry {
    /// What is shown of it.
    pub letter: DeadLetter,
    /// The job; `None` if the entry is malformed.
    pub(super) job: Option<Job>,
}

fn fits(filter: &DeadFilter, letter: &DeadLetter) -> bool {
    let of_type = |wanted: &String| {
        let rest = letter.job_type.as_deref().and_then(|name| name.strip_prefix(wanted.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let named = |id: &String| *id == letter.entry || Some(id) == letter.id.as_ref();
    filter.job_type.as_ref().is_none_or(of_type) && (filter.ids.is_empty() || filter.ids.iter().any(named))
}

/// The dead letters of one stream.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    stream: String,
    job_max_bytes: usize,
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
        self.find(connection, filter, limit, |entry| entry.letter).await
    }

    /// Returns the same with their jobs, each of which may be large.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn entries(
        &self,
        connection: &mut Connection,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<Vec<DeadEntry>, BrokerError> {
        self.find(connection, filter, limit, |entry| entry).await
    }

    /// Returns what `keep` makes of the oldest `limit` dead letters that match.
    async fn find<T>(
        &self,
        connection: &mut Connection,
        filter: &DeadFilter,
        limit: usize,
        keep: impl Fn(DeadEntry) -> T,
    ) -> Result<Vec<T>, BrokerError> {
        let mut found = Vec::new();
        let until = filter.until.as_deref().unwrap_or("+");
        let mut from = filter.after.as_ref().map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        while found.len() < limit {
            let mut command = redis::cmd("XRANGE");
            command.arg(connection.layout().dead_letters(&self.stream)).arg(&from).arg(until).arg("COUNT").arg(PAGE);
            let page = self.read(connection, &command).await?;
            let Some((last, _)) = page.last() else { break };
            from = format!("({last}");
            let matching = page.into_iter().map(|entry| self.parse(entry)).filter(|entry| fits(filter, &entry.letter));
            found.extend(matching.take(limit - found.len()).map(&keep));
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
    ) -> Result<Vec<DeadEntry>, BrokerError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(connection.layout().dead_letters(&self.stream)).arg("+").arg("-").arg("COUNT").arg(count);
        Ok(self.read(connection, &command).await?.into_iter().map(|entry| self.parse(entry)).collect())
    }

    /// Returns the number of dead letters.
    pub(super) async fn count(&self, connection: &mut Connection) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("XLEN");
        command.arg(connection.layout().dead_letters(&self.stream));
        command.query_async(connection).await.map_err(|cause| self.failed("count", cause))
    }

    async fn read(&self, connection: &mut Connection, command: &redis::Cmd) -> Result<Vec<Entry>, BrokerError> {
        let page: Value = command.query_async(connection).await.map_err(|cause| self.failed("read", cause))?;
        Ok(entries(page))
    }

    /// Puts a job back on its stream as if it were new: without its attempts, its delay and its deadline. If several
    /// callers do this at the same time, the job is put back once.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn retry(
        &self,
        connection: &mut Connection,
        DeadEntry { letter, job }: &DeadEntry,
        channel: &str,
    ) -> Result<DeadLetterOutcome, BrokerError> {
        let Some(job) = job.clone() else { return Ok(DeadLetterOutcome::NoJob) };
        let job = Job { attempt: 0, interruptions: 0, deadline_ts: None, not_before_ts: None, group: None, ..job };
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
        Ok(entry.map_or(DeadLetterOutcome::Gone, |new_entry| DeadLetterOutcome::Retried { new_entry }))
    }

    /// Drops a dead letter for good.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn remove(
        &self,
        connection: &mut Connection,
        letter: &DeadLetter,
    ) -> Result<DeadLetterOutcome, BrokerError> {
        let mut command = redis::cmd("XDEL");
        command.arg(connection.layout().dead_letters(&self.stream)).arg(&letter.entry);
        let existed: bool = command.query_async(connection).await.map_err(|cause| self.failed("drop", cause))?;
        Ok(if existed { DeadLetterOutcome::Dropped } else { DeadLetterOutcome::Gone })
    }

    fn parse(&self, (entry, fields): Entry) -> DeadEntry {
        // The dead letter's own fields are the last ones: a malformed entry may have had fields of the same names.
        let text = |name: &str| String::from_utf8_lossy(fields.last(name).unwrap_or_default()).into_owned();
        let job = fields.get("json").and_then(|json| Job::parse(json, self.job_max_bytes).ok());
        let at = StreamId::parse(&entry).unwrap_or_default().ms();
        let letter = DeadLetter {
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
            entry,
        };
        DeadEntry { letter, job }
    }

    fn failed(&self, doing: &str, cause: redis::RedisError) -> BrokerError {
        BrokerError::new(format!("{doing} dead letters of `{}`", self.stream), cause)
    }
}
