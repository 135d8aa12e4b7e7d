//! A worker type that the configuration does not name: where its jobs go, where its worker looks, and who says so.

use std::{
    path::Path,
    process::{Child, Stdio},
};

use fred::prelude::Client;

use crate::support::{
    autoscaler::swarm,
    command::redis as command,
    log::Log,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// `swarm` with a configuration that names one worker type, `small`.
fn configured(server: &RedisServer, directory: &Path) -> std::process::Command {
    std::fs::write(directory.join("swarm.toml"), "[worker_types.small]\n").unwrap();
    let mut command = swarm(directory);
    command.env("REDIS_URL", server.url()).stdin(Stdio::null());
    command
}

fn has(log: &Log, text: &str) -> bool {
    log.text().contains(text)
}

fn publish(server: &RedisServer, directory: &Path, words: &[&str]) -> (String, String) {
    let output = configured(server, directory).arg("publish").args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// Killed when it is dropped.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn publish_names_the_stream_and_the_missing_worker_type() {
    let server = RedisServer::start();
    let client: Client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let (told, warned) = publish(&server, directory.path(), &["big.sleep", "1"]);
    assert_eq!(told, "published 1 job to jobs\n");
    for part in ["worker type `big` is not configured", "stream `jobs`", "--type big` reads `big:jobs`"] {
        assert!(warned.contains(part), "`{part}` is missing in {warned}");
    }
    assert_eq!(command::<u64>(&client, "XLEN jobs").await, 1, "the protocol's rule stays");
    let (_, warned) = publish(&server, directory.path(), &["small.echo", "1"]);
    assert_eq!(warned, "");
    let (_, warned) = publish(&server, directory.path(), &["nodot"]);
    assert!(warned.contains("no configured worker type matches `nodot`"), "{warned}");
}

#[tokio::test]
async fn a_worker_of_an_unconfigured_type_names_both_streams() {
    let server = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = |words: &[&str]| {
        let mut command = configured(&server, directory.path());
        let mut process = command.arg("worker").args(words).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::capture(process.stderr.take().unwrap());
        (Worker(process), log)
    };
    let (_big, log) = start(&["--type", "big"]);
    let said = eventually(DEADLINE, async || has(&log, "worker type `big` is not configured")).await;
    assert!(said, "{}", log.tail());
    for part in ["reads `big:jobs`", "writes to `jobs`"] {
        assert!(has(&log, part), "`{part}` is missing in\n{}", log.tail());
    }
    let (_small, log) = start(&["--type", "small"]);
    assert!(eventually(DEADLINE, async || has(&log, "worker ready")).await, "{}", log.tail());
    assert!(!has(&log, "is not configured"), "{}", log.tail());
}
