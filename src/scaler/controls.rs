//! Overrides that people set for worker types. They are kept in Redis, so that they hold for every leader and outlive
//! restarts.
//!
//! `override_service` writes overrides; [`ControlWatch`] is notified and keeps [`Controls`], from which actors read.
//! Decides nothing: the policy defines what an override does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Connection, ConnectionError, RedisTarget, any_exists, backoff},
    model::{
        Clock, Source, Timestamp, WorkerType,
        control::{Control, Mode},
        keys,
    },
    signal::Directories,
};

/// Worker types read in one round trip.
const BATCH: usize = 500;

/// Time between two reads without a notification: bounds how long a lost message goes unnoticed.
const READ_EVERY: Duration = Duration::from_secs(30);

/// The overrides in force, by worker type. Written by the watch, read by actors.
#[derive(Debug, Default)]
pub struct Controls {
    table: Mutex<HashMap<WorkerType, Arc<Control>>>,
}

impl Controls {
    /// Returns the override of a worker type. It may have ended: ask [`Control::holds_at`].
    pub fn of(&self, worker_type: &WorkerType) -> Option<Arc<Control>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).get(worker_type).cloned()
    }

    /// Stores what was read. Returns the worker types whose override changed.
    fn replace(&self, read: HashMap<WorkerType, Arc<Control>>) -> Vec<WorkerType> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = |name: &WorkerType| match (table.get(name), read.get(name)) {
            (Some(before), Some(now)) => !is_same(before, now),
            (before, now) => before.is_some() != now.is_some(),
        };
        let keys = table.keys().chain(read.keys()).filter(|name| changed(name));
        let mut news: Vec<WorkerType> = keys.cloned().collect();
        news.sort_unstable();
        news.dedup();
        *table = read;
        news
    }
}

/// Compares two readings of an override. The end is read as a remaining time, so two readings differ slightly.
fn is_same(one: &Control, other: &Control) -> bool {
    let almost = |one: Timestamp, other: Timestamp| one.0.abs_diff(other.0) < 1_000;
    (one.mode, &one.by, &one.why) == (other.mode, &other.by, &other.why)
        && match (one.until, other.until) {
            (Some(one), Some(other)) => almost(one, other),
            (one, other) => one == other,
        }
}

/// Keeps [`Controls`] in step with Redis.
pub struct ControlWatch {
    target: Arc<RedisTarget>,
    directories: Arc<Directories>,
    controls: Arc<Controls>,
    clock: Clock,
    connection: Option<Connection>,
    told: Arc<Notify>,
}

/// Why overrides can't be read or set.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    /// Redis refused a command, or went away.
    #[error("`scaler:override:*` can't be used ({0}); give the redis user the rights listed in docs/redis.md")]
    Redis(#[from] redis::RedisError),
}

impl ControlWatch {
    /// Returns a watch for the worker types of the directories.
    pub fn new(target: Arc<RedisTarget>, directories: Arc<Directories>, controls: Arc<Controls>, clock: Clock) -> Self {
        Self { target, directories, controls, clock, connection: None, told: Arc::default() }
    }

    /// Reads all overrides once, and wakes the worker types whose override changed.
    ///
    /// # Errors
    /// If Redis can't be asked. The previous overrides then stay in force.
    pub async fn read(&mut self) -> Result<(), ControlError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let directories = self.directories.clone();
        let worker_types: Vec<&WorkerType> = directories.worker_types().collect();
        let mut read = HashMap::new();
        for batch in worker_types.chunks(BATCH) {
            // Most worker types never have an override.
            let layout = connection.layout();
            let names = batch.iter().map(|worker_type| layout.scaler_override(worker_type));
            if !any_exists(&mut connection, names).await {
                continue;
            }
            let mut pipeline = redis::pipe();
            for worker_type in batch {
                let key = layout.scaler_override(worker_type);
                pipeline.cmd("HMGET").arg(&key).arg(&["mode", "workers", "by", "why"]).cmd("PTTL").arg(&key);
            }
            let replies = connection.each(&pipeline).await?;
            for (worker_type, reply) in batch.iter().zip(replies.chunks(2)) {
                if let [fields, left] = reply
                    && let Some(control) = self.control(fields, left)?
                {
                    read.insert(WorkerType::clone(worker_type), Arc::new(control));
                }
            }
        }
        self.connection = Some(connection);
        for worker_type in self.controls.replace(read) {
            self.directories.post(&worker_type, Source::Control);
        }
        Ok(())
    }

    fn control(&self, fields: &Value, left: &Value) -> RedisResult<Option<Control>> {
        type Fields = (Option<String>, Option<String>, Option<String>, Option<String>);
        let (mode, workers, by, why): Fields = FromRedisValue::from_redis_value_ref(fields)?;
        let left: i64 = FromRedisValue::from_redis_value_ref(left)?;
        let workers = workers.and_then(|workers| workers.parse().ok());
        let Some(mode) = mode.and_then(|mode| Mode::parse(&mode, workers)) else { return Ok(None) };
        let until = u64::try_from(left).ok().map(|left| self.clock.now().after(Duration::from_millis(left)));
        Ok(Some(Control { mode, until, by: by.unwrap_or_default(), why: why.unwrap_or_default() }))
    }

    /// Subscribes before the read that follows, so that no change falls in between.
    async fn connect(&self) -> Result<Connection, ControlError> {
        let told = self.told.clone();
        let push = move |push: PushInfo| {
            if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                told.notify_one();
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let mut connection = self.target.connect_with_push(push).await?;
        connection.subscribe(keys::CONTROL_CHANNEL).await?;
        Ok(connection)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut pauses = backoff();
        let mut next = READ_EVERY;
        let mut failing = false;
        loop {
            let told = self.told.clone();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = told.notified(), if !failing => {}
                () = tokio::time::sleep(next) => {}
            }
            match self.read().await {
                Ok(()) => (pauses, next, failing) = (backoff(), READ_EVERY, false),
                Err(error) => {
                    if !failing {
                        tracing::warn!("overrides could not be read, the last ones stay in force: {error}");
                    }
                    (next, failing) = (pauses.next().unwrap_or(READ_EVERY), true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn control(mode: Mode, until: Option<u64>) -> Arc<Control> {
        Arc::new(Control { mode, until: until.map(Timestamp), by: "ann@desk".to_owned(), why: String::new() })
    }

    #[test]
    fn only_what_changed_is_news() {
        let controls = Controls::default();
        let [one, two] = ["one", "two"].map(WorkerType::new);
        let read = |entries: &[(&WorkerType, Arc<Control>)]| {
            entries.iter().map(|(name, control)| ((*name).clone(), control.clone())).collect()
        };
        let (paused, pinned) = (control(Mode::Paused, None), control(Mode::Pinned(3), Some(60_000)));
        assert_eq!(controls.replace(read(&[(&one, paused.clone()), (&two, pinned)])), [one.clone(), two.clone()]);
        // The same end, read a little later.
        let pinned = control(Mode::Pinned(3), Some(60_003));
        assert_eq!(controls.replace(read(&[(&one, paused.clone()), (&two, pinned)])), []);
        let longer = control(Mode::Pinned(3), Some(120_000));
        assert_eq!(controls.replace(read(&[(&one, paused), (&two, longer)])), std::slice::from_ref(&two));
        assert_eq!(controls.replace(HashMap::new()), [one.clone(), two]);
        assert_eq!(controls.of(&one), None);
    }
}
