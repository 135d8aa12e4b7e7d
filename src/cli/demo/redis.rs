//! The demo's own Redis server: on a free port of the loopback interface, with nothing on disk, stopped with the demo.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use crate::{
    connection::RedisTarget,
    guard::{GuardedChild, GuardedChildSpec},
};

/// Supported programs; the first one that is installed is used.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Maximum time for a server to answer; usually it takes milliseconds.
const START: Duration = Duration::from_secs(10);
/// Pause between two attempts to connect.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Maximum time for the server to stop; it has nothing to save.
const TIME_TO_LEAVE: Duration = Duration::from_secs(3);
/// Maximum ports that are tried, because another program may bind the free port before the server does.
const PORTS_TRIED: usize = 5;

/// A running server.
#[derive(Debug)]
pub(super) struct PrivateRedis {
    child: GuardedChild,
    port: u16,
}

impl PrivateRedis {
    /// Starts a server that writes its log in `directory`. The program `swarm` guards it.
    pub(super) async fn start(swarm: &Path, directory: &Path) -> anyhow::Result<Self> {
        let program = find()?;
        for _ in 0..PORTS_TRIED {
            let port = free_port()?;
            let arguments = arguments(port, directory);
            let spec = GuardedChildSpec {
                swarm: swarm.to_owned(),
                program: &program,
                arguments: &arguments,
                output: Stdio::null(),
                errors: Stdio::null(),
                has_input: false,
                time_to_leave: TIME_TO_LEAVE,
            };
            let child =
                GuardedChild::start(spec).await.with_context(|| format!("could not start {}", program.display()))?;
            let server = Self { child, port };
            if server.answers().await? {
                return Ok(server);
            }
            server.stop().await?;
        }
        bail!("{} does not start; see {}", program.display(), directory.join("redis.log").display())
    }

    /// Returns the URL of the server's database 0.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Waits until the server answers; returns `false` if it ends or takes too long.
    async fn answers(&self) -> anyhow::Result<bool> {
        let target = RedisTarget::new(&SecretString::from(self.url()), START)?;
        let deadline = Instant::now() + START;
        while !self.child.ended() && Instant::now() < deadline {
            if target.connect().await.is_ok() {
                // Another server may have bound this port first: then the demo's own server has ended.
                return Ok(!self.child.ended());
            }
            sleep(TRY_EVERY).await;
        }
        Ok(false)
    }

    /// Stops the server.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.child.stop().await.context("could not stop the private redis server")
    }
}

fn arguments(port: u16, directory: &Path) -> Vec<std::ffi::OsString> {
    let port = port.to_string();
    let words = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"];
    let mut arguments: Vec<_> = words.map(std::ffi::OsString::from).into();
    arguments.extend(["--dir".into(), directory.into(), "--logfile".into(), directory.join("redis.log").into()]);
    arguments
}

fn find() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path).collect();
    let installed = |name: &&str| directories.iter().map(|directory| directory.join(name)).find(|file| file.is_file());
    match PROGRAMS.iter().find_map(installed) {
        Some(program) => Ok(program),
        None => bail!(
            "the demo needs the program redis-server, which is not in PATH; install it:\n  Debian, Ubuntu   sudo apt-get \
             install redis-server\n  Fedora, RHEL     sudo dnf install redis\n  macOS            brew install redis"
        ),
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
