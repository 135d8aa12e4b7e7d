//! Stops on request: the first signal asks, the second one insists.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::{Stream, StreamExt, wrappers::SignalStream};
use tokio_util::sync::CancellationToken;

/// Returns a token that the first SIGTERM or SIGINT cancels. The second ends the process with 128 + its number, as a
/// shell reports it. `doing` says in the log what happens in between.
pub(super) fn stop_on_signal(doing: &'static str) -> anyhow::Result<CancellationToken> {
    let terminate = exit_codes(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let interrupt = exit_codes(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let mut codes = terminate.merge(interrupt);
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        while let Some(code) = codes.next().await {
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

/// Returns one item for each signal of this kind: the exit code of a process that it ends.
fn exit_codes(kind: SignalKind) -> std::io::Result<impl Stream<Item = i32> + Unpin> {
    let code = 128 + kind.as_raw_value();
    Ok(SignalStream::new(signal(kind)?).map(move |()| code))
}
