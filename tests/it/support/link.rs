//! A way to a Redis server on which the test can hold up requests, as a halt of the machine does: those that are under
//! way then reach the server late.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use super::{
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Whether requests pass.
#[derive(Clone, Copy, Debug)]
enum Requests {
    Pass,
    /// They pass until one contains the text.
    PassUntil(&'static str),
    Held,
}

/// The way to the server.
pub(crate) struct Link {
    port: u16,
    requests: watch::Sender<Requests>,
    task: JoinHandle<()>,
}

impl Link {
    /// Makes a way on which everything passes.
    pub(crate) async fn to(server: &RedisServer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port can be had");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (requests, behind) = (watch::Sender::new(Requests::Pass), server.port());
        let link = requests.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", behind)).await else { continue };
                let ((from_client, mut to_client), (mut from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, link.clone()));
                tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            }
        });
        Self { port, requests, task }
    }

    /// Returns the URL of the server by this way.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Lets held requests pass, and holds all of them from the next one on that contains `text`.
    pub(crate) fn hold_at(&self, text: &'static str) {
        self.requests.send_replace(Requests::PassUntil(text));
    }

    /// Returns whether requests are held.
    pub(crate) fn is_held(&self) -> bool {
        matches!(*self.requests.borrow(), Requests::Held)
    }

    /// Waits until requests are held.
    pub(crate) async fn until_held(&self) {
        assert!(eventually(DEADLINE, async || self.is_held()).await, "the request never comes");
    }

    /// Lets everything pass.
    pub(crate) fn release(&self) {
        self.requests.send_replace(Requests::Pass);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: watch::Sender<Requests>) {
    let (mut passing, mut request) = (link.subscribe(), vec![0; 64 * 1024]);
    while let Ok(length @ 1..) = from.read(&mut request).await {
        let request = &request[..length];
        link.send_if_modified(|requests| {
            let holds = matches!(requests, Requests::PassUntil(text) if contains(request, text));
            if holds {
                *requests = Requests::Held;
            }
            holds
        });
        let passes = passing.wait_for(|requests| !matches!(requests, Requests::Held)).await.is_ok();
        if !passes || to.write_all(request).await.is_err() {
            return;
        }
    }
}

fn contains(request: &[u8], text: &str) -> bool {
    request.windows(text.len()).any(|part| part == text.as_bytes())
}
