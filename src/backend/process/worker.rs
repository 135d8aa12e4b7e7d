//! One worker process from start to finish. Its supervisor task is the only one to signal it and the only one to reap
//! it: signals go out only while the process is unreaped, so its number can't have become someone else's.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rustix::{
    io::Errno,
    process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group as kill_group, waitid},
};
use tokio::{
    process::{ChildStderr, ChildStdout},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    ProcessShared, TypePool,
    departure::{Departure, Stepped},
    output,
    registry::LeaveWithin,
};
use crate::{
    guard::protocol::Group,
    model::{StopPolicy, WorkerId, WorkerType},
};

/// How long the last lines of a worker that ended may take. Only a descendant that left the group can hold its pipes.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A worker process that waits at the starting line.
pub(super) struct Started {
    child: Child,
    group: Group,
    /// Subscribed before the process existed, so that its end can't be missed.
    child_ended: SignalStream,
    output: (ChildStdout, ChildStderr),
}

impl Started {
    /// Starts `command`, a [`Surroundings::command`](super::Surroundings), in a process group of its own.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let child_ended = signal(SignalKind::child())?;
        let mut child = command.process_group(0).spawn()?;
        let group = Group::led_by(&child).expect("a child's process id is above 1");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        match (ChildStdout::from_std(stdout), ChildStderr::from_std(stderr)) {
            (Ok(stdout), Ok(stderr)) => Ok(Self { child, group, child_ended, output: (stdout, stderr) }),
            (Err(error), _) | (_, Err(error)) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }
}

/// Runs one worker: lets it go once it is guarded, passes on the order to leave, and cleans up behind it.
pub(super) struct Supervisor {
    pub(super) shared: Arc<ProcessShared>,
    pub(super) pool: Arc<TypePool>,
    pub(super) worker_type: WorkerType,
    pub(super) id: WorkerId,
    /// How long it may take when the scaler ends.
    pub(super) drain_timeout: Duration,
    pub(super) stop: StopPolicy,
    pub(super) stop_requests: watch::Receiver<LeaveWithin>,
}

impl Supervisor {
    /// Ends when the process is reaped, its group is gone and its last lines are logged.
    pub(super) async fn run(mut self, started: Started) {
        let Started { mut child, group, mut child_ended, output: (stdout, stderr) } = started;
        let (worker_type, id) = (self.worker_type.clone(), self.id.clone());
        let mut output = self.shared.workers.spawn(async move {
            tokio::join!(output::forward(stdout, &worker_type, &id), output::forward(stderr, &worker_type, &id));
        });

        let end = self.accompany(&mut child, group, &mut child_ended).await;
        if end.is_ok() {
            // The leader is dead and unreaped: the group's number still is its own. Fails if there is nobody left.
            let _ = kill_group(group.pid(), Signal::KILL);
        }
        self.record(&end);
        self.shared.guard.forget(group).await;
        if let Err(error) = child.wait() {
            warn!(worker_type = %self.worker_type, worker_id = %self.id, %error, "could not reap worker");
        }
        if timeout(LAST_LINES, &mut output).await.is_err() {
            output.abort();
        }
    }

    /// Waits for the end of the process, and leaves it unreaped.
    async fn accompany(&mut self, child: &mut Child, group: Group, child_ended: &mut SignalStream) -> End {
        let guarded = self.shared.guard.watch(group, Departure::guarded(self.stop, self.drain_timeout));
        tokio::pin!(guarded);
        let mut starting_line = child.stdin.take();
        let mut departure = Departure::new(self.stop, group);
        let (worker_type, worker_id) = (&self.worker_type, &self.id);
        loop {
            if let Some(end) = ended(group) {
                return end;
            }
            tokio::select! {
                () = &mut guarded, if starting_line.is_some() => {
                    if let Some(mut line) = starting_line.take() {
                        // Fails if the process is dead already, which the next round sees.
                        let _ = line.write_all(b"\n");
                    }
                }
                _ = child_ended.recv() => {}
                Ok(()) = self.stop_requests.changed() => {
                    if let Some(within) = *self.stop_requests.borrow_and_update() {
                        debug!(%worker_type, %worker_id, within_seconds = within.as_secs(), "asking worker to leave");
                        departure.ask(within, || until_done(self.shared.clone(), worker_type.clone(), worker_id.clone(), within));
                    }
                }
                stepped = departure.next() => match stepped {
                    Stepped::Asked => debug!(%worker_type, %worker_id, "sent the worker its stop signal"),
                    Stepped::AskedAtTimeout => warn!(
                        %worker_type, %worker_id,
                        "worker has not said that its jobs are done within its drain timeout; sent it its stop signal"
                    ),
                    Stepped::Killed => {
                        warn!(%worker_type, %worker_id, "worker outstayed its drain timeout; killing it");
                    }
                },
            }
        }
    }

    /// Writes the end down and tells those who care.
    fn record(&self, end: &End) {
        let (worker_type, worker_id) = (&self.worker_type, &self.id);
        let (success, detail) = describe(end);
        if let Some(exit) = self.pool.registry.ended(worker_id, self.shared.clock.now(), success, &detail) {
            warn!(%worker_type, %worker_id, lived_seconds = exit.lived.as_secs(), "worker ended unasked: {detail}");
        } else {
            info!(%worker_type, %worker_id, "worker left: {detail}");
        }
        (self.shared.on_change)(worker_type);
    }
}

/// Ends when a worker that takes no more jobs has none, or its time is over.
fn until_done(
    shared: Arc<ProcessShared>,
    worker_type: WorkerType,
    id: WorkerId,
    within: Duration,
) -> BoxFuture<'static, bool> {
    async move { shared.quiet.until_done(&worker_type, &id, within).await }.boxed()
}

/// How a process ended. An error means that it is no child of ours any more, and nothing may be signalled.
type End = Result<WaitIdStatus, Errno>;

/// Whether the leader of `group`, our child, has ended. Leaves it unreaped.
fn ended(group: Group) -> Option<End> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(group.pid()), options).transpose()
}

/// For people; and whether it was a success.
fn describe(end: &End) -> (bool, String) {
    let status = match end {
        Ok(status) => status,
        Err(error) => return (false, format!("status unknown: {error}")),
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code == 0, format!("exit code {code}")),
        (None, Some(number)) => match signal_hook::low_level::signal_name(number) {
            Some(name) => (false, format!("signal {number} ({name})")),
            None => (false, format!("signal {number}")),
        },
        (None, None) => (false, "status unknown".to_owned()),
    }
}
