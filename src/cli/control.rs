//! What `swarm pause`, `swarm resume` and `swarm scale` have in common: they give an order in Redis, where whoever leads
//! finds it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;

use super::{ConfigFlags, output};
use crate::{
    connection::RedisTarget,
    model::{
        WorkerType,
        control::{Order, OrderDesk, Wish},
    },
    scaler::Desk,
};

/// Options of every command that gives an order.
#[derive(Args, Debug)]
pub(super) struct OrderArgs {
    #[command(flatten)]
    pub(super) config: ConfigFlags,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl OrderArgs {
    /// Gives the order and says so.
    ///
    /// # Errors
    /// If it makes no sense, or Redis can't be asked.
    pub(super) async fn give(&self, name: &str, wish: Wish, lasts: Option<Duration>) -> anyhow::Result<ExitCode> {
        let settings = self.config.load()?.settings;
        let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);
        let desk = Desk::new(target, settings.clone(), settings.scaler.events_max_len);
        let worker_type = WorkerType::new(name);
        let order = Order { worker_type, wish, lasts, by: somebody(), why: self.reason.clone() };
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

/// `90s`, `10m`, `2h`, `1d`: a whole number and its unit.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let unit = text.char_indices().last().map_or(0, |(at, _)| at);
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if number > 0 && seconds > 0 => Ok(Duration::from_secs(u64::from(number) * seconds)),
        _ => Err("expected a whole number and s, m, h or d, such as 10m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "10", "m", "0s", "-1m", "1.5h", "10µ", "10 m"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
