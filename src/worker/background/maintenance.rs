//! Maintenance of the worker's streams: moves delayed jobs to them when they are due, and trims finished entries and,
//! if so configured, dead letters. Any worker may do it at any time, and the autoscaler moves delayed jobs too; a
//! failure here loses no job.

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    broker::BrokerError,
    worker::{connection::StepError, execute::Executor, upkeep::DueTimes},
};

/// Maximum streams trimmed at each interval; more streams take turns.
const TRIMMED_AT_ONCE: usize = 16;
/// Intervals between two turns while no job ends here: other programs may acknowledge jobs without trimming.
const TRIM_INTERVALS: u32 = 60;

/// Moves delayed jobs when they are due. Heartbeats report when that is; without their reports it looks at each
/// interval.
pub(in crate::worker) async fn move_due(executor: &Executor) {
    let mut failing = false;
    let mut due = DueTimes::new(executor.config.heartbeat_interval, executor.commands.wakes().upkeep.subscribe());
    loop {
        tokio::select! {
            () = due.until_due() => {}
            // The new job may be due before all others.
            () = executor.in_flight.next_scheduled_retry() => {}
        }
        let streams = executor.queues.streams();
        match attempt(executor, async |connection| executor.consumer.move_due_of(connection, &streams).await).await {
            Ok(delayed) => {
                due.looked(Instant::now(), delayed.next);
                failing = false;
            }
            Err(error) => {
                due.failed(Instant::now());
                tell(&mut failing, &error);
            }
        }
    }
}

/// Trims streams at each interval in which a job ended here, and from time to time for the jobs of others; at each
/// interval their dead letters, if the settings limit those.
pub(in crate::worker) async fn trim(executor: &Executor) {
    let mut ticks = interval(executor.config.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failing, mut at) = (false, 0);
    let mut need = TrimNeed::default();
    loop {
        ticks.tick().await;
        let streams = executor.queues.streams();
        let turns = streams.len().div_ceil(TRIMMED_AT_ONCE);
        let finished_too = need.takes_turn(executor.status.borrow().processed, turns);
        let mut problem = None;
        for stream in streams.iter().cycle().skip(at).take(streams.len().min(TRIMMED_AT_ONCE)) {
            let consumer = executor.consumer.on(stream);
            let trimmed = attempt(executor, async |connection| {
                if finished_too {
                    consumer.trim(connection).await?;
                }
                consumer.trim_dead(connection).await
            });
            problem = problem.or(trimmed.await.err());
        }
        at = (at + TRIMMED_AT_ONCE) % streams.len().max(1);
        match problem {
            None => failing = false,
            Some(error) => tell(&mut failing, &error),
        }
    }
}

/// Whether there may be something to trim.
#[derive(Debug, Default)]
struct TrimNeed {
    /// Jobs that had ended at the last interval.
    ended: u64,
    /// Turns that are left until each stream was trimmed.
    turns: usize,
    /// Intervals without a turn.
    rested: u32,
}

impl TrimNeed {
    /// Returns whether streams are trimmed at this interval. `ended` jobs have ended until now, and all streams take
    /// `turns` turns.
    fn takes_turn(&mut self, ended: u64, turns: usize) -> bool {
        if std::mem::replace(&mut self.ended, ended) != ended || self.rested >= TRIM_INTERVALS {
            self.turns = turns.max(1);
        }
        let turn = self.turns > 0;
        self.turns = self.turns.saturating_sub(1);
        self.rested = if turn { 0 } else { self.rested + 1 };
        turn
    }
}

async fn attempt<T>(
    executor: &Executor,
    step: impl AsyncFnOnce(&mut crate::connection::Connection) -> Result<T, BrokerError>,
) -> Result<T, String> {
    executor.commands.step(step).await.map_err(|error: StepError| error.to_string())
}

/// Logs a failure once for each time that the maintenance begins to fail.
fn tell(failing: &mut bool, error: &str) {
    if !std::mem::replace(failing, true) {
        tracing::warn!(error, "stream maintenance failed, jobs are not affected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_trimmed_after_jobs_and_otherwise_rarely() {
        let mut need = TrimNeed::default();
        assert!((0..TRIM_INTERVALS).all(|_| !need.takes_turn(0, 1)), "no job has ended");
        assert!(need.takes_turn(0, 1) && !need.takes_turn(0, 1));
        assert!(need.takes_turn(1, 3), "a job has ended");
        assert!(need.takes_turn(1, 3) && need.takes_turn(1, 3) && !need.takes_turn(1, 3), "all streams have a turn");
        assert!(need.takes_turn(2, 0) && !need.takes_turn(2, 0), "without streams it goes on as well");
    }
}
