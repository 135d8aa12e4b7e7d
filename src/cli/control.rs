//! The common part of `swarm pause`, `swarm resume` and `swarm scale`: they set an override in Redis, where the leader
//! finds it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;

use super::{ConfigFlags, output};
pub(super) use crate::operations::order::parse_time;
use crate::{
    connection::RedisTarget,
    model::{
        WorkerType,
        control::{ApplyOverride, OverrideAction, OverrideRequest},
    },
    scaler::OverrideService,
};

/// Options of every command that gives an order.
#[derive(Args, Debug)]
pub(super) struct OrderArgs {
    #[command(flatten)]
    pub(super) config: ConfigFlags,
    /// Reason, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl OrderArgs {
    /// Sets the override and prints the result.
    ///
    /// # Errors
    /// If the override is invalid, or Redis can't be asked.
    pub(super) async fn give(
        &self,
        name: &str,
        action: OverrideAction,
        lasts: Option<Duration>,
    ) -> anyhow::Result<ExitCode> {
        let settings = self.config.load()?.settings;
        let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);
        let desk = OverrideService::new(target, settings.clone(), settings.scaler.events_max_len);
        let worker_type = WorkerType::new(name);
        let order = OverrideRequest { worker_type, action, lasts, by: somebody(), why: self.reason.clone() };
        let existed = desk.give(&order).await?;
        output::line(&order.done(existed))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns `user@host`.
fn somebody() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{host}")
}
