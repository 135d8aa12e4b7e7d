//! Progress of a job that a command waits for, on standard error: one line that changes on a terminal, otherwise one
//! line for each change.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use ratatui::crossterm::terminal;
use tokio::time::sleep;

use super::view::words::{cut, printable};
use crate::{
    broker::progress_of,
    connection::{Connection, RedisTarget},
};

/// Time between two looks at the progress, and before the first one: a job that ends before costs nothing.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Columns of a terminal that does not tell.
const COLUMNS: u16 = 80;

/// What is shown of a job's progress.
#[derive(Default)]
pub(super) struct ProgressLine {
    shown: Option<String>,
}

impl ProgressLine {
    /// Shows the progress of job `id` of `stream` on a connection of its own. Ends only if it can't be read at all,
    /// because this Redis user has no right to. May be dropped at any time.
    pub(super) async fn follow(&mut self, target: &RedisTarget, stream: &str, id: &str) {
        let mut open: Option<Connection> = None;
        loop {
            sleep(POLL_INTERVAL).await;
            let connection = match &mut open {
                Some(connection) => connection,
                None => match target.connect().await {
                    Ok(connection) => open.insert(connection),
                    Err(_) => continue,
                },
            };
            match progress_of(connection, stream, id).await {
                Ok(Some(reported)) => self.show(&reported.progress.to_string()),
                Ok(None) => {}
                Err(error) if error.is_denied() => {
                    tracing::debug!(%error, "waiting without the progress of the job");
                    return;
                }
                Err(_) => open = None,
            }
        }
    }

    fn show(&mut self, progress: &str) {
        let terminal = stderr().is_terminal().then(|| terminal::size().map_or(COLUMNS, |(columns, _)| columns));
        if let Some(text) = self.change(progress, terminal) {
            write(&text);
        }
    }

    /// Returns what to write to show the progress, in a file or on a terminal whose number of columns is `terminal`;
    /// `None` if it is shown already.
    fn change(&mut self, progress: &str, terminal: Option<u16>) -> Option<String> {
        let line = format!("progress: {}", printable(progress));
        if self.shown.as_ref() == Some(&line) {
            return None;
        }
        let text = match terminal {
            // A line as wide as the terminal would move the cursor on to the next one.
            Some(columns) => format!("\r\x1b[K{}", cut(&line, usize::from(columns.max(2) - 1))),
            None => format!("{line}\n"),
        };
        self.shown = Some(line);
        Some(text)
    }

    /// Makes room for what comes next.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() && stderr().is_terminal() {
            write("\r\x1b[K");
        }
    }
}

/// Writes to standard error. A reader that has gone away misses it.
fn write(text: &str) {
    let mut stderr = stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_one_line_and_a_file_a_line_for_each_change() {
        let (mut file, mut terminal) = (ProgressLine::default(), ProgressLine::default());
        assert_eq!(file.change("40 %: a\u{1b}b", None).unwrap(), "progress: 40 %: a\u{fffd}b\n");
        assert_eq!(file.change("40 %: a\u{1b}b", None), None);
        assert_eq!(file.change("60 %", None).unwrap(), "progress: 60 %\n");
        assert_eq!(terminal.change("60 %", Some(80)).unwrap(), "\r\x1b[Kprogress: 60 %");
        assert_eq!(terminal.change("a long text", Some(13)).unwrap(), "\r\x1b[Kprogress: a…");
    }
}
