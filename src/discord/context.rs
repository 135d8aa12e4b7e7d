//! What every command may use, and what a command ends with. Knows no command and takes no interaction.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::conversation::{Conversation, Undelivered};
use crate::{
    broker::Client,
    config::Settings,
    connection::RedisTarget,
    egress::AddressRule,
    model::WorkerType,
    operations::{
        OverrideService as Orders,
        status_client::{NoAddress, StatusServer},
    },
    telemetry::{CommandAcknowledged, CommandOutcome},
};

/// What every command may use.
pub(super) struct CommandContext {
    pub(super) settings: Arc<Settings>,
    pub(super) client: Client,
    pub(super) redis: RedisTarget,
    /// The worker type that drives browsers.
    pub(super) worker_type: WorkerType,
    /// The addresses that its pages may go to.
    pub(super) rule: AddressRule,
    /// Takes orders.
    pub(super) orders: Orders<Settings>,
    /// Where the autoscaler shows its status.
    pub(super) status_server: Result<StatusServer, NoAddress>,
    /// Cancelled when the bot is to stop.
    pub(super) stop: CancellationToken,
}

/// What became of a command, and what is worth knowing besides.
pub(super) struct CommandReport {
    pub(super) outcome: CommandOutcome,
    pub(super) detail: String,
}

impl CommandReport {
    pub(super) fn new(outcome: CommandOutcome) -> Self {
        Self { outcome, detail: String::new() }
    }

    /// What a delivery ended with.
    pub(super) fn of_delivery(delivered: Result<(), Undelivered>, outcome: CommandOutcome) -> Self {
        match delivered {
            Ok(()) => Self::new(outcome),
            Err(error) => Self { outcome: CommandOutcome::Undelivered, detail: error.to_string() },
        }
    }
}

impl CommandContext {
    pub(super) fn new(settings: Arc<Settings>, redis: RedisTarget, rule: AddressRule) -> Self {
        let discord = &settings.discord;
        let status_server = StatusServer::of(&settings.http, discord.status_url.as_deref());
        Self {
            client: Client::new(Arc::clone(&settings), redis.clone()),
            orders: Orders::new(Arc::new(redis.clone()), Arc::clone(&settings), settings.scaler.events_max_len),
            redis,
            worker_type: WorkerType::new(discord.browser_type.as_str()),
            rule,
            status_server,
            stop: CancellationToken::new(),
            settings,
        }
    }
}

/// Sends the first reply to a command. If Discord does not take it, the command ends with the report that is the error.
pub(super) async fn first_reply(
    conversation: &Conversation,
    sending: impl Future<Output = Result<(), Undelivered>>,
) -> Result<(), CommandReport> {
    match sending.await {
        Ok(()) => {
            CommandAcknowledged { elapsed: conversation.elapsed() }.emit();
            Ok(())
        }
        Err(error) => Err(CommandReport { outcome: CommandOutcome::Missed, detail: error.to_string() }),
    }
}
