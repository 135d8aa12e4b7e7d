//! Lays a table of the settings over an object of the engine's API, by the engine's own names. Pure.
//!
//! What was said must come back from the engine's types as it was said: a name that they do not know would be dropped
//! on the way, and a limit that somebody relies on would silently not exist.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Lays `table`, the setting called `key`, over `base`, the engine's `object`. `reserved` has names that other settings
/// decide, each with that setting.
pub(super) fn lay_over<T: Serialize + DeserializeOwned>(
    base: &T,
    table: &Map<String, Value>,
    (key, object): (&str, &str),
    reserved: &[(&str, &str)],
) -> Result<T, String> {
    if let Some((name, setting)) = reserved.iter().find(|(name, _)| table.contains_key(*name)) {
        return Err(format!("`{key}.{name}` can't be set; {setting}"));
    }
    let mut whole = serde_json::to_value(base).map_err(|error| format!("`{key}`: {error}"))?;
    merge(&mut whole, table);
    let laid: T = serde_json::from_value(whole).map_err(|error| {
        format!("`{key}` does not fit the engine's {object}: {error}; write values in the form of the engine's API")
    })?;
    let back = serde_json::to_value(&laid).map_err(|error| format!("`{key}`: {error}"))?;
    match lost(&back, table, "") {
        None => Ok(laid),
        Some(name) => Err(format!(
            "`{key}.{name}` is unknown; names are those of {object} in the engine's API, in their own spelling"
        )),
    }
}

fn merge(base: &mut Value, table: &Map<String, Value>) {
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Value::Object(fields) = base else { return };
    for (name, value) in table {
        match value {
            Value::Object(inner) => merge(fields.entry(name.clone()).or_insert(Value::Null), inner),
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

/// The first name of `table` that `back` does not have with the same value.
fn lost(back: &Value, table: &Map<String, Value>, at: &str) -> Option<String> {
    table.iter().find_map(|(name, said)| {
        let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match (back.get(name), said) {
            (Some(back), said) if back == said => None,
            (Some(back), Value::Object(inner)) => lost(back, inner, &at),
            _ => Some(at),
        }
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::HostConfig;
    use serde_json::json;

    use super::*;

    fn laid(table: Value) -> Result<HostConfig, String> {
        let base = HostConfig { memory: Some(1_024), cap_drop: Some(vec!["ALL".to_owned()]), ..HostConfig::default() };
        let Value::Object(table) = table else { panic!("a table") };
        lay_over(&base, &table, ("host_config", "HostConfig"), &[("AutoRemove", "swarm removes containers itself")])
    }

    #[test]
    fn what_is_said_replaces_and_the_rest_stays() {
        let log = json!({ "Type": "json-file", "Config": { "max-size": "10m" } });
        let host = laid(json!({
            "ReadonlyRootfs": true, "Tmpfs": { "/tmp": "size=64m" }, "ShmSize": 1_073_741_824, "CapDrop": [],
            "LogConfig": log,
        }))
        .unwrap();
        assert_eq!((host.readonly_rootfs, host.memory, host.shm_size), (Some(true), Some(1_024), Some(1 << 30)));
        assert_eq!((host.cap_drop, host.tmpfs.unwrap()["/tmp"].as_str()), (Some(vec![]), "size=64m"));
        assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "10m");
    }

    #[test]
    fn what_the_engine_does_not_know_is_an_error_that_names_it() {
        for (table, part) in [
            (json!({ "ReadOnlyRootfs": true }), "`host_config.ReadOnlyRootfs` is unknown"),
            (json!({ "LogConfig": { "Typ": "none" } }), "`host_config.LogConfig.Typ` is unknown"),
            (json!({ "Memory": "1g" }), "does not fit the engine's HostConfig"),
            (json!({ "AutoRemove": true }), "`host_config.AutoRemove` can't be set; swarm removes"),
        ] {
            let error = laid(table.clone()).unwrap_err();
            assert!(error.contains(part), "{table}: {error}");
        }
    }
}
