//! Accepts connections and serves each within limits: of their number, and of the time for a request and for an answer.
//! Knows no route.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::stall::Stalling;

/// Pause after a failed accept, for example without a free file descriptor.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Largest head of a request, in bytes: far above what a browser with cookies of other programs on this host sends.
const MAX_HEAD: usize = 64 * 1024;

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Time until the head of a request is complete. Counts from the connect or from the last answer, so it also ends
    /// idle connections. Above the scrape interval of most servers.
    pub(super) head: Duration,
    /// Longest time in which a client takes nothing of an answer.
    pub(super) stall: Duration,
    /// Maximum connections. Far above what probes, Prometheus, pages and people need, and far below the limit of file
    /// descriptors of most systems.
    pub(super) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: Duration::from_secs(30), stall: Duration::from_secs(30), connections: 256 }
    }
}

/// One open connection. Cheap to clone; each request carries it as an extension.
#[derive(Clone)]
pub(super) struct Connection {
    id: u64,
    open: Arc<OpenConnections>,
    state: Arc<ConnectionState>,
}

struct ConnectionState {
    /// Number of the connection's last request, or of its accept, in the order of all requests and accepts.
    last_request: AtomicU64,
    following: AtomicBool,
    evicted: CancellationToken,
}

impl Connection {
    /// Marks the connection as a follower of the event stream, which is not closed to make room.
    pub(super) fn follow(&self) {
        self.state.following.store(true, Ordering::Relaxed);
    }

    fn note_request(&self) {
        self.state.last_request.store(self.open.next_number(), Ordering::Relaxed);
    }
}

/// The open connections of a server.
#[derive(Default)]
struct OpenConnections {
    numbers: AtomicU64,
    all: Mutex<Vec<Connection>>,
}

impl OpenConnections {
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. At the limit, it evicts the connection whose last request is the oldest, so that a new
    /// client, such as a probe, is always served. Followers of the stream stay, because they have a limit of their own.
    fn admit(self: &Arc<Self>, limit: usize) -> Admitted {
        let id = self.next_number();
        let state = ConnectionState {
            last_request: AtomicU64::new(id),
            following: AtomicBool::new(false),
            evicted: CancellationToken::new(),
        };
        let connection = Connection { id, open: Arc::clone(self), state: Arc::new(state) };
        let mut all = self.lock();
        if all.len() >= limit {
            let evictable = all.iter().enumerate().filter(|(_, open)| !open.state.following.load(Ordering::Relaxed));
            let oldest = evictable.min_by_key(|(_, open)| open.state.last_request.load(Ordering::Relaxed));
            if let Some(index) = oldest.map(|(index, _)| index) {
                all.swap_remove(index).state.evicted.cancel();
            }
        }
        all.push(connection.clone());
        Admitted(connection)
    }
}

/// Removes its connection from the list when dropped.
struct Admitted(Connection);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.open.lock().retain(|open| open.id != self.0.id);
    }
}

/// Serves until `cancelled`; requests in progress then have `grace` to finish.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    cancelled: CancellationToken,
    grace: Duration,
) {
    let open = Arc::<OpenConnections>::default();
    let router = TowerToHyperService::new(router);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancelled.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let admitted = open.admit(limits.connections);
                tasks.spawn(answer(stream, peer, admitted, router.clone(), limits, cancelled.clone()));
            }
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::error!("http: can't accept a connection: {error}");
                cancelled.run_until_cancelled(tokio::time::sleep(ACCEPT_RETRY)).await;
            }
        }
    }
    drop(listener);
    // The connections that are left after that are aborted with the set.
    let _ = tokio::time::timeout(grace, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Returns whether the client gave up before its connection was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection.
async fn answer(
    stream: TcpStream,
    peer: SocketAddr,
    admitted: Admitted,
    router: TowerToHyperService<Router>,
    limits: Limits,
    cancelled: CancellationToken,
) {
    let connection = &admitted.0;
    let service = service_fn(|mut request: Request<Incoming>| {
        connection.note_request();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(connection.clone());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD);
    let stream = TokioIo::new(Stalling::new(stream, limits.stall));
    let mut serving = pin!(http.serve_connection(stream, service));
    let evicted = &connection.state.evicted;
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = evicted.cancelled() => return,
        () = cancelled.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = evicted.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "http connection ended: {error}");
    }
}
