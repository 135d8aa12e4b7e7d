//! Events of the Discord bot. Names and ids of people and servers go to the log only.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tracing::{info, warn};

use super::milliseconds;
use crate::telemetry::metric;

/// Outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The command was carried out, and its reply says so.
    Done,
    /// The command failed, and its reply says why.
    Failed,
    /// The user may not give the command, or the command was invalid.
    Refused,
    /// The user gave too many commands.
    Limited,
    /// The answer came after `answer_seconds`, in a message of its own.
    Late,
    /// No answer came within the time in which Discord accepts one.
    Unanswered,
    /// Discord did not accept the first reply: it was too late, or another process had replied.
    Missed,
    /// Discord did not accept a later reply.
    Undelivered,
    /// The bot was stopped before the answer came.
    Stopped,
}

impl CommandOutcome {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Late => "late",
            Self::Unanswered => "unanswered",
            Self::Missed => "missed",
            Self::Undelivered => "undelivered",
            Self::Stopped => "stopped",
        }
    }
}

/// The bot finished a command.
#[derive(Clone, Copy, Debug)]
pub struct CommandAnswered<'a> {
    /// Name of the command, from a closed set: `web start`, `swarm pause`, …
    pub command: &'static str,
    /// Outcome of the command.
    pub outcome: CommandOutcome,
    /// Time from the arrival of the command to the bot's last reply.
    pub elapsed: Duration,
    /// User who gave the command: in the log only.
    pub user: &'a str,
    /// Channel in which the command was given: in the log only.
    pub channel: &'a str,
    /// Further details of the outcome, for the log.
    pub detail: &'a str,
}

impl CommandAnswered<'_> {
    /// Counts, times and logs the command.
    pub fn emit(self) {
        let Self { command, outcome, elapsed, user, channel, detail } = self;
        counter!(metric::DISCORD_COMMANDS, "command" => command, "outcome" => outcome.as_str()).increment(1);
        histogram!(metric::DISCORD_COMMAND_SECONDS, "command" => command).record(elapsed);
        let outcome = outcome.as_str();
        info!(command, outcome, user, channel, elapsed_ms = milliseconds(elapsed), detail, "command");
    }
}

/// Discord acknowledged the first reply to a command, for which it allows three seconds.
#[derive(Clone, Copy, Debug)]
pub struct CommandAcknowledged {
    /// Time since the command's arrival.
    pub elapsed: Duration,
}

impl CommandAcknowledged {
    /// Records the time.
    pub fn emit(self) {
        histogram!(metric::DISCORD_ACKNOWLEDGED).record(self.elapsed);
    }
}

/// The state of a shard's connection to the gateway changed.
#[derive(Clone, Copy, Debug)]
pub struct ShardChanged<'a> {
    /// Number of the shard: in the log only.
    pub shard: u32,
    /// What happened to the shard.
    pub change: ShardChange<'a>,
    /// Shards that have a session now.
    pub ready: usize,
}

/// A change of a shard's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardChange<'a> {
    /// The shard has a new session.
    Ready,
    /// The shard resumed its session.
    Resumed,
    /// The connection was lost; the shard reconnects by itself.
    Lost {
        /// Why, if the reason is known.
        reason: &'a str,
    },
    /// The shard could not connect, and retries.
    Unreachable {
        /// Why the shard could not connect.
        reason: &'a str,
    },
}

impl ShardChanged<'_> {
    /// Sets the gauge, counts and logs the change.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 shards")]
    pub fn emit(self) {
        let Self { shard, change, ready } = self;
        gauge!(metric::DISCORD_SHARDS_READY).set(ready as f64);
        match change {
            ShardChange::Ready => info!(shard, "connected to discord"),
            ShardChange::Resumed => info!(shard, "connected to discord again, nothing was missed"),
            ShardChange::Lost { reason } => {
                counter!(metric::DISCORD_DISCONNECTS).increment(1);
                info!(shard, reason, "connection to discord lost, connecting again");
            }
            ShardChange::Unreachable { reason } => {
                warn!(shard, "discord's gateway can't be reached, trying again: {reason}");
            }
        }
    }
}

/// The bot did not understand an event of the gateway, and ignores the event.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOddity<'a> {
    /// Shard that received the event.
    pub shard: u32,
    /// What is wrong with the event, without its content, which may contain secrets.
    pub problem: &'a str,
}

impl GatewayOddity<'_> {
    /// Logs the problem.
    pub fn emit(self) {
        warn!(shard = self.shard, "an event of discord was not understood and is left out: {}", self.problem);
    }
}
