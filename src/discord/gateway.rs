//! Shards: connections to Discord's gateway. The library keeps them: it heartbeats, resumes and reconnects by itself.
//! Passes interactions on, and reports the state of the connections.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use twilight_gateway::{
    CloseFrame, Event, EventTypeFlags, Shard, StreamExt,
    error::{ReceiveMessageError, ReceiveMessageErrorType},
};
use twilight_model::gateway::CloseCode;

use super::dispatcher::Dispatcher;
use crate::telemetry::{GatewayOddity, ShardChange, ShardChanged};

/// Timeout of the gateway's confirmation that a connection is closed.
const GOODBYE: Duration = Duration::from_secs(3);

/// Returns the events that a shard subscribes to.
fn wanted() -> EventTypeFlags {
    EventTypeFlags::INTERACTION_CREATE
        | EventTypeFlags::READY
        | EventTypeFlags::RESUMED
        | EventTypeFlags::GATEWAY_RECONNECT
        | EventTypeFlags::GATEWAY_INVALIDATE_SESSION
}

/// How a shard ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The bot stopped the shard.
    Stopped,
    /// Discord requires another number of shards.
    Reshard,
    /// Discord refuses the shard for good.
    Refused {
        /// Close code of the connection.
        code: u16,
        /// Meaning of the code, and the cure.
        meaning: &'static str,
    },
}

/// Numbers of the shards that have a session.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<BTreeSet<u32>>);

impl Ready {
    fn tell(&self, shard: u32, change: ShardChange<'_>) {
        let (had, ready) = {
            let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let had = match change {
                ShardChange::Ready | ShardChange::Resumed => !ready.insert(shard),
                ShardChange::Lost { .. } | ShardChange::Unreachable { .. } => ready.remove(&shard),
            };
            (had, ready.len())
        };
        match change {
            // A connection ends once; later reports of the same end are ignored.
            ShardChange::Lost { reason } if !had => tracing::debug!(shard, reason, "connection ended"),
            change => ShardChanged { shard, change, ready }.emit(),
        }
    }
}

/// Runs one shard until it is stopped, or Discord refuses it.
pub(super) async fn run(
    mut shard: Shard,
    dispatcher: Arc<Dispatcher>,
    ready: Arc<Ready>,
    stop: CancellationToken,
) -> Ended {
    let number = shard.id().number();
    let mut closed = None;
    loop {
        let Some(next) = stop.run_until_cancelled(shard.next_event(wanted())).await else {
            say_goodbye(&mut shard).await;
            return Ended::Stopped;
        };
        match next {
            Some(Ok(Event::InteractionCreate(interaction))) => dispatcher.take(interaction.0),
            Some(Ok(Event::Ready(_))) => ready.tell(number, ShardChange::Ready),
            Some(Ok(Event::Resumed)) => ready.tell(number, ShardChange::Resumed),
            Some(Ok(Event::GatewayReconnect)) => {
                ready.tell(number, ShardChange::Lost { reason: "discord asks for a new connection" });
            }
            Some(Ok(Event::GatewayInvalidateSession(resumable))) => {
                let reason = if resumable { "the session was interrupted" } else { "the session is no longer valid" };
                ready.tell(number, ShardChange::Lost { reason });
            }
            Some(Ok(Event::GatewayClose(frame))) => {
                closed = frame.as_ref().map(|frame| frame.code);
                let reason = frame.map_or_else(
                    || "no close code".to_owned(),
                    |frame| format!("close code {}: {}", frame.code, frame.reason.escape_debug()),
                );
                ready.tell(number, ShardChange::Lost { reason: &reason });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => failed(&ready, number, &error),
            None => return ended(closed),
        }
    }
}

/// Closes the connection so that Discord shows the bot as offline immediately.
async fn say_goodbye(shard: &mut Shard) {
    shard.close(CloseFrame::NORMAL);
    let closing = async {
        while let Some(next) = shard.next_event(EventTypeFlags::empty()).await {
            if matches!(next, Ok(Event::GatewayClose(_)) | Err(_)) {
                return;
            }
        }
    };
    // Without the timeout, a shard without a connection would first open one.
    let _ = tokio::time::timeout(GOODBYE, closing).await;
}

fn failed(ready: &Ready, shard: u32, error: &ReceiveMessageError) {
    match error.kind() {
        ReceiveMessageErrorType::Reconnect => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            ready.tell(shard, ShardChange::Unreachable { reason: &reason });
        }
        // The event's content may contain secrets, so it is not logged.
        ReceiveMessageErrorType::Deserializing { .. } => {
            let problem = error.source().map_or_else(|| "no reason is known".to_owned(), ToString::to_string);
            GatewayOddity { shard, problem: &problem }.emit();
        }
        _ => GatewayOddity { shard, problem: "it can't be decompressed" }.emit(),
    }
}

/// Returns what a close code means that ends a shard.
fn ended(code: Option<u16>) -> Ended {
    let code = code.unwrap_or_default();
    let meaning = match CloseCode::try_from(code) {
        Ok(CloseCode::InvalidShard | CloseCode::ShardingRequired) => return Ended::Reshard,
        Ok(CloseCode::AuthenticationFailed) => {
            "discord does not know the token; copy it again, or reset it in the developer portal"
        }
        Ok(CloseCode::InvalidApiVersion) => "discord no longer has this version of its gateway; update swarm",
        Ok(CloseCode::InvalidIntents | CloseCode::DisallowedIntents) => {
            "discord does not allow what the bot listens to"
        }
        _ => "discord says no more",
    };
    Ended::Refused { code, meaning }
}
