//! Keeps a task connected to Redis: runs a session, and after a failure another one, with growing pauses in between.
//! Must not know what a session does.

use std::{convert::Infallible, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First pause between attempts: a Redis that restarts is back within a few of these.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts. A session must last at least this long for the pauses to start small again.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Pauses between attempts to reach Redis: growing, with jitter, at most 5 s, without end.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

/// Returns a [`Backoff`] that begins with the first pause.
pub fn backoff() -> Backoff {
    // Jitter at most doubles a pause.
    let builder = ExponentialBuilder::default().with_min_delay(MIN_PAUSE).with_max_delay(MAX_PAUSE / 2);
    Backoff(builder.without_max_times().with_jitter().build())
}

impl Backoff {
    /// Returns the next pause.
    pub fn next_pause(&mut self) -> Duration {
        self.0.next().map_or(MAX_PAUSE, |pause| pause.min(MAX_PAUSE))
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_pause())
    }
}

/// Work that a task does on one connection.
pub trait Session: Send {
    /// Why a session ended.
    type Error: Send + Sync;

    /// Runs one session, from connect to failure.
    fn run_session(&mut self) -> impl Future<Output = Result<Infallible, Self::Error>> + Send;

    /// Reports that a session failed, and returns when `pause` is over.
    fn failed(&mut self, error: Self::Error, pause: Duration) -> impl Future<Output = ()> + Send;
}

/// Runs sessions one after another until cancelled.
pub async fn keep_connected(task: &mut impl Session, cancel: &CancellationToken) {
    let mut pauses = backoff();
    loop {
        let started_at = Instant::now();
        let error = match cancel.run_until_cancelled(task.run_session()).await {
            None => return,
            Some(Ok(never)) => match never {},
            Some(Err(error)) => error,
        };
        if started_at.elapsed() > MAX_PAUSE {
            pauses = backoff();
        }
        let pause = pauses.next_pause();
        if cancel.run_until_cancelled(task.failed(error, pause)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_capped() {
        let pauses: Vec<_> = backoff().take(50).collect();
        assert_eq!(pauses.len(), 50);
        assert!(pauses[0] <= MIN_PAUSE * 2);
        assert!(pauses.iter().all(|pause| *pause <= MAX_PAUSE));
        assert!(pauses[49] >= MAX_PAUSE / 2);
    }

    /// Sessions that last for the given times and then fail.
    struct Failing {
        lasting: Vec<Duration>,
        pauses: Vec<Duration>,
    }

    impl Session for Failing {
        type Error = ();

        async fn run_session(&mut self) -> Result<Infallible, ()> {
            match self.lasting.pop() {
                Some(lasting) => tokio::time::sleep(lasting).await,
                None => std::future::pending().await,
            }
            Err(())
        }

        async fn failed(&mut self, (): (), pause: Duration) {
            self.pauses.push(pause);
            tokio::time::sleep(pause).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_lasted_makes_the_pauses_start_small_again() {
        let mut lasting = vec![Duration::ZERO; 8];
        lasting.insert(0, MAX_PAUSE * 2);
        let mut task = Failing { lasting, pauses: Vec::new() };
        let cancel = CancellationToken::new();
        let end = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            end.cancel();
        });
        keep_connected(&mut task, &cancel).await;
        let pauses = task.pauses;
        assert_eq!(pauses.len(), 9);
        assert!(pauses[7] > Duration::from_secs(2), "{pauses:?}");
        assert!(pauses[8] <= MIN_PAUSE * 2, "{pauses:?}");
    }
}
