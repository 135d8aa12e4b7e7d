//! Room for sessions: finds a worker that has room, and passes a job on to it when this worker has no place.

use std::collections::BTreeMap;

use redis::{FromRedisValue, Value};

use super::{SessionClaims, script, steps::HAND_OVER};
use crate::{
    broker::{BrokerError, Consumer},
    connection::Connection,
    model::{WorkerId, keys},
};

/// Maximum workers that are asked in one step.
const MAX_ASKED: usize = 200;

impl SessionClaims {
    /// Passes an entry that was delivered to this worker on to another one. Returns `false` if the entry is no longer
    /// this worker's.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn pass_on(
        &self,
        connection: &mut Connection,
        consumer: &Consumer,
        (entry, number): (&str, u32),
        to: &WorkerId,
    ) -> Result<bool, BrokerError> {
        let failed = |cause| BrokerError::new(format!("pass entry {entry} on to `{to}`"), cause);
        let mut hand_over = script(HAND_OVER, &[&consumer.stream]);
        hand_over.arg(&consumer.group).arg(&consumer.name).arg(entry).arg(number).arg(to.as_str());
        let given: bool = hand_over.query_async(connection).await.map_err(failed)?;
        if given {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(keys::control(&self.worker_type, to)).arg(self.handed_over(consumer));
            // Without the message, the other worker finds the entry with its next search.
            if let Err(error) = publish.exec_async(connection).await {
                tracing::debug!(%error, worker = %to, "a worker could not be told that it was given a job");
            }
        }
        Ok(given)
    }

    /// Returns the worker of the group with the most room for further sessions, other than this one; `None` if none has
    /// room.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn with_room(
        &self,
        connection: &mut Connection,
        consumer: &Consumer,
    ) -> Result<Option<WorkerId>, BrokerError> {
        let failed = |cause| BrokerError::new("look for a worker with room", cause);
        let mut ask = redis::cmd("XINFO");
        ask.arg("CONSUMERS").arg(&consumer.stream).arg(&consumer.group);
        let consumers: Vec<BTreeMap<String, Value>> = ask.query_async(connection).await.map_err(failed)?;
        let mut others: Vec<(u64, String)> = consumers.into_iter().filter_map(consumer_of).collect();
        others.retain(|(_, name)| name != self.id.as_str());
        // Workers that were active last come first: a live worker reads every few seconds.
        others.sort();
        let others: Vec<WorkerId> = others.into_iter().take(MAX_ASKED).map(|(_, name)| WorkerId::new(name)).collect();
        if others.is_empty() {
            return Ok(None);
        }
        let mut heartbeats = redis::pipe();
        for worker in &others {
            let key = keys::heartbeat(&self.worker_type, worker);
            for field in [
                keys::STATE_FIELD,
                keys::PLACES_FIELD,
                keys::SESSIONS_FIELD,
                keys::FREE_SLOTS_FIELD,
                keys::WAITING_FIELD,
            ] {
                heartbeats.cmd("HGET").arg(&key).arg(field);
            }
        }
        let told: Vec<Option<String>> = heartbeats.query_async(connection).await.map_err(failed)?;
        let room = told.chunks_exact(5).map(room);
        let best = others.into_iter().zip(room).filter(|(_, room)| *room > 0).max_by_key(|(_, room)| *room);
        Ok(best.map(|(worker, _)| worker))
    }
}

/// Returns a consumer's idle time, in milliseconds, and its name.
fn consumer_of(mut fields: BTreeMap<String, Value>) -> Option<(u64, String)> {
    let name = String::from_redis_value(fields.remove("name")?).ok()?;
    let idle = fields.remove("idle").and_then(|idle| u64::from_redis_value(idle).ok());
    Some((idle.unwrap_or(u64::MAX), name))
}

/// Returns how many more sessions a worker can open now, from its state, places, sessions, free slots and waiting jobs.
fn room(heartbeat: &[Option<String>]) -> u64 {
    let [state, numbers @ ..] = heartbeat else { return 0 };
    let takes_jobs = matches!(state.as_deref(), Some("IDLE" | "WAITING" | "BUSY"));
    let number = |at: usize| numbers.get(at)?.as_deref()?.parse::<u64>().ok();
    let (Some(places), Some(sessions), Some(free_slots)) = (number(0), number(1), number(2)) else { return 0 };
    let free = places.saturating_sub(sessions).saturating_sub(number(3).unwrap_or(0));
    if takes_jobs && free_slots > 0 { free } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_room_if_it_has_a_place_and_a_slot_and_takes_jobs() {
        for (heartbeat, expected) in [
            ([Some("IDLE"), Some("8"), Some("3"), Some("2"), Some("0")], 5),
            ([Some("BUSY"), Some("8"), Some("3"), Some("2"), Some("4")], 1),
            ([Some("BUSY"), Some("8"), Some("3"), Some("0"), Some("0")], 0),
            ([Some("WAITING"), Some("8"), Some("8"), Some("2"), Some("0")], 0),
            ([Some("DRAINING"), Some("8"), Some("0"), Some("2"), Some("0")], 0),
            ([Some("IDLE"), None, Some("0"), Some("2"), Some("0")], 0),
            ([None; 5], 0),
        ] {
            assert_eq!(room(&heartbeat.map(|field| field.map(str::to_owned))), expected, "{heartbeat:?}");
        }
    }
}
