//! Waiting for something to become true, with a deadline.

use std::time::Duration;

/// Between two looks: short against what tests wait for, long enough to leave the machine to what is tested.
const POLL: Duration = Duration::from_millis(10);

/// Whether `condition` becomes true within `deadline`. Looks at least once.
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
