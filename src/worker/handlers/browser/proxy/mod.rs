//! The only way out for a session's pages: an HTTP proxy on the loopback interface that resolves names, checks
//! addresses and connects. So one rule covers typed addresses, redirects, subresources, frames and WebSockets, and
//! names can't be rebound between check and connection. See `docs/adr/0007-browser-egress.md`. Each session has its own
//! proxy.

mod dial;
mod exchange;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::dial::{Dialer, Place, SystemResolver};

/// Header of a response that the proxy itself sent, with the reason. Removed from every other response.
pub(super) const PROBLEM_HEADER: &str = "x-swarm-problem";
/// Maximum simultaneous connections of one session; more wait. Chromium makes 32 to one proxy, and 255 for WebSockets.
const CONNECTIONS: usize = 300;
/// Pause after a connection that could not be accepted.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A running proxy. Ends, with all connections through it, when dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    closed: CancellationToken,
    tasks: TaskTracker,
    problem: Mutex<Option<String>>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub(super) async fn start(dialer: Dialer) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let closed = CancellationToken::new();
        let shared =
            Arc::new(Shared { dialer, closed: closed.clone(), tasks: TaskTracker::new(), problem: Mutex::default() });
        shared.tasks.spawn(closed.run_until_cancelled_owned(accept(listener, Arc::clone(&shared))));
        Ok(Self { address, shared })
    }

    /// Returns the URL in Chromium's form.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the last refusal or failure since the previous call.
    pub(super) fn take_problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        self.shared.tasks.close();
    }
}

impl Shared {
    fn note(&self, problem: String) {
        tracing::debug!(problem, "a page's request failed");
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let token = shared.closed.clone();
                shared.tasks.spawn(token.run_until_cancelled_owned(serve(stream, Arc::clone(&shared), slot)));
            }
            // Most likely out of file descriptors: other connections have to close first.
            Err(error) => {
                tracing::warn!(%error, "a page's connection was not accepted");
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, _slot: OwnedSemaphorePermit) {
    let service = service_fn(|request| exchange::answer(request, Arc::clone(&shared)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Ends when Chromium disconnects; errors of a page do not matter here.
    let _ = connection.with_upgrades().await;
}
