//! Error responses, for every route.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::task::{JoinError, spawn_blocking};

/// Returns a response that says what is wrong.
pub(super) fn refusal(code: StatusCode, error: &str) -> Response {
    (code, Json(json!({ "error": error }))).into_response()
}

/// Returns the response for a worker type that does not exist.
pub(super) fn no_worker_type(name: &str) -> Response {
    let error = format!("there is no worker type `{name}`; /v1/worker_types lists those that there are");
    refusal(StatusCode::NOT_FOUND, &error)
}

/// Renders a response away from the threads that react to signals: with thousands of worker types rendering takes tens
/// of milliseconds, a reaction one.
pub(super) async fn off_thread(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    spawn_blocking(answer).await.unwrap_or_else(|error| unmade(&error))
}

/// Returns the response for an answer whose task failed.
pub(super) fn unmade(error: &JoinError) -> Response {
    tracing::error!("an http answer could not be made: {error}");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made; the log says why")
}
