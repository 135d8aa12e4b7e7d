//! Jobs that end when the test says so, and not after a time: a program for workers that waits for a file.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

/// A gate that is shut at first. Every job of a method other than `echo` and `sleep` waits in front of it.
pub(crate) struct Gate(TempDir);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    /// Returns the setting of `[worker_types.NAME.worker]` with the program, which answers 1 behind the gate.
    pub(crate) fn exec(&self) -> String {
        let gate = self.0.path().display();
        // Without the gate, because the test is over, nobody waits for it.
        let script = format!("while [ -e {gate} ] && [ ! -e {gate}/open ]; do sleep 0.05; done; echo 1");
        format!("exec = [\"sh\", \"-c\", {}]", Value::from(script))
    }

    pub(crate) fn open(&self) {
        fs::write(self.0.path().join("open"), "").expect("the directory is ours");
    }

    pub(crate) fn shut(&self) {
        fs::remove_file(self.0.path().join("open")).expect("the gate is open");
    }
}
