//! A private `redis-server` on a free port, stopped when dropped, and `fred` as the client that is not the product's.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use fred::prelude::{Builder, Client, ClientLike, Config};

/// How long the server may take to listen.
const START: Duration = Duration::from_secs(10);

/// A running server with nothing in it, and nothing kept on disk.
pub(crate) struct RedisServer {
    pub(crate) process: Child,
    port: u16,
}

impl RedisServer {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server can't be started; install it (`make packages`) and have it in the PATH")?;
        let mut server = Self { process, port };
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.process.try_wait()? {
                bail!("redis-server on port {port} ended at once ({status}); try again");
            }
            if Instant::now() > deadline {
                bail!("redis-server on port {port} does not listen after {START:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of database 0.
    pub(crate) fn url(&self) -> String {
        url(self.port())
    }

    /// A connected `fred` client.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let client = Builder::from_config(Config::from_url(&self.url())?).build()?;
        client.init().await.context("the benchmark's own redis-server does not answer")?;
        Ok(client)
    }
}

/// The URL of database 0 of the server on this port, or of the server behind it.
pub(crate) fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Nothing to be done about a server that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
