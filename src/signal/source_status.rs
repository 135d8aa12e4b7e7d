//! The state of the signal sources, for `/readyz`, `/status` and the metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    model::{
        Source,
        snapshot::{SourceSnapshot, SourceState},
    },
    telemetry::SourceChanged,
};

/// The state of the three sources that depend on a Redis server. Written by its listener and its prober.
#[derive(Debug)]
pub struct SourceStatus {
    /// Name of the server for people; `None` for the top-level one.
    server: Option<String>,
    sources: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    shown: SourceSnapshot,
    /// Whether the source is down because the server is away.
    is_lost: bool,
}

impl Default for SourceStatus {
    fn default() -> Self {
        Self::of(None)
    }
}

impl SourceStatus {
    /// Returns the status of the sources on a worker type's own server.
    pub fn of_server(server: String) -> Self {
        Self::of(Some(server))
    }

    fn of(server: Option<String>) -> Self {
        let connecting = |source| {
            let shown = SourceSnapshot { source, state: SourceState::Connecting, detail: String::new() };
            Entry { shown, is_lost: false }
        };
        let sources = [Source::Keyspace, Source::Channel, Source::Tracking].map(connecting).into();
        Self { server, sources: Mutex::new(sources) }
    }

    /// Returns the name of the server for people; `None` for the top-level one.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Sets the state of a source; emits a log line and metrics if it changed.
    pub fn set(&self, source: Source, state: SourceState, detail: impl Into<String>) {
        self.change(source, state, &detail.into(), false);
    }

    /// Records that a source is down because the server is away. On a worker type's own server, the prober's report of
    /// that is the only one, and the same holds for its return.
    pub fn lost(&self, source: Source, error: &str) {
        self.change(source, SourceState::Down, error, true);
    }

    fn change(&self, source: Source, state: SourceState, detail: &str, is_lost: bool) {
        let mut sources = self.sources();
        let Some(entry) = sources.iter_mut().find(|entry| entry.shown.source == source) else { return };
        let was_lost = std::mem::replace(&mut entry.is_lost, is_lost);
        if entry.shown.state == state && entry.shown.detail == detail {
            return;
        }
        entry.shown.state = state;
        detail.clone_into(&mut entry.shown.detail);
        drop(sources);
        if self.server.is_none() || !(was_lost || is_lost) {
            SourceChanged { server: self.server(), source, state, detail }.emit();
        }
    }

    /// Returns whether every change of a queue's keys is a signal now.
    pub fn hears_changes(&self) -> bool {
        let is_heard = |entry: &Entry| entry.shown.source != Source::Channel && entry.shown.state == SourceState::Up;
        self.sources().iter().any(is_heard)
    }

    /// Returns the state of all sources.
    pub fn snapshot(&self) -> Vec<SourceSnapshot> {
        self.sources().iter().map(|entry| entry.shown.clone()).collect()
    }

    fn sources(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
