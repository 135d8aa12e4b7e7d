//! The read operations below `/v1`. All of them answer from memory.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{
    Served,
    error::{no_worker_type, off_thread, refusal},
};
use crate::model::{
    explanation::Explanation,
    history::ScalingEvent,
    snapshot::{FleetSnapshot, TypeSnapshot},
};

/// Default and maximum worker types in an answer.
const TYPES: (usize, usize) = (100, 1_000);

/// Default and maximum entries of the history in an answer.
const EVENTS: (usize, usize) = (50, 500);

/// Answer to a refused request.
#[derive(Serialize, JsonSchema)]
pub(super) struct Failure {
    /// What is wrong, and what to do about it.
    error: String,
}

/// A list of worker types.
#[derive(Serialize, JsonSchema)]
pub(super) struct Types {
    /// Number of matching worker types.
    matching: usize,
    /// The first of them.
    worker_types: Vec<Arc<TypeSnapshot>>,
}

/// Entries of the history.
#[derive(Serialize, JsonSchema)]
pub(super) struct Events {
    /// Why the entries may be out of date; `null` while they are current.
    problem: Option<String>,
    /// Entries, oldest first.
    events: Vec<Arc<ScalingEvent>>,
}

/// Query of [`types`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Matching {
    r#match: String,
    limit: Option<usize>,
}

/// Query of [`events`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Newest {
    r#type: Option<String>,
    count: Option<usize>,
}

type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) async fn status(State(served): State<Served>) -> Response {
    off_thread(move || Json(served.status.fleet()).into_response()).await
}

pub(super) async fn types(State(served): State<Served>, asked: Asked<Matching>) -> Response {
    let Matching { r#match: text, limit } = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    off_thread(move || {
        let mut found = served.status.fleet().worker_types;
        found.retain(|of| {
            let mut shown = of.queues.iter().flat_map(|queues| &queues.shown);
            of.worker_type.as_str().contains(&text)
                || of.queue.contains(&text)
                || shown.any(|one| one.queue.contains(&text))
        });
        let matching = found.len();
        found.truncate(limit.unwrap_or(TYPES.0).min(TYPES.1));
        Json(Types { matching, worker_types: found }).into_response()
    })
    .await
}

pub(super) async fn worker_type(State(served): State<Served>, Path(name): Path<String>) -> Response {
    off_thread(move || about(&served.status.fleet(), &name, |_, of| Json(of).into_response())).await
}

pub(super) async fn why(State(served): State<Served>, Path(name): Path<String>) -> Response {
    off_thread(move || {
        about(&served.status.fleet(), &name, |fleet, of| Json(Explanation::of(of, fleet)).into_response())
    })
    .await
}

pub(super) async fn events(State(served): State<Served>, asked: Asked<Newest>) -> Response {
    let Newest { r#type: worker_type, count } = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    off_thread(move || {
        let count = count.unwrap_or(EVENTS.0).min(EVENTS.1);
        let events = served.events.newest(count, worker_type.as_deref());
        Json(Events { problem: served.events.problem(), events }).into_response()
    })
    .await
}

/// Returns the answer about one worker type; a refusal if it does not exist.
fn about(
    fleet: &FleetSnapshot,
    name: &str,
    answer: impl FnOnce(&FleetSnapshot, &TypeSnapshot) -> Response,
) -> Response {
    match fleet.worker_type(name) {
        Some(of) => answer(fleet, of),
        None => no_worker_type(name),
    }
}
