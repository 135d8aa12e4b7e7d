//! Numbers from INFO.

use anyhow::Context;
use fred::{
    prelude::{Client, ClientLike},
    types::InfoKind,
};

/// Returns the number of this name in a section of INFO.
pub(crate) async fn info_number(client: &Client, section: InfoKind, name: &str) -> anyhow::Result<f64> {
    let text: String = client.info(Some(section)).await?;
    let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    number.with_context(|| format!("INFO has no number {name}"))
}

/// Returns how many commands the server has run since its start, those within scripts and this INFO included.
#[allow(dead_code, reason = "some benchmarks count no commands")]
pub(crate) async fn commands(client: &Client) -> anyhow::Result<f64> {
    info_number(client, InfoKind::Stats, "total_commands_processed").await
}
