//! Celery 5.x with the Redis transport of kombu, by the source of celery 5.7 and kombu 5.7. Keys: a list for each
//! priority step of a queue, and one hash for all queues of the database with the messages that workers fetched and did
//! not acknowledge. A worker fetches a message with an ETA immediately, and keeps it in memory. Only heartbeats, on a
//! channel, show how many tasks a worker runs.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};
use serde_json::Value as Json;

use super::{
    Certainty, FetchedJobs, Framework, FrameworkProfile, FrameworkSpec, FrameworkWorker, Heard, HeardWorker,
    Occupation, SignalKeys, WorkerStatement,
    clock::ServerClock,
    replies::Replies,
    tally::{Tally, ms_of_date},
};
use crate::{
    model::{StopSignal, Timestamp},
    queue_kind::{
        Bounds, FollowUp, Interpretation, Observed, QueueReader, QueueSpec, Scripts, explain, reply::refusal,
    },
};

/// Priority steps for which a queue may have a list, besides the queue's own list. kombu uses 0, 3, 6 and 9 by default,
/// and never a step outside of this range.
const PRIORITIES: std::ops::RangeInclusive<u8> = 1..=9;

/// Separator between a queue's name and a priority step.
const SEPARATOR: &str = "\u{6}\u{16}";

/// Maximum waiting messages for which each message is read, because it contains the ETA. If there are more, all of them
/// count as waiting.
const MAX_READ: u64 = 50;

/// Maximum fetched messages for which each message is read, because it contains the queue. If there are more, all of
/// them count for each worker type.
const MAX_UNACKED_READ: u64 = 500;

/// Age from which a heartbeat, sent every 2 s, is out of date.
const HEARTBEAT_LAPSE: Duration = Duration::from_secs(7);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Celery;

impl FrameworkProfile for Celery {
    fn name(&self) -> &'static str {
        "celery"
    }

    fn default_queue(&self) -> &'static str {
        "celery"
    }

    fn default_prefix(&self) -> &'static str {
        ""
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let mut keys: Vec<String> = spec.queues.iter().flat_map(|queue| lists(spec, queue)).collect();
        keys.push(format!("{}unacked", spec.prefix));
        // kombu prefixes the number of the database.
        let channels = vec![format!("{}/{{db}}.celeryev/worker.*", spec.prefix)];
        SignalKeys { keys, prefixes: Vec::new(), channels }
    }

    fn event_flags(&self) -> &'static str {
        "lh"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        let spec = spec.clone();
        Box::new(CeleryReader { spec, clock: ServerClock::default(), heard: Vec::new(), first: None })
    }

    fn hear(&self, payload: &[u8]) -> Option<WorkerStatement> {
        statement(payload)
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "llen", "lrange", "hlen", "hvals"]
    }

    fn certainty(&self) -> Certainty {
        Certainty::Recent
    }

    fn stop_signal(&self) -> StopSignal {
        StopSignal::Term
    }

    fn fetched_jobs(&self, spec: &FrameworkSpec) -> Option<FetchedJobs> {
        Some(FetchedJobs {
            fetched: format!("{}unacked_index", spec.prefix),
            jobs: format!("{}unacked", spec.prefix),
            redelivered_after: spec.visibility_timeout,
            is_of: |job, queues| Message::of_unacked(job).is_of(queues),
            cure: "set visibility_timeout in broker_transport_options, and celery.visibility_timeout_seconds of the worker \
                   type, to more than the longest task with acks_late and the longest ETA",
        })
    }

    fn identity(&self) -> Option<&'static str> {
        Some("-n")
    }
}

/// Returns the lists of one queue.
fn lists(spec: &FrameworkSpec, queue: &str) -> Vec<String> {
    let own = format!("{}{queue}", spec.prefix);
    let of_step = PRIORITIES.map(|step| format!("{own}{SEPARATOR}{step}"));
    std::iter::once(own.clone()).chain(of_step).collect()
}

/// Parses an event of a worker: its node name up to the `@`, and how many tasks it runs.
fn statement(payload: &[u8]) -> Option<WorkerStatement> {
    let message: Json = serde_json::from_slice(payload).ok()?;
    let body = message.get("body")?.as_str()?;
    let event: Json = match message.pointer("/properties/body_encoding").and_then(Json::as_str) {
        Some("base64") => serde_json::from_slice(&super::base64::decode(body)?).ok()?,
        _ => serde_json::from_str(body).ok()?,
    };
    let node = event.get("hostname")?.as_str()?;
    let name = node.split_once('@').map_or(node, |(name, _)| name).to_owned();
    let active = event.get("active").and_then(Json::as_u64);
    match event.get("type")?.as_str()? {
        "worker-heartbeat" => Some(WorkerStatement { name, active: active?, is_leaving: false }),
        "worker-offline" => Some(WorkerStatement { name, active: 0, is_leaving: true }),
        _ => None,
    }
}

/// The part of a message that scaling needs.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    routing_key: Option<String>,
    eta: Option<u64>,
}

impl Message {
    /// Parses a message of a list.
    fn of(message: &Json) -> Self {
        let routing_key = message.pointer("/properties/delivery_info/routing_key").and_then(Json::as_str);
        let eta = message.pointer("/headers/eta").and_then(Json::as_str);
        Self { routing_key: routing_key.map(str::to_owned), eta: eta.and_then(ms_of_date) }
    }

    /// Parses an element of the hash: a message, its exchange and its routing key.
    fn of_unacked(text: &str) -> Self {
        let element: Json = serde_json::from_str(text).unwrap_or(Json::Null);
        Self::of(element.get(0).unwrap_or(&Json::Null))
    }

    /// Returns whether the message is one of these queues. One that does not say so may be.
    fn is_of(&self, queues: &[String]) -> bool {
        self.routing_key.as_ref().is_none_or(|key| queues.contains(key))
    }
}

/// Reads all queues of a worker type.
#[derive(Debug)]
struct CeleryReader {
    spec: Arc<FrameworkSpec>,
    clock: ServerClock,
    heard: Vec<HeardWorker>,
    /// Result of a reading's first request, until the second one is answered.
    first: Option<First>,
}

/// Lengths of the lists and of the hash.
#[derive(Debug)]
struct First {
    waiting: u64,
    unacked: u64,
    /// Number of lists whose messages are read.
    lists: usize,
    /// Whether the fetched messages are read.
    reads_unacked: bool,
}

impl CeleryReader {
    fn unacked(&self) -> String {
        format!("{}unacked", self.spec.prefix)
    }

    fn lists(&self) -> Vec<String> {
        self.spec.queues.iter().flat_map(|queue| lists(&self.spec, queue)).collect()
    }

    /// Returns the lengths of the lists and of the hash; `None` if the clock was wrong.
    fn lengths(&mut self, replies: Vec<Value>) -> Result<Option<(Vec<u64>, u64)>, String> {
        let mut replies = Replies::new(replies);
        if !self.clock.answered(&replies.next()?)? {
            return Ok(None);
        }
        let lists = self.lists().iter().map(|_| replies.count()).collect::<Result<_, _>>()?;
        Ok(Some((lists, replies.count()?)))
    }

    /// Combines the lengths with the messages that were read.
    fn tally(&self, first: &First, listed: Option<&[Message]>, unacked: Option<&[Message]>) -> Tally {
        let now = self.clock.server_ms();
        let mut tally = Tally::default();
        let is_later = |message: &&Message| message.eta.is_some_and(|eta| eta > now);
        let mut fetched = first.unacked;
        if let Some(messages) = unacked {
            let is_ours = |message: &&Message| message.is_of(&self.spec.queues);
            let (later, ready): (Vec<&Message>, Vec<&Message>) = messages.iter().filter(is_ours).partition(is_later);
            tally.later += later.len() as u64;
            tally.next_at(later.iter().filter_map(|message| message.eta).min());
            fetched = ready.len() as u64;
        }
        tally.waiting = first.waiting;
        if let Some(messages) = listed {
            let later: Vec<&Message> = messages.iter().filter(is_later).collect();
            tally.later += later.len() as u64;
            tally.next_at(later.iter().filter_map(|message| message.eta).min());
            tally.waiting = tally.waiting.saturating_sub(later.len() as u64);
        }
        let heard: Vec<&HeardWorker> = self.heard.iter().filter(|worker| worker.age < HEARTBEAT_LAPSE).collect();
        let active: u64 = heard.iter().map(|worker| worker.active).sum();
        if self.spec.late_acknowledgement {
            // A running task stays unacknowledged until it ends.
            tally.running = fetched.max(active);
        } else {
            tally.waiting += fetched;
            tally.running = active;
        }
        // A worker that reported to be idle may have taken a task since, so an idle report counts only while it is
        // newer than the last signal.
        let stated = heard.iter().filter(|worker| worker.active > 0 || worker.is_since_news);
        let stated = stated.map(|worker| FrameworkWorker {
            name: worker.name.clone(),
            is_busy: worker.active > 0,
            quiet_age: None,
        });
        tally.occupation = Occupation::Stated(stated.collect());
        tally
    }

    fn failed(&self, error: &str) -> Interpretation {
        let key = Celery.key(&self.spec, &self.spec.queues[0]);
        let is_foreign = error.contains("WRONGTYPE");
        Interpretation::Complete(Observed { is_foreign, ..Observed::failed(&explain(&key, error)) })
    }

    fn read_messages(first: &First, replies: Vec<Value>) -> Result<(Vec<Message>, Vec<Message>), String> {
        let mut replies = Replies::new(replies);
        let mut listed = Vec::new();
        let parse = |text: &String| serde_json::from_str::<Json>(text).unwrap_or(Json::Null);
        for _ in 0..first.lists {
            listed.extend(replies.texts()?.iter().flatten().map(|text| Message::of(&parse(text))));
        }
        let mut unacked = Vec::new();
        if first.reads_unacked {
            unacked.extend(replies.texts()?.iter().flatten().map(|text| Message::of_unacked(text)));
        }
        Ok((listed, unacked))
    }
}

impl QueueReader for CeleryReader {
    fn note_time(&mut self, now: Timestamp) {
        self.clock.note(now);
    }

    fn note_heard(&mut self, heard: Heard) {
        self.heard = heard.workers;
    }

    fn commands(&mut self, _: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        self.clock.asked();
        let length = |key: String| redis::cmd("LLEN").arg(key).to_owned();
        let mut commands = vec![ServerClock::command()];
        commands.extend(self.lists().into_iter().map(length));
        commands.push(redis::cmd("HLEN").arg(self.unacked()).to_owned());
        commands
    }

    fn interpret(&mut self, _: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        let (lengths, unacked) = match self.lengths(replies) {
            Ok(Some(lengths)) => lengths,
            Ok(None) => return Interpretation::Again,
            Err(error) => return self.failed(&error),
        };
        let waiting = lengths.iter().sum();
        let mut first = First { waiting, unacked, lists: 0, reads_unacked: (1..=MAX_UNACKED_READ).contains(&unacked) };
        let mut commands = Vec::new();
        if (1..=MAX_READ).contains(&waiting) {
            let filled = self.lists().into_iter().zip(&lengths).filter(|(_, length)| **length > 0);
            commands.extend(filled.map(|(key, _)| redis::cmd("LRANGE").arg(key).arg(0).arg(-1).to_owned()));
        }
        first.lists = commands.len();
        if first.reads_unacked {
            commands.push(redis::cmd("HVALS").arg(self.unacked()).to_owned());
        }
        let so_far = self.tally(&first, None, None).observed(Framework::Celery, &self.clock);
        if commands.is_empty() {
            return Interpretation::Complete(so_far);
        }
        self.first = Some(first);
        Interpretation::Ask(Box::new(FollowUp { commands, so_far, limit: 0, bounds: Bounds::default() }))
    }

    fn complete(&mut self, _: &QueueSpec, follow_up: FollowUp, reply: Result<Value, String>) -> Interpretation {
        let Some(first) = self.first.take() else { return Interpretation::Complete(follow_up.so_far) };
        let messages = match reply {
            Ok(Value::Array(replies)) => Self::read_messages(&first, replies),
            Ok(other) => Err(refusal(&other).unwrap_or_else(|| format!("{other:?}"))),
            Err(error) => Err(error),
        };
        match messages {
            Ok((listed, unacked)) => {
                let listed = (first.lists > 0).then_some(listed);
                let unacked = first.reads_unacked.then_some(unacked);
                let tally = self.tally(&first, listed.as_deref(), unacked.as_deref());
                Interpretation::Complete(tally.observed(Framework::Celery, &self.clock))
            }
            Err(error) => self.failed(&error),
        }
    }
}

#[cfg(test)]
mod tests;
