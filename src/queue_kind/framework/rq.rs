//! RQ (<https://python-rq.org>), versions 2 and 3, by the source of rq 2.12 and 3.0. Keys: a list of job ids for each
//! queue, a list of the jobs that a worker of a single queue is about to start, sorted sets of running and scheduled
//! jobs with scores in seconds, and a hash for each worker with its state.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};

use super::{
    Certainty, DueJobs, Framework, FrameworkProfile, FrameworkSpec, FrameworkWorker, Occupation, SignalKeys, Trace,
    clock::ServerClock,
    job_times::{JobHolder, JobStage, JobTimes, Order, TimesOfJob},
    replies::Replies,
    tally::{Tally, ms_of_date, ms_of_seconds, seconds_of_ms},
};
use crate::{
    model::{StopSignal, Timestamp},
    queue_kind::{
        Bounds, FollowUp, Interpretation, Observed, QueueReader, QueueSpec, Scripts, explain, reply::refusal,
    },
};

/// Time for a worker and its scheduler to start. A scheduler that is asked to leave before it handles signals dies with
/// its lock, and for a minute no other scheduler moves scheduled jobs.
const START_TIME: Duration = Duration::from_secs(3);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Rq;

impl FrameworkProfile for Rq {
    fn name(&self) -> &'static str {
        "rq"
    }

    fn default_queue(&self) -> &'static str {
        "default"
    }

    fn default_prefix(&self) -> &'static str {
        "rq"
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}:queue:{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let prefix = &spec.prefix;
        let of = |queue: &String| ["queue", "wip", "scheduled"].map(|what| format!("{prefix}:{what}:{queue}"));
        let mut keys: Vec<String> = spec.queues.iter().flat_map(of).collect();
        keys.push(format!("{prefix}:suspended"));
        SignalKeys { keys, prefixes: vec![format!("{prefix}:worker:")], channels: Vec::new() }
    }

    fn event_flags(&self) -> &'static str {
        // Lists, sorted sets, the workers' hashes, and the string that suspends the workers.
        "lzh$g"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(RqReader { spec: spec.clone(), clock: ServerClock::default(), first: None })
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "exists", "llen", "lindex", "zcard", "zcount", "zrangebyscore", "smembers", "hget", "hmget"]
    }

    fn certainty(&self) -> Certainty {
        Certainty::Exact
    }

    fn stop_signal(&self) -> StopSignal {
        StopSignal::Term
    }

    /// A worker that is asked to leave waits up to a second for its scheduler. Meanwhile Redis may still deliver a job
    /// to the worker, which drops it.
    fn helpers_first(&self) -> bool {
        true
    }

    /// The handler of an idle worker raises an exception. One that is raised while Python's `logging` or redis-py runs
    /// is caught there, and the worker goes on.
    fn may_miss_stop_signal(&self) -> bool {
        true
    }

    fn trace(&self, spec: &FrameworkSpec, queue: &str) -> Option<Trace> {
        Some(Trace::Member { set: format!("{}:queues", spec.prefix), member: self.key(spec, queue) })
    }

    fn due_jobs(&self, spec: &FrameworkSpec, queue: &str) -> Option<DueJobs> {
        let key = |what: &str| format!("{}:{what}:{queue}", spec.prefix);
        let cure = "start a worker of the queue with --with-scheduler";
        Some(DueJobs { schedule: key("scheduled"), mover: key("scheduler-lock"), cure })
    }

    fn job_times(&self, spec: &FrameworkSpec, queue: &str) -> Option<JobTimes> {
        let holder =
            |what: &str, order, stage| JobHolder { key: format!("{}:{what}:{queue}", spec.prefix), order, stage };
        Some(JobTimes {
            holders: vec![
                holder("queue", Order::NewestLast, JobStage::Waiting),
                holder("wip", Order::Scored, JobStage::Running),
                holder("finished", Order::Scored, JobStage::Ended),
                holder("failed", Order::Scored, JobStage::Ended),
            ],
            // Of a running job, `JOB:EXECUTION`.
            id: |element| element.split(':').next().unwrap_or(element),
            prefix: format!("{}:job:", spec.prefix),
            fields: &["enqueued_at", "started_at", "ended_at"],
            parse: |values| {
                let at = |place: usize| values.get(place)?.as_deref().and_then(ms_of_date);
                TimesOfJob { arrived: at(0), began: at(1), ended: at(2) }
            },
        })
    }

    fn identity(&self) -> Option<&'static str> {
        Some("--name")
    }
}

/// Reads all queues of a worker type.
#[derive(Debug)]
struct RqReader {
    spec: Arc<FrameworkSpec>,
    clock: ServerClock,
    /// Result of a reading's first request, until the second one is answered.
    first: Option<First>,
}

/// What is known before the workers' hashes are read.
#[derive(Debug)]
struct First {
    tally: Tally,
    /// Jobs that a worker has taken without an update of its state.
    in_between: u64,
    /// Keys of the workers' hashes.
    workers: Vec<String>,
    /// Number of job ids at the heads of the queues.
    heads: usize,
}

impl RqReader {
    fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.spec.prefix)
    }

    /// Returns the reads of one queue; [`read_queue`](Self::read_queue) handles their replies.
    fn queue_commands(&self, queue: &str) -> Vec<Cmd> {
        let now = seconds_of_ms(self.clock.server_ms());
        let command = |name: &str, key: String| redis::cmd(name).arg(key).to_owned();
        let [list, wip, scheduled] = ["queue", "wip", "scheduled"].map(|what| self.key(&format!("{what}:{queue}")));
        vec![
            command("LLEN", list.clone()),
            command("LLEN", format!("{list}:intermediate")),
            command("LINDEX", list).arg(0).to_owned(),
            // The score is the time at which a running job counts as lost.
            command("ZCOUNT", wip.clone()).arg(&now).arg("+inf").to_owned(),
            command("ZCARD", wip),
            command("ZCOUNT", scheduled.clone()).arg("-inf").arg(&now).to_owned(),
            command("ZCARD", scheduled.clone()),
            command("ZRANGEBYSCORE", scheduled)
                .arg(format!("({now}"))
                .arg("+inf")
                .arg("WITHSCORES")
                .arg("LIMIT")
                .arg(0)
                .arg(1)
                .to_owned(),
            // RQ 3 and later: jobs that are about to be enqueued.
            command("ZCARD", self.key(&format!("ready:{queue}"))),
            command("SMEMBERS", self.key(&format!("workers:{queue}"))),
        ]
    }

    fn read_queue(replies: &mut Replies, first: &mut First, heads: &mut Vec<String>) -> Result<(), String> {
        let tally = &mut first.tally;
        tally.waiting += replies.count()?;
        let intermediate = replies.count()?;
        heads.extend(replies.text()?);
        let (running, held) = (replies.count()?, replies.count()?);
        tally.running += running + intermediate;
        first.in_between += intermediate;
        let (due, scheduled) = (replies.count()?, replies.count()?);
        // A worker that starts recovers the jobs of dead workers.
        tally.due += due + held.saturating_sub(running);
        tally.later += scheduled.saturating_sub(due);
        tally.next_at(replies.scored()?.first().map(|(_, score)| ms_of_seconds(*score)));
        tally.waiting += replies.count()?;
        first.workers.extend(replies.texts()?.into_iter().flatten());
        Ok(())
    }

    /// Returns the result of the first request, and the ids of the jobs at the heads of the queues; `None` if the clock
    /// was wrong.
    fn first(&mut self, replies: Vec<Value>) -> Result<Option<(First, Vec<String>)>, String> {
        let mut replies = Replies::new(replies);
        if !self.clock.answered(&replies.next()?)? {
            return Ok(None);
        }
        let is_suspended = replies.count()? > 0;
        let mut first = First { tally: Tally::default(), in_between: 0, workers: Vec::new(), heads: 0 };
        let mut heads = Vec::new();
        for _ in &self.spec.queues {
            Self::read_queue(&mut replies, &mut first, &mut heads)?;
        }
        if is_suspended {
            let tally = &mut first.tally;
            (tally.paused, tally.waiting, tally.due) = (self.spec.queues.clone(), 0, 0);
            tally.next_due = None;
        }
        first.workers.sort_unstable();
        first.workers.dedup();
        first.heads = heads.len();
        Ok(Some((first, heads)))
    }

    /// Adds the workers' states, and the times of the jobs at the heads.
    fn second(&self, first: First, replies: Vec<Value>) -> Result<Tally, String> {
        let First { mut tally, in_between, workers, heads } = first;
        let mut replies = Replies::new(replies);
        for _ in 0..heads {
            tally.enqueued_at(replies.text()?.as_deref().and_then(ms_of_date));
        }
        let prefix = self.key("worker:");
        let mut stated = Vec::with_capacity(workers.len());
        for key in &workers {
            let mut said = replies.texts()?.into_iter();
            let (state, death, birth) = (said.next().flatten(), said.next().flatten(), said.next().flatten());
            // A worker without a hash, or with a time of death, does not exist any more.
            let (Some(state), None) = (state, death) else { continue };
            let name = key.strip_prefix(&prefix).unwrap_or(key).to_owned();
            let born_at = birth.as_deref().and_then(ms_of_date).unwrap_or(0);
            let age = Duration::from_millis(self.clock.server_ms().saturating_sub(born_at));
            let is_new = age < START_TIME;
            if is_new {
                tally.look_again_after(START_TIME.saturating_sub(age));
            }
            // A worker that still reports to be idle may hold a job that was just taken.
            let is_busy = in_between > 0 || is_new || state == "busy";
            stated.push(FrameworkWorker { name, is_busy, quiet_age: None });
        }
        tally.occupation = Occupation::Stated(stated);
        Ok(tally)
    }

    fn failed(&self, error: &str) -> Interpretation {
        let key = Rq.key(&self.spec, &self.spec.queues[0]);
        let is_foreign = error.contains("WRONGTYPE");
        Interpretation::Complete(Observed { is_foreign, ..Observed::failed(&explain(&key, error)) })
    }
}

impl QueueReader for RqReader {
    fn note_time(&mut self, now: Timestamp) {
        self.clock.note(now);
    }

    fn commands(&mut self, _: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        self.clock.asked();
        let mut commands = vec![ServerClock::command(), redis::cmd("EXISTS").arg(self.key("suspended")).to_owned()];
        commands.extend(self.spec.queues.iter().flat_map(|queue| self.queue_commands(queue)));
        commands
    }

    fn interpret(&mut self, _: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        let (first, heads) = match self.first(replies) {
            Ok(Some(first)) => first,
            Ok(None) => return Interpretation::Again,
            Err(error) => return self.failed(&error),
        };
        if first.workers.is_empty() && heads.is_empty() {
            let tally = Tally { occupation: Occupation::Stated(Vec::new()), ..first.tally };
            return Interpretation::Complete(tally.observed(Framework::Rq, &self.clock));
        }
        let job = |id: &String| redis::cmd("HGET").arg(self.key(&format!("job:{id}"))).arg("enqueued_at").to_owned();
        let worker = |key: &String| redis::cmd("HMGET").arg(key).arg("state").arg("death").arg("birth").to_owned();
        let commands = heads.iter().map(job).chain(first.workers.iter().map(worker)).collect();
        let so_far = first.tally.clone().observed(Framework::Rq, &self.clock);
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
            Ok(tally) => Interpretation::Complete(tally.observed(Framework::Rq, &self.clock)),
            Err(error) => self.failed(&error),
        }
    }
}

#[cfg(test)]
mod tests;
