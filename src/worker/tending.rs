//! What a worker does for its streams besides working: puts delayed jobs on them when they are due, and trims what is finished.
//! Any worker may do so at any time, and the autoscaler moves delayed jobs too; a failure here costs no job.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{connection::StepError, crew::Crew};
use crate::broker::BrokerError;

/// Streams trimmed at each interval; where there are more they have it in turn.
const TRIMMED_AT_ONCE: usize = 16;

/// Moves delayed jobs when they are due, and looks each heartbeat interval whether there are new ones.
pub(super) async fn move_due(crew: &Crew) {
    let mut failing = false;
    loop {
        let mut next = crew.config.heartbeat_interval;
        let streams = crew.queues.streams();
        match attempt(crew, async |connection| crew.consumer.move_due_of(connection, &streams).await).await {
            Ok(delayed) => {
                next = delayed.next.unwrap_or(next).min(next);
                failing = false;
            }
            Err(error) => tell(&mut failing, &error),
        }
        tokio::select! {
            () = sleep(next.max(Duration::from_millis(1))) => {}
            // Perhaps due before everything else.
            () = crew.hand.job_put_aside() => {}
        }
    }
}

/// Trims streams each heartbeat interval.
pub(super) async fn trim(crew: &Crew) {
    let mut ticks = interval(crew.config.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failing, mut at) = (false, 0);
    loop {
        ticks.tick().await;
        let streams = crew.queues.streams();
        let mut problem = None;
        for stream in streams.iter().cycle().skip(at).take(streams.len().min(TRIMMED_AT_ONCE)) {
            let consumer = crew.consumer.on(stream);
            let trimmed = attempt(crew, async |connection| consumer.trim(connection).await).await;
            problem = problem.or(trimmed.err());
        }
        at = (at + TRIMMED_AT_ONCE) % streams.len().max(1);
        match problem {
            None => failing = false,
            Some(error) => tell(&mut failing, &error),
        }
    }
}

async fn attempt<T>(
    crew: &Crew,
    step: impl AsyncFnOnce(&mut crate::connection::Connection) -> Result<T, BrokerError>,
) -> Result<T, String> {
    crew.commands.step(step).await.map_err(|error: StepError| error.to_string())
}

/// Once for each time that it begins to fail.
fn tell(failing: &mut bool, error: &str) {
    if !std::mem::replace(failing, true) {
        tracing::warn!(error, "a stream is not tended; jobs are done all the same");
    }
}
