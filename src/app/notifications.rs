//! Starts the task that sends alerts to the webhooks of `[[notify]]`, if there are webhooks and this build can.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Settings,
    model::{Clock, snapshot::StatusSource},
};

/// Adds the task to `essential`.
#[cfg(feature = "notify")]
#[expect(clippy::unnecessary_wraps, reason = "a build without the feature refuses webhooks")]
pub(super) fn start(
    settings: &Settings,
    status: Arc<dyn StatusSource>,
    clock: Clock,
    essential: &mut JoinSet<&'static str>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if settings.notify.is_empty() {
        return Ok(());
    }
    let (webhooks, stop) = (settings.notify.clone(), stop.clone());
    super::spawn(essential, "notify", async move {
        let mut tasks = JoinSet::new();
        let notifier = crate::notify::Notifier::start(&webhooks, status, clock, &mut tasks, &stop);
        notifier.run(stop).await;
        while tasks.join_next().await.is_some() {}
    });
    Ok(())
}

/// Refuses webhooks.
#[cfg(not(feature = "notify"))]
pub(super) fn start(
    settings: &Settings,
    _: Arc<dyn StatusSource>,
    _: Clock,
    _: &mut JoinSet<&'static str>,
    _: &CancellationToken,
) -> anyhow::Result<()> {
    if settings.notify.is_empty() {
        return Ok(());
    }
    let (needed_by, part) = ("[[notify]]".to_owned(), "sender of alerts".to_owned());
    Err(crate::model::MissingFeature { needed_by, part, feature: "notify" }.into())
}
