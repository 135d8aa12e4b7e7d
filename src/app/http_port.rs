//! The port of the HTTP server: bound at the start, or, as a service, as soon as another program gives it up. Scaling
//! does not depend on it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::service;
use crate::{
    config::Settings,
    http::{BindError, HttpServer, HttpState},
};

/// Between two attempts to bind a port that is taken.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The server, or what it waits for.
pub(super) enum HttpPort {
    /// The configuration turns the server off.
    Off,
    Bound(HttpServer),
    /// Another program has this port.
    Taken(SocketAddr),
}

impl HttpPort {
    /// Binds the port of the settings. One that is taken is an error to a person who starts the autoscaler by hand. A
    /// service manager would start it again and again, and meanwhile nothing would be scaled: there it is waited for.
    ///
    /// # Errors
    /// If it can't be bound.
    pub(super) async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        if settings.http.listen.is_empty() {
            return Ok(Self::Off);
        }
        let listen = settings.http.listen.parse().with_context(|| {
            format!("http.listen = \"{}\" is not an address and port such as 127.0.0.1:9000", settings.http.listen)
        })?;
        match HttpServer::bind(listen).await {
            Ok(server) => Ok(Self::Bound(server)),
            Err(error @ BindError::InUse { .. }) if service::is_one() => {
                tracing::warn!("{error}; scaling goes on, and the server begins when the port is free");
                Ok(Self::Taken(listen))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the server listens, if it does.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Bound(server) => Some(server.local_addr()),
            Self::Off | Self::Taken(_) => None,
        }
    }

    /// Tells the service manager that the autoscaler is ready, once the server listens, and answers until `cancelled`.
    pub(super) async fn serve(self, state: HttpState, cancelled: CancellationToken) {
        let server = match self {
            Self::Off => None,
            Self::Bound(server) => Some(server),
            Self::Taken(listen) => cancelled.run_until_cancelled(when_free(listen)).await,
        };
        let Some(server) = server else { return };
        service::notify(service::READY);
        server.serve(state, cancelled).await;
    }
}

async fn when_free(listen: SocketAddr) -> HttpServer {
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        match HttpServer::bind(listen).await {
            Ok(server) => {
                tracing::info!(http = %server.local_addr(), "http server listens");
                return server;
            }
            Err(error) => tracing::debug!("http server still waits: {error}"),
        }
    }
}
