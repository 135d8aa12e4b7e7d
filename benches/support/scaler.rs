//! The benchmark's end of the scaler's process.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use crate::protocol::{Command, Event, SCALER_ARGUMENT, Setup, Status};

/// Timeout for the scaler's status to be as wanted, above all for its first look at all its queues.
const START: Duration = Duration::from_secs(60);

/// How long any answer or reaction may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Interval of looks at the scaler's status.
const LOOK: Duration = Duration::from_millis(1);

/// A running scaler; stopped when dropped.
pub(crate) struct Scaler {
    pub(crate) process: Child,
    commands: Option<ChildStdin>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Scaler {
    /// Starts it and waits until it has evaluated every worker type.
    pub(crate) async fn start(setup: &Setup) -> anyhow::Result<Self> {
        let mut process = std::process::Command::new(std::env::current_exe()?)
            .args([SCALER_ARGUMENT, &serde_json::to_string(setup)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("SWARM_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .context("the scaler's process can't be started")?;
        let commands = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().context("the scaler has no stdout")?).lines();
        let (sender, events) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for event in lines.map_while(|line| serde_json::from_str(&line.ok()?).ok()) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut scaler = Self { process, commands, events };
        scaler.until("ready", |status| status.ready).await?;
        Ok(scaler)
    }

    /// Waits until its status is as wanted; `what` names that.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Status) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let status = self.status().await?;
            if is_so(&status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the scaler is not {what} after {START:?}: {status:?}; SWARM_LOG=info shows its log");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What it shows of itself. Passes over requests to scale that have not been fetched.
    pub(crate) async fn status(&mut self) -> anyhow::Result<Status> {
        self.command(Command::Status)?;
        loop {
            if let Event::Status(status) = self.next().await? {
                return Ok(status);
            }
        }
    }

    /// Sends a command.
    pub(crate) fn command(&mut self, command: Command) -> anyhow::Result<()> {
        let pipe = self.commands.as_mut().context("the scaler is being stopped")?;
        writeln!(pipe, "{}", serde_json::to_string(&command)?).context("the scaler has ended; SWARM_LOG=info shows why")
    }

    /// The next thing it tells.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Event> {
        let next = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        next.context("the scaler does not react")?.context("the scaler has ended; SWARM_LOG=info shows why")
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // Its end of stdin tells it to stop.
        self.commands = None;
        let _ = self.process.wait();
    }
}
