//! Stopping on request: the first signal asks, the second one insists.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process with 128 + its number, as a shell would say.
/// `doing` says what goes on in between, for the log.
pub(super) fn stop_on_signal(doing: &'static str) -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if stop.is_cancelled() {
                tracing::warn!("second signal: stopping at once");
                std::process::exit(code);
            }
            tracing::info!("stopping: {doing}; a second signal stops at once");
            stop.cancel();
        }
    });
    Ok(token)
}
