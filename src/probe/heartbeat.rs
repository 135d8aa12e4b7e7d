//! Reads the heartbeats of workers.

use redis::{Cmd, Pipeline, Value};

use crate::{
    model::{Reading, WorkerState, keys},
    queue_kind::reply::{number, refusal, text},
};

/// Maximum keys of one EXISTS, so that other clients wait no longer than for a few HMGET.
const KEYS_OF_EXISTS: usize = 100;

/// The part of a worker's heartbeat that scaling needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// State of the worker.
    pub state: WorkerState,
    /// Open sessions.
    pub sessions: u64,
    /// Places for sessions, if the worker limits its sessions.
    pub places: Option<Places>,
}

/// Room of a worker that limits its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Maximum sessions.
    pub all: u64,
    /// Jobs that may start besides those in progress; `None` if the worker does not report it.
    pub free_slots: Option<u64>,
    /// Jobs that the worker holds and has no place for.
    pub waiting: u64,
}

/// Heartbeats of workers, in the order in which they were asked for; `None` for a worker without one. Each can fail by
/// itself: on a cluster they are on several primaries.
pub type Heartbeats = Reading<Vec<Reading<Option<Heartbeat>>>>;

/// Keys of workers that a probe reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerKeys {
    /// Heartbeats to read.
    pub heartbeats: Vec<String>,
    /// Heartbeats of which only matters whether they all exist, which is cheaper to ask.
    pub existing: Vec<String>,
}

impl WorkerKeys {
    /// Returns the keys of each EXISTS.
    fn slices(&self, is_cluster: bool) -> std::slice::Chunks<'_, String> {
        self.existing.chunks(if is_cluster { 1 } else { KEYS_OF_EXISTS })
    }
}

/// What a probe has read of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadWorkers {
    pub(super) heartbeats: Heartbeats,
    /// Whether each key of which only the existence was asked exists.
    pub(super) all_exist: bool,
}

impl ReadWorkers {
    pub(super) fn failed(why: &str) -> Self {
        Self { heartbeats: Reading::Failed(why.to_owned()), all_exist: false }
    }

    /// Adds the commands that read the workers of a request. Nodes of a cluster refuse commands with keys of several
    /// slots, so `is_cluster` makes a command for each key.
    pub(super) fn add_commands(pipeline: &mut Pipeline, keys: &WorkerKeys, is_cluster: bool) {
        for key in &keys.heartbeats {
            pipeline.add_command(command(key));
        }
        for keys in keys.slices(is_cluster) {
            pipeline.cmd("EXISTS").arg(keys);
        }
    }

    /// Takes the replies to the commands out of those to a pipeline.
    pub(super) fn take(replies: &mut impl Iterator<Item = Value>, keys: &WorkerKeys, is_cluster: bool) -> Self {
        let heartbeats = replies.by_ref().take(keys.heartbeats.len()).map(parse).collect();
        let mut all_exist = true;
        for keys in keys.slices(is_cluster) {
            let count = replies.next().as_ref().and_then(number);
            all_exist &= count == Some(keys.len() as u64);
        }
        Self { heartbeats: Reading::Known(heartbeats), all_exist }
    }
}

/// Returns the command that reads a heartbeat.
fn command(key: &str) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg(keys::STATE_FIELD).arg(keys::SESSIONS_FIELD).arg(keys::PLACES_FIELD);
    command.arg(keys::FREE_SLOTS_FIELD).arg(keys::WAITING_FIELD);
    command
}

/// Returns the heartbeat of a reply; `None` if there is none.
fn parse(value: Value) -> Reading<Option<Heartbeat>> {
    if let Some(error) = refusal(&value) {
        return Reading::Failed(error);
    }
    let Value::Array(fields) = value else { return Reading::Known(None) };
    let Some(state) = fields.first().and_then(text).and_then(WorkerState::parse) else { return Reading::Known(None) };
    let number = |at: usize| fields.get(at).and_then(number);
    let places = number(2).map(|all| Places { all, free_slots: number(3), waiting: number(4).unwrap_or(0) });
    Reading::Known(Some(Heartbeat { state, sessions: number(1).unwrap_or(0), places }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(heartbeats: usize, existing: usize) -> WorkerKeys {
        let keys = |count| (0..count).map(|number| format!("k{number}")).collect();
        WorkerKeys { heartbeats: keys(heartbeats), existing: keys(existing) }
    }

    #[test]
    fn existence_takes_few_commands_and_one_for_each_key_on_a_cluster() {
        for (existing, is_cluster, commands) in [(0, false, 2), (1, false, 3), (201, false, 5), (201, true, 203)] {
            let mut pipeline = Pipeline::new();
            ReadWorkers::add_commands(&mut pipeline, &keys(2, existing), is_cluster);
            assert_eq!(pipeline.cmd_iter().count(), commands, "{existing} keys");
        }
    }

    #[test]
    fn all_exist_if_each_reply_counts_all_its_keys() {
        let none = || Value::Array(vec![Value::Nil; 5]);
        let error = redis::parse_redis_value(b"-NOPERM no\r\n").expect("it is a reply");
        let of = |counts: Vec<Value>| {
            let mut replies = [none()].into_iter().chain(counts).chain([Value::Int(7)]);
            let read = ReadWorkers::take(&mut replies, &keys(1, 150), false);
            assert_eq!(read.heartbeats, Reading::Known(vec![Reading::Known(None)]));
            assert_eq!(replies.next(), Some(Value::Int(7)), "what follows is another reading's");
            read.all_exist
        };
        assert!(of(vec![Value::Int(100), Value::Int(50)]));
        assert!(!of(vec![Value::Int(99), Value::Int(50)]));
        assert!(!of(vec![Value::Int(100), error]));
        assert!(ReadWorkers::take(&mut std::iter::empty(), &keys(0, 0), false).all_exist);
        assert!(!ReadWorkers::take(&mut std::iter::empty(), &keys(0, 1), true).all_exist);
    }
}
