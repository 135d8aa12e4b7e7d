//! Jobs over HTTP: where one is, and cancelling it. Unlike the other operations below `/v1` these search the queues in
//! Redis, so both need the token for overrides.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::{Served, access::Allowed, error::refusal},
    orders::Body,
};
use crate::model::job::{Cancelled, JobService};

/// Maximum bytes of a job's id.
const MAX_ID: usize = 512;

/// Cancels a job.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CancelRequest {}

/// What became of the request.
#[derive(Serialize, JsonSchema)]
pub(super) struct CancelAnswer {
    /// Id of the job.
    id: String,
    #[serde(flatten)]
    outcome: Cancelled,
}

pub(super) async fn report(_: Allowed, State(served): State<Served>, Path(id): Path<String>) -> Response {
    let jobs = match service(&served, &id) {
        Ok(jobs) => jobs,
        Err((code, why)) => return refusal(code, &why),
    };
    match jobs.report(&id).await {
        Ok(Some(report)) => Json(report).into_response(),
        Ok(None) => unknown(),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

pub(super) async fn cancel(
    _: Allowed,
    State(served): State<Served>,
    Path(id): Path<String>,
    Body(CancelRequest {}): Body<CancelRequest>,
) -> Response {
    let jobs = match service(&served, &id) {
        Ok(jobs) => jobs,
        Err((code, why)) => return refusal(code, &why),
    };
    match jobs.cancel(&id).await {
        Ok(Cancelled::Unknown) => unknown(),
        Ok(outcome) => Json(CancelAnswer { id, outcome }).into_response(),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn service<'a>(served: &'a Served, id: &str) -> Result<&'a dyn JobService, (StatusCode, String)> {
    if id.len() > MAX_ID {
        return Err((StatusCode::BAD_REQUEST, format!("a job's id has at most {MAX_ID} bytes")));
    }
    let control = served.control.as_ref();
    control.map(|control| &*control.jobs).ok_or_else(|| (StatusCode::FORBIDDEN, "control over http is off".to_owned()))
}

fn unknown() -> Response {
    let error =
        "there is no such job: it has ended and its result was fetched, or its queue is not in the configuration";
    refusal(StatusCode::NOT_FOUND, error)
}
