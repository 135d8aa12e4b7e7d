//! A process of ours that is no worker and must not outlive us either, such as the server of a demonstration. It is
//! started and ended the way workers are: held at the starting line until the guard knows of it.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{guard::Guard, protocol::Group};

/// How often it looks whether the process has left. Nobody waits for it but us, once.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A guarded process. Dropped without [`stop`](Self::stop), it lives until this process ends.
#[derive(Debug)]
pub struct Ward {
    child: Child,
    group: Group,
    guard: Guard,
    keeper: TaskTracker,
    time_to_leave: Duration,
}

impl Ward {
    /// Starts `program`, found in PATH or by its path, in a process group of its own, with nothing on its standard
    /// streams but `output`. `swarm` is the binary that guards it; when told to leave, it may take `time_to_leave`.
    ///
    /// # Errors
    /// If the guard or the process can't be started. A program that is missing shows only as its exit code, 127.
    pub async fn start(
        swarm: PathBuf,
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
        output: Stdio,
        time_to_leave: Duration,
    ) -> io::Result<Self> {
        let keeper = TaskTracker::new();
        let guard = Guard::start(swarm.clone(), &keeper).await?;
        let mut command = Command::new(swarm);
        command.arg("process-start").arg("--").arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let group = Group::led_by(&child).ok_or_else(|| io::Error::other("a child's process id is not above 1"))?;
        guard.watch(group, time_to_leave).await;
        if let Some(mut starting_line) = child.stdin.take() {
            // Fails if the process is dead already, which its exit status will show.
            let _ = starting_line.write_all(b"\n");
        }
        Ok(Self { child, group, guard, keeper, time_to_leave })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to leave, kills it if it does not, and lets the guard go.
    ///
    /// # Errors
    /// If it could not be reaped.
    pub async fn stop(mut self) -> io::Result<()> {
        // Once reaped, its number may be someone else's: signals only before.
        if self.child.try_wait()?.is_none() {
            let _ = kill_process(self.group.pid(), Signal::TERM);
            let patience = Instant::now() + self.time_to_leave;
            while self.child.try_wait()?.is_none() {
                if Instant::now() >= patience {
                    let _ = kill_process_group(self.group.pid(), Signal::KILL);
                    self.child.wait()?;
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
        }
        self.guard.forget(self.group).await;
        self.guard.close();
        self.keeper.close();
        self.keeper.wait().await;
        Ok(())
    }
}
