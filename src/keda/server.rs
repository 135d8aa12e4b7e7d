//! The listener, its connections, and the health service.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{Connected, TcpConnectInfo},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    Sources,
    proto::external_scaler_server::ExternalScalerServer,
    service::Service,
    tls::{Tls, TlsError},
};
use crate::{config::KedaSettings, model::snapshot::StatusSource};

/// Maximum connections. KEDA's operator keeps one for all its ScaledObjects.
const MAX_CONNECTIONS: usize = 256;

/// Maximum streams of a connection: one for each ScaledObject, and the requests under way.
const MAX_STREAMS: u32 = 10_000;

/// Longest time for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval and timeout of pings: a client that is gone without a word must not hold its streams.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Wait after a failed accept: the system has too few resources.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often the health service follows the state of the autoscaler.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Time for requests in progress when the server stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be used.
    #[error("keda: can't listen on {listen}: {source}; set `listen` in `[keda]` to a free address of this machine")]
    Listen {
        /// The configured address.
        listen: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A bound server that does not serve yet.
pub struct KedaServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: Option<Arc<Tls>>,
}

impl KedaServer {
    /// Reads the certificate and binds the address.
    ///
    /// # Errors
    /// If one of them can't be used.
    pub async fn bind(settings: &KedaSettings) -> Result<Self, StartError> {
        let tls = Tls::load(settings)?.map(Arc::new);
        let failed = |source| StartError::Listen { listen: settings.listen.clone(), source };
        let listener = TcpListener::bind(&settings.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_addr, tls })
    }

    /// Returns the address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns whether clients must speak TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `cancelled`; requests in progress then have a moment to finish.
    pub async fn serve(self, sources: Sources, cancelled: CancellationToken) {
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut tasks = JoinSet::new();
        let status = sources.status.clone();
        let stop = cancelled.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(report_health(health, status)).await;
        });
        let (sender, accepted) = mpsc::channel(1);
        tasks.spawn(accept(self.listener, self.tls, sender, cancelled.clone()));
        let service = Service { sources, stop: cancelled.clone() };
        let serving = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_service(health_service)
            .add_service(ExternalScalerServer::new(service))
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), cancelled.clone().cancelled_owned());
        let limit = async {
            cancelled.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "keda server failed");
            },
            () = limit => {}
        }
        tasks.shutdown().await;
    }
}

/// Tells clients of the health service whether the autoscaler is ready.
async fn report_health(health: HealthReporter, status: Arc<dyn StatusSource>) {
    loop {
        let ready = status.not_ready().is_empty();
        let state = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        // The empty name stands for the server as a whole.
        health.set_service_status("", state).await;
        health.set_service_status(<ExternalScalerServer<Service> as tonic::server::NamedService>::NAME, state).await;
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Accepts connections, and hands them over when they are ready to serve.
async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    ready: mpsc::Sender<io::Result<Connection>>,
    cancelled: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancelled.cancelled() => return,
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "keda connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(limit = MAX_CONNECTIONS, "keda connection refused: too many are open");
            continue;
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        handshakes.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, open(stream, tls, place)).await {
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%error, "keda handshake failed"),
                Err(_) => tracing::debug!("keda handshake took too long"),
            }
        });
    }
}

async fn open(stream: TcpStream, tls: Option<Arc<Tls>>, place: OwnedSemaphorePermit) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let info = stream.connect_info();
    let stream: Pin<Box<dyn Duplex>> = match tls {
        None => Box::pin(stream),
        Some(tls) => Box::pin(TlsAcceptor::from(tls.config()).accept(stream).await?),
    };
    Ok(Connection { stream, info, _place: place })
}

/// What a connection reads from and writes to.
trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// An open connection, with or without TLS.
struct Connection {
    stream: Pin<Box<dyn Duplex>>,
    info: TcpConnectInfo,
    /// Its place among [`MAX_CONNECTIONS`].
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
