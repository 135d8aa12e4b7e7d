//! One run of a program: in a process group of its own, fed with its input, its output bounded, and at the end killed with
//! all that it started. Knows nothing of jobs.

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

/// How long output is waited for after the end: only a child that left the process group can hold it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// How a program ended and what it printed.
#[derive(Debug)]
pub(super) struct Finished {
    /// The exit code, if it exited.
    pub(super) code: Option<i32>,
    /// The signal that ended it, if one did.
    pub(super) signal: Option<i32>,
    pub(super) stdout: Vec<u8>,
    /// The end of what it printed to stderr.
    pub(super) stderr_tail: Vec<u8>,
    /// It printed more to stdout than it may, and was killed for it.
    pub(super) too_much: bool,
}

/// A running program. Dropped, it is killed with all that it started.
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
        // Before the start, so that no end is missed.
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

    /// Feeds it `input` and waits for its end.
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
        // It is dead and not reaped: the group's number still is its own. Ends those that hold the pipes open.
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

/// A program may end without reading its input, which is no error.
async fn feed(mut stdin: ChildStdin, input: String) {
    let _ = stdin.write_all(input.as_bytes()).await;
    let _ = stdin.write_all(b"\n").await;
}

/// Reads until the end; `false` if there was more than `limit`.
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

/// A process group led by our child. Killed and reaped when dropped.
struct Group(Child);

impl Group {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            // Fails if there is nobody left.
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
