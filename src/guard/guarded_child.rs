//! One child that must not outlive us, such as the browser of a worker. It is started the way workers are: held at the
//! starting line until the guard knows of it.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{Guard, protocol::Group};

/// How often to check whether the process has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What is started, and how it is ended.
#[derive(Debug)]
pub struct GuardedChildSpec<'a, A> {
    /// The binary that guards it: this very one.
    pub swarm: PathBuf,
    /// Found in PATH or by its path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [A],
    /// Its standard output.
    pub output: Stdio,
    /// Its standard error.
    pub errors: Stdio,
    /// How long it may take to leave when it is told to, or when this process is gone.
    pub time_to_leave: Duration,
}

/// A guarded process. Dropped without [`stop`](Self::stop), it lives until this process ends.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    group: Group,
    guard: Guard,
    guard_task: TaskTracker,
    time_to_leave: Duration,
}

impl GuardedChild {
    /// Starts it in a process group of its own.
    ///
    /// # Errors
    /// If the guard or the process can't be started. A program that is missing shows only as its exit code, 127.
    pub async fn start<A: AsRef<OsStr>>(spec: GuardedChildSpec<'_, A>) -> io::Result<Self> {
        let guard_task = TaskTracker::new();
        let guard = Guard::start(spec.swarm.clone(), &guard_task).await?;
        let mut command = Command::new(spec.swarm);
        command.arg("process-start").arg("--").arg(spec.program).args(spec.arguments);
        command.stdin(Stdio::piped()).stdout(spec.output).stderr(spec.errors).process_group(0);
        let mut child = command.spawn()?;
        let group = Group::led_by(&child).ok_or_else(|| io::Error::other("a child's process id is not above 1"))?;
        guard.watch(group, spec.time_to_leave).await;
        if let Some(mut starting_line) = child.stdin.take() {
            // Fails if the process is dead already, which its exit status will show.
            let _ = starting_line.write_all(b"\n");
        }
        Ok(Self { child, group, guard, guard_task, time_to_leave: spec.time_to_leave })
    }

    /// The process id, which is also its group's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended. It stays unreaped until [`stop`](Self::stop), so its number is nobody else's.
    pub fn ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that it is no child of ours any more, and nothing is left to wait for.
        !matches!(waitid(WaitId::Pid(self.group.pid()), options), Ok(None))
    }

    /// Asks it to leave, kills what is left of its group when it has left or has had its time, and lets the guard go.
    ///
    /// # Errors
    /// If it could not be reaped.
    pub async fn stop(mut self) -> io::Result<()> {
        let patience = Instant::now() + self.time_to_leave;
        if !self.ended() {
            let _ = kill_process(self.group.pid(), Signal::TERM);
        }
        while !self.ended() && Instant::now() < patience {
            sleep(POLL_INTERVAL).await;
        }
        // Its number can't be someone else's before it is reaped.
        let _ = kill_process_group(self.group.pid(), Signal::KILL);
        while !self.ended() {
            sleep(POLL_INTERVAL).await;
        }
        self.guard.forget(self.group).await;
        let reaped = self.child.wait().map(drop);
        self.guard.close();
        self.guard_task.close();
        self.guard_task.wait().await;
        reaped
    }
}
