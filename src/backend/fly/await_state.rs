//! Sees to it that what was asked for happens: waits by `/wait` until machines run or stand still, tells the scaler,
//! and destroys those that stand still beyond what is to be kept. These are tasks beside the scaler's calls; when they
//! end with the scaler, nothing is lost but time.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    api::WAIT,
    failure::Failure,
    group::{FlyShared, Group},
    machine::{Condition, Machine},
    registry::SETTLE,
};

/// Between two questions about a machine whose `/wait` fails at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the scaler when a machine that was asked to start runs, or does not.
pub(super) fn await_start(shared: &Arc<FlyShared>, group: &Arc<Group>, machine: &Arc<Machine>) {
    let (shared, group, machine) = (shared.clone(), group.clone(), machine.clone());
    let stop = shared.stop.clone();
    shared.tasks.clone().spawn(stop.run_until_cancelled_owned(async move {
        let there = |seen: &Machine| seen.started() || seen.condition(shared.clock.now()) != Condition::Up;
        match until(&shared, &group, &machine, "started", SETTLE, there).await {
            Some(seen) => group.registry.account(&Arc::new(seen), shared.clock.now()),
            None => group.registry.vanished(&machine.id, shared.clock.now()),
        }
        (shared.on_change)(&group.worker_type);
    }));
}

/// Tells the scaler when a machine that was asked to leave has left, and destroys it if it is one too many.
pub(super) fn await_stop(shared: &Arc<FlyShared>, group: &Arc<Group>, machine: &Arc<Machine>, within: Duration) {
    let (shared, group, machine) = (shared.clone(), group.clone(), machine.clone());
    let stop = shared.stop.clone();
    shared.tasks.clone().spawn(stop.run_until_cancelled_owned(async move {
        let left = |seen: &Machine| !matches!(seen.condition(shared.clock.now()), Condition::Up | Condition::Leaving);
        match until(&shared, &group, &machine, "stopped", within + SETTLE, left).await {
            Some(seen) => group.registry.account(&Arc::new(seen), shared.clock.now()),
            None => group.registry.forget(&machine.id, shared.clock.now()),
        }
        (shared.on_change)(&group.worker_type);
        trim(&shared, &group).await;
    }));
}

/// Waits until a machine is as wanted, or the time is up; as it is then, or `None` if it does not exist.
async fn until(
    shared: &FlyShared,
    group: &Group,
    machine: &Machine,
    state: &str,
    patience: Duration,
    wanted: impl Fn(&Machine) -> bool,
) -> Option<Machine> {
    let (app, deadline) = (group.app.name.as_str(), Instant::now() + patience);
    loop {
        let asked = Instant::now();
        if let Err(failure) = shared.api.wait(app, machine, state).await {
            tracing::debug!(app, machine = machine.id, state, "machine is not there yet: {failure}");
        }
        match shared.api.get(app, &machine.id).await {
            Ok(seen) if wanted(&seen) || Instant::now() >= deadline => return Some(seen),
            Err(failure) if failure.is_gone() => return None,
            Err(_) if Instant::now() >= deadline => return Some(machine.clone()),
            Ok(_) | Err(_) => {}
        }
        if asked.elapsed() < WAIT {
            sleep(PAUSE).await;
        }
    }
}

/// Destroys machines that stand still beyond `keep_stopped`, longest first: those that we made or stopped, no others.
/// Without `image` one machine stays, since the next ones are made after it.
pub(super) async fn trim(shared: &FlyShared, group: &Group) {
    let _turn = group.turn.lock().await;
    let (up, leaving) = group.registry.status();
    let alone = up.is_empty() && leaving == 0 && group.spec().settings.image.is_none();
    let keep = usize::try_from(group.spec().settings.keep_stopped).unwrap_or(usize::MAX).max(usize::from(alone));
    let mut asleep = group.registry.asleep(shared.clock.now());
    asleep.sort_by_key(|(machine, _)| machine.updated());
    let surplus = asleep.len().saturating_sub(keep);
    let app = group.app.name.as_str();
    for (machine, _) in asleep.into_iter().filter(|(_, may_go)| *may_go).take(surplus) {
        match shared.api.destroy(app, &machine.id).await {
            Ok(()) => {
                tracing::info!(app, machine = machine.id, "machine destroyed: more than {keep} stand still");
                group.registry.forget(&machine.id, shared.clock.now());
            }
            Err(failure) if failure.is_gone() => group.registry.forget(&machine.id, shared.clock.now()),
            Err(failure) => report(app, &machine, failure),
        }
    }
}

fn report(app: &str, machine: &Machine, failure: Failure) {
    let error = failure.into_error(&format!("destroying machine {}", machine.id), app);
    tracing::warn!(app, machine = machine.id, "machine stays, which costs its storage only: {error}");
}
