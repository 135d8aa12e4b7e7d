//! The port of the HTTP server: bound at the start or, under a service manager, as soon as the port is free. Scaling
//! does not depend on the port.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::service;
use crate::{
    config::Settings,
    http::{BindError, HttpServer, HttpState},
};

/// Pause between two attempts to bind a port in use.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The server, or the address that it waits for.
pub(super) enum HttpPort {
    /// The configuration turns the server off.
    Off,
    Bound(HttpServer),
    /// Another program uses this port.
    Taken(SocketAddr),
}

impl HttpPort {
    /// Binds the port of the settings. A port in use is an error for a person who starts the autoscaler by hand. A
    /// service manager would restart the autoscaler over and over, and nothing would be scaled, so under a service
    /// manager the server waits for the port.
    ///
    /// # Errors
    /// If the port can't be bound.
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

    /// Returns the address of the server, if it is bound.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Bound(server) => Some(server.local_addr()),
            Self::Off | Self::Taken(_) => None,
        }
    }

    /// Waits for the port if necessary, notifies the service manager that the autoscaler is ready, and serves until
    /// `cancelled`.
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
