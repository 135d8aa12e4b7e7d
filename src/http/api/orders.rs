//! Overrides of worker types over HTTP. Converts requests to the form that the command line uses too, and passes them
//! to the same service: validation, history and effect are the same.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, FromRequest, Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{Served, access::Allowed, error::refusal};
use crate::model::{
    Timestamp, WorkerType,
    control::{Control, OverrideAction, OverrideError, OverrideRequest},
};

/// Maximum characters of a name and of a reason: they are shown in one line.
const LONGEST: (usize, usize) = (200, 1_000);

/// Longest override: a year.
const LONGEST_HOLD: u64 = 366 * 24 * 3_600;

/// A direction of scaling.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    /// Fewer workers.
    In,
    /// More workers.
    Out,
}

/// Pauses the scaling of a worker type.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PauseRequest {
    /// Direction to pause. Default: both.
    direction: Option<Direction>,
    /// Seconds after which the override ends. Without it, it ends when somebody resumes the worker type.
    #[schemars(range(min = 1, max = LONGEST_HOLD))]
    for_seconds: Option<u64>,
    /// Reason, for the history.
    #[schemars(length(max = LONGEST.1))]
    reason: String,
    /// Who asks, for the history. Default: the client's address.
    #[schemars(length(max = LONGEST.0))]
    by: Option<String>,
}

/// Leaves a worker type as it is.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HoldRequest {
    /// Seconds after which the override ends. Without it, it ends when somebody resumes the worker type.
    #[schemars(range(min = 1, max = LONGEST_HOLD))]
    for_seconds: Option<u64>,
    /// Reason, for the history.
    #[schemars(length(max = LONGEST.1))]
    reason: String,
    /// Who asks, for the history. Default: the client's address.
    #[schemars(length(max = LONGEST.0))]
    by: Option<String>,
}

/// Lets the rules decide again.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ResumeRequest {
    /// Reason, for the history.
    #[schemars(length(max = LONGEST.1))]
    reason: String,
    /// Who asks, for the history. Default: the client's address.
    #[schemars(length(max = LONGEST.0))]
    by: Option<String>,
}

/// Sets the number of workers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScaleRequest {
    /// Number of workers, within `min_workers` and `max_workers`.
    workers: u32,
    /// Seconds for which the number is kept, whatever the queue holds. Without it, the number is asked for once.
    #[schemars(range(min = 1, max = LONGEST_HOLD))]
    for_seconds: Option<u64>,
    /// Reason, for the history.
    #[schemars(length(max = LONGEST.1))]
    #[serde(default)]
    reason: String,
    /// Who asks, for the history. Default: the client's address.
    #[schemars(length(max = LONGEST.0))]
    by: Option<String>,
}

/// Fields that every request has.
struct Said {
    reason: String,
    by: Option<String>,
}

/// What was done.
#[derive(Serialize, JsonSchema)]
pub(super) struct OrderAnswer {
    /// Description in words: `browser: paused for 600 s`.
    done: String,
    /// Override that is now in force; `null` if the rules decide.
    control: Option<Control>,
}

/// A JSON body; an empty body counts as the default, where there is one.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Served> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, served: &Served) -> Result<Self, Response> {
        let bytes =
            Bytes::from_request(request, served).await.map_err(|error| refusal(error.status(), &error.body_text()))?;
        let json: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        let body = serde_json::from_slice(json);
        body.map(Self).map_err(|error| {
            refusal(StatusCode::BAD_REQUEST, &format!("the body is not as /v1/openapi.json says: {error}"))
        })
    }
}

type Client = ConnectInfo<SocketAddr>;

pub(super) async fn pause(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    client: Client,
    Body(PauseRequest { direction, for_seconds, reason, by }): Body<PauseRequest>,
) -> Response {
    let action = match direction {
        None => OverrideAction::Pause,
        Some(Direction::In) => OverrideAction::PauseIn,
        Some(Direction::Out) => OverrideAction::PauseOut,
    };
    give(&served, &name, action, for_seconds, Said { reason, by }, client).await
}

pub(super) async fn observe(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    client: Client,
    Body(HoldRequest { for_seconds, reason, by }): Body<HoldRequest>,
) -> Response {
    give(&served, &name, OverrideAction::Observe, for_seconds, Said { reason, by }, client).await
}

pub(super) async fn resume(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    client: Client,
    Body(ResumeRequest { reason, by }): Body<ResumeRequest>,
) -> Response {
    give(&served, &name, OverrideAction::Resume, None, Said { reason, by }, client).await
}

pub(super) async fn scale(
    _: Allowed,
    State(served): State<Served>,
    Path(name): Path<String>,
    client: Client,
    Body(ScaleRequest { workers, for_seconds, reason, by }): Body<ScaleRequest>,
) -> Response {
    give(&served, &name, OverrideAction::Scale(workers), for_seconds, Said { reason, by }, client).await
}

async fn give(
    served: &Served,
    name: &str,
    action: OverrideAction,
    for_seconds: Option<u64>,
    Said { reason: why, by }: Said,
    ConnectInfo(client): Client,
) -> Response {
    let by = by.filter(|by| !by.trim().is_empty()).unwrap_or_else(|| format!("http@{}", client.ip().to_canonical()));
    if let Some(problem) = problem(name, &by, &why, for_seconds) {
        return refusal(StatusCode::BAD_REQUEST, &problem);
    }
    let Some(control) = &served.control else {
        return refusal(StatusCode::FORBIDDEN, "control over http is off");
    };
    let lasts = for_seconds.map(Duration::from_secs);
    let order = OverrideRequest { worker_type: WorkerType::new(name), action, lasts, by, why };
    match control.desk.give(&order).await {
        Ok(existed) => {
            let done = order.done(existed);
            tracing::info!(worker_type = name, by = order.by, "an order came by http: {done}");
            Json(OrderAnswer { done, control: control_of(order) }).into_response()
        }
        Err(error) => {
            let code = match error {
                OverrideError::Unknown { .. } => StatusCode::NOT_FOUND,
                OverrideError::OutOfBounds { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                OverrideError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            refusal(code, &error.to_string())
        }
    }
}

/// Returns what is wrong with a request, independent of its worker type.
fn problem(name: &str, by: &str, why: &str, for_seconds: Option<u64>) -> Option<String> {
    let too_long = |text: &str, longest: usize| text.chars().count() > longest;
    if !WorkerType::is_valid(name) {
        return Some(format!("`{name}` can't name a worker type; /v1/worker_types lists those that there are"));
    }
    if too_long(by, LONGEST.0) || too_long(why, LONGEST.1) {
        return Some(format!("`by` has at most {} characters, and `reason` {}; shorten them", LONGEST.0, LONGEST.1));
    }
    // They are shown in log lines and on terminals.
    if by.chars().chain(why.chars()).any(char::is_control) {
        return Some("`by` and `reason` are one line each, without control characters".to_owned());
    }
    let fits = for_seconds.is_none_or(|seconds| (1..=LONGEST_HOLD).contains(&seconds));
    (!fits).then(|| format!("`for_seconds` is 1 to {LONGEST_HOLD}; leave it out for an order without an end"))
}

fn control_of(order: OverrideRequest) -> Option<Control> {
    let until = order.held_for().map(|lasts| Timestamp::wall().after(lasts));
    order.mode().map(|mode| Control { mode, until, by: order.by, why: order.why })
}
