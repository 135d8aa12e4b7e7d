//! The dead letters of a worker type over HTTP: reading them in pages, retrying and dropping them. They are read from
//! Redis and may hold anything that a job's error says, so all of it needs the token for overrides.

use std::net::SocketAddr;

use axum::{
    Json,
    extract::{ConnectInfo, Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::{Served, access::Allowed, error::refusal},
    orders::Body,
};
use crate::model::{
    StreamId, WorkerType,
    dead_letter::{DeadLetterAction, DeadLetterDone, DeadLetterError, DeadLetterOutcome, DeadLetterService},
};

/// Default and maximum dead letters in an answer.
const LISTED: (usize, usize) = (100, 1_000);
/// Maximum dead letters that one request changes.
const CHANGED: usize = 1_000;

/// Query of [`list`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

/// Dead letters to retry or to drop: those with `ids`, or `all`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["ids"] }, { "required": ["all"] }]))]
pub(super) struct DeadLetterRequest {
    /// Ids of jobs or of dead letters.
    #[schemars(length(min = 1, max = CHANGED))]
    ids: Vec<String>,
    /// The oldest 1000 of the worker type.
    #[schemars(extend("const" = true))]
    all: bool,
}

/// What became of the dead letters.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeadLetterAnswer {
    /// Description in words: `browser: 3 dead letters retried`.
    done: String,
    /// Each dead letter that was found.
    dead_letters: Vec<DeadLetterDone>,
}

pub(super) async fn list(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    let Page { after, limit } = match page {
        Ok(Query(page)) => page,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    if after.as_deref().is_some_and(|after| StreamId::parse_incomplete(after).is_none()) {
        return refusal(StatusCode::BAD_REQUEST, "`after` is the id of a dead letter, such as 1763896658250-0");
    }
    let limit = limit.unwrap_or(LISTED.0).min(LISTED.1);
    let Some(service) = service(&served) else { return off() };
    match service.list(&WorkerType::new(name), after, limit).await {
        Ok(page) => Json(page).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn retry(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    client: ConnectInfo<SocketAddr>,
    Body(request): Body<DeadLetterRequest>,
) -> Response {
    act(&served, &name, request, DeadLetterAction::Retry, client).await
}

pub(super) async fn remove(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    client: ConnectInfo<SocketAddr>,
    Body(request): Body<DeadLetterRequest>,
) -> Response {
    act(&served, &name, request, DeadLetterAction::Drop, client).await
}

async fn act(
    served: &Served,
    name: &str,
    DeadLetterRequest { ids, all }: DeadLetterRequest,
    action: DeadLetterAction,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
) -> Response {
    if all != ids.is_empty() {
        return refusal(StatusCode::BAD_REQUEST, "say which dead letters: either `ids`, or `all`: true");
    }
    if ids.len() > CHANGED {
        return refusal(StatusCode::BAD_REQUEST, &format!("one request names at most {CHANGED} dead letters"));
    }
    let Some(service) = service(served) else { return off() };
    match service.act(&WorkerType::new(name), &ids, action, CHANGED).await {
        Ok(dead_letters) => {
            let done = in_words(name, action, &dead_letters);
            tracing::info!(worker_type = name, client = %client.ip(), "dead letters were changed over http: {done}");
            Json(DeadLetterAnswer { done, dead_letters }).into_response()
        }
        Err(error) => refused(&error),
    }
}

fn in_words(name: &str, action: DeadLetterAction, done: &[DeadLetterDone]) -> String {
    let count = |is: fn(&DeadLetterOutcome) -> bool| done.iter().filter(|one| is(&one.outcome)).count();
    let changed = count(|outcome| matches!(outcome, DeadLetterOutcome::Retried { .. } | DeadLetterOutcome::Dropped));
    let no_job = count(|outcome| *outcome == DeadLetterOutcome::NoJob);
    let letters = if changed == 1 { "dead letter" } else { "dead letters" };
    let verb = match action {
        DeadLetterAction::Retry => "retried",
        DeadLetterAction::Drop => "dropped",
    };
    let rest = if no_job == 0 { String::new() } else { format!("; {no_job} hold no job and can only be dropped") };
    format!("{name}: {changed} {letters} {verb}{rest}")
}

fn service(served: &Served) -> Option<&dyn DeadLetterService> {
    served.control.as_ref().map(|control| &*control.dead_letters)
}

fn off() -> Response {
    refusal(StatusCode::FORBIDDEN, "control over http is off")
}

fn refused(error: &DeadLetterError) -> Response {
    let code = match error {
        DeadLetterError::Unknown(_) => StatusCode::NOT_FOUND,
        DeadLetterError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    refusal(code, &error.to_string())
}
