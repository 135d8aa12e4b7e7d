//! Runs a primary with replicas and sentinels: real servers on free ports, stopped when dropped.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use fred::prelude::Client;
use tempfile::TempDir;

use super::{
    command::redis,
    redis::{Port, RedisServer, client_at},
    wait::{DEADLINE, eventually},
};

/// Name of the primary for the sentinels.
pub(crate) const NAME: &str = "mymaster";
/// Sentinels that must agree that the primary is gone: two of the three.
const QUORUM: usize = 2;

/// Servers, one of which is the primary, and their sentinels.
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<RedisServer>,
    watchers: Vec<(Child, Port)>,
    _directory: TempDir,
}

impl Sentinels {
    /// Starts a primary, two replicas and three sentinels, and waits until they know each other.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], "").await
    }

    /// Like [`start`](Self::start), with more options for the servers and more lines for the sentinels.
    pub(crate) async fn start_with(options: &[&str], lines: &str) -> Self {
        let mut servers = vec![RedisServer::start_with(options)];
        let primary = servers[0].port().to_string();
        for _ in 0..2 {
            let replica = ["--replicaof", "127.0.0.1", &primary, "--repl-diskless-sync-delay", "0"];
            servers.push(RedisServer::start_with(&[options, &replica].concat()));
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let watchers = (0..3).map(|_| start_sentinel(directory.path(), &primary, lines)).collect();
        let started = Self { servers, watchers, _directory: directory };
        for (_, port) in &started.watchers {
            started.until_knows_all(port.number()).await;
        }
        started
    }

    /// Returns the URL of the set.
    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<_> = self.watchers.iter().map(|(_, port)| port.address()).collect();
        format!("redis+sentinel://{}/{NAME}/0", sentinels.join(","))
    }

    /// Returns the primary according to the sentinels.
    pub(crate) async fn primary(&self) -> usize {
        let client = client_at(self.watchers[0].1.number()).await;
        let address: Vec<String> = redis(&client, &format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}")).await;
        let found = self.servers.iter().position(|server| server.port().to_string() == address[1]);
        found.expect("the primary is one of ours")
    }

    /// Returns a client of the primary.
    pub(crate) async fn client(&self) -> Client {
        self.servers[self.primary().await].client().await
    }

    /// Kills the primary and waits until another server has that role.
    pub(crate) async fn fail_over(&mut self) {
        let before = self.primary().await;
        self.servers[before].kill();
        self.until_other_primary(before).await;
    }

    /// Waits until another server is the primary and accepts writes.
    pub(crate) async fn until_other_primary(&self, before: usize) {
        let is_over = async || {
            let now = self.primary().await;
            now != before && {
                let role: Vec<fred::types::Value> = redis(&self.servers[now].client().await, "ROLE").await;
                role[0].as_str().is_some_and(|role| role == "master")
            }
        };
        assert!(eventually(DEADLINE, is_over).await, "the sentinels make no other server the primary");
    }

    async fn until_knows_all(&self, port: u16) {
        let client = client_at(port).await;
        let knows = async || {
            let primary: fred::types::Value = redis(&client, &format!("SENTINEL MASTER {NAME}")).await;
            let primary = format!("{primary:?}").replace(['"', ' '], "");
            let says = |what: &str| primary.contains(what);
            says("String(num-slaves),String(2)") && says("String(num-other-sentinels),String(2)")
        };
        assert!(eventually(DEADLINE, knows).await, "a sentinel does not get to know the others");
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for (sentinel, _) in &mut self.watchers {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

/// A sentinel writes its knowledge into its file.
fn start_sentinel(directory: &Path, primary: &str, lines: &str) -> (Child, Port) {
    let port = Port::free();
    let number = port.number();
    let file = directory.join(format!("{number}.conf"));
    let settings = format!(
        "port {number}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {primary} {QUORUM}\n\
         sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 5000\n{lines}\n"
    );
    fs::write(&file, settings).expect("the directory is ours");
    let sentinel = Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .current_dir(directory)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    (sentinel, port)
}
