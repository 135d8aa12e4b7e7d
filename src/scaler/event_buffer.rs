//! The newest entries of `scaling:events` in memory, for all readers: however many there are, one task asks Redis. A
//! failed read is retried; until then the buffer shows the earlier entries, with the reason.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::{EventTail, HistoryError, recent_events};
use crate::{
    connection::{RedisTarget, backoff},
    model::history::{EventSource, ScalingEvent},
};

/// Entries that are kept: some hundred kilobytes, and more than a person scrolls through.
const KEPT: usize = 500;

/// The newest entries.
#[derive(Debug)]
pub struct EventBuffer {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Arc<ScalingEvent>>,
    problem: Option<String>,
}

impl Default for EventBuffer {
    fn default() -> Self {
        let state = State { events: VecDeque::new(), problem: Some("not read yet".to_owned()) };
        Self { state: Mutex::new(state) }
    }
}

impl EventBuffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, events: Vec<ScalingEvent>) {
        let mut state = self.state();
        state.events.extend(events.into_iter().map(Arc::new));
        let surplus = state.events.len().saturating_sub(KEPT);
        state.events.drain(..surplus);
        state.problem = None;
    }

    /// Follows the stream until cancelled.
    pub async fn follow(self: Arc<Self>, target: Arc<RedisTarget>, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.keep_up(&target)).await;
    }

    async fn keep_up(&self, target: &Arc<RedisTarget>) {
        let mut pauses = backoff();
        let mut told = false;
        let mut tail: Option<EventTail> = None;
        loop {
            match self.step(target, &mut tail).await {
                Ok(()) => (pauses, told) = (backoff(), false),
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!("history could not be read, the shown entries may be out of date: {error}");
                    }
                    self.state().problem = Some(error.to_string());
                    tokio::time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }

    /// Reads once; the first read looks back.
    async fn step(&self, target: &Arc<RedisTarget>, tail: &mut Option<EventTail>) -> Result<(), HistoryError> {
        if let Some(tail) = tail {
            self.add(tail.next().await?);
        } else {
            let recent = recent_events(target, KEPT, None).await?;
            *tail = Some(EventTail::new(target.clone(), recent.end));
            self.add(recent.events);
        }
        Ok(())
    }
}

impl EventSource for EventBuffer {
    fn newest(&self, count: usize, worker_type: Option<&str>) -> Vec<Arc<ScalingEvent>> {
        let state = self.state();
        let wanted = state.events.iter().rev().filter(|event| worker_type.is_none_or(|name| event.worker_type == name));
        let mut newest: Vec<_> = wanted.take(count).cloned().collect();
        newest.reverse();
        newest
    }

    fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_given_oldest_first() {
        let buffer = EventBuffer::default();
        assert!(buffer.problem().is_some());
        let event = |number: usize| ScalingEvent {
            id: number.to_string(),
            worker_type: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            ..ScalingEvent::default()
        };
        buffer.add((0..KEPT + 3).map(event).collect());
        let ids = |events: Vec<Arc<ScalingEvent>>| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(buffer.newest(2, None)), ["501", "502"]);
        assert_eq!(ids(buffer.newest(2, Some("odd"))), ["499", "501"]);
        assert_eq!((buffer.newest(usize::MAX, None).len(), buffer.problem()), (KEPT, None));
    }
}
