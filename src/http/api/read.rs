//! What can be read below `/v1`. All of it comes from memory.

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
    error::{off_thread, refusal},
};
use crate::model::{
    explanation::Explanation,
    history::ScalingEvent,
    snapshot::{FleetSnapshot, TypeSnapshot},
};

/// Worker types in an answer unless more are asked for, and at most.
const TYPES: (usize, usize) = (100, 1_000);

/// Entries of the history in an answer unless more are asked for, and at most.
const EVENTS: (usize, usize) = (50, 500);

/// The answer to a refused request.
#[derive(Serialize, JsonSchema)]
pub(super) struct Failure {
    /// What is wrong and what to do about it.
    error: String,
}

/// Worker types.
#[derive(Serialize, JsonSchema)]
pub(super) struct Types {
    /// How many match.
    matching: usize,
    /// The first of them.
    worker_types: Vec<Arc<TypeSnapshot>>,
}

/// Entries of the history.
#[derive(Serialize, JsonSchema)]
pub(super) struct Events {
    /// Why they may be out of date.
    problem: Option<String>,
    /// Oldest first.
    events: Vec<Arc<ScalingEvent>>,
}

/// The query of [`types`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Matching {
    r#match: String,
    limit: Option<usize>,
}

/// The query of [`events`].
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

/// An answer about one worker type.
fn about(
    fleet: &FleetSnapshot,
    name: &str,
    answer: impl FnOnce(&FleetSnapshot, &TypeSnapshot) -> Response,
) -> Response {
    match fleet.worker_types.iter().find(|of| of.worker_type.as_str() == name) {
        Some(of) => answer(fleet, of),
        None => refusal(
            StatusCode::NOT_FOUND,
            &format!("there is no worker type `{name}`; /v1/worker_types lists those that there are"),
        ),
    }
}
