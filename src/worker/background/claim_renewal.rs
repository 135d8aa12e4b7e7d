//! Renews the worker's claims on jobs and sessions. Takes and completes nothing.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::worker::execute::Executor;

/// Maximum entries whose claims one script renews.
const RENEWED_AT_ONCE: usize = 1_000;
/// Renewals within the time after which a claim expires, so that one or two may fail.
const RENEWALS: u32 = 3;

/// Renews the claims for as long as the worker runs.
pub(super) async fn renew(executor: &Executor) {
    let claims = executor.config.policy.jobs.claim() / RENEWALS;
    let every = claims.min(executor.config.heartbeat_interval).max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = renew_jobs(executor).await {
            tracing::warn!(error, "claims on jobs are not renewed; others may take them if this lasts");
        }
        for name in executor.sessions.renew().await {
            tracing::warn!(session = name, "session was lost to others; closing it here");
            executor.handler.session_ended(&name).await;
        }
    }
}

async fn renew_jobs(executor: &Executor) -> Result<(), String> {
    let all =
        executor.in_flight.entries().into_iter().map(|(stream, entries)| renew_jobs_of(executor, stream, entries));
    join_all(all).await.into_iter().collect()
}

async fn renew_jobs_of(executor: &Executor, stream: Arc<str>, entries: Vec<(String, u32)>) -> Result<(), String> {
    let consumer = executor.consumer.on(&stream);
    for some in entries.chunks(RENEWED_AT_ONCE) {
        let some: Vec<(&str, u32)> = some.iter().map(|(entry, number)| (entry.as_str(), *number)).collect();
        let mut connection = executor.commands.get().await.map_err(|error| error.to_string())?;
        match consumer.extend(&mut connection, &some).await {
            // Fewer claims are ours than expected: the other jobs were completed meanwhile, or claimed by another
            // worker while this one counted as gone.
            Ok(ours) if ours.len() < some.len() => {
                let ours: HashSet<&str> = ours.iter().map(String::as_str).collect();
                for (entry, number) in some.into_iter().filter(|(entry, _)| !ours.contains(entry)) {
                    executor.in_flight.revoke(&stream, entry, number);
                }
            }
            Ok(_) => {}
            // The queue no longer exists, and neither do its jobs.
            Err(error) if error.is_missing_group() && !executor.queues.is_named(&stream) => {
                tracing::debug!(queue = &*stream, %error, "claims on jobs are not renewed");
            }
            Err(error) => {
                if error.is_connection_lost() {
                    executor.commands.discard().await;
                }
                return Err(error.to_string());
            }
        }
    }
    Ok(())
}
