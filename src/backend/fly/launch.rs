//! More machines: those that stand still are started, which takes a second; what is missing then is made.
//!
//! Making a machine is the one request that must not be repeated blindly: after a broken connection, a 408 or a 5xx it
//! may be there or not. So every launch has an id, in the machine's metadata and name. Whether it is there is looked up
//! by the former; and the name, of which an app has only one, keeps a second one from coming about even if the look was
//! too early.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    api::Volume,
    await_state::await_start,
    failure::Failure,
    group::{FlyShared, Group},
    machine::{LAUNCH, Machine},
    registry::Launch,
    template,
    volumes::ClaimedVolumes,
};
use crate::{
    backend::{BackendError, ScaleReport},
    model::WorkerId,
};

/// Attempts at one launch in one region.
const ATTEMPTS: usize = 3;
/// When a launch is looked up whose answer is missing: lists may be a little behind.
const LOOKS: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(2)];
/// Machines being made at once: the burst that Fly.io allows.
const AT_ONCE: usize = 3;
/// Size of a volume whose original does not say, in GB: Fly.io's own default.
const VOLUME_GB: u64 = 3;

/// Starts machines until `target` are up. `done` has the started ones, on failure too.
pub(super) async fn start_more(
    shared: &Arc<FlyShared>,
    group: &Arc<Group>,
    target: usize,
    done: &mut ScaleReport,
) -> Result<(), BackendError> {
    wake(shared, group, target, done).await?;
    let missing = target.saturating_sub(group.registry.live());
    let mut launches = stream::iter(0..missing).map(|_| make(shared, group)).buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some(outcome) = launches.next().await {
        match outcome {
            Ok(id) => done.started.push(id),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Starts machines that stand still, as far as there are any.
async fn wake(
    shared: &Arc<FlyShared>,
    group: &Arc<Group>,
    target: usize,
    done: &mut ScaleReport,
) -> Result<(), BackendError> {
    let (registry, app) = (&group.registry, group.app.name.as_str());
    let mut refused = HashSet::new();
    loop {
        let missing = target.saturating_sub(registry.live());
        let now = || shared.clock.now();
        let sleepers: Vec<_> = (0..missing).map_while(|_| registry.wake(&refused, now())).collect();
        if sleepers.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        let starts = sleepers.iter().map(|machine| shared.api.start(app, &machine.id));
        for (machine, outcome) in sleepers.iter().zip(join_all(starts).await) {
            match outcome {
                Ok(()) => {
                    done.started.push(WorkerId::new(machine.id.as_str()));
                    await_start(shared, group, machine);
                }
                Err(failure) if failure.is_gone() => registry.forget(&machine.id, now()),
                Err(failure) if failure.is_conflict() || failure.is_capacity() => {
                    tracing::debug!(app, machine = machine.id, "machine can't be started now: {failure}");
                    registry.sleeps_on(&machine.id);
                    if failure.is_capacity() {
                        registry.note_no_room(&machine.id, now());
                    }
                    refused.insert(machine.id.clone());
                }
                Err(failure) => {
                    if failure.is_ambiguous() {
                        await_start(shared, group, machine);
                    } else {
                        registry.sleeps_on(&machine.id);
                    }
                    failed = Some(failure.into_error(&format!("starting machine {}", machine.id), app));
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
}

/// Makes one machine.
async fn make(shared: &Arc<FlyShared>, group: &Arc<Group>) -> Result<WorkerId, BackendError> {
    let original = group.registry.template();
    let id = Uuid::now_v7().simple().to_string();
    let config = template::config(original.as_deref(), &group.spec().settings, &group.name, &id)
        .map_err(|problem| BackendError::permanent(format!("fly.io app `{}`: {problem}", group.app.name)))?;
    let regions = regions(group, original.as_deref());
    let launch = Launch {
        name: format!("{}-{}", group.name, &id[id.len() - 12..]),
        region: regions.first().cloned().flatten(),
        asked: shared.clock.now(),
        id,
    };
    group.registry.launching(launch.clone());
    match in_any_region(shared, group, &launch, &config, &regions).await {
        Ok(machine) => {
            let machine = Arc::new(machine);
            group.registry.launched(&launch, &machine, shared.clock.now());
            await_start(shared, group, &machine);
            Ok(WorkerId::new(machine.id.as_str()))
        }
        Err(failure) => {
            // A launch that may have succeeded stays in the registry: it counts until a list shows it, or time is up.
            if !failure.is_ambiguous() {
                group.registry.not_launched(&launch);
            }
            Err(failure.into_error(&format!("making a machine of process group `{}`", group.name), &group.app.name))
        }
    }
}

/// Where to put a machine, best first: the region with the fewest workers, as configured or where the original is.
fn regions(group: &Group, original: Option<&Machine>) -> Vec<Option<String>> {
    let crowd = group.registry.regions();
    let mut regions = group.spec().settings.regions.clone();
    regions.sort_by_key(|region| crowd.get(region).copied().unwrap_or(0));
    if regions.is_empty() {
        return vec![original.map(|machine| machine.region.clone()).filter(|region| !region.is_empty())];
    }
    regions.into_iter().map(Some).collect()
}

/// The first region that has room.
async fn in_any_region(
    shared: &FlyShared,
    group: &Group,
    launch: &Launch,
    config: &Value,
    regions: &[Option<String>],
) -> Result<Machine, Failure> {
    let mut failed = None;
    for region in regions {
        match in_region(shared, group, launch, config, region.as_deref()).await {
            Err(failure) if failure.is_capacity() => failed = Some(failure),
            outcome => return outcome,
        }
    }
    Err(failed.unwrap_or_else(|| Failure::NoAnswer("there is no region to ask".to_owned())))
}

async fn in_region(
    shared: &FlyShared,
    group: &Group,
    launch: &Launch,
    config: &Value,
    region: Option<&str>,
) -> Result<Machine, Failure> {
    let mut config = config.clone();
    let volume = own_volume(shared, group, &config, region).await?;
    if let Some(volume) = &volume {
        template::mount(&mut config, volume);
    }
    let mut body = json!({ "name": launch.name, "config": config });
    if let Some(region) = region {
        body["region"] = json!(region);
    }
    let outcome = once(shared, &group.app.name, launch, body).await;
    if let (Some(volume), Err(failure)) = (volume, &outcome)
        && !failure.is_ambiguous()
    {
        claimed(group).release(&volume);
    }
    outcome
}

/// Makes the machine of a launch, and not a second one, however often the answer is lost.
async fn once(shared: &FlyShared, app: &str, launch: &Launch, body: Value) -> Result<Machine, Failure> {
    let mut attempt = 1;
    loop {
        let failure = match shared.api.create(app, body.clone()).await {
            Ok(machine) if !machine.id.is_empty() => return Ok(machine),
            Ok(_) => Failure::Garbled("a machine without id".to_owned()),
            Err(failure) => failure,
        };
        if !failure.is_ambiguous() && !failure.is_name_taken() {
            return Err(failure);
        }
        if let Some(machine) = look_up(shared, app, launch).await? {
            return Ok(machine);
        }
        if attempt == ATTEMPTS || failure.is_name_taken() {
            // It exists and can't be seen yet, or may: not for us to say.
            return Err(Failure::NoAnswer(format!("launch {} may have happened: {failure}", launch.id)));
        }
        attempt += 1;
    }
}

/// Whether a launch has made its machine.
async fn look_up(shared: &FlyShared, app: &str, launch: &Launch) -> Result<Option<Machine>, Failure> {
    for pause in LOOKS {
        sleep(pause).await;
        let found = shared.api.list_with(app, LAUNCH, &launch.id).await.map_err(|failure| {
            Failure::NoAnswer(format!("launch {} may have happened, and looking it up failed: {failure}", launch.id))
        })?;
        // By name as well: who copies our machine copies its metadata.
        if let Some(machine) = found.into_iter().find(|machine| machine.name == launch.name) {
            return Ok(Some(machine));
        }
    }
    Ok(None)
}

/// A volume for a machine whose configuration mounts one: an unused one of that name, else a new one. Volumes are never
/// deleted here, so that no data is: they wait for the next machine.
async fn own_volume(
    shared: &FlyShared,
    group: &Group,
    config: &Value,
    region: Option<&str>,
) -> Result<Option<String>, Failure> {
    let Some(mount) = config.pointer("/mounts/0") else { return Ok(None) };
    let name = mount.get("name").and_then(Value::as_str).unwrap_or("data");
    let app = group.app.name.as_str();
    let fits = |volume: &Volume| {
        volume.name == name && volume.state == "created" && region.is_none_or(|region| volume.region == region)
    };
    let volumes = shared.api.volumes(app).await?;
    let free = claimed(group).claim_one(&volumes, fits, shared.clock.now());
    if let Some(volume) = free {
        return Ok(Some(volume));
    }
    let size = mount.get("size_gb").and_then(Value::as_u64).unwrap_or(VOLUME_GB);
    let mut body = json!({ "name": name, "size_gb": size, "require_unique_zone": false });
    for (key, value) in [("region", region.map(|region| json!(region))), ("compute", config.get("guest").cloned())] {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    let volume = shared.api.create_volume(app, body).await?;
    claimed(group).claim(&volume.id, shared.clock.now());
    Ok(Some(volume.id))
}

fn claimed(group: &Group) -> std::sync::MutexGuard<'_, ClaimedVolumes> {
    group.app.claimed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
