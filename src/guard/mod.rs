//! Keeps child processes from outliving this one, however it ends. [`Guard`] is our end of the process guard: it keeps
//! a guard running, and tells it every process group that the guard has to end. [`GuardedChild`] is one such child.
//! `swarm process-guard` decides what the guard does when we are gone; see `docs/adr/0003-process-guard.md`.

mod guarded_child;
mod helper;
mod process_guard;
mod process_start;
pub mod protocol;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::guarded_child::{GuardedChild, GuardedChildSpec};
pub use self::helper::run_as_helper;
use self::protocol::{End, Group, Message, READY};

/// Timeout for a guard to start, to read and to end: its work takes microseconds.
const GUARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the next start after a failed one.
const RESPAWN_PAUSE: Duration = Duration::from_millis(500);
/// Capacity of messages to the guard. Senders beyond it wait, as they do for the acknowledgement anyway.
const MAILBOX: usize = 64;

/// Tells the guard about process groups.
#[derive(Clone, Debug)]
pub struct Guard {
    mailbox: mpsc::Sender<Registration>,
    done: CancellationToken,
}

/// Message for the guard, and the sender to notify of its delivery.
struct Registration {
    message: Message,
    delivered: oneshot::Sender<()>,
}

impl Guard {
    /// Starts a guard, and the task that keeps it running until [`close`](Self::close).
    pub async fn start(swarm: PathBuf, tasks: &TaskTracker) -> io::Result<Self> {
        let link = Link::open(&swarm).await?;
        let (mailbox, registrations) = mpsc::channel(MAILBOX);
        let done = CancellationToken::new();
        let task = GuardTask { swarm, registrations, done: done.clone(), watched: HashMap::new(), waiting: Vec::new() };
        tasks.spawn(task.run(link));
        Ok(Self { mailbox, done })
    }

    /// Closes the guard. It treats that as our death, so every group must have been removed before.
    pub fn close(&self) {
        self.done.cancel();
    }

    /// Makes the guard end `group` if the scaler dies. Returns when the guard knows the group, after any number of
    /// restarts.
    pub async fn watch(&self, group: Group, end: End) {
        self.deliver(Message::Watch { group, end }).await;
    }

    /// Undoes [`watch`](Self::watch). Must return before the leader is reaped, because its number may be reused
    /// afterwards.
    pub async fn forget(&self, group: Group) {
        self.deliver(Message::Forget(group)).await;
    }

    async fn deliver(&self, message: Message) {
        let (delivered, delivery) = oneshot::channel();
        if self.mailbox.send(Registration { message, delivered }).await.is_ok() {
            // An error means that the runtime shuts down, and the guard is about to see the end of its input.
            let _ = delivery.await;
        }
    }
}

/// Task behind [`Guard`].
struct GuardTask {
    swarm: PathBuf,
    registrations: mpsc::Receiver<Registration>,
    done: CancellationToken,
    /// Groups that the guard knows, and that its successor learns first.
    watched: HashMap<Group, End>,
    /// Deliveries to confirm when a guard runs again.
    waiting: Vec<oneshot::Sender<()>>,
}

impl GuardTask {
    async fn run(mut self, mut link: Link) {
        while let Err(error) = self.serve(&mut link).await {
            tracing::warn!(%error, "process guard failed; starting another one");
            link.kill().await;
            match self.reopen().await {
                Some(next) => link = next,
                None => return,
            }
        }
        link.close().await;
    }

    /// Passes registrations on until the channel closes (`Ok`) or the guard fails.
    async fn serve(&mut self, link: &mut Link) -> io::Result<()> {
        let known: String =
            self.watched.iter().map(|(&group, &end)| Message::Watch { group, end }.to_string()).collect();
        link.send(&known).await?;
        for delivered in self.waiting.drain(..) {
            let _ = delivered.send(());
        }
        loop {
            let registration = tokio::select! {
                registration = self.registrations.recv() => registration,
                () = self.done.cancelled() => None,
                status = link.child.wait() => return Err(io::Error::other(format!("it ended: {}", status?))),
            };
            let Some(Registration { message, delivered }) = registration else { return Ok(()) };
            self.note(message);
            // Queued first: if the guard fails here, its successor learns of the group before the sender is notified.
            self.waiting.push(delivered);
            link.send(&message.to_string()).await?;
            for delivered in self.waiting.drain(..) {
                let _ = delivered.send(());
            }
        }
    }

    /// Starts guards until one runs, and meanwhile removes groups that end. `None` if no guard is needed any more.
    async fn reopen(&mut self) -> Option<Link> {
        loop {
            match Link::open(&self.swarm).await {
                Ok(link) => return Some(link),
                Err(error) => tracing::error!(%error, "no process guard; processes that start have to wait for one"),
            }
            let again_at = Instant::now() + RESPAWN_PAUSE;
            loop {
                tokio::select! {
                    () = sleep_until(again_at) => break,
                    () = self.done.cancelled() => return None,
                    registration = self.registrations.recv() => {
                        let Registration { message, delivered } = registration?;
                        self.note(message);
                        match message {
                            Message::Watch { .. } => self.waiting.push(delivered),
                            Message::Forget(_) => drop(delivered.send(())),
                        }
                    }
                }
            }
        }
    }

    fn note(&mut self, message: Message) {
        match message {
            Message::Watch { group, end } => drop(self.watched.insert(group, end)),
            Message::Forget(group) => drop(self.watched.remove(&group)),
        }
    }
}

/// Running guard.
struct Link {
    child: Child,
    input: ChildStdin,
}

impl Link {
    /// Starts a guard and waits until it reports that it is ready.
    async fn open(swarm: &Path) -> io::Result<Self> {
        let mut child = Command::new(swarm)
            .arg("process-guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("could not start `{}`: {error}", swarm.display())))?;
        let input = child.stdin.take().expect("stdin is piped");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        let said = timeout(GUARD_TIMEOUT, output.read_line(&mut line)).await;
        if matches!(said, Ok(Ok(_))) && line.trim_end() == READY {
            return Ok(Self { child, input });
        }
        Self { child, input }.kill().await;
        let message = format!("`{} process-guard` did not say `{READY}`; is that the swarm binary?", swarm.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }

    async fn send(&mut self, lines: &str) -> io::Result<()> {
        timeout(GUARD_TIMEOUT, self.input.write_all(lines.as_bytes())).await?
    }

    /// Ends a failed guard. Keeps its input open until it is dead, so that it does not treat the end of input as our
    /// death.
    async fn kill(mut self) {
        let unreaped = self.child.id().is_some();
        if unreaped && let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "could not end a failed process guard");
        }
    }

    /// Closes a guard that has no group left.
    async fn close(self) {
        let Self { mut child, input } = self;
        drop(input);
        if timeout(GUARD_TIMEOUT, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}
