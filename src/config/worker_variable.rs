//! The settings that a worker reads, as the autoscaler passes them: one environment variable with the values that
//! differ from the defaults. So the autoscaler's file applies to workers that can't read it. Contains no secrets.

use serde_json::{Map, Value, json};

use super::{
    environment::{Environment, Remarks, set},
    error::ConfigError,
    origin::{Layers, Origin},
    settings::WorkerTypeSettings,
};

/// Name of the variable.
pub const WORKER_SETTINGS: &str = "SWARM_WORKER_SETTINGS";

/// Tables of a worker type that its workers read.
const TABLES: [&str; 4] = ["worker", "jobs", "browser", "tankpit"];

/// Settings that may contain secrets: the variable leaves them out.
const SECRET: [(&str, &str); 2] = [("worker", "exec_environment"), ("browser", "proxy")];

impl WorkerTypeSettings {
    /// Returns the value of [`WORKER_SETTINGS`] for its workers; `None` if they have every default.
    pub fn for_workers(&self) -> Option<String> {
        let (own, default) = (json!(self), json!(Self::default()));
        let mut tables = Map::new();
        for table in TABLES {
            let fields = own[table].as_object().into_iter().flatten();
            let differing = fields.filter(|(key, value)| {
                !SECRET.contains(&(table, key.as_str())) && !value.is_null() && **value != default[table][key.as_str()]
            });
            let differing: Map<_, _> = differing.map(|(key, value)| (key.clone(), value.clone())).collect();
            if !differing.is_empty() {
                tables.insert(table.to_owned(), Value::Object(differing));
            }
        }
        (!tables.is_empty()).then(|| Value::Object(tables).to_string())
    }
}

/// Overlays the settings that an autoscaler passed on those of this worker's file. Variables for single settings
/// override them.
pub(super) fn overlay_worker_settings(layers: &mut Layers, env: &Environment<'_>, remarks: &mut Remarks) {
    let (Some(text), Some(worker_type)) = (set(env, WORKER_SETTINGS), set(env, "SWARM_WORKER_TYPE")) else { return };
    let origin = Origin::Environment(WORKER_SETTINGS.to_owned());
    let tables = match serde_json::from_str::<Map<String, Value>>(&text) {
        Ok(tables) => tables,
        Err(error) => {
            let message = format!("it is not the JSON that an autoscaler sets ({error}); remove it");
            return remarks.errors.push(ConfigError::new(origin, message));
        }
    };
    for table in TABLES {
        for (key, value) in tables.get(table).and_then(Value::as_object).into_iter().flatten() {
            layers.set(&["worker_types", &worker_type, table, key], value.clone(), origin.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Loaded, load, load_text};

    /// Loads a worker's configuration: its own file, not the autoscaler's, and these variables.
    fn worker(variables: &[(&str, &str)]) -> Result<Loaded, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[worker_types.web.browser]\nmax_pages = 3\nwidth = 640\n").unwrap();
        let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
        let env = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        load(&flags, &env).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_worker_works_by_the_settings_of_its_autoscaler_without_their_secrets() {
        let text = "[worker_types.web.browser]\nmax_pages = 5\nproxy = \"http://u:hunter2@proxy:1\"\n\
                    [worker_types.web.tankpit]\nurl = \"wss://game\"\n[worker_types.web.worker]\nconcurrency = 7\n\
                    [worker_types.web.worker.exec_environment]\nKEY = \"hunter2\"\n[worker_types.plain]\n";
        let scaler = load_text(text).unwrap_or_else(|errors| panic!("{errors}"));
        let types = &scaler.settings.worker_types;
        assert_eq!(types["plain"].for_workers(), None);
        let handed = types["web"].for_workers().unwrap();
        assert!(!handed.contains("hunter2"), "{handed}");
        let loaded = worker(&[(WORKER_SETTINGS, &handed), ("SWARM_WORKER_TYPE", "web")]).unwrap();
        let web = &loaded.settings.worker_types["web"];
        assert_eq!(
            (web.browser.max_pages, web.browser.width),
            (5, 640),
            "what is not handed over stays the worker's own"
        );
        assert_eq!((web.tankpit.url.as_str(), web.worker.concurrency), ("wss://game", 7));
    }

    #[test]
    fn something_else_in_the_variable_is_an_error() {
        for (text, part) in [("{", WORKER_SETTINGS), (r#"{"browser":{"max_pages":"many"}}"#, "max_pages")] {
            let error = worker(&[(WORKER_SETTINGS, text), ("SWARM_WORKER_TYPE", "web")]).unwrap_err();
            assert!(error.contains(part) && error.contains(WORKER_SETTINGS), "{error}");
        }
        assert!(worker(&[(WORKER_SETTINGS, "{")]).is_ok(), "it is for workers");
    }
}
