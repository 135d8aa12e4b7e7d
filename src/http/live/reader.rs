//! One reader of the stream: what it knows already, and its next message.

use std::{collections::HashMap, fmt::Write, sync::Arc, time::Duration};

use axum::response::sse::Event;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Following, GAP, Live,
    frame::{Frame, Row, View},
};
use crate::model::{Timestamp, WorkerType};

/// Longest time without a message, so that a reader can tell a quiet fleet from a dead connection.
const SILENCE: Duration = Duration::from_secs(5);

/// Time after which a browser reconnects after the connection was lost.
const RETRY: Duration = Duration::from_secs(1);

/// What one reader knows.
pub(super) struct Reader {
    live: Arc<Live>,
    /// The worker type that the reader follows alone; `None`: the whole fleet.
    only: Option<Following>,
    frames: watch::Receiver<Arc<Frame>>,
    ending: CancellationToken,
    greeted: bool,
    fleet: Option<Arc<str>>,
    rows: HashMap<WorkerType, Arc<Row>>,
    last_entry: Option<String>,
    /// Released when the reader leaves.
    _seat: OwnedSemaphorePermit,
}

impl Reader {
    /// Returns a reader of the fleet, or of one worker type.
    pub(super) fn new(
        live: &Arc<Live>,
        only: Option<WorkerType>,
        seat: OwnedSemaphorePermit,
        ending: CancellationToken,
    ) -> Self {
        let only = only.map(|worker_type| Following::new(live, worker_type));
        let mut frames = live.frames.subscribe();
        if frames.borrow().made.is_some_and(|made| made.elapsed() < GAP * 2) {
            frames.mark_changed();
        } else {
            live.wanted.notify_one();
        }
        let (greeted, fleet, rows, last_entry) = Default::default();
        Self { live: Arc::clone(live), only, frames, ending, greeted, fleet, rows, last_entry, _seat: seat }
    }

    /// Returns the next message; `None` when the server ends.
    pub(super) async fn next(&mut self) -> Option<Event> {
        let message = loop {
            tokio::select! {
                () = self.ending.cancelled() => return None,
                changed = self.frames.changed() => changed.ok()?,
                () = tokio::time::sleep(SILENCE) => {}
            }
            let frame = self.frames.borrow_and_update().clone();
            let only = self.only.as_ref().map(|only| &only.worker_type);
            // A frame that was begun before this reader came does not have its worker type: the next one does.
            if let Some(view) = frame.view(only) {
                break self.message(&frame, view);
            }
        };
        let event = Event::default().data(message);
        Some(if std::mem::replace(&mut self.greeted, true) { event } else { event.retry(RETRY) })
    }

    /// Returns what is new in `frame`. `now` is always present, the rest only if it has changed.
    fn message(&mut self, frame: &Frame, view: &View) -> String {
        let mut message = format!("{{\"now\":{}", Timestamp::wall().0);
        if !self.greeted {
            message.push_str(",\"first\":true");
        }
        if !self.fleet.as_ref().is_some_and(|fleet| Arc::ptr_eq(fleet, &frame.fleet)) {
            self.fleet = Some(frame.fleet.clone());
            append(&mut message, "fleet", &frame.fleet);
        }
        self.append_rows(&mut message, view);
        let known = |last: &String| view.entries.iter().position(|entry| entry.event.id == *last);
        let from = self.last_entry.as_ref().and_then(known).map_or(0, |at| at + 1);
        let entries: Vec<_> = view.entries[from..].iter().map(|entry| entry.json.as_str()).collect();
        if let Some(last) = view.entries.last() {
            self.last_entry = Some(last.event.id.clone());
        }
        if !entries.is_empty() {
            append(&mut message, "events", &format!("[{}]", entries.join(",")));
        }
        message.push('}');
        message
    }

    fn append_rows(&mut self, message: &mut String, view: &View) {
        let (mut changed, mut curves) = (Vec::new(), Vec::new());
        for row in &view.rows {
            match self.rows.insert(row.worker_type().clone(), Arc::clone(row)) {
                Some(before) if Arc::ptr_eq(&before, row) => {}
                Some(_) => changed.push(row.json.as_str()),
                None => {
                    changed.push(row.json.as_str());
                    curves.push(row.worker_type());
                }
            }
        }
        if !changed.is_empty() {
            append(message, "types", &format!("[{}]", changed.join(",")));
        }
        if !curves.is_empty() {
            let curves = self.live.trace().json(&curves);
            append(message, "curves", &curves);
        }
        if self.rows.len() > view.rows.len() {
            let shown: std::collections::HashSet<_> = view.rows.iter().map(|row| row.worker_type()).collect();
            let gone: Vec<_> = self.rows.keys().filter(|name| !shown.contains(name)).cloned().collect();
            self.rows.retain(|name, _| !gone.contains(name));
            append(message, "gone", &serde_json::json!(gone).to_string());
        }
    }
}

fn append(message: &mut String, key: &str, json: &str) {
    // Writing to a String can't fail.
    let _ = write!(message, ",\"{key}\":{json}");
}
