//! What every command may use, and the report with which it ends. Knows no specific command and receives no
//! interactions.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    conversation::{Conversation, Undelivered},
    waited_jobs::WaitedJobs,
};
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
    /// Addresses that its pages may connect to.
    pub(super) rule: AddressRule,
    /// Sets overrides.
    pub(super) orders: Orders<Settings>,
    /// The autoscaler's status server; the error says why its address is unknown.
    pub(super) status_server: Result<StatusServer, NoAddress>,
    /// Jobs that replies wait for.
    pub(super) waited: WaitedJobs,
    /// Cancelled when the bot stops.
    pub(super) stop: CancellationToken,
}

/// Outcome of a command, and a detail for the log.
pub(super) struct CommandReport {
    pub(super) outcome: CommandOutcome,
    pub(super) detail: String,
}

impl CommandReport {
    pub(super) fn new(outcome: CommandOutcome) -> Self {
        Self { outcome, detail: String::new() }
    }

    /// Returns the report for a delivered reply, or for the failed delivery.
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
            waited: WaitedJobs::default(),
            stop: CancellationToken::new(),
            settings,
        }
    }
}

/// Sends the first reply to a command. If Discord does not accept it, the error is the report with which the command
/// ends.
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
