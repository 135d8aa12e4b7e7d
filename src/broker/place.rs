//! The stream and the group that have the jobs of a type, and who reads them; and all places where a job can be whose
//! type is not known: every stream of the configured worker types, those found by patterns included, and the stream of
//! the other types.

use std::collections::BTreeSet;

use super::{Beside, BrokerError, Routes, find_beside, find_queues};
use crate::{
    config::Settings,
    connection::Connection,
    model::{QueuePattern, Queues, WorkerId, WorkerType, keys},
};

/// Maximum queues of one worker type that are found by patterns.
const MAX_FOUND: usize = 100_000;

/// Where the unanswered jobs are.
#[derive(Debug)]
pub struct Place {
    /// Worker type that reads the stream; `None` if no configured type does.
    pub(super) worker_type: Option<String>,
    /// Whether the jobs are on another stream than routing would choose.
    pub(super) is_elsewhere: bool,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) job_max_bytes: usize,
}

impl Place {
    /// Returns the place of jobs of that type which are on `stream`.
    pub fn of(settings: &Settings, routes: &Routes, job_type: &str, stream: &str) -> Self {
        let worker_type = routes.reader(job_type, stream).map(str::to_owned);
        let is_elsewhere = routes.stream(job_type).ok() != Some(stream);
        let configured = worker_type.as_ref().and_then(|name| Some(settings.worker_types.get(name)?.group(name)));
        let group = configured.unwrap_or_else(|| keys::DEFAULT_STREAM_GROUP.to_owned());
        let job_max_bytes = settings.broker.job_max_bytes();
        Self { worker_type, is_elsewhere, stream: stream.to_owned(), group, job_max_bytes }
    }

    /// Returns all places.
    ///
    /// # Errors
    /// If queues can't be searched for.
    pub(super) async fn all(
        connection: &Connection,
        settings: &Settings,
        routes: &Routes,
    ) -> Result<Vec<Self>, BrokerError> {
        let job_max_bytes = settings.broker.job_max_bytes();
        let mut places: Vec<Self> = Vec::new();
        let types = settings.worker_types.iter().filter(|(_, of)| of.queue_kind().is_native());
        let types: Vec<_> = types.map(|(name, of)| (name, of, of.queues(name))).collect();
        let queues: Vec<&Queues> = types.iter().map(|(_, _, queues)| queues).collect();
        let patterns: Vec<&[QueuePattern]> = queues.iter().map(|queues| queues.patterns.as_slice()).collect();
        let existing = find_queues(connection, &queues, MAX_FOUND).await?;
        let delayed = find_beside(connection, &patterns, Beside::Delayed, MAX_FOUND).await?;
        for ((name, of, queues), found) in types.iter().zip(existing.into_iter().zip(delayed)) {
            let named = queues.named().map(str::to_owned);
            let streams: BTreeSet<String> = named.chain(found.0).chain(found.1).collect();
            places.extend(streams.into_iter().map(|stream| Self {
                worker_type: Some((*name).clone()),
                is_elsewhere: false,
                stream,
                group: of.group(name),
                job_max_bytes,
            }));
        }
        let stream = routes.default_stream().to_owned();
        if places.iter().all(|place| place.stream != stream) {
            let group = keys::DEFAULT_STREAM_GROUP.to_owned();
            places.push(Self { worker_type: None, is_elsewhere: false, stream, group, job_max_bytes });
        }
        Ok(places)
    }

    /// Returns the heartbeat key of one of its workers.
    pub(super) fn heartbeat(&self, worker: &str) -> String {
        keys::heartbeat(&self.workers(), &WorkerId::new(worker))
    }

    /// Returns the type of the workers that read the stream. Without a configured type, the name of the group is the
    /// best guess.
    pub(super) fn workers(&self) -> WorkerType {
        WorkerType::new(self.worker_type.as_deref().unwrap_or(&self.group))
    }
}

/// Passes over a place that this user may not look at, and says so.
///
/// # Errors
/// The other errors.
pub(super) fn permitted<T>(place: &Place, seen: Result<T, BrokerError>) -> Result<Option<T>, BrokerError> {
    match seen {
        Err(error) if error.is_denied() => {
            tracing::info!(stream = place.stream, %error, "passing over a queue");
            Ok(None)
        }
        seen => seen.map(Some),
    }
}
