//! The log while the demo runs: all lines go to a file, the newest are kept for the screen, none goes to the terminal.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::telemetry::init_logging_into;

/// Lines kept in memory: more than any screen shows.
const KEPT: usize = 50;

/// Destination of log lines.
#[derive(Clone, Debug)]
pub(super) struct Log {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    newest: VecDeque<String>,
}

impl Log {
    /// Makes `path` the log of this process.
    pub(super) fn capture(path: &Path) -> anyhow::Result<Self> {
        let log = Self::into_file(File::create(path)?);
        let writer = log.clone();
        init_logging_into(move || writer.clone(), "info")?;
        Ok(log)
    }

    fn into_file(file: File) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { file, newest: VecDeque::with_capacity(KEPT) })) }
    }

    /// Returns the newest `count` lines, oldest first.
    pub(super) fn newest(&self, count: usize) -> Vec<String> {
        let inner = self.lock();
        inner.newest.iter().skip(inner.newest.len().saturating_sub(count)).cloned().collect()
    }

    /// Locks the lines; a panic never leaves a line half written.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Log {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        for line in String::from_utf8_lossy(lines).lines() {
            if inner.newest.len() == KEPT {
                inner.newest.pop_front();
            }
            inner.newest.push_back(line.to_owned());
        }
        inner.file.write_all(lines)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_everything_and_the_newest_lines_are_at_hand() {
        let mut log = Log::into_file(tempfile::tempfile().unwrap());
        for n in 0..100 {
            log.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        assert_eq!(log.newest(2), ["line 98", "line 99"]);
        assert_eq!(log.newest(1_000).len(), KEPT);
        assert_eq!(log.lock().file.metadata().unwrap().len(), 790);
    }
}
