//! A reader for frameworks whose queues are known from counts alone: lengths of lists and hashes, and sorted sets by
//! due time. The profile lists the parts of a queue; the reader reads all of them in one transaction.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};

use super::{FrameworkSpec, Heard, Occupation, clock::ServerClock, replies::Replies, tally::Tally};
use crate::{
    model::{Counters, Timestamp},
    queue_kind::{Interpretation, Observed, QueueReader, QueueSpec, Scripts, explain},
};

/// Unit of a score that is a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    /// Milliseconds, times 4096, plus a counter: BullMQ and Bull.
    Bull,
}

/// Time added to the longest job, so that the reading after it is late enough.
const SETTLED: Duration = Duration::from_millis(500);

/// Factor by which Bull multiplies a time, to make room for a counter.
const BULL_FACTOR: u64 = 4_096;

impl Unit {
    /// Returns the greatest score that is due at this time.
    fn due(self, now_ms: u64) -> String {
        match self {
            Self::Seconds => super::tally::seconds_of_ms(now_ms),
            Self::Milliseconds => now_ms.to_string(),
            Self::Bull => (now_ms.saturating_add(1).saturating_mul(BULL_FACTOR) - 1).to_string(),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after 1970, below 2^63")]
    fn ms(self, score: f64) -> u64 {
        match self {
            Self::Seconds => super::tally::ms_of_seconds(score),
            Self::Milliseconds => score.max(0.0) as u64,
            Self::Bull => score.max(0.0) as u64 / BULL_FACTOR,
        }
    }
}

/// One part of a queue, with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A list of waiting jobs.
    Waiting(String),
    /// A sorted set of waiting jobs.
    WaitingSet(String),
    /// Waiting jobs in a list or a sorted set, as the program has chosen.
    WaitingEither(String),
    /// A hash of all unfinished jobs, including running ones.
    Unfinished(String),
    /// A hash of jobs that a worker must hold until they are due.
    Held(String),
    /// A list of running jobs.
    Running(String),
    /// A sorted set of running jobs, by the time at which they count as lost. Lost jobs are due.
    RunningUntil(String, Unit),
    /// A sorted set of jobs, by due time.
    Schedule(String, Unit),
    /// A sorted set of all unfinished jobs, including running ones, by due time.
    UnfinishedSchedule(String, Unit),
    /// The queue is paused while the key exists.
    PausedByKey(String),
    /// A hash. The queue is paused while the hash has the field `paused`, and runs at most `concurrency` jobs at the
    /// same time.
    Meta(String),
    /// A counter of all jobs that were ever added.
    Added(String),
    /// A counter of all ends of a job, failures included.
    Ended(String),
}

impl Part {
    /// Returns the key of the part.
    pub(super) fn into_key(self) -> String {
        match self {
            Self::Waiting(key)
            | Self::WaitingSet(key)
            | Self::WaitingEither(key)
            | Self::Unfinished(key)
            | Self::Held(key)
            | Self::Running(key)
            | Self::RunningUntil(key, _)
            | Self::Schedule(key, _)
            | Self::UnfinishedSchedule(key, _)
            | Self::PausedByKey(key)
            | Self::Meta(key)
            | Self::Added(key)
            | Self::Ended(key) => key,
        }
    }

    /// Returns whether a change of the part is a signal. Counters change with other parts.
    pub(super) fn is_signal(&self) -> bool {
        !matches!(self, Self::Added(_) | Self::Ended(_))
    }

    fn commands(&self, now_ms: u64) -> Vec<Cmd> {
        let command = |name: &str, key: &str| redis::cmd(name).arg(key).to_owned();
        match self {
            Self::Waiting(key) | Self::Running(key) => vec![command("LLEN", key)],
            Self::WaitingSet(key) => vec![command("ZCARD", key)],
            Self::WaitingEither(key) => vec![command("LLEN", key), command("ZCARD", key)],
            Self::Unfinished(key) | Self::Held(key) => vec![command("HLEN", key)],
            Self::RunningUntil(key, unit) => {
                vec![command("ZCOUNT", key).arg(unit.due(now_ms)).arg("+inf").to_owned(), command("ZCARD", key)]
            }
            Self::Schedule(key, unit) | Self::UnfinishedSchedule(key, unit) => {
                let due = unit.due(now_ms);
                let first = command("ZRANGEBYSCORE", key)
                    .arg(format!("({due}"))
                    .arg("+inf")
                    .arg("WITHSCORES")
                    .arg("LIMIT")
                    .arg(0)
                    .arg(1)
                    .to_owned();
                vec![command("ZCOUNT", key).arg("-inf").arg(due).to_owned(), command("ZCARD", key), first]
            }
            Self::PausedByKey(key) => vec![command("EXISTS", key)],
            Self::Meta(key) => vec![command("HMGET", key).arg("paused").arg("concurrency").to_owned()],
            Self::Added(key) | Self::Ended(key) => vec![command("GET", key)],
        }
    }
}

/// Counts of one queue.
#[derive(Debug, Default)]
struct QueueCount {
    waiting: u64,
    running: u64,
    due: u64,
    later: u64,
    next: Option<u64>,
    is_paused: bool,
    limit: Option<u64>,
    /// Whether the waiting jobs include running ones.
    mixed: bool,
    added: Option<u64>,
    ended: Option<u64>,
}

impl QueueCount {
    fn take(&mut self, part: &Part, replies: &mut Replies) -> Result<(), String> {
        match part {
            Part::Waiting(_) | Part::WaitingSet(_) => self.waiting += replies.count()?,
            Part::WaitingEither(_) => {
                // The server refuses the one of the other type.
                let (list, set) = (replies.count(), replies.count());
                self.waiting += list.or(set)?;
            }
            Part::Unfinished(_) => {
                self.waiting += replies.count()?;
                self.mixed = true;
            }
            Part::Held(_) => self.due += replies.count()?,
            Part::Running(_) => self.running += replies.count()?,
            Part::RunningUntil(..) => {
                let (running, all) = (replies.count()?, replies.count()?);
                self.running += running;
                self.due += all.saturating_sub(running);
            }
            Part::Schedule(_, unit) | Part::UnfinishedSchedule(_, unit) => {
                let (due, all) = (replies.count()?, replies.count()?);
                self.later += all.saturating_sub(due);
                let first = replies.scored()?.first().map(|(_, score)| unit.ms(*score));
                self.next = [self.next, first].into_iter().flatten().min();
                if matches!(part, Part::Schedule(..)) {
                    self.due += due;
                } else {
                    self.waiting += due;
                    self.mixed = true;
                }
            }
            Part::PausedByKey(_) => self.is_paused |= replies.count()? > 0,
            Part::Meta(_) => {
                let mut fields = replies.texts()?.into_iter();
                self.is_paused |= fields.next().flatten().is_some();
                self.limit = fields.next().flatten().and_then(|text| text.parse().ok());
            }
            Part::Added(_) => self.added = Some(replies.count()?),
            Part::Ended(_) => self.ended = Some(replies.count()?),
        }
        Ok(())
    }

    /// Returns the jobs that were ever added and begun; nothing while the queue is paused, because some versions of
    /// BullMQ and Bull then keep its waiting jobs under another key.
    fn counters(&self) -> Counters {
        let unread = self.waiting.saturating_add(self.due).saturating_add(self.later);
        match (self.added, self.ended) {
            _ if self.is_paused => Counters::default(),
            (Some(added), _) => {
                Counters { added: Some(added), read: added.checked_sub(unread), running: Some(self.running) }
            }
            (None, Some(ended)) => {
                let read = ended.saturating_add(self.running);
                Counters { added: Some(read.saturating_add(unread)), read: Some(read), running: Some(self.running) }
            }
            (None, None) => Counters::default(),
        }
    }

    fn add_to(self, tally: &mut Tally, queue: &str) {
        tally.running += self.running;
        tally.later += self.later;
        if self.is_paused {
            tally.paused.push(queue.to_owned());
            return;
        }
        tally.waiting += self.waiting;
        tally.due += self.due;
        tally.next_at(self.next);
    }
}

/// Returns the sum of two queues' counters; nothing for what one of them does not count.
fn plus(one: Counters, other: Counters) -> Counters {
    let sum = |of: fn(&Counters) -> Option<u64>| Some(of(&one)?.saturating_add(of(&other)?));
    Counters { added: sum(|of| of.added), read: sum(|of| of.read), running: sum(|of| of.running) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Reads all queues of a worker type.
#[derive(Debug)]
pub(super) struct CountedReader {
    spec: Arc<FrameworkSpec>,
    /// Parts of each queue.
    parts: Vec<Vec<Part>>,
    /// Whether the parts show every running job. If they don't, they show none.
    shows_running: bool,
    clock: ServerClock,
    /// Since when no change of the queues can have been missed and none was seen; `None` before the first reading and
    /// while changes are not signals.
    quiet_since: Option<Timestamp>,
}

impl CountedReader {
    /// Returns a reader of these parts for each queue.
    pub(super) fn new(
        spec: &Arc<FrameworkSpec>,
        parts: impl Fn(&FrameworkSpec, &str) -> Vec<Part>,
        shows_running: bool,
    ) -> Self {
        let parts = spec.queues.iter().map(|queue| parts(spec, queue)).collect();
        Self { spec: spec.clone(), parts, shows_running, clock: ServerClock::default(), quiet_since: None }
    }

    /// Decides whether workers can hold jobs that the parts do not show: a worker can, unless nothing has changed for
    /// longer than the longest job.
    fn add_hidden(&self, tally: &mut Tally) {
        let Some(longest) = self.spec.longest_job else {
            tally.running_unknown = Some("running jobs leave no trace in redis; set longest_job_seconds".to_owned());
            return;
        };
        let quiet = self.quiet_since.map(|since| self.clock.now().since(since));
        if quiet.is_some_and(|quiet| quiet > longest) && tally.waiting + tally.due == 0 {
            tally.occupation = Occupation::AllIdle;
            return;
        }
        let seconds = longest.as_secs();
        let why = match quiet {
            None => "running jobs leave no trace in redis, and changes of its queues are not heard".to_owned(),
            Some(_) => format!("running jobs leave no trace in redis; a job may run for {seconds} s"),
        };
        tally.running_unknown = Some(why);
        tally.look_again_after(longest.saturating_sub(quiet.unwrap_or_default()) + SETTLED);
    }

    fn tally(&mut self, replies: Vec<Value>) -> Result<Option<Tally>, String> {
        let mut replies = Replies::new(replies);
        if !self.clock.answered(&replies.next()?)? {
            return Ok(None);
        }
        let (mut tally, mut at_work, mut limits) = (Tally::default(), 0, Vec::new());
        let mut counters = Vec::new();
        for (queue, parts) in self.spec.queues.iter().zip(&self.parts) {
            let mut count = QueueCount::default();
            for part in parts {
                count.take(part, &mut replies)?;
            }
            at_work += count.running + if count.mixed { count.waiting } else { 0 };
            limits.push(count.limit);
            counters.push(count.counters());
            count.add_to(&mut tally, queue);
        }
        // Jobs of a dead worker that no live worker has taken yet occupy no worker.
        if !self.shows_running {
            self.add_hidden(&mut tally);
        } else if at_work == 0 {
            tally.occupation = Occupation::AllIdle;
        }
        // If one of several queues has no limit, the total has none; likewise for counters.
        tally.limit = limits.into_iter().sum();
        tally.counters = counters.into_iter().reduce(plus).unwrap_or_default();
        Ok(Some(tally))
    }
}

impl QueueReader for CountedReader {
    fn note_time(&mut self, now: Timestamp) {
        self.clock.note(now);
    }

    fn note_heard(&mut self, heard: Heard) {
        let now = self.clock.now();
        self.quiet_since = heard.is_hearing.then(|| match (self.quiet_since, heard.news_age) {
            (since, Some(age)) => since.unwrap_or(now).max(Timestamp(now.0.saturating_sub(millis(age)))),
            (since, None) => since.unwrap_or(now),
        });
    }

    fn commands(&mut self, _: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        self.clock.asked();
        let now = self.clock.server_ms();
        let parts = self.parts.iter().flatten().flat_map(|part| part.commands(now));
        std::iter::once(ServerClock::command()).chain(parts).collect()
    }

    fn interpret(&mut self, _: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        match self.tally(replies) {
            Ok(Some(tally)) => Interpretation::Complete(tally.observed(self.spec.framework, &self.clock)),
            Ok(None) => Interpretation::Again,
            Err(error) => {
                let key = self.spec.keys().next().unwrap_or_default();
                let is_foreign = error.contains("WRONGTYPE");
                Interpretation::Complete(Observed { is_foreign, ..Observed::failed(&explain(&key, &error)) })
            }
        }
    }
}

#[cfg(test)]
mod tests;
