//! Builds the configuration of a new machine: a copy of one of its group, or from the settings alone. Pure.

use serde_json::{Map, Value, json};

use super::machine::{GROUP, LAUNCH, Machine};
use crate::config::FlyWorkerSettings;

/// Variables that tell a machine who it is: a copy of them would make two workers one.
const IDENTITY: [&str; 2] = ["SWARM_WORKER_ID", "FLY_MACHINE_ID"];
/// Restarts of a machine from the settings alone before it is left status; a copy has the policy of its original.
const RESTARTS: u32 = 3;

/// The `config` of a machine to be made, with `launch` stamped on it; mounts are still the original's.
///
/// Without an original and without `image` there is nothing to make, and the error says what to do.
pub(super) fn config(
    original: Option<&Machine>,
    settings: &FlyWorkerSettings,
    group: &str,
    launch: &str,
) -> Result<Value, String> {
    let mut config = match original.and_then(|machine| machine.config.as_ref()?.as_object()) {
        Some(config) => copied(config),
        None => Map::from_iter([("restart".to_owned(), json!({ "policy": "on-failure", "max_retries": RESTARTS }))]),
    };
    let image = settings.image.clone().or_else(|| original?.image()).or_else(|| text(&config, "image"));
    let image = image.ok_or_else(|| {
        format!(
            "process group `{group}` has no machine to copy; deploy one (`fly deploy`, `fly scale count {group}=1`), or \
             say in `image` what to run"
        )
    })?;
    config.insert("image".to_owned(), image.into());
    if !settings.command.is_empty() {
        table(&mut config, "init").insert("cmd".to_owned(), json!(settings.command));
    }
    if let Some(size) = &settings.size {
        config.remove("guest");
        config.insert("size".to_owned(), json!(size));
    } else if let Some(guest) = &settings.guest {
        config.remove("size");
        config.insert("guest".to_owned(), json!(guest));
    }
    let env = table(&mut config, "env");
    env.extend(settings.environment.iter().map(|(name, value)| (name.clone(), json!(value))));
    let metadata = table(&mut config, "metadata");
    metadata.insert(GROUP.to_owned(), json!(group));
    metadata.insert(LAUNCH.to_owned(), json!(launch));
    if original.is_none() {
        // Without it `fly deploy` and `fly status` would not count the machine as one of theirs.
        metadata.insert("fly_platform_version".to_owned(), json!("v2"));
    }
    Ok(Value::Object(config))
}

/// Everything of the original but what makes it itself: status by for another one, its place in a schedule, its names.
fn copied(original: &Map<String, Value>) -> Map<String, Value> {
    let mut config = original.clone();
    for key in ["standbys", "schedule", "auto_destroy"] {
        config.remove(key);
    }
    if let Some(env) = config.get_mut("env").and_then(Value::as_object_mut) {
        env.retain(|name, _| !IDENTITY.contains(&name.as_str()));
    }
    config
}

/// A volume of a machine's own in place of the one that a mount names.
pub(super) fn mount(config: &mut Value, volume: &str) {
    if let Some(mount) = config.pointer_mut("/mounts/0").and_then(Value::as_object_mut) {
        mount.insert("volume".to_owned(), json!(volume));
    }
}

fn text(config: &Map<String, Value>, key: &str) -> Option<String> {
    config.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The table of that name, made if there is none: the API says `null` for an empty one.
fn table<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it has just been made one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Machine {
        serde_json::from_value(json!({
            "id": "m1",
            "state": "started",
            "image_ref": { "registry": "registry.fly.io", "repository": "shop", "tag": "v7", "digest": "sha256:7" },
            "config": {
                "image": "registry.fly.io/shop:v7",
                "env": { "SWARM_WORKER_ID": "one", "LEVEL": "info" },
                "metadata": { "fly_process_group": "worker-browser", "fly_release_version": "7" },
                "standbys": ["m0"],
                "schedule": "daily",
                "auto_destroy": true,
                "guest": { "cpu_kind": "shared", "cpus": 2, "memory_mb": 512 },
                "mounts": [{ "volume": "vol_1", "path": "/data", "name": "data" }],
                "something_new": { "kept": true },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_copy_is_the_original_without_what_makes_it_itself() {
        let config = config(Some(&original()), &FlyWorkerSettings::default(), "worker-browser", "l1").unwrap();
        assert_eq!(
            config,
            json!({
                "image": "registry.fly.io/shop@sha256:7",
                "env": { "LEVEL": "info" },
                "metadata": {
                    "fly_process_group": "worker-browser", "fly_release_version": "7", "swarm_launch": "l1",
                },
                "guest": { "cpu_kind": "shared", "cpus": 2, "memory_mb": 512 },
                "mounts": [{ "volume": "vol_1", "path": "/data", "name": "data" }],
                "something_new": { "kept": true },
            })
        );
    }

    #[test]
    fn settings_win_over_the_original() {
        let settings = FlyWorkerSettings {
            image: Some("other:1".to_owned()),
            command: vec!["swarm".to_owned(), "worker".to_owned()],
            size: Some("performance-1x".to_owned()),
            environment: [("LEVEL".to_owned(), "debug".to_owned())].into(),
            ..FlyWorkerSettings::default()
        };
        let mut config = config(Some(&original()), &settings, "g", "l").unwrap();
        assert_eq!((&config["image"], &config["size"]), (&json!("other:1"), &json!("performance-1x")));
        assert_eq!((config.get("guest"), &config["env"]), (None, &json!({ "LEVEL": "debug" })));
        assert_eq!(config["init"], json!({ "cmd": ["swarm", "worker"] }));
        mount(&mut config, "vol_2");
        assert_eq!(config["mounts"][0], json!({ "volume": "vol_2", "path": "/data", "name": "data" }));
    }

    #[test]
    fn from_nothing_there_must_be_an_image() {
        let error = config(None, &FlyWorkerSettings::default(), "worker-x", "l").unwrap_err();
        assert!(error.contains("fly scale count worker-x=1") && error.contains("`image`"), "{error}");
        let settings = FlyWorkerSettings { image: Some("app:1".to_owned()), ..FlyWorkerSettings::default() };
        let config = config(None, &settings, "worker-x", "l").unwrap();
        assert_eq!(config["metadata"]["fly_process_group"], "worker-x");
        assert_eq!(config["restart"]["policy"], "on-failure");
    }
}
