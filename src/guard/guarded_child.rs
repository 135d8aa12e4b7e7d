//! One child process that must not outlive this one, such as the browser of a worker. It starts like a worker: a
//! wrapper waits until the guard knows of it.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{
    Guard,
    process_start::WITH_INPUT,
    protocol::{End, Group},
};

/// How often to check whether the process has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Describes what to start, and how to end it.
#[derive(Debug)]
pub struct GuardedChildSpec<'a, A> {
    /// Path of this binary, which also is the guard.
    pub swarm: PathBuf,
    /// Program, by path or found in PATH.
    pub program: &'a Path,
    /// Arguments of the program.
    pub arguments: &'a [A],
    /// Standard output of the program.
    pub output: Stdio,
    /// Standard error of the program.
    pub errors: Stdio,
    /// Whether the program's standard input is a pipe from this process. Otherwise it is empty.
    pub has_input: bool,
    /// Time that the program has to end after SIGTERM, also when this process is gone.
    pub time_to_leave: Duration,
}

/// Guarded process. If dropped without [`stop`](Self::stop), it lives until this process ends.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    input: Option<OwnedFd>,
    group: Group,
    guard: Guard,
    guard_task: TaskTracker,
    time_to_leave: Duration,
}

impl GuardedChild {
    /// Starts the process in a process group of its own.
    ///
    /// # Errors
    /// If the guard or the process can't be started. A program that is missing shows only as its exit code, 127.
    pub async fn start<A: AsRef<OsStr>>(spec: GuardedChildSpec<'_, A>) -> io::Result<Self> {
        let guard_task = TaskTracker::new();
        let guard = Guard::start(spec.swarm.clone(), &guard_task).await?;
        let mut command = Command::new(spec.swarm);
        command.arg("process-start").arg(if spec.has_input { WITH_INPUT } else { "--" });
        command.arg(spec.program).args(spec.arguments);
        command.stdin(Stdio::piped()).stdout(spec.output).stderr(spec.errors).process_group(0);
        let mut child = command.spawn()?;
        // The program's ends of pipes are the only ones from now on.
        drop(command);
        let group = Group::led_by(&child).ok_or_else(|| io::Error::other("a child's process id is not above 1"))?;
        guard.watch(group, End::term_within(spec.time_to_leave)).await;
        let mut starting_line = child.stdin.take();
        if let Some(starting_line) = &mut starting_line {
            // Fails if the process is already dead, which its exit status will show.
            let _ = starting_line.write_all(b"\n");
        }
        let input = starting_line.filter(|_| spec.has_input).map(OwnedFd::from);
        Ok(Self { child, input, group, guard, guard_task, time_to_leave: spec.time_to_leave })
    }

    /// Returns the process id, which is also the number of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns our end of its standard input, once, if it has one.
    pub fn take_input(&mut self) -> Option<OwnedFd> {
        self.input.take()
    }

    /// Returns whether the process has ended. It stays unreaped until [`stop`](Self::stop), so its number is not
    /// reused.
    pub fn ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that it is not our child any more, so there is nothing to wait for.
        !matches!(waitid(WaitId::Pid(self.group.pid()), options), Ok(None))
    }

    /// Sends SIGTERM, kills the rest of the group when the process has ended or its time is over, and closes the guard.
    ///
    /// # Errors
    /// If the process could not be reaped.
    pub async fn stop(mut self) -> io::Result<()> {
        let patience = Instant::now() + self.time_to_leave;
        if !self.ended() {
            let _ = kill_process(self.group.pid(), Signal::TERM);
        }
        while !self.ended() && Instant::now() < patience {
            sleep(POLL_INTERVAL).await;
        }
        // The number is not reused before the process is reaped.
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
