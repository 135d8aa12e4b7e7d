//! What `swarm pause`, `swarm resume` and `swarm scale` have in common: they give an order in Redis, where whoever leads
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
    /// Gives the order and says so.
    ///
    /// # Errors
    /// If it makes no sense, or Redis can't be asked.
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

/// `user@host`
fn somebody() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{host}")
}
