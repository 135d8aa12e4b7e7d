//! Sidekiq (Ruby, <https://sidekiq.org>), versions 7 and 8, by the source of sidekiq 8.1. Scheduled and retried jobs of
//! all queues share two sorted sets, whose members are the jobs. A process reports every 10 s how many jobs it runs; in
//! open-source Sidekiq a running job is stored nowhere else.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};
use serde_json::Value as Json;

use super::{
    Certainty, Framework, FrameworkProfile, FrameworkSpec, FrameworkWorker, Heard, Occupation, SignalKeys, Trace,
    clock::ServerClock,
    replies::Replies,
    tally::{Tally, ms_of_seconds},
};
use crate::{
    model::{QuietSignal, StopSignal, Timestamp},
    queue_kind::{
        Bounds, FollowUp, Interpretation, Observed, QueueReader, QueueSpec, Scripts, explain, reply::refusal,
    },
};

/// Maximum jobs that are read of each set, the ones that are due first. A member is a whole job as JSON, including its
/// arguments.
const MAX_READ: usize = 100;

/// Time between two reports of a process.
const BEAT: Duration = Duration::from_secs(10);

/// Age from which a report is out of date: a little more than two intervals.
const BEAT_LAPSE: Duration = Duration::from_secs(25);

/// Minimum time between the last signal of the queues and a report of idleness that counts.
const SETTLED: Duration = Duration::from_millis(500);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sidekiq;

impl FrameworkProfile for Sidekiq {
    fn name(&self) -> &'static str {
        "sidekiq"
    }

    fn default_queue(&self) -> &'static str {
        "default"
    }

    fn default_prefix(&self) -> &'static str {
        ""
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}queue:{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let sets = ["schedule", "retry", "paused", "processes"].map(|key| format!("{}{key}", spec.prefix));
        SignalKeys { keys: spec.keys().chain(sets).collect(), ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        "lzs"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        let spec = spec.clone();
        Box::new(SidekiqReader { spec, clock: ServerClock::default(), news_age: None, first: None })
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "llen", "lindex", "sismember", "smembers", "zrangebyscore", "hmget", "hvals"]
    }

    fn certainty(&self) -> Certainty {
        Certainty::Recent
    }

    fn stop_signal(&self) -> StopSignal {
        StopSignal::Term
    }

    fn quiet_signal(&self) -> Option<QuietSignal> {
        Some(QuietSignal::Tstp)
    }

    fn trace(&self, spec: &FrameworkSpec, queue: &str) -> Option<Trace> {
        Some(Trace::Member { set: format!("{}queues", spec.prefix), member: queue.to_owned() })
    }

    fn identity(&self) -> Option<&'static str> {
        Some("DYNO=")
    }
}

/// Reads all queues of a worker type.
#[derive(Debug)]
struct SidekiqReader {
    spec: Arc<FrameworkSpec>,
    clock: ServerClock,
    news_age: Option<Duration>,
    /// Result of a reading's first request, until the second one is answered.
    first: Option<(Tally, Vec<String>)>,
}

/// The part of a job that scaling needs.
struct Job {
    queue: String,
    enqueued_at: Option<u64>,
}

impl Job {
    fn of(text: &str) -> Option<Self> {
        let job: Json = serde_json::from_str(text).ok()?;
        // Milliseconds since Sidekiq 8, seconds before.
        let enqueued_at = job.get("enqueued_at").and_then(|at| match at.as_u64() {
            Some(ms) => Some(ms),
            None => at.as_f64().map(ms_of_seconds),
        });
        Some(Self { queue: job.get("queue")?.as_str()?.to_owned(), enqueued_at })
    }
}

impl SidekiqReader {
    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.spec.prefix)
    }

    /// Adds one of the sets that all queues share.
    fn read_schedule(&self, replies: &mut Replies, tally: &mut Tally) -> Result<(), String> {
        let now = self.clock.server_ms();
        let jobs = replies.scored()?;
        for (job, due) in &jobs {
            let due = ms_of_seconds(*due);
            match Job::of(job) {
                Some(job) if !self.spec.queues.contains(&job.queue) => {}
                _ if due <= now => tally.due += 1,
                _ => {
                    tally.later += 1;
                    tally.next_at(Some(due));
                }
            }
        }
        // The jobs after the last one that was read may include jobs of these queues.
        if jobs.len() == MAX_READ {
            tally.next_at(jobs.last().map(|(_, due)| ms_of_seconds(*due)).filter(|due| *due > now));
        }
        Ok(())
    }

    /// Returns the result of the first request; `None` if the clock was wrong.
    fn first(&mut self, replies: Vec<Value>) -> Result<Option<(Tally, Vec<String>)>, String> {
        let mut replies = Replies::new(replies);
        if !self.clock.answered(&replies.next()?)? {
            return Ok(None);
        }
        let mut tally = Tally::default();
        for queue in &self.spec.queues {
            let (waiting, oldest, is_paused) = (replies.count()?, replies.text()?, replies.count()? > 0);
            if is_paused {
                tally.paused.push(queue.clone());
                continue;
            }
            tally.waiting += waiting;
            tally.enqueued_at(oldest.as_deref().and_then(Job::of).and_then(|job| job.enqueued_at));
        }
        self.read_schedule(&mut replies, &mut tally)?;
        self.read_schedule(&mut replies, &mut tally)?;
        let processes = replies.texts()?.into_iter().flatten().collect();
        Ok(Some((tally, processes)))
    }

    /// Adds the reports of the processes.
    fn second(&self, mut tally: Tally, processes: &[String], replies: Vec<Value>) -> Result<Tally, String> {
        let (mut replies, now) = (Replies::new(replies), self.clock.server_ms());
        let mut stated = Vec::with_capacity(processes.len());
        for identity in processes {
            let mut said = replies.texts()?.into_iter();
            let (busy, beat, quiet) = (said.next().flatten(), said.next().flatten(), said.next().flatten());
            let works = replies.texts()?;
            // The set retains names of processes that are gone.
            let (Some(busy), Some(beat)) = (busy, beat) else { continue };
            let is_ours = |work: &String| {
                let work: Json = serde_json::from_str(work).unwrap_or(Json::Null);
                work.get("queue")
                    .and_then(Json::as_str)
                    .is_none_or(|queue| self.spec.queues.iter().any(|our| our == queue))
            };
            tally.running += works.iter().flatten().filter(|work| is_ours(work)).count() as u64;
            let age = Duration::from_millis(now.saturating_sub(ms_of_seconds(beat.parse().unwrap_or(0.0))));
            let is_since_news = self.news_age.is_none_or(|news| age + SETTLED <= news);
            let is_busy = busy != "0" || !works.is_empty();
            let is_quiet = quiet.as_deref() == Some("true");
            if !is_busy && !is_since_news && !is_quiet {
                // The next report may say that the process is idle.
                tally.look_again_after(BEAT.saturating_sub(age) + SETTLED);
            }
            if is_busy {
                tally.look_again_after(BEAT);
            }
            // A process that takes no more jobs stays idle, whatever happens in the queues.
            if age < BEAT_LAPSE && (is_busy || is_since_news || is_quiet) {
                let name = identity.split(':').next().unwrap_or_default().to_owned();
                stated.push(FrameworkWorker { name, is_busy, quiet_age: is_quiet.then_some(age) });
            }
        }
        tally.occupation = Occupation::Stated(stated);
        Ok(tally)
    }

    fn failed(&self, error: &str) -> Interpretation {
        let key = Sidekiq.key(&self.spec, &self.spec.queues[0]);
        let is_foreign = error.contains("WRONGTYPE");
        Interpretation::Complete(Observed { is_foreign, ..Observed::failed(&explain(&key, error)) })
    }
}

impl QueueReader for SidekiqReader {
    fn note_time(&mut self, now: Timestamp) {
        self.clock.note(now);
    }

    fn note_heard(&mut self, heard: Heard) {
        self.news_age = heard.news_age;
    }

    fn commands(&mut self, _: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        self.clock.asked();
        let mut commands = vec![ServerClock::command()];
        for queue in &self.spec.queues {
            let list = Sidekiq.key(&self.spec, queue);
            commands.push(redis::cmd("LLEN").arg(&list).to_owned());
            commands.push(redis::cmd("LINDEX").arg(&list).arg(-1).to_owned());
            commands.push(redis::cmd("SISMEMBER").arg(self.key("paused")).arg(queue).to_owned());
        }
        for set in ["schedule", "retry"] {
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(self.key(set)).arg("-inf").arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(MAX_READ);
            commands.push(command);
        }
        commands.push(redis::cmd("SMEMBERS").arg(self.key("processes")).to_owned());
        commands
    }

    fn interpret(&mut self, _: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        let (tally, processes) = match self.first(replies) {
            Ok(Some(first)) => first,
            Ok(None) => return Interpretation::Again,
            Err(error) => return self.failed(&error),
        };
        if processes.is_empty() {
            let tally = Tally { occupation: Occupation::Stated(Vec::new()), ..tally };
            return Interpretation::Complete(tally.observed(Framework::Sidekiq, &self.clock));
        }
        let of_process = |identity: &String| {
            let identity = self.key(identity);
            let says = redis::cmd("HMGET").arg(&identity).arg("busy").arg("beat").arg("quiet").to_owned();
            [says, redis::cmd("HVALS").arg(format!("{identity}:work")).to_owned()]
        };
        let commands = processes.iter().flat_map(of_process).collect();
        let so_far = tally.clone().observed(Framework::Sidekiq, &self.clock);
        self.first = Some((tally, processes));
        Interpretation::Ask(Box::new(FollowUp { commands, so_far, limit: 0, bounds: Bounds::default() }))
    }

    fn complete(&mut self, _: &QueueSpec, follow_up: FollowUp, reply: Result<Value, String>) -> Interpretation {
        let Some((tally, processes)) = self.first.take() else {
            return Interpretation::Complete(follow_up.so_far);
        };
        let tally = match reply {
            Ok(Value::Array(replies)) => self.second(tally, &processes, replies),
            Ok(other) => Err(refusal(&other).unwrap_or_else(|| format!("{other:?}"))),
            Err(error) => Err(error),
        };
        match tally {
            Ok(tally) => Interpretation::Complete(tally.observed(Framework::Sidekiq, &self.clock)),
            Err(error) => self.failed(&error),
        }
    }
}

#[cfg(test)]
mod tests;
