//! The routes of the server.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{
    Served, access, api,
    error::{off_thread, refusal},
    page,
};
use crate::{
    model::snapshot::{FleetSnapshot, QueueServerSnapshot, ReloadSnapshot, Role, SourceSnapshot},
    telemetry::MetricsHandle,
};

/// The index: paths that can be read.
const INDEX: &str = "swarm\n\n\
    /                 for browsers: the status page\n\
    /types/NAME       for browsers: the page of one worker type\n\
    /metrics          metrics in the Prometheus text format\n\
    /healthz          200 while the process runs\n\
    /readyz           200 if it can react, else 503; JSON with the reasons\n\
    /status           everything the scaler knows, as JSON\n\
    /v1/openapi.json  what programs can read and order below /v1\n";

/// Content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Time for the body of a request and the beginning of its answer. An override waits for Redis, which has a shorter
/// limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns all routes.
pub(super) fn router(served: Served) -> Router {
    let page = |router: Router<Served>, (path, kind, content)| {
        router.route(path, get(async move || page::part(kind, content)))
    };
    page::PARTS
        .into_iter()
        .fold(Router::new(), page)
        .merge(api::router())
        .route("/", get(async |headers: HeaderMap| page::start(&headers, INDEX)))
        .route("/types/{name}", get(of_type))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(served.clone(), access::guard))
        .layer(from_fn(in_time))
        .with_state(served)
}

/// Returns the routes of a program that has only metrics to show.
pub(super) fn metrics_router(handle: MetricsHandle) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State(handle): State<MetricsHandle>| in_pieces(move || handle.render(Vec::new(), Arc::default()))),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(in_time))
        .with_state(handle)
}

/// Bounds the time until an answer begins, which includes the time for the body of the request.
async fn in_time(request: Request, next: Next) -> Response {
    let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await else {
        let error = format!("the request was not complete and answered within {} s", ANSWER_TIMEOUT.as_secs());
        return refusal(StatusCode::REQUEST_TIMEOUT, &error);
    };
    answer
}

async fn of_type(State(state): State<Served>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    // Whoever may not read must not learn which names exist: the page asks for the token.
    let refused = if access::may_read(&state, &headers) { state.worker_type(name).await.err() } else { None };
    page::of_type(&headers, refused)
}

async fn metrics(State(state): State<Served>) -> Response {
    let render = move || {
        let FleetSnapshot { worker_types, dead_letters, .. } = state.status.fleet();
        state.metrics.render(worker_types, dead_letters)
    };
    in_pieces(render).await
}

/// Sends the metrics piece by piece. Each piece is rendered once the previous one was sent, so a slow reader costs no
/// memory.
async fn in_pieces<P>(render: impl FnOnce() -> P + Send + 'static) -> Response
where
    P: Iterator<Item = String> + Send + 'static,
{
    let Ok(pieces) = spawn_blocking(render).await else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be made; the log says why");
    };
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        let (piece, pieces) = spawn_blocking(move || (pieces.next(), pieces)).await.ok()?;
        Some((Ok::<_, Infallible>(piece?), pieces))
    });
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], Body::from_stream(pieces)).into_response()
}

async fn status(State(state): State<Served>) -> Response {
    off_thread(move || Json(state.status.fleet()).into_response()).await
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    role: Role,
    leader: Option<String>,
    not_ready: Vec<String>,
    sources: Vec<SourceSnapshot>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queue_servers: Vec<QueueServerSnapshot>,
    /// A refused configuration does not affect readiness, because the previous one stays in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    reload: Option<ReloadSnapshot>,
}

async fn readyz(State(state): State<Served>, headers: HeaderMap) -> Response {
    off_thread(move || {
        let not_ready = state.status.not_ready();
        let ready = not_ready.is_empty();
        let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if !access::may_read(&state, &headers) {
            return (code, Json(json!({ "ready": ready }))).into_response();
        }
        let FleetSnapshot { leadership, sources, queue_servers, reload, .. } = state.status.fleet();
        let (role, leader) = (leadership.role, leadership.leader);
        let body = Readiness { ready, role, leader, not_ready, sources, queue_servers, reload };
        (code, Json(body)).into_response()
    })
    .await
}

async fn not_found(uri: Uri) -> Response {
    refusal(StatusCode::NOT_FOUND, &format!("there is no {}; / lists what there is", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("{} can't be asked to {method}; use GET", uri.path()))
}
