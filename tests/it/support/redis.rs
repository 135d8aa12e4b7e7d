//! Runs a private `redis-server` on a free port, stopped when dropped. `fred` is the client that the product does not
//! use.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fred::prelude::{Builder, Client, ClientLike, Config};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::wait::DEADLINE;

/// Installed server, looked up in PATH.
pub(crate) const INSTALLED: &str = "redis-server";

/// Running server, empty and without persistence.
pub(crate) struct RedisServer {
    process: Child,
    dead: bool,
    port: Port,
    binary: PathBuf,
    extra: Vec<String>,
    directory: TempDir,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`RedisServer::start`], with more command-line options (`["--maxmemory", "10mb"]`).
    pub(crate) fn start_with(extra: &[&str]) -> Self {
        Self::start_binary(Path::new(INSTALLED), extra)
    }

    /// Like [`RedisServer::start_with`], with this binary of Redis or a compatible server.
    pub(crate) fn start_binary(binary: &Path, extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let extra: Vec<String> = extra.iter().map(|&option| option.to_owned()).collect();
        let port = Port::free();
        let mut process = spawn(binary, port.number(), &extra, &directory);
        assert!(
            answers(&mut process, port.number()),
            "{} does not start: is it installed, and are the options {extra:?} right?",
            binary.display()
        );
        Self { process, dead: false, port, binary: binary.to_owned(), extra, directory }
    }

    /// Returns the port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns the URL of database 0.
    pub(crate) fn url(&self) -> String {
        self.url_db(0)
    }

    /// Returns the URL of a database.
    pub(crate) fn url_db(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port())
    }

    /// Freezes the server (SIGSTOP): connections stay open, without answers.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues a frozen server.
    pub(crate) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the server (SIGKILL) and waits until it is gone. Its data are lost.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the server is our child");
        self.process.wait().expect("the server is our child");
        self.dead = true;
    }

    /// Asks the server to end (SIGTERM) and waits until it is gone. It keeps its data if it has a `save` option.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.process.wait().expect("the server is our child");
        self.dead = true;
    }

    /// Restarts an ended server on the same port with its persisted data.
    pub(crate) fn start_again(&mut self) {
        let port = self.port();
        self.process = spawn(&self.binary, port, &self.extra, &self.directory);
        self.dead = false;
        assert!(answers(&mut self.process, port), "redis-server does not come back on port {port}");
    }

    /// Returns whether it was killed and not started again.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Kills the server if it runs and starts it again on the same port, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Returns a connected `fred` client of database 0.
    pub(crate) async fn client(&self) -> Client {
        self.client_db(0).await
    }

    /// Returns a connected `fred` client of a database.
    pub(crate) async fn client_db(&self, database: u8) -> Client {
        let config = Config::from_url(&self.url_db(database)).expect("our own URL is well formed");
        let client = Builder::from_config(config).build().expect("the default settings are valid");
        client.init().await.expect("the server answers");
        client
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("process ids are positive");
        kill_process(id, signal).expect("the server is our child");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(binary: &Path, port: u16, extra: &[String], directory: &TempDir) -> Child {
    Command::new(binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(extra)
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} can't be started: {error}", binary.display()))
}

/// Waits until the server answers; `false` if it ends or takes too long.
fn answers(process: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if !matches!(process.try_wait(), Ok(None)) {
            return false;
        }
        if pong(port).unwrap_or(false) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = process.kill();
    let _ = process.wait();
    false
}

fn pong(port: u16) -> std::io::Result<bool> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply)?;
    // A server with a password answers `-NOAUTH`: it is up. One that still reads its file answers `-LOADING`.
    Ok(&reply == b"+PONG" || (reply[0] == b'-' && &reply != b"-LOAD"))
}

/// Connects a `fred` client, as soon as a server listens there.
pub(crate) async fn client_at(port: u16) -> Client {
    let config = Config::from_url(&format!("redis://127.0.0.1:{port}")).expect("our own URL is well formed");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let client = Builder::from_config(config.clone()).build().expect("the default settings are valid");
        match client.init().await {
            Ok(_) => return client,
            Err(error) if Instant::now() > deadline => panic!("nobody answers on port {port}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A port of 127.0.0.1 that nobody else is given as a free one while this exists, with a server on it or without. It is
/// bound and not listened on: a server that sets `SO_REUSEADDR`, as servers do, may listen there.
pub(crate) struct Port(TcpSocket);

impl Port {
    /// Takes a free port.
    pub(crate) fn free() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be had");
        socket.set_reuseaddr(true).expect("it is not bound yet");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port can be had");
        Self(socket)
    }

    /// Returns its number.
    pub(crate) fn number(&self) -> u16 {
        self.0.local_addr().expect("a bound socket has an address").port()
    }

    /// Returns its address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number())
    }
}
