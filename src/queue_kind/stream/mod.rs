//! A Redis stream that workers read through a consumer group: the queue of swarm's own workers. The group remembers
//! which worker holds which job.
//!
//! XINFO STREAM and XRANGE return whole entries. So a read-only script, which returns numbers and ids, counts the
//! backlog, and after a large entry was seen, a script does the regular reading as well. Within the server a script
//! copies entries, too, so entries that were counted are not counted again.

mod lag;
mod replies;
mod scripts;

use redis::{Cmd, Value};

use self::lag::{Count, RawStream, Sight, StreamMemory};
use super::{
    Delivery, FollowUp, Interpretation, Observed, Profile, QueueReader, QueueSpec, Scripts, explain,
    reply::{missing, refusal},
};

pub use self::replies::group_position;

/// Bytes from which an entry is large and is not read over the wire again.
const LARGE_ENTRY_BYTES: u32 = 4 * 1024;

/// Bytes of the first entry for each consumer from which a script leaves the last entry out and gets the consumers
/// instead: both take about as long.
const BYTES_PER_CONSUMER: u64 = 2 * 1024;

/// Bytes of entries that one count copies within the server, at least one entry: about a millisecond of its time.
const COUNT_BYTES: u64 = 1024 * 1024;

/// Bytes of entries that one count reads over the wire where scripts are refused.
const COUNT_WIRE_BYTES: u64 = 256 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Stream;

impl Profile for Stream {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn redis_type(&self) -> &'static str {
        "stream"
    }

    fn event_flags(&self) -> &'static str {
        "t"
    }

    fn arrival_events(&self) -> &'static [&'static str] {
        &["xadd"]
    }

    fn delivery(&self) -> Delivery {
        Delivery::ConsumerGroup
    }

    fn is_native(&self) -> bool {
        true
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("XINFO").arg("STREAM").arg(key).to_owned()
    }

    fn reader(&self, _: &QueueSpec) -> Box<dyn QueueReader> {
        Box::new(StreamReader::default())
    }

    fn rights(&self, group: &str) -> Vec<(&'static str, Vec<String>)> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        vec![
            ("xinfo|groups", Vec::new()),
            ("xinfo|stream", Vec::new()),
            ("xpending", words(&[group])),
            ("xrange", words(&["-", "+", "COUNT", "1"])),
        ]
    }
}

/// Reads one stream, and keeps the state that corrects phantom lag.
#[derive(Debug, Default)]
struct StreamReader {
    memory: StreamMemory,
}

impl StreamReader {
    /// Returns the command that counts, and the maximum number of entries that it returns.
    fn count(&self, key: &str, count: Count, scripts: Scripts) -> (Cmd, u64) {
        let after = format!("({}", count.after);
        if let Some(mut command) = scripts.command(scripts::COUNT, key) {
            command.arg(after).arg(count.limit).arg(COUNT_BYTES).arg(self.memory.entry_bytes());
            return (command, count.limit);
        }
        let limit = (COUNT_WIRE_BYTES / u64::from(self.memory.entry_bytes().max(1))).clamp(1, count.limit);
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg(after).arg("+").arg("COUNT").arg(limit);
        (command, limit)
    }
}

impl QueueReader for StreamReader {
    fn commands(&mut self, spec: &QueueSpec, scripts: Scripts) -> Vec<Cmd> {
        let key = &*spec.key;
        let script = Some(scripts).filter(|_| self.has_large_entries());
        let mut summary = script.and_then(|scripts| scripts.command(scripts::SUMMARY, key));
        if let Some(summary) = &mut summary {
            summary.arg(if self.leaves_last_entry_out() { "first" } else { "both" });
        }
        vec![
            // The first command arms client-side caching, which a script does not do on every server.
            redis::cmd("XINFO").arg("GROUPS").arg(key).to_owned(),
            summary.unwrap_or_else(|| Stream.content(key)),
            redis::cmd("XPENDING").arg(key).arg(&*spec.group).to_owned(),
        ]
    }

    fn interpret(&mut self, spec: &QueueSpec, replies: Vec<Value>, scripts: Scripts) -> Interpretation {
        let mut replies = replies.into_iter();
        let mut next = || replies.next().ok_or_else(missing);
        let group = next().and_then(|value| replies::group(value, &spec.group));
        let stream = next();
        let is_scripted = scripts != Scripts::Refused && self.has_large_entries();
        self.memory.consumers = group.as_ref().map_or(0, |(_, consumers)| *consumers);
        if is_scripted && stream.as_ref().ok().and_then(refusal).is_some_and(|error| is_script_refusal(&error)) {
            return Interpretation::ScriptRefused;
        }
        let stream = stream.and_then(replies::stream);
        let consumers = next().and_then(replies::pending);
        let raw = RawStream { stream, group: group.map(|(group, _)| group), consumers };
        match lag::look(raw, &spec.key, &mut self.memory) {
            Sight::Clear(observed) => Interpretation::Complete(self.warned(observed)),
            Sight::Count(count, so_far) => {
                let (command, limit) = self.count(&spec.key, count, scripts);
                Interpretation::Ask(Box::new(FollowUp { commands: vec![command], so_far, limit, bounds: count.bounds }))
            }
        }
    }

    fn complete(&mut self, spec: &QueueSpec, follow_up: FollowUp, reply: Result<Value, String>) -> Interpretation {
        let FollowUp { so_far, limit, bounds, .. } = follow_up;
        let backlog = match reply.map(|value| (refusal(&value), value)) {
            Ok((Some(error), _)) if is_script_refusal(&error) => return Interpretation::ScriptRefused,
            Ok((_, value)) => replies::counted(value, limit).map_err(|error| explain(&spec.key, &error)),
            Err(error) => Err(error),
        };
        let observed = lag::complete(backlog, bounds, so_far, &mut self.memory);
        Interpretation::Complete(self.warned(observed))
    }
}

impl StreamReader {
    fn has_large_entries(&self) -> bool {
        self.memory.entry_bytes() >= LARGE_ENTRY_BYTES
    }

    /// Returns whether the script reads only the first entry. If that is small, the script reads the last one as well,
    /// which shows when there are no large entries any more.
    fn leaves_last_entry_out(&self) -> bool {
        let StreamMemory { first_bytes, consumers, .. } = self.memory;
        first_bytes >= LARGE_ENTRY_BYTES && u64::from(first_bytes) >= BYTES_PER_CONSUMER * u64::from(consumers)
    }

    /// Adds a warning, once, that ages are unknown because the ids are not times.
    fn warned(&mut self, mut observed: Observed) -> Observed {
        let is_odd = observed.demand.oldest.why_not() == Some(lag::NO_TIMES);
        if is_odd && !std::mem::replace(&mut self.memory.warned, true) {
            observed.warning = Some("entry ids of the stream are not times: the age of its jobs is unknown");
        }
        observed
    }
}

/// Returns whether the server refuses scripts, or this way to send them: it does not know the command, or does not
/// permit it. If a command within the script is not permitted, the plain commands report that.
fn is_script_refusal(error: &str) -> bool {
    error.contains("unknown command") || error.starts_with("NOPERM")
}

#[cfg(test)]
mod tests;
