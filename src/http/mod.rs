//! The HTTP server: metrics, health, readiness and status for people and programs, the status page, and orders about worker
//! types. Reads snapshots, hands orders on to a desk, and knows neither Redis nor a backend.

mod access;
mod api;
mod connections;
mod error;
#[cfg(test)]
mod guard_tests;
mod live;
mod page;
mod routes;
mod stall;
#[cfg(test)]
pub(crate) mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{connections::Limits, live::Live};
use crate::{
    model::{control::ApplyOverride, history::EventSource, snapshot::StatusSource},
    telemetry::MetricsHandle,
};

/// How long requests under way may take to finish once the server is told to stop. Every answer comes from memory, so
/// this is for slow readers; they must not hold up the program's end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Why the server could not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "http: {listen} is in use by another program; set `listen` in `[http]` to a free address and port, or to \"\" \
         for no HTTP server"
    )]
    InUse {
        /// Where it should have listened.
        listen: SocketAddr,
    },
    /// The port needs rights that the program does not have.
    #[error("http: not allowed to listen on {listen}; set `listen` in `[http]` to a port above 1023")]
    Denied {
        /// Where it should have listened.
        listen: SocketAddr,
    },
    /// Anything else, such as an address that this machine does not have.
    #[error("http: can't listen on {listen}: {source}; set `listen` in `[http]` to an address of this machine")]
    Other {
        /// Where it should have listened.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// What the server shows, and to whom it hands orders. Cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    /// For `/status` and `/readyz`.
    pub status: Arc<dyn StatusSource>,
    /// For the history.
    pub events: Arc<dyn EventSource>,
    /// For `/metrics`.
    pub metrics: MetricsHandle,
    /// Takes orders; `None`: nobody does, over HTTP.
    pub control: Option<HttpControl>,
    /// Who may read.
    pub access: HttpAccess,
}

/// Under which names the server answers, and to whom. The default: addresses and names of this machine, and everybody.
#[derive(Clone, Debug, Default)]
pub struct HttpAccess {
    /// Further names: `name`, `*.domain`, or `*` for any.
    pub hosts: Vec<String>,
    /// What a client has to send to read; `None`: nothing.
    pub read_token: Option<SecretString>,
}

/// Who may give orders over HTTP, and who takes them.
#[derive(Clone)]
pub struct HttpControl {
    /// What a client has to send.
    pub token: SecretString,
    /// Where orders go.
    pub desk: Arc<dyn ApplyOverride>,
}

/// What handlers work with.
#[derive(Clone)]
struct Served {
    status: Arc<dyn StatusSource>,
    events: Arc<dyn EventSource>,
    metrics: MetricsHandle,
    control: Option<HttpControl>,
    access: HttpAccess,
    live: Arc<Live>,
    ending: CancellationToken,
}

/// A server that listens and does not answer yet. Bound before serving, so that a port in use is found before
/// anything else starts.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
}

impl HttpServer {
    /// Listens on `listen`; port 0 takes a free one.
    pub async fn bind(listen: SocketAddr) -> Result<Self, BindError> {
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { listen },
            io::ErrorKind::PermissionDenied => BindError::Denied { listen },
            _ => BindError::Other { listen, source },
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, local_addr, limits: Limits::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `cancelled`, then lets requests under way finish for a short while.
    pub async fn serve(self, state: HttpState, cancelled: CancellationToken) {
        let HttpState { status, events, metrics, control, access } = state;
        let live = Live::new(status.clone(), events.clone());
        let publishing = live.clone().publish();
        let served = Served { status, events, metrics, control, access, live, ending: cancelled.clone() };
        tokio::select! {
            () = self.answer(routes::router(served), cancelled) => {}
            () = publishing => {}
        }
    }

    /// As [`HttpServer::serve`], with metrics and health only: for programs that have no fleet to show.
    pub async fn serve_metrics(self, metrics: MetricsHandle, cancelled: CancellationToken) {
        self.answer(routes::metrics_router(metrics), cancelled).await;
    }

    async fn answer(self, router: Router, cancelled: CancellationToken) {
        connections::serve(self.listener, router, self.limits, cancelled, SHUTDOWN_GRACE).await;
    }
}
