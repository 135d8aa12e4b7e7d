//! Keeps the registry of an app's groups in step with the API, which tells nobody of changes: one list every few
//! seconds, one request whatever the number of groups, and one more when somebody asks for it. Changes nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    group::{App, ByName, FlyShared, Listed},
    machine::Machine,
};

/// A list that leaves doubts is followed by another one after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Runs until the backend stops or the app has no group left to be looked after.
pub(super) async fn watch(shared: Arc<FlyShared>, app: Arc<App>) {
    loop {
        let groups = app.groups();
        let pause = tokio::select! {
            pause = look(&shared, &app, &groups) => pause,
            () = shared.stop.cancelled() => return,
            () = app.left.cancelled() => return,
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = app.look.notified() => {}
            () = shared.stop.cancelled() => return,
            () = app.left.cancelled() => return,
        }
    }
}

/// Takes one list in, and says when the next one is due.
async fn look(shared: &FlyShared, app: &App, groups: &ByName) -> Duration {
    let (begun, at) = (shared.clock.now(), Instant::now());
    let machines = match shared.api.list(&app.name).await {
        Ok(machines) => machines,
        Err(failure) => {
            let failure = failure.into_error("listing machines", &app.name);
            app.listed.send_modify(|listed| listed.failure = Some(failure));
            return shared.poll;
        }
    };
    let mut of_groups: HashMap<&str, Vec<Arc<Machine>>> = HashMap::new();
    for machine in machines.into_iter().map(Arc::new) {
        if let Some((name, _)) = machine.group().and_then(|name| groups.get_key_value(name)) {
            of_groups.entry(name).or_default().push(machine);
        }
    }
    let mut doubtful = false;
    let mut changed = Vec::new();
    for (name, group) in groups {
        let listed = of_groups.remove(name.as_str()).unwrap_or_default();
        let merged = group.registry.merge(&listed, begun, shared.clock.now());
        doubtful |= merged.doubtful;
        if merged.changed {
            changed.push(&group.worker_type);
        }
    }
    let before = app.listed.send_replace(Listed { last: Some(at), failure: None });
    if before.failure.is_some() || !before.is_fresh(shared.poll, Instant::now()) {
        // Whatever waited for a list can continue.
        changed = groups.values().map(|group| &group.worker_type).collect();
    }
    for worker_type in changed {
        (shared.on_change)(worker_type);
    }
    if doubtful { SECOND_LOOK.min(shared.poll) } else { shared.poll }
}
