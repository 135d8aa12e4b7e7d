//! Housekeeping: creates containers in advance, and removes those that ended or that are no longer needed. Runs in
//! tasks of its own, after urgent work. A later list finds again whatever failed.

use std::{sync::Arc, time::Duration};

use tracing::debug;

use super::{DockerShared, TypePool, launch::Launch};
use crate::model::Timestamp;

/// How long an ended container is left alone. Compose removes what it has stopped itself, and may not find it gone.
const REST: Duration = Duration::from_secs(10);

/// How long a container that was made and not started is left alone: another scaler may be about to start it.
const SPARE_REST: Duration = Duration::from_secs(60);

/// One round.
pub(super) fn run(shared: &Arc<DockerShared>, pool: &Arc<TypePool>) {
    let now = shared.clock.now();
    let Some(template) = pool.template() else { return };
    let spec = pool.spec();
    let standby = spec.settings.standby;
    for container in pool.registry.to_clean(before(now, REST), pool.keeps_last()) {
        remove(shared, pool, container);
    }
    for container in pool.registry.useless_spares(&template.fingerprint, standby, before(now, SPARE_REST)) {
        remove(shared, pool, container);
    }
    for ticket in pool.registry.reserve_spares(&template, pool.owner(), standby, spec.max_workers) {
        let launch = Launch { shared: shared.clone(), pool: pool.clone(), template: template.clone() };
        shared.tasks.spawn(launch.make_spare(ticket));
    }
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

/// Takes a container out of the registry and removes it; if that fails, the next list brings it back.
fn remove(shared: &Arc<DockerShared>, pool: &Arc<TypePool>, container: String) {
    pool.registry.forget(&container);
    let (shared, pool) = (shared.clone(), pool.clone());
    shared.clone().tasks.spawn(async move {
        match shared.engine.remove(&container, false).await {
            Ok(()) => debug!(%pool.worker_type, container, "removed a container that is not needed any more"),
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => debug!(%pool.worker_type, container, "not removed yet: {error}"),
        }
    });
}
