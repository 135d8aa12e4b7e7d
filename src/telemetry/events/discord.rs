//! Events of the Discord bot. Names and ids of people and servers go to the log only.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tracing::{info, warn};

use super::milliseconds;
use crate::telemetry::metric;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Its reply says that it was done.
    Done,
    /// Its reply says why it was not.
    Failed,
    /// Whoever gave it may not, or it made no sense.
    Refused,
    /// Too many were given.
    Limited,
    /// The answer came after `answer_seconds`, in a message of its own.
    Late,
    /// There was no answer for as long as Discord takes one.
    Unanswered,
    /// Discord did not take the first reply: it came too late, or somebody else had replied.
    Missed,
    /// Discord did not take a later reply.
    Undelivered,
    /// The bot was stopped before the answer came.
    Stopped,
}

impl CommandOutcome {
    /// The name in metric labels.
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

/// A command was dealt with.
#[derive(Clone, Copy, Debug)]
pub struct CommandAnswered<'a> {
    /// `web start`, `swarm pause`, …: of a closed set.
    pub command: &'static str,
    /// What became of it.
    pub outcome: CommandOutcome,
    /// From when the bot heard of it until its last reply.
    pub elapsed: Duration,
    /// Who gave it: in the log only.
    pub user: &'a str,
    /// Where: in the log only.
    pub channel: &'a str,
    /// What is worth knowing besides.
    pub detail: &'a str,
}

impl CommandAnswered<'_> {
    /// Counts, times and logs it.
    pub fn emit(self) {
        let Self { command, outcome, elapsed, user, channel, detail } = self;
        counter!(metric::DISCORD_COMMANDS, "command" => command, "outcome" => outcome.as_str()).increment(1);
        histogram!(metric::DISCORD_COMMAND_SECONDS, "command" => command).record(elapsed);
        let outcome = outcome.as_str();
        info!(command, outcome, user, channel, elapsed_ms = milliseconds(elapsed), detail, "command");
    }
}

/// Discord has acknowledged the first reply to a command, for which it allows three seconds.
#[derive(Clone, Copy, Debug)]
pub struct CommandAcknowledged {
    /// From when the bot heard of the command.
    pub elapsed: Duration,
}

impl CommandAcknowledged {
    /// Times it.
    pub fn emit(self) {
        histogram!(metric::DISCORD_ACKNOWLEDGED).record(self.elapsed);
    }
}

/// How a shard's connection to the gateway is now.
#[derive(Clone, Copy, Debug)]
pub struct ShardChanged<'a> {
    /// Its number: in the log only.
    pub shard: u32,
    /// What happened.
    pub change: ShardChange<'a>,
    /// Shards that have a session now.
    pub ready: usize,
}

/// What happened to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardChange<'a> {
    /// It has a new session.
    Ready,
    /// It goes on with the session that it had.
    Resumed,
    /// The connection is gone; it connects again by itself.
    Lost {
        /// Why, as far as that is known.
        reason: &'a str,
    },
    /// It could not connect, and tries again.
    Unreachable {
        /// Why.
        reason: &'a str,
    },
}

impl ShardChanged<'_> {
    /// Shows, counts and logs it.
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

/// Something of the gateway was not understood, and is left out.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOddity<'a> {
    /// The shard that got it.
    pub shard: u32,
    /// What is odd, without what was in it: that may hold secrets.
    pub problem: &'a str,
}

impl GatewayOddity<'_> {
    /// Logs it.
    pub fn emit(self) {
        warn!(shard = self.shard, "an event of discord was not understood and is left out: {}", self.problem);
    }
}
