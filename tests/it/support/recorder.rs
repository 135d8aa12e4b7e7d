//! `swarm record` in the background, and what it has written.

use std::{fs, path::Path, process::Stdio};

use rustix::process::Signal;
use swarm::simulation::{Row, read};

use super::{
    autoscaler::swarm,
    processes::{KillOnDrop, kill},
    wait::{DEADLINE, eventually},
};

/// A recorder that goes on.
pub(crate) struct Recorder(KillOnDrop);

impl Recorder {
    pub(crate) fn start(directory: &Path, words: &[&str]) -> Self {
        let mut command = swarm(directory);
        command.arg("record").args(words).args(["--follow", "--output", "trace.csv"]);
        Self(KillOnDrop(command.stdin(Stdio::null()).spawn().unwrap()))
    }

    /// Ends it as Ctrl-C would. Returns what it has written of this worker type.
    pub(crate) async fn stop(mut self, directory: &Path, worker_type: &str) -> Vec<Row> {
        kill(self.0.id(), Signal::INT);
        let ended =
            eventually(DEADLINE, async || matches!(self.0.try_wait(), Ok(Some(status)) if status.success())).await;
        assert!(ended, "it ends well");
        rows(directory, worker_type)
    }
}

/// Returns the recorded jobs of a worker type in `trace.csv`; none before there is such a file.
pub(crate) fn rows(directory: &Path, worker_type: &str) -> Vec<Row> {
    let Ok(file) = fs::File::open(directory.join("trace.csv")) else { return Vec::new() };
    read(file, "trace.csv", worker_type).unwrap_or_default()
}
