//! Taskiq (Python, <https://taskiq-python.github.io>) with `RedisStreamBroker`, by the source of taskiq-redis 1.2. A
//! queue is a stream with the consumer group `taskiq`. A task stays pending until it has run, on the consumer that
//! fetched it; a worker fetches up to 100 tasks at a time.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, FrameworkWorker, Occupation, SignalKeys, clock::ServerClock,
    tally::Tally,
};
use crate::{
    model::{Reading, StopSignal, Timestamp},
    queue_kind::{
        Bounds, FollowUp, Interpretation, Observed, QueueKind, QueueReader, QueueSpec, Scripts, explain,
        reply::{field, fields, missing, number, refusal, text},
    },
};

/// The consumer group that the broker uses by default.
const GROUP: &str = "taskiq";

/// Time between two readings while tasks run: neither a fetch nor an acknowledgement is a keyspace event.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct TaskiqStream;

impl FrameworkProfile for TaskiqStream {
    fn name(&self) -> &'static str {
        "taskiq-stream"
    }

    fn default_queue(&self) -> &'static str {
        "taskiq"
    }

    fn default_prefix(&self) -> &'static str {
        ""
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        QueueKind::Stream.content(key)
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        SignalKeys { keys: spec.keys().collect(), ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        "t"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        let one = |key: String| {
            let spec = QueueSpec::new(&key, GROUP, QueueKind::Stream);
            StreamQueue { reader: spec.kind.reader(&spec), spec, state: None }
        };
        Box::new(TaskiqReader {
            spec: spec.clone(),
            clock: ServerClock::default(),
            queues: spec.keys().map(one).collect(),
        })
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "xinfo", "xpending", "xrange"]
    }

    fn certainty(&self) -> Certainty {
        Certainty::Exact
    }

    fn stop_signal(&self) -> StopSignal {
        StopSignal::Term
    }

    /// The program names the consumer, not the command.
    fn identity(&self) -> Option<&'static str> {
        None
    }
}

/// One stream, read as swarm reads its own streams, and its consumers.
#[derive(Debug)]
struct StreamQueue {
    spec: QueueSpec,
    reader: Box<dyn QueueReader>,
    /// Result of a reading's first request.
    state: Option<StreamState>,
}

#[derive(Debug)]
struct StreamState {
    observed: Observed,
    consumers: Vec<FrameworkWorker>,
    /// The count that the stream's reader asks for.
    follow_up: Option<FollowUp>,
}

/// Number of commands that the reader of a stream sends.
const STREAM_COMMANDS: usize = 3;

impl StreamQueue {
    fn commands(&mut self) -> Vec<Cmd> {
        // A script would need a right to run scripts.
        let mut commands = self.reader.commands(&self.spec, Scripts::Refused);
        commands.push(redis::cmd("XINFO").arg("CONSUMERS").arg(&*self.spec.key).arg(&*self.spec.group).to_owned());
        commands
    }

    fn interpret(&mut self, mut replies: Vec<Value>) -> Result<(), String> {
        let consumers = consumers(&replies.pop().ok_or_else(missing)?)?;
        let (observed, follow_up) = match self.reader.interpret(&self.spec, replies, Scripts::Refused) {
            Interpretation::Complete(observed) => (observed, None),
            Interpretation::Ask(follow_up) => (follow_up.so_far.clone(), Some(*follow_up)),
            Interpretation::ScriptRefused | Interpretation::Again => {
                return Err("a stream is read without scripts".to_owned());
            }
        };
        self.state = Some(StreamState { observed, consumers, follow_up });
        Ok(())
    }

    /// Completes the reading with the reply to its count.
    fn complete(&mut self, follow_up: FollowUp, reply: Result<Value, String>) {
        let completed = self.reader.complete(&self.spec, follow_up, reply);
        if let (Interpretation::Complete(observed), Some(state)) = (completed, &mut self.state) {
            state.observed = observed;
        }
    }
}

/// Parses the reply to XINFO CONSUMERS. A missing stream or group has no consumers.
fn consumers(reply: &Value) -> Result<Vec<FrameworkWorker>, String> {
    if let Some(error) = refusal(reply) {
        let is_missing = error.contains("no such key") || error.contains("NOGROUP");
        return if is_missing { Ok(Vec::new()) } else { Err(error) };
    }
    let odd = || format!("unexpected reply to XINFO CONSUMERS: {reply:?}");
    let Value::Array(all) = reply else { return Err(odd()) };
    let one = |consumer: &Value| {
        let fields = fields(consumer.clone());
        let name = text(field(&fields, "name")?)?.to_owned();
        Some(FrameworkWorker { name, is_busy: number(field(&fields, "pending")?)? > 0, quiet_age: None })
    };
    all.iter().map(one).collect::<Option<_>>().ok_or_else(odd)
}

/// Reads all queues of a worker type.
#[derive(Debug)]
struct TaskiqReader {
    spec: Arc<FrameworkSpec>,
    clock: ServerClock,
    queues: Vec<StreamQueue>,
}

impl TaskiqReader {
    /// Handles the replies to the first request; `None` if the clock was wrong.
    fn first(&mut self, replies: Vec<Value>) -> Result<Option<()>, String> {
        let mut replies = replies.into_iter();
        if !self.clock.answered(&replies.next().ok_or_else(missing)?)? {
            return Ok(None);
        }
        for queue in &mut self.queues {
            let own: Vec<Value> = replies.by_ref().take(STREAM_COMMANDS + 1).collect();
            queue.interpret(own)?;
        }
        Ok(Some(()))
    }

    /// Adds up the queues.
    fn observed(&mut self) -> Observed {
        let (mut tally, mut consumers) = (Tally::default(), Vec::<FrameworkWorker>::new());
        for state in self.queues.iter_mut().filter_map(|queue| queue.state.take()) {
            let demand = &state.observed.demand;
            let unread = [demand.lag.why_not(), demand.pending.why_not()].into_iter().flatten().next();
            if let Some(why) = unread {
                return Observed { is_foreign: state.observed.is_foreign, ..Observed::failed(why) };
            }
            tally.waiting += demand.lag.known().copied().unwrap_or_default();
            tally.running += demand.pending.known().copied().unwrap_or_default();
            if let Reading::Known(Some(oldest)) = demand.oldest {
                // The ids are times of the server.
                tally.enqueued_at(Some(oldest.0));
            }
            for consumer in state.consumers {
                match consumers.iter_mut().find(|known| known.name == consumer.name) {
                    Some(known) => known.is_busy |= consumer.is_busy,
                    None => consumers.push(consumer),
                }
            }
        }
        if tally.running == 0 {
            tally.occupation = Occupation::AllIdle;
        } else {
            tally.occupation = Occupation::Stated(consumers);
            tally.look_again_after(LOOK_AGAIN);
        }
        tally.observed(self.spec.framework, &self.clock)
    }
}

impl QueueReader for TaskiqReader {
    fn note_time(&mut self, now: Timestamp) {
        self.clock.note(now);
    }

    fn commands(&mut self, _: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        self.clock.asked();
        let of_queues = self.queues.iter_mut().flat_map(StreamQueue::commands);
        std::iter::once(ServerClock::command()).chain(of_queues).collect()
    }

    fn interpret(&mut self, _: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        match self.first(replies) {
            Ok(Some(())) => {}
            Ok(None) => return Interpretation::Again,
            Err(error) => {
                return Interpretation::Complete(Observed::failed(&explain(&self.queues[0].spec.key, &error)));
            }
        }
        let counts = self.queues.iter().filter_map(|queue| queue.state.as_ref()?.follow_up.as_ref());
        let commands: Vec<Cmd> = counts.flat_map(|count| count.commands.clone()).collect();
        if commands.is_empty() {
            return Interpretation::Complete(self.observed());
        }
        let so_far = Observed::failed("the tasks of a stream were not counted");
        Interpretation::Ask(Box::new(FollowUp { commands, so_far, limit: 0, bounds: Bounds::default() }))
    }

    fn complete(&mut self, _: &QueueSpec, _: FollowUp, reply: Result<Value, String>) -> Interpretation {
        let mut replies = match reply {
            Ok(Value::Array(replies)) => Ok(replies.into_iter()),
            Ok(other) => Err(refusal(&other).unwrap_or_else(|| format!("{other:?}"))),
            Err(error) => Err(error),
        };
        for queue in &mut self.queues {
            let Some(count) = queue.state.as_mut().and_then(|state| state.follow_up.take()) else { continue };
            let own = match &mut replies {
                Ok(replies) => replies.next().ok_or_else(missing),
                Err(error) => Err(error.clone()),
            };
            queue.complete(count, own);
        }
        Interpretation::Complete(self.observed())
    }
}

#[cfg(test)]
mod tests;
