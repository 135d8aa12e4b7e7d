//! Resque (Ruby, <https://github.com/resque/resque>) and resque-scheduler, by the source of resque 3.0 and
//! resque-scheduler 5.0. A busy worker has a key with its job, written at the start and removed at the end. Delayed
//! jobs are in lists, one for each second, which only a process of resque-scheduler moves.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};
use serde_json::Value as Json;

use super::{
    Certainty, DueJobs, Framework, FrameworkProfile, FrameworkSpec, FrameworkWorker, Occupation, SignalKeys, Trace,
    clock::ServerClock,
    replies::Replies,
    tally::{Tally, ms_of_date, ms_of_seconds},
};
use crate::{
    model::{StopSignal, Timestamp},
    queue_kind::{
        Bounds, FollowUp, Interpretation, Observed, QueueReader, QueueSpec, Scripts, explain, reply::refusal,
    },
};

/// Maximum lists of delayed jobs that are read, the ones that are due first, and maximum jobs of each list. A member is
/// a whole job as JSON, including its arguments.
const MAX_READ: usize = 100;

/// Age from which Resque itself counts a worker without a heartbeat as dead.
const HEARTBEAT_LAPSE: Duration = Duration::from_secs(300);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Resque;

impl FrameworkProfile for Resque {
    fn name(&self) -> &'static str {
        "resque"
    }

    fn default_queue(&self) -> &'static str {
        "default"
    }

    fn default_prefix(&self) -> &'static str {
        "resque"
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}:queue:{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let prefix = &spec.prefix;
        let others = ["workers", "pause-all-workers", "delayed_queue_schedule"].map(|key| format!("{prefix}:{key}"));
        let keys = spec.keys().chain(others).collect();
        SignalKeys { keys, prefixes: vec![format!("{prefix}:worker:")], channels: Vec::new() }
    }

    fn event_flags(&self) -> &'static str {
        // Lists, the sorted set of delayed jobs, the set of workers, and the strings of busy workers.
        "lzs$g"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(ResqueReader { spec: spec.clone(), clock: ServerClock::default(), first: None })
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "get", "llen", "lrange", "smembers", "zrangebyscore", "hget"]
    }

    fn certainty(&self) -> Certainty {
        Certainty::Exact
    }

    /// SIGTERM kills the running job.
    fn stop_signal(&self) -> StopSignal {
        StopSignal::Quit
    }

    fn trace(&self, spec: &FrameworkSpec, queue: &str) -> Option<Trace> {
        Some(Trace::Member { set: format!("{}:queues", spec.prefix), member: queue.to_owned() })
    }

    fn due_jobs(&self, spec: &FrameworkSpec, _: &str) -> Option<DueJobs> {
        let prefix = &spec.prefix;
        Some(DueJobs {
            schedule: format!("{prefix}:delayed_queue_schedule"),
            // The lock's name begins with the namespace, and so does its key.
            mover: format!("{prefix}:{prefix}:resque_scheduler_master_lock"),
            cure: "run a process of resque-scheduler: rake resque:scheduler",
        })
    }

    /// The last queue of a worker names it: `QUEUES=mail,$SWARM_WORKER_ID`. Nobody enqueues to it.
    fn identity(&self) -> Option<&'static str> {
        Some("QUEUES=")
    }
}

/// Reads all queues of a worker type.
#[derive(Debug)]
struct ResqueReader {
    spec: Arc<FrameworkSpec>,
    clock: ServerClock,
    /// Result of a reading's first request, until the second one is answered.
    first: Option<First>,
}

/// What is known before the workers' keys and the delayed jobs are read.
#[derive(Clone, Debug)]
struct First {
    tally: Tally,
    /// Ids of the workers that serve the queues.
    workers: Vec<String>,
    /// Times of delayed jobs, in seconds.
    delayed: Vec<u64>,
}

impl ResqueReader {
    fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.spec.prefix)
    }

    fn is_ours(&self, queue: &str) -> bool {
        self.spec.queues.iter().any(|our| our == queue)
    }

    /// Returns the queues of a worker's id, `HOST:PID:QUEUE,QUEUE`.
    fn queues_of(worker: &str) -> impl Iterator<Item = &str> {
        worker.splitn(3, ':').nth(2).unwrap_or_default().split(',')
    }

    /// Returns the result of the first request; `None` if the clock was wrong.
    fn first(&mut self, replies: Vec<Value>) -> Result<Option<First>, String> {
        let mut replies = Replies::new(replies);
        if !self.clock.answered(&replies.next()?)? {
            return Ok(None);
        }
        let mut tally = Tally::default();
        let is_paused = replies.text()?.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        for _ in &self.spec.queues {
            tally.waiting += replies.count()?;
        }
        let all: Vec<String> = replies.texts()?.into_iter().flatten().collect();
        let serves = |worker: &String| Self::queues_of(worker).any(|queue| queue == "*" || self.is_ours(queue));
        let workers = all.into_iter().filter(serves).collect();
        let delayed: Vec<u64> = replies.scored()?.iter().map(|(_, at)| ms_of_seconds(*at) / 1_000).collect();
        if is_paused {
            (tally.paused, tally.waiting) = (self.spec.queues.clone(), 0);
        }
        Ok(Some(First { tally, workers, delayed }))
    }

    /// Adds the workers' jobs and the delayed jobs.
    fn second(&self, first: First, replies: Vec<Value>) -> Result<Tally, String> {
        let First { mut tally, workers, delayed } = first;
        let (mut replies, now) = (Replies::new(replies), self.clock.server_ms());
        let mut stated = Vec::with_capacity(workers.len());
        for worker in &workers {
            let (job, beat) = (replies.text()?, replies.text()?);
            let queue_of = |job: &String| {
                let job: Json = serde_json::from_str(job).unwrap_or(Json::Null);
                job.get("queue").and_then(Json::as_str).map(str::to_owned)
            };
            let is_our_job = job.as_ref().is_some_and(|job| queue_of(job).is_none_or(|queue| self.is_ours(&queue)));
            let beat_at = beat.as_deref().and_then(ms_of_date);
            if beat_at.is_some_and(|at| Duration::from_millis(now.saturating_sub(at)) > HEARTBEAT_LAPSE) {
                // A worker that starts gives up the job of a dead worker.
                tally.due += u64::from(is_our_job);
                continue;
            }
            tally.running += u64::from(is_our_job);
            let name = Self::queues_of(worker).last().unwrap_or_default().to_owned();
            stated.push(FrameworkWorker { name, is_busy: job.is_some(), quiet_age: None });
        }
        tally.occupation = Occupation::Stated(stated);
        let is_paused = !tally.paused.is_empty();
        for at in &delayed {
            let is_ours = |job: &String| {
                let job: Json = serde_json::from_str(job).unwrap_or(Json::Null);
                job.get("queue").and_then(Json::as_str).is_some_and(|queue| self.is_ours(queue))
            };
            let jobs = replies.texts()?.iter().flatten().filter(|job| is_ours(job)).count() as u64;
            let is_due = at.saturating_mul(1_000) <= now;
            match (jobs, is_due) {
                (0, _) => {}
                (jobs, true) if !is_paused => tally.due += jobs,
                (_, true) => {}
                (jobs, false) => {
                    tally.later += jobs;
                    tally.next_at(Some(at.saturating_mul(1_000)).filter(|_| !is_paused));
                }
            }
        }
        // The lists after the last one that was read may include jobs of these queues.
        if delayed.len() == MAX_READ && !is_paused {
            tally.next_at(delayed.last().map(|at| at.saturating_mul(1_000)).filter(|at| *at > now));
        }
        Ok(tally)
    }

    fn failed(&self, error: &str) -> Interpretation {
        let key = Resque.key(&self.spec, &self.spec.queues[0]);
        let is_foreign = error.contains("WRONGTYPE");
        Interpretation::Complete(Observed { is_foreign, ..Observed::failed(&explain(&key, error)) })
    }
}

impl QueueReader for ResqueReader {
    fn note_time(&mut self, now: Timestamp) {
        self.clock.note(now);
    }

    fn commands(&mut self, _: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        self.clock.asked();
        let command = |name: &str, key: String| redis::cmd(name).arg(key).to_owned();
        let mut commands = vec![ServerClock::command(), command("GET", self.key("pause-all-workers"))];
        commands.extend(self.spec.keys().map(|list| command("LLEN", list)));
        commands.push(command("SMEMBERS", self.key("workers")));
        let mut delayed = command("ZRANGEBYSCORE", self.key("delayed_queue_schedule"));
        delayed.arg("-inf").arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(MAX_READ);
        commands.push(delayed);
        commands
    }

    fn interpret(&mut self, _: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        let first = match self.first(replies) {
            Ok(Some(first)) => first,
            Ok(None) => return Interpretation::Again,
            Err(error) => return self.failed(&error),
        };
        if first.workers.is_empty() && first.delayed.is_empty() {
            let tally = Tally { occupation: Occupation::Stated(Vec::new()), ..first.tally };
            return Interpretation::Complete(tally.observed(Framework::Resque, &self.clock));
        }
        let of_worker = |worker: &String| {
            let job = redis::cmd("GET").arg(self.key(&format!("worker:{worker}"))).to_owned();
            [job, redis::cmd("HGET").arg(self.key("workers:heartbeat")).arg(worker).to_owned()]
        };
        let of_time =
            |at: &u64| redis::cmd("LRANGE").arg(self.key(&format!("delayed:{at}"))).arg(0).arg(MAX_READ - 1).to_owned();
        let commands = first.workers.iter().flat_map(of_worker).chain(first.delayed.iter().map(of_time)).collect();
        let so_far = first.tally.clone().observed(Framework::Resque, &self.clock);
        self.first = Some(first);
        Interpretation::Ask(Box::new(FollowUp { commands, so_far, limit: 0, bounds: Bounds::default() }))
    }

    fn complete(&mut self, _: &QueueSpec, follow_up: FollowUp, reply: Result<Value, String>) -> Interpretation {
        let Some(first) = self.first.take() else { return Interpretation::Complete(follow_up.so_far) };
        let tally = match reply {
            Ok(Value::Array(replies)) => self.second(first, replies),
            Ok(other) => Err(refusal(&other).unwrap_or_else(|| format!("{other:?}"))),
            Err(error) => Err(error),
        };
        match tally {
            Ok(tally) => Interpretation::Complete(tally.observed(Framework::Resque, &self.clock)),
            Err(error) => self.failed(&error),
        }
    }
}

#[cfg(test)]
mod tests;
