//! Keeps what the worker holds and serves: renews its claims on jobs and sessions, closes sessions that idled out, and shows in
//! metrics how much it has in progress. Stops with the worker; takes and settles nothing.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::{crew::Crew, finder, tending};
use crate::telemetry::WorkerLoad;

/// Entries whose claims are renewed in one script.
const RENEWED_AT_ONCE: usize = 1_000;
/// Renewals within the time after which a claim runs out, so that one or two may fail.
const RENEWALS: u32 = 3;

/// Works until `stop`.
pub(super) async fn keep(crew: &Crew, stop: &CancellationToken) {
    let keeping = async {
        tokio::join!(
            renew(crew),
            close_idle(crew),
            show_load(crew),
            tending::move_due(crew),
            tending::trim(crew),
            finder::find(crew),
        )
    };
    stop.run_until_cancelled(Box::pin(keeping)).await;
}

async fn renew(crew: &Crew) {
    let claims = crew.config.policy.jobs.claim() / RENEWALS;
    let every = claims.min(crew.config.heartbeat_interval).max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = renew_jobs(crew).await {
            tracing::warn!(error, "claims on jobs are not renewed; others may take them if this lasts");
        }
        for name in crew.sessions.renew().await {
            tracing::warn!(session = name, "session was lost to others; closing it here");
            crew.handler.session_ended(&name).await;
        }
    }
}

async fn renew_jobs(crew: &Crew) -> Result<(), String> {
    let all = crew.hand.entries().into_iter().map(|(stream, entries)| renew_jobs_of(crew, stream, entries));
    join_all(all).await.into_iter().collect()
}

async fn renew_jobs_of(crew: &Crew, stream: Arc<str>, entries: Vec<String>) -> Result<(), String> {
    let consumer = crew.consumer.on(&stream);
    for some in entries.chunks(RENEWED_AT_ONCE) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        let mut connection = crew.commands.get().await.map_err(|error| error.to_string())?;
        match consumer.extend(&mut connection, &some).await {
            // Fewer are ours than we thought: they were settled meanwhile, or taken over while we were thought dead.
            Ok(ours) if ours.len() < some.len() => {
                tracing::debug!(asked = some.len(), ours = ours.len(), "some jobs are not ours any more");
            }
            Ok(_) => {}
            // A queue that is no more: so are its jobs.
            Err(error) if error.is_missing_group() && !crew.queues.is_named(&stream) => {
                tracing::debug!(queue = &*stream, %error, "claims on jobs are not renewed");
            }
            Err(error) => {
                if error.is_connection_lost() {
                    crew.commands.discard().await;
                }
                return Err(error.to_string());
            }
        }
    }
    Ok(())
}

async fn close_idle(crew: &Crew) {
    loop {
        let name = crew.sessions.idled_out().await;
        tracing::info!(session = name, "session idled out");
        crew.handler.session_ended(&name).await;
    }
}

async fn show_load(crew: &Crew) {
    let mut watching = crew.status.subscribe();
    loop {
        let status = *watching.borrow_and_update();
        let (worker_type, jobs, sessions) = (&crew.config.worker_type, status.busy, status.sessions);
        WorkerLoad { worker_type, jobs, sessions }.emit();
        if watching.changed().await.is_err() {
            return;
        }
    }
}
