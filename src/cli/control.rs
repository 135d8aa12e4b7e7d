//! What `swarm pause`, `swarm resume` and `swarm scale` have in common: they give an order in the name of whoever runs them.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{ConfigFlags, output};
use crate::{
    connection::RedisTarget,
    operations::order::{Directive, Wanted},
};

/// Options of every command that gives an order.
#[derive(Args, Debug)]
pub(super) struct OrderArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl OrderArgs {
    /// Gives the order and says so.
    ///
    /// # Errors
    /// If it is refused, or Redis can't be asked.
    pub(super) async fn give(
        self,
        worker_type: String,
        wanted: Wanted,
        lasts: Option<Duration>,
    ) -> anyhow::Result<ExitCode> {
        let settings = self.config.load()?.settings;
        let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
        let directive = Directive { worker_type, wanted, lasts, by: somebody(), why: self.reason };
        output::line(&directive.give(&settings, &target).await?)?;
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
