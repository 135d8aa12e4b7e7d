//! `/metrics` and `/healthz` of a process that has no fleet to show.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{http::HttpServer, telemetry::install_metrics};

/// A running server of metrics.
pub(super) struct ServedMetrics {
    pub(super) at: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl ServedMetrics {
    /// Stops the server.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves metrics on `listen`; no metrics if it is empty. If the port is in use, logs a warning and serves no metrics,
/// so that the process works nevertheless.
///
/// # Errors
/// If `listen` is not an address.
pub(super) async fn serve_metrics(listen: &str) -> anyhow::Result<Option<ServedMetrics>> {
    if listen.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = listen.parse().with_context(|| {
        format!("`{listen}` is no address for metrics; write ADDRESS:PORT such as 127.0.0.1:0, or nothing")
    })?;
    let Ok(server) = HttpServer::bind(address).await else {
        tracing::warn!(
            listen,
            "no metrics: the address is in use or not ours; set `metrics_listen` to a free one, or port 0"
        );
        return Ok(None);
    };
    let (at, stop, handle) = (server.local_addr(), CancellationToken::new(), install_metrics()?);
    tracing::info!(%at, "metrics");
    let mut tasks = JoinSet::new();
    tasks.spawn(handle.clone().upkeep(stop.clone()));
    tasks.spawn(server.serve_metrics(handle, stop.clone()));
    Ok(Some(ServedMetrics { at, stop, tasks }))
}
