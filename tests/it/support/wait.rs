//! Waits for a condition, with a deadline.

use std::time::Duration;

/// Interval of checks: short compared with the waits, long enough to leave the CPU to the tested processes.
const POLL: Duration = Duration::from_millis(10);

/// Returns whether `condition` becomes true within `deadline`. Checks at least once.
///
/// ```ignore
/// assert!(eventually(Duration::from_secs(5), async || server.answers().await).await, "no answer within 5 s");
/// ```
pub(crate) async fn eventually(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(deadline, polling).await.is_ok()
}
