//! The HTTP server: metrics, health, readiness and status for people and programs, the status page, and overrides of
//! worker types. Reads snapshots, passes overrides on to a service, and knows neither Redis nor a backend.

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

use axum::{Router, response::Response};
use secrecy::SecretString;
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::{
    connections::Limits,
    error::{no_worker_type, unmade},
    live::Live,
};
use crate::{
    model::{
        control::ApplyOverride,
        dead_letter::DeadLetterService,
        history::EventSource,
        job::JobService,
        snapshot::{StatusSource, TypeSnapshot},
    },
    telemetry::MetricsHandle,
};

/// Time for requests in progress to finish when the server stops. Every answer comes from memory, so only slow readers
/// need it; they must not delay the end of the program.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Why the server could not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program uses the port.
    #[error(
        "http: {listen} is in use by another program; set `listen` in `[http]` to a free address and port, or to \"\" \
         for no HTTP server"
    )]
    InUse {
        /// The configured address.
        listen: SocketAddr,
    },
    /// The port needs rights that the program does not have.
    #[error("http: not allowed to listen on {listen}; set `listen` in `[http]` to a port above 1023")]
    Denied {
        /// The configured address.
        listen: SocketAddr,
    },
    /// Another error, such as an address that this machine does not have.
    #[error("http: can't listen on {listen}: {source}; set `listen` in `[http]` to an address of this machine")]
    Other {
        /// The configured address.
        listen: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
}

/// Sources of what the server shows, and the service for overrides. Cheap to clone.
#[derive(Clone)]
pub struct HttpState {
    /// State for `/status` and `/readyz`.
    pub status: Arc<dyn StatusSource>,
    /// The history.
    pub events: Arc<dyn EventSource>,
    /// Metrics for `/metrics`.
    pub metrics: MetricsHandle,
    /// Overrides over HTTP; `None` if they are off.
    pub control: Option<HttpControl>,
    /// Rules for reads.
    pub access: HttpAccess,
}

/// Names under which the server answers, and the token for reads. Default: addresses and names of this machine, and no
/// token.
#[derive(Clone, Debug, Default)]
pub struct HttpAccess {
    /// Further names: `name`, `*.domain`, or `*` for any.
    pub hosts: Vec<String>,
    /// Token that a client must send to read; `None`: reads need no token.
    pub read_token: Option<SecretString>,
}

/// Token for overrides, jobs and dead letters over HTTP, and the services for them.
#[derive(Clone)]
pub struct HttpControl {
    /// Token that a client must send.
    pub token: SecretString,
    /// Service that sets overrides.
    pub desk: Arc<dyn ApplyOverride>,
    /// Service that finds and cancels jobs.
    pub jobs: Arc<dyn JobService>,
    /// Service that lists, retries and drops dead letters.
    pub dead_letters: Arc<dyn DeadLetterService>,
}

/// State of the request handlers.
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

impl Served {
    /// Returns the worker type of this name, or the refusal to send.
    async fn worker_type(&self, name: String) -> Result<Arc<TypeSnapshot>, Response> {
        let status = Arc::clone(&self.status);
        let refused = name.clone();
        // On a blocking thread, because a snapshot of ten thousand worker types takes a while.
        let found = spawn_blocking(move || status.fleet().worker_type(&name).cloned()).await;
        found.map_err(|error| unmade(&error))?.ok_or_else(|| no_worker_type(&refused))
    }
}

/// A server that is bound and does not answer yet. Bound before serving, so that a port in use is noticed before
/// anything else starts.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
}

impl HttpServer {
    /// Binds `listen`; port 0 picks a free port.
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

    /// Returns the address that the server is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `cancelled`, then lets requests in progress finish for a short time.
    pub async fn serve(self, state: HttpState, cancelled: CancellationToken) {
        let HttpState { status, events, metrics, control, access } = state;
        let live = Live::new(status.clone(), events.clone(), control.is_some());
        let publishing = live.clone().publish();
        let served = Served { status, events, metrics, control, access, live, ending: cancelled.clone() };
        tokio::select! {
            () = self.answer(routes::router(served), cancelled) => {}
            () = publishing => {}
        }
    }

    /// Serves only metrics and health, like [`HttpServer::serve`]: for programs that have no fleet to show.
    pub async fn serve_metrics(self, metrics: MetricsHandle, cancelled: CancellationToken) {
        self.answer(routes::metrics_router(metrics), cancelled).await;
    }

    async fn answer(self, router: Router, cancelled: CancellationToken) {
        connections::serve(self.listener, router, self.limits, cancelled, SHUTDOWN_GRACE).await;
    }
}
