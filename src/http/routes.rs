//! What is answered to which path.

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;

use super::HttpState;
use crate::model::snapshot::SourceSnapshot;

/// The index: what there is to read.
const INDEX: &str = "swarm\n\n\
    /metrics  metrics in the Prometheus text format\n\
    /healthz  200 while the process runs\n\
    /readyz   200 if it can react, else 503; JSON with the reasons\n\
    /status   everything the scaler knows, as JSON\n";

/// Content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All routes.
pub(super) fn router(state: HttpState) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(state)
}

async fn metrics(State(state): State<HttpState>) -> Response {
    apart(move || ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], state.metrics.render()).into_response()).await
}

async fn status(State(state): State<HttpState>) -> Response {
    apart(move || Json(state.status.fleet()).into_response()).await
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    not_ready: Vec<String>,
    sources: Vec<SourceSnapshot>,
}

async fn readyz(State(state): State<HttpState>) -> Response {
    apart(move || {
        let not_ready = state.status.not_ready();
        let ready = not_ready.is_empty();
        let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, Json(Readiness { ready, not_ready, sources: state.status.fleet().sources })).into_response()
    })
    .await
}

async fn not_found(uri: Uri) -> Response {
    refusal(StatusCode::NOT_FOUND, &format!("there is no {}; / lists what there is", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("{} can't be asked to {method}; use GET", uri.path()))
}

fn refusal(code: StatusCode, error: &str) -> Response {
    (code, Json(json!({ "error": error }))).into_response()
}

/// Makes an answer away from the threads that react to signals: with thousands of worker types it takes tens of
/// milliseconds, a reaction one.
async fn apart(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(answer).await.unwrap_or_else(|error| {
        tracing::error!("an http answer could not be made: {error}");
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made; the log says why")
    })
}
