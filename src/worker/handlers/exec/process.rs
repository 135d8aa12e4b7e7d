//! One run of a program: in a process group of its own, with its input on stdin and bounded output; at the end it is
//! killed with all processes that it started. Its progress is told while it runs. Knows nothing about jobs.

use std::{
    io,
    process::{Command, Stdio},
};

use tokio::{
    io::AsyncWriteExt,
    process::{ChildStderr, ChildStdin, ChildStdout},
    signal::unix::Signal as SignalStream,
};

use super::progress_lines::ProgressLines;
use crate::{
    child_group::{ChildGroup, read_tail_of},
    model::progress::Progress,
};

/// How a program ended, and what it printed.
#[derive(Debug)]
pub(super) struct Finished {
    /// Exit code, if the program exited.
    pub(super) code: Option<i32>,
    /// Signal that ended the program, if one did.
    pub(super) signal: Option<i32>,
    pub(super) stdout: Vec<u8>,
    /// End of what it printed to stderr.
    pub(super) stderr_tail: Vec<u8>,
    /// Whether it printed more to stdout than allowed, and was killed for that.
    pub(super) too_much: bool,
}

/// A running program. When dropped, it is killed with all processes that it started.
pub(super) struct Process {
    group: ChildGroup,
    child_ended: SignalStream,
    pipes: (ChildStdin, ChildStdout, ChildStderr),
    max_stdout: usize,
    stderr_tail: usize,
}

impl Process {
    /// Starts `command`, which may print `max_stdout` bytes; the last `stderr_tail` bytes of stderr are kept.
    pub(super) fn start(mut command: Command, max_stdout: usize, stderr_tail: usize) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut group, child_ended) = ChildGroup::spawn(&mut command)?;
        let pipes = (group.stdin()?, group.stdout()?, group.stderr()?);
        Ok(Self { group, child_ended, pipes, max_stdout, stderr_tail })
    }

    /// Passes `input` to the program and waits for its end. Lines of stderr that tell its progress go to `report`.
    pub(super) async fn run(self, input: String, mut report: impl FnMut(Progress)) -> io::Result<Finished> {
        let Self { group, mut child_ended, pipes: (stdin, mut stdout, mut stderr), max_stdout, stderr_tail } = self;
        let (mut printed, mut said) = (Vec::new(), Vec::new());
        let reading = async {
            let mut lines = ProgressLines::default();
            let fits = tokio::join!(
                group.read_up_to(max_stdout, &mut stdout, &mut printed),
                read_tail_of(&mut stderr, &mut said, stderr_tail, |read, said| lines.sift(read, said, &mut report)),
                feed(stdin, input)
            )
            .0;
            lines.finish(&mut said, &mut report);
            fits
        };
        let (status, fits) = group.run(&mut child_ended, reading).await?;
        Ok(Finished {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            stdout: printed,
            stderr_tail: said,
            too_much: fits == Some(false),
        })
    }
}

/// Writes the input. A program may end without reading it, which is not an error.
async fn feed(mut stdin: ChildStdin, input: String) {
    let _ = stdin.write_all(input.as_bytes()).await;
    let _ = stdin.write_all(b"\n").await;
}
