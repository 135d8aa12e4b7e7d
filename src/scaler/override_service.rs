//! Checks override requests from the command line and over HTTP, writes them to Redis and into the history in one
//! transaction, and notifies running autoscalers. Carries nothing out: `controls` reads the overrides, the policy
//! applies them.

use std::sync::Arc;

use async_trait::async_trait;

use super::{ControlError, Fleet};
use crate::{
    config::Settings,
    connection::RedisTarget,
    model::{
        Source, Timestamp, WorkerType,
        control::{ApplyOverride, Mode, OverrideAction, OverrideError, OverrideRequest},
        keys,
        snapshot::StatusSource,
    },
};

/// Maximum names that a refusal lists.
const NAMED: usize = 20;

/// The worker types, and how many workers each may have.
pub trait WorkerTypeIndex: Send + Sync + 'static {
    /// Returns `min_workers` and `max_workers`; `None` if the worker type does not exist.
    fn bounds(&self, worker_type: &WorkerType) -> Option<(u32, u32)>;

    /// Returns all names.
    fn names(&self) -> Vec<String>;
}

impl WorkerTypeIndex for Settings {
    fn bounds(&self, worker_type: &WorkerType) -> Option<(u32, u32)> {
        let scaling = &self.worker_types.get(worker_type.as_str())?.scaling;
        Some((scaling.min_workers, scaling.max_workers))
    }

    fn names(&self) -> Vec<String> {
        self.worker_types.keys().cloned().collect()
    }
}

impl WorkerTypeIndex for Fleet {
    fn bounds(&self, worker_type: &WorkerType) -> Option<(u32, u32)> {
        // An open window of the schedule raises the minimum that is shown, and a pin takes precedence over the
        // schedule.
        self.configured_bounds(worker_type)
    }

    fn names(&self) -> Vec<String> {
        self.fleet().worker_types.iter().map(|of| of.worker_type.to_string()).collect()
    }
}

/// Applies overrides to the worker types of one Redis.
pub struct OverrideService<R> {
    target: Arc<RedisTarget>,
    index: Arc<R>,
    history: u64,
}

impl<R: WorkerTypeIndex> OverrideService<R> {
    /// Returns a service that accepts the worker types of `index`; the history keeps about `history` entries.
    pub fn new(target: Arc<RedisTarget>, index: Arc<R>, history: u64) -> Self {
        Self { target, index, history }
    }

    /// Returns the names for a refusal: as many as a person reads.
    fn known(&self) -> Vec<String> {
        let mut known = self.index.names();
        let more = known.len().saturating_sub(NAMED);
        if more > 0 {
            known.truncate(NAMED);
            known.push(format!("and {more} more"));
        }
        known
    }

    /// Validates a request. A worker type that does not exist may be resumed, because it may have existed before.
    fn check(&self, request: &OverrideRequest) -> Result<(), OverrideError> {
        let bounds = self.index.bounds(&request.worker_type);
        match (request.action, bounds) {
            (OverrideAction::Resume, _) => Ok(()),
            (_, None) => Err(OverrideError::Unknown { worker_type: request.worker_type.clone(), known: self.known() }),
            (OverrideAction::Scale(workers), Some((min, max))) if !(min..=max).contains(&workers) => {
                Err(OverrideError::OutOfBounds {
                    worker_type: request.worker_type.clone(),
                    workers,
                    bounds: (min, max),
                })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl<R: WorkerTypeIndex> ApplyOverride for OverrideService<R> {
    async fn give(&self, request: &OverrideRequest) -> Result<bool, OverrideError> {
        self.check(request)?;
        let written = write(&self.target, request, self.history).await;
        written.map_err(|error| OverrideError::Unavailable(error.to_string()))
    }
}

/// Carries out a request: stores the override, adds it to the history and notifies all autoscalers, all or nothing.
/// Returns whether an override was in force before. Ending an override that does not exist adds no entry to the
/// history.
///
/// # Errors
/// If Redis can't be asked.
async fn write(target: &RedisTarget, request: &OverrideRequest, history: u64) -> Result<bool, ControlError> {
    let mut connection = target.connect().await?;
    let key = connection.layout().scaler_override(&request.worker_type);
    let existed: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut connection).await?;
    let mode = request.mode();
    if mode.is_none() && !existed {
        return Ok(false);
    }
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("DEL").arg(&key);
    if let Some(mode) = mode {
        let hash = transaction.cmd("HSET").arg(&key).arg("mode").arg(mode.as_str()).arg("by").arg(&request.by);
        hash.arg("why").arg(&request.why);
        if let Mode::Pinned(workers) = mode {
            hash.arg("workers").arg(workers);
        }
        if let Some(lasts) = request.held_for() {
            transaction.cmd("PEXPIRE").arg(&key).arg(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        }
    }
    let decision = mode.map_or("resumed", Mode::as_str);
    transaction.cmd("XADD").arg(keys::SCALING_EVENTS).arg("MAXLEN").arg("~").arg(history).arg("*");
    for (field, value) in [
        ("worker_type", request.worker_type.as_str()),
        ("decision", decision),
        ("timestamp", &Timestamp::wall().0.to_string()),
        ("reason", &in_words(request)),
        ("trigger", Source::Control.as_str()),
        ("outcome", "done"),
        ("by", &request.by),
        ("why", &request.why),
    ] {
        transaction.arg(field).arg(value);
    }
    transaction.cmd("PUBLISH").arg(keys::CONTROL_CHANNEL).arg(request.worker_type.as_str());
    transaction.exec_async(&mut connection).await?;
    Ok(existed)
}

/// Returns the entry's reason: `pinned at 5 by ann@desk for 600 s: a test of the new image`
fn in_words(request: &OverrideRequest) -> String {
    let what = request.mode().map_or_else(|| "resumed".to_owned(), Mode::in_words);
    let lasts = request.held_for().map_or_else(String::new, |lasts| format!(" for {} s", lasts.as_secs()));
    let why = if request.why.is_empty() { String::new() } else { format!(": {}", request.why) };
    format!("{what} by {}{lasts}{why}", request.by)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_history_says_who_what_how_long_and_why() {
        let request = OverrideRequest {
            worker_type: WorkerType::new("browser"),
            action: OverrideAction::Scale(5),
            lasts: Some(Duration::from_secs(600)),
            by: "ann@desk".to_owned(),
            why: "the new image".to_owned(),
        };
        assert_eq!(in_words(&request), "pinned at 5 by ann@desk for 600 s: the new image");
        let end = OverrideRequest { action: OverrideAction::Resume, why: String::new(), ..request };
        assert_eq!(in_words(&end), "resumed by ann@desk");
    }
}
