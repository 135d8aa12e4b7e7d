//! A child process in a process group of its own that ends with it: with everything that it started, and with whoever
//! holds it here. Its output is read in bounds. Knows neither jobs nor workers.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    time::timeout,
};

/// How long output is read after the end: only a process that left the group can keep it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Maximum bytes of one read.
pub(crate) const CHUNK: usize = 16 << 10;

/// A process group led by a child. Killed and reaped when dropped.
pub(crate) struct ChildGroup(Child);

impl ChildGroup {
    /// Starts `command` as the leader of a group. The stream tells that some child of this process has ended, and is
    /// subscribed before the start, so that no end is missed.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Self, SignalStream)> {
        let child_ended = signal(SignalKind::child())?;
        Ok((Self(command.process_group(0).spawn()?), child_ended))
    }

    /// Takes the pipe to the input.
    pub(crate) fn stdin(&mut self) -> io::Result<ChildStdin> {
        ChildStdin::from_std(self.0.stdin.take().ok_or_else(no_pipe)?)
    }

    /// Takes the pipe from the output.
    pub(crate) fn stdout(&mut self) -> io::Result<ChildStdout> {
        ChildStdout::from_std(self.0.stdout.take().ok_or_else(no_pipe)?)
    }

    /// Takes the pipe from the errors.
    pub(crate) fn stderr(&mut self) -> io::Result<ChildStderr> {
        ChildStderr::from_std(self.0.stderr.take().ok_or_else(no_pipe)?)
    }

    /// Reads until the end; kills the group and returns `false` if there is more than `limit`.
    pub(crate) async fn read_up_to(
        &self,
        limit: usize,
        pipe: &mut (impl AsyncRead + Unpin),
        into: &mut Vec<u8>,
    ) -> bool {
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            if into.len() + read > limit {
                self.kill();
                return false;
            }
            into.extend_from_slice(&chunk[..read]);
        }
        true
    }

    /// Waits for the end of the leader while `reading` reads its output, and kills what is left of the group. Returns
    /// what `reading` does; `None` if a process that left the group keeps the output open.
    pub(crate) async fn run<T>(
        &self,
        child_ended: &mut SignalStream,
        reading: impl Future<Output = T>,
    ) -> io::Result<(WaitIdStatus, Option<T>)> {
        let mut reading = Box::pin(reading);
        let mut read = None;
        let status = tokio::select! {
            status = self.ended(child_ended) => status?,
            done = &mut reading => {
                read = Some(done);
                self.ended(child_ended).await?
            }
        };
        // The leader is dead and not reaped, so the group's id is still its own. Kills processes that keep the pipes
        // open.
        self.kill();
        if read.is_none() {
            read = timeout(LAST_OUTPUT, &mut reading).await.ok();
        }
        Ok((status, read))
    }

    /// Waits until the leader has ended, and leaves it unreaped.
    async fn ended(&self, child_ended: &mut SignalStream) -> io::Result<WaitIdStatus> {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let pid = self.pid().ok_or_else(|| io::Error::other("a child's process id is not above 0"))?;
            if let Some(status) = waitid(WaitId::Pid(pid), options)? {
                return Ok(status);
            }
            child_ended.recv().await;
        }
    }

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

impl Drop for ChildGroup {
    fn drop(&mut self) {
        self.kill();
        // Takes no longer than the kernel needs to end a killed process.
        let _ = self.0.wait();
    }
}

/// Reads until the end and keeps the last `keep` bytes.
#[cfg(feature = "autoscaler")]
pub(crate) async fn read_tail(pipe: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>, keep: usize) {
    read_tail_of(pipe, into, keep, |read, into| into.extend_from_slice(read)).await;
}

/// Reads until the end and keeps the last `keep` bytes of what `sift` appends of each part that was read.
pub(crate) async fn read_tail_of(
    pipe: &mut (impl AsyncRead + Unpin),
    into: &mut Vec<u8>,
    keep: usize,
    mut sift: impl FnMut(&[u8], &mut Vec<u8>),
) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        sift(&chunk[..read], into);
        let surplus = into.len().saturating_sub(keep);
        into.drain(..surplus);
    }
}

fn no_pipe() -> io::Error {
    io::Error::other("the program has no pipes")
}
