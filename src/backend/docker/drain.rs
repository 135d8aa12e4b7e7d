//! Lets one container go: asks it to stop, gives it its time, kills it, removes it. A second SIGTERM tells a worker to
//! leave at once, so where it is not known whether the first one arrived, none is sent again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{DockerShared, TypePool, engine::Engine, error::EngineError};

/// Between two looks at a container on an engine that has been away.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Drains a container. Ends when it has stopped.
pub(super) async fn drain(shared: Arc<DockerShared>, pool: Arc<TypePool>, container: String, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match shared.engine.stop(&container, left).await {
            Ok(()) => break,
            Err(error) if error.is_not_found() => break,
            Err(error) if error.was_never_asked() => sleep(POLL_INTERVAL).await,
            Err(error) => {
                info!(%pool.worker_type, container, "watching whether it stops: {error}");
                wait_or_kill(&shared.engine, &container, deadline).await;
                break;
            }
        }
    }
    remove(&shared, &pool, &container).await;
    (shared.on_change)(&pool.worker_type);
}

/// Waits until the container has stopped or its time is up.
async fn wait_or_kill(engine: &Engine, container: &str, deadline: Instant) {
    loop {
        match engine.inspect(container).await {
            Ok(found) if !found.state.as_ref().and_then(|state| state.running).unwrap_or_default() => return,
            Err(error) if error.is_not_found() => return,
            Ok(_) if Instant::now() >= deadline => match engine.kill(container).await {
                Ok(()) => {}
                Err(error) => info!(container, "not killed yet: {error}"),
            },
            Ok(_) | Err(_) => {}
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Removes a stopped container, unless the next one has to be made after its example.
async fn remove(shared: &DockerShared, pool: &TypePool, container: &str) {
    if pool.keeps_last() && pool.registry.is_last(container) {
        pool.registry.rest(container, shared.clock.now());
        return;
    }
    match shared.engine.remove(container, true).await {
        Ok(()) | Err(EngineError::Refused { status: 404 | 409, .. }) => {}
        // It is found among those that ended, and removed later.
        Err(error) => {
            warn!(%pool.worker_type, container, "a container that was let go is not removed yet: {error}");
            pool.registry.rest(container, shared.clock.now());
            return;
        }
    }
    pool.registry.forget(container);
}
