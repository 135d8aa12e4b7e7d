//! Watches: what happened after a version, then what happens, one JSON value a line, with bookmarks; `410 Gone` for a
//! version that is forgotten.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use serde_json::{Value, json};
use tokio::{sync::watch::Receiver, time::timeout};

use super::{
    Server,
    api::Place,
    world::{Change, Refusal, selects},
};

/// Between bookmarks: a minute on a real server.
const BOOKMARK: Duration = Duration::from_millis(500);

struct Watch {
    server: Arc<Server>,
    place: Place,
    selector: String,
    /// Up to where it has told.
    version: u64,
    bookmarks: bool,
    ends: Instant,
    /// Told of every change, and of cuts, by their number.
    news: Receiver<u64>,
    cuts: u64,
    over: bool,
}

/// Answers a watch.
pub(super) fn watch(server: Arc<Server>, place: Place, query: &HashMap<String, String>) -> Response {
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let seconds = text("timeoutSeconds").parse().unwrap_or(290);
    let watch = Watch {
        version: text("resourceVersion").parse().unwrap_or(0),
        selector: text("labelSelector"),
        bookmarks: text("allowWatchBookmarks") == "true",
        ends: Instant::now() + Duration::from_secs(seconds),
        news: server.news(),
        cuts: server.cuts(),
        over: false,
        place,
        server,
    };
    let events = futures_util::stream::unfold(watch, |mut watch| async move {
        let lines = watch.next().await?;
        Some((lines, watch))
    });
    Response::new(Body::from_stream(events))
}

impl Watch {
    /// The next lines; an error cuts the connection, `None` ends it in order.
    async fn next(&mut self) -> Option<Result<String, std::io::Error>> {
        if self.over {
            return None;
        }
        loop {
            if self.server.cuts() != self.cuts {
                self.over = true;
                return Some(Err(std::io::Error::other("cut")));
            }
            if !self.server.holds()
                && let Some(lines) = self.lines()
            {
                return Some(Ok(lines));
            }
            if Instant::now() >= self.ends {
                return None;
            }
            if timeout(BOOKMARK, self.news.changed()).await.is_err() && self.bookmarks && !self.server.holds() {
                return Some(Ok(self.bookmark()));
            }
        }
    }

    /// What has happened since the last look.
    fn lines(&mut self) -> Option<String> {
        let world = self.server.world();
        if self.version < world.forgotten {
            self.over = true;
            let gone = Refusal::new(410, "Expired", format!("too old resource version: {}", self.version));
            return Some(line("ERROR", &gone.status()));
        }
        let news = world.history.iter().filter(|change| {
            change.version > self.version
                && change.key.group == self.place.group
                && change.key.resource == self.place.resource
        });
        let lines: String = news.filter_map(|change| self.told(change)).collect();
        self.version = world.version();
        (!lines.is_empty()).then_some(lines)
    }

    /// A change as this watch's selector sees it: what no longer fits is deleted. (What did not fit before it may be
    /// told of as deleted, too, which a client has to bear.)
    fn told(&self, change: &Change) -> Option<String> {
        match (change.kind, selects(&self.selector, &change.object)) {
            (kind, true) => Some(line(kind, &change.object)),
            ("MODIFIED", false) => Some(line("DELETED", &change.object)),
            (_, false) => None,
        }
    }

    fn bookmark(&self) -> String {
        let kind = if self.place.resource == "pods" { "Pod" } else { "Deployment" };
        let version = self.version.to_string();
        line("BOOKMARK", &json!({ "kind": kind, "apiVersion": "v1", "metadata": { "resourceVersion": version } }))
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}
