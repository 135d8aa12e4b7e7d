//! The state of the signal sources, for `/readyz`, `/status` and the metrics.

use std::sync::{Mutex, PoisonError};

use crate::{
    model::{
        Source,
        snapshot::{SourceSnapshot, SourceState},
    },
    telemetry::SourceChanged,
};

/// The state of the three sources that depend on Redis. Written by the listener and the prober.
#[derive(Debug)]
pub struct SourceStatus {
    sources: Mutex<Vec<SourceSnapshot>>,
}

impl Default for SourceStatus {
    fn default() -> Self {
        let connecting = |source| SourceSnapshot { source, state: SourceState::Connecting, detail: String::new() };
        let sources = [Source::Keyspace, Source::Channel, Source::Tracking].map(connecting).to_vec();
        Self { sources: Mutex::new(sources) }
    }
}

impl SourceStatus {
    /// Sets the state of a source; emits a log line and metrics if it changed.
    pub fn set(&self, source: Source, state: SourceState, detail: impl Into<String>) {
        let detail = detail.into();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = sources.iter_mut().find(|entry| entry.source == source) else { return };
        if entry.state == state && entry.detail == detail {
            return;
        }
        entry.state = state;
        entry.detail.clone_from(&detail);
        drop(sources);
        SourceChanged { source, state, detail: &detail }.emit();
    }

    /// Returns whether every change of a queue's keys is a signal now.
    pub fn hears_changes(&self) -> bool {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().any(|entry| entry.source != Source::Channel && entry.state == SourceState::Up)
    }

    /// Returns the state of all sources.
    pub fn snapshot(&self) -> Vec<SourceSnapshot> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
