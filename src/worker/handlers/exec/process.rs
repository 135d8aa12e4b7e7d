//! One run of a program: in a process group of its own, with its input on stdin and bounded output; at the end it is
//! killed with all processes that it started. Knows nothing about jobs.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    time::timeout,
};

/// How long output is read after the end: only a child that left the process group can keep it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Maximum bytes of one read.
const CHUNK: usize = 16 << 10;

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
    group: Group,
    child_ended: SignalStream,
    pipes: Option<(ChildStdin, ChildStdout, ChildStderr)>,
    max_stdout: usize,
    stderr_tail: usize,
}

impl Process {
    /// Starts `command`, which may print `max_stdout` bytes; the last `stderr_tail` bytes of stderr are kept.
    pub(super) fn start(mut command: Command, max_stdout: usize, stderr_tail: usize) -> io::Result<Self> {
        // Before the start, so that no exit is missed.
        let child_ended = signal(SignalKind::child())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let group = Group(child);
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the program has no pipes"));
        };
        let pipes = (ChildStdin::from_std(stdin)?, ChildStdout::from_std(stdout)?, ChildStderr::from_std(stderr)?);
        Ok(Self { group, child_ended, pipes: Some(pipes), max_stdout, stderr_tail })
    }

    /// Passes `input` to the program and waits for its end.
    pub(super) async fn run(mut self, input: String) -> io::Result<Finished> {
        let Some((stdin, mut stdout, mut stderr)) = self.pipes.take() else {
            return Err(io::Error::other("the program has no pipes"));
        };
        let (mut printed, mut said) = (Vec::new(), Vec::new());
        let (max_stdout, tail) = (self.max_stdout, self.stderr_tail);
        let group = &self.group;
        let bounded = async {
            let fits = read_up_to(&mut stdout, &mut printed, max_stdout).await;
            if !fits {
                group.kill();
            }
            fits
        };
        let mut reading =
            Box::pin(async { tokio::join!(feed(stdin, input), bounded, read_tail(&mut stderr, &mut said, tail)).1 });
        let mut fits = None;
        let status = tokio::select! {
            status = ended(group, &mut self.child_ended) => status?,
            known = &mut reading => {
                fits = Some(known);
                ended(group, &mut self.child_ended).await?
            }
        };
        // The program is dead and not reaped, so the group's id is still its own. Kills processes that keep the pipes
        // open.
        group.kill();
        let fits = match fits {
            Some(fits) => fits,
            None => timeout(LAST_OUTPUT, &mut reading).await.unwrap_or(true),
        };
        drop(reading);
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        Ok(Finished { code, signal, stdout: printed, stderr_tail: said, too_much: !fits })
    }
}

/// Waits until the leader of the group has ended, and leaves it unreaped.
async fn ended(group: &Group, child_ended: &mut SignalStream) -> io::Result<WaitIdStatus> {
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let pid = group.pid().ok_or_else(|| io::Error::other("a child's process id is not above 0"))?;
        if let Some(status) = waitid(WaitId::Pid(pid), options)? {
            return Ok(status);
        }
        child_ended.recv().await;
    }
}

/// Writes the input. A program may end without reading it, which is not an error.
async fn feed(mut stdin: ChildStdin, input: String) {
    let _ = stdin.write_all(input.as_bytes()).await;
    let _ = stdin.write_all(b"\n").await;
}

/// Reads until the end; returns `false` if there was more than `limit`.
async fn read_up_to(pipe: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>, limit: usize) -> bool {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        if into.len() + read > limit {
            return false;
        }
        into.extend_from_slice(&chunk[..read]);
    }
    true
}

/// Reads until the end and keeps the last `keep` bytes.
async fn read_tail(pipe: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>, keep: usize) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        into.extend_from_slice(&chunk[..read]);
        let surplus = into.len().saturating_sub(keep);
        into.drain(..surplus);
    }
}

/// A process group led by the child. Killed and reaped when dropped.
struct Group(Child);

impl Group {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            // Fails if no process is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        // Takes no longer than the kernel needs to end a killed process.
        let _ = self.0.wait();
    }
}
