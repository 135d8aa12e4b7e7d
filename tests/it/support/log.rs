//! Keeps the log of a child process, for tests to search and for failures to show.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::ChildStderr,
    sync::{Arc, Mutex},
};

/// Lines that a failure shows.
const SHOWN: usize = 60;

/// Lines so far, read by a thread that ends with the process.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Reads until the last writer closes the pipe.
    pub(crate) fn capture(stderr: ChildStderr) -> Self {
        let log = Self::default();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().expect("nobody panics while holding it").push(line);
            }
        });
        log
    }

    /// Returns all lines.
    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("nobody panics while holding it").join("\n")
    }

    /// Returns the last lines, for failures.
    pub(crate) fn tail(&self) -> String {
        let lines = self.0.lock().expect("nobody panics while holding it");
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    /// Returns the address of the autoscaler's HTTP server, once the log contains it.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let text = self.text();
        let line = text.lines().find(|line| line.contains("autoscaler started"))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("http=")?.parse().ok())
    }
}
