//! Waits for a condition, with a deadline.

use std::time::Duration;

/// Timeout of every wait for something that has to happen: long, so that no test fails on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
/// Interval of checks: short compared with the waits, long enough to leave the CPU to the tested processes.
const POLL: Duration = Duration::from_millis(10);

/// Returns whether `condition` becomes true within `deadline`. Checks at least once.
///
/// ```ignore
/// assert!(eventually(DEADLINE, async || server.answers().await).await, "no answer");
/// ```
pub(crate) async fn eventually(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(deadline, polling).await.is_ok()
}
