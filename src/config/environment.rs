//! The layers above the file: environment variables, then flags. The names are those of the system that this one
//! replaces, so that its deployments keep working. Does not judge values: an invalid value is stored as given, and
//! validation points at its variable.
//!
//! Each variable has a second name with the prefix `SWARM_`, which wins: other programs, and Kubernetes for its
//! Services, may set the short one. A variable that is set but empty counts as unset (`REDIS_URL=${REDIS_URL:-}` in a
//! compose file).

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde_json::{Value, json};

use super::{
    error::ConfigError,
    origin::{Layers, Origin, dotted, pointer},
    settings::HttpSettings,
};
use crate::model::WorkerType;

/// Reads an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Reads the environment of this process. Text that is not UTF-8 is read with replacement characters, and validation
/// refuses it where it matters.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

/// Values of the command line; `None` for flags that were not given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// `--redis-url URL`
    pub redis_url: Option<String>,
    /// `--orchestrator NAME`
    pub orchestrator: Option<String>,
    /// `--check-interval SECONDS`
    pub check_interval: Option<u64>,
    /// `--dry-run`
    pub dry_run: bool,
    /// `--set KEY=VALUE`: any other setting, as its path in the file and its value.
    pub settings: Vec<(Vec<String>, Value)>,
}

/// How a variable's text becomes a value.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    YesNo,
}

impl Kind {
    /// Returns the value, or the text itself if it is invalid: validation then says what was expected.
    fn value(self, text: String) -> Value {
        match self {
            Self::Text => Value::String(text),
            Self::Number => text.trim().parse::<i64>().map_or(Value::String(text), Value::from),
            Self::YesNo => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Value::Bool(true),
                "false" | "0" | "no" | "off" => Value::Bool(false),
                _ => Value::String(text),
            },
        }
    }
}

/// Variables of the whole program.
const GLOBAL: [(&str, &[&str], Kind); 5] = [
    ("REDIS_URL", &["redis_url"], Kind::Text),
    ("REDIS_URL_FILE", &["redis_url_file"], Kind::Text),
    ("ORCHESTRATOR", &["orchestrator"], Kind::Text),
    ("CHECK_INTERVAL", &["scaler", "sweep_interval_seconds"], Kind::Number),
    ("K8S_NAMESPACE", &["kubernetes", "namespace"], Kind::Text),
];

/// Variables of one worker type: the suffix after its name in capitals, and the setting under `worker_types.NAME`.
const PER_TYPE: [(&str, &[&str], Kind); 8] = [
    ("_MIN_WORKERS", &["scaling", "min_workers"], Kind::Number),
    ("_MAX_WORKERS", &["scaling", "max_workers"], Kind::Number),
    ("_SCALE_UP_THRESHOLD", &["scaling", "scale_up_threshold"], Kind::Number),
    ("_SCALE_DOWN_THRESHOLD", &["scaling", "scale_down_threshold"], Kind::Number),
    ("_COOLDOWN", &["scaling", "cooldown_seconds"], Kind::Number),
    ("_JOB_QUEUE", &["job_queue"], Kind::Text),
    ("_REDIS_URL", &["redis_url"], Kind::Text),
    ("_ENABLED", &["enabled"], Kind::YesNo),
];

/// Errors and warnings of reading a layer.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
}

/// Applies the environment to `layers`.
pub(super) fn overlay_environment(layers: &mut Layers, env: &Environment<'_>, remarks: &mut Remarks) {
    for (name, path, kind) in GLOBAL {
        if let Some((named, text)) = variable(env, name) {
            layers.set(path, kind.value(text), Origin::Environment(named));
        }
    }
    overlay_metrics_port(layers, env, remarks);
    add_custom_worker_types(layers, env, remarks);
    overlay_worker_types(layers, env, remarks);
}

/// Applies the command line to `layers`.
pub(super) fn overlay_flags(layers: &mut Layers, flags: &Flags) {
    if let Some(url) = &flags.redis_url {
        layers.set(&["redis_url"], json!(url), Origin::Flag("--redis-url"));
    }
    if let Some(name) = &flags.orchestrator {
        layers.set(&["orchestrator"], json!(name), Origin::Flag("--orchestrator"));
    }
    if let Some(seconds) = flags.check_interval {
        layers.set(&["scaler", "sweep_interval_seconds"], json!(seconds), Origin::Flag("--check-interval"));
    }
    if flags.dry_run {
        layers.set(&["scaler", "dry_run"], json!(true), Origin::Flag("--dry-run"));
    }
    for (path, value) in &flags.settings {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        layers.set(&path, value.clone(), Origin::Set(dotted(&pointer(&path))));
    }
}

/// Returns the value of a variable that is set and not empty.
pub(super) fn set(env: &Environment<'_>, variable: &str) -> Option<String> {
    env(variable).filter(|text| !text.trim().is_empty())
}

/// Returns the first of `SWARM_NAME` and `NAME` that is set and not empty, and its value.
fn variable(env: &Environment<'_>, name: &str) -> Option<(String, String)> {
    both(name).into_iter().find_map(|name| set(env, &name).map(|text| (name, text)))
}

fn both(name: &str) -> [String; 2] {
    [format!("SWARM_{name}"), name.to_owned()]
}

/// Returns `METRICS_PORT`, unless it is the address that Kubernetes sets for a Service named `metrics`.
fn metrics_port(env: &Environment<'_>, remarks: &mut Remarks) -> Option<(String, String)> {
    for variable in both("METRICS_PORT") {
        let Some(text) = set(env, &variable) else { continue };
        if !text.contains("://") {
            return Some((variable, text));
        }
        remarks.warnings.push(format!(
            "environment variable {variable} is ignored: {text:?} is an address, as Kubernetes sets it for a Service of that \
             name; set `enableServiceLinks: false` in the pod, and SWARM_METRICS_PORT for a port"
        ));
    }
    None
}

/// Applies `METRICS_PORT`: it changes the port of `http.listen` and keeps its address; a server that was off listens on
/// the default address. An invalid address is left for validation.
fn overlay_metrics_port(layers: &mut Layers, env: &Environment<'_>, remarks: &mut Remarks) {
    let Some((variable, text)) = metrics_port(env, remarks) else { return };
    let origin = Origin::Environment(variable);
    let Ok(port) = text.trim().parse::<u16>() else {
        let message = format!("http.listen: expected a port from 0 to {}, found {text:?}", u16::MAX);
        return remarks.errors.push(ConfigError::new(origin, message));
    };
    let default = HttpSettings::default().listen;
    let listen = match layers.get(&["http", "listen"]).map(Value::as_str) {
        None | Some(Some("")) => default,
        Some(Some(listen)) => listen.to_owned(),
        Some(None) => return,
    };
    if let Ok(mut address) = listen.parse::<SocketAddr>() {
        address.set_port(port);
        layers.set(&["http", "listen"], json!(address.to_string()), origin);
    }
}

/// Applies `CUSTOM_WORKER_TYPES=a,b`, which adds the types that do not exist yet, with every default.
fn add_custom_worker_types(layers: &mut Layers, env: &Environment<'_>, remarks: &mut Remarks) {
    const VARIABLE: &str = "CUSTOM_WORKER_TYPES";
    let Some((variable, list)) = variable(env, VARIABLE) else { return };
    let origin = Origin::Environment(variable);
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !WorkerType::is_valid(name) {
            remarks.errors.push(ConfigError::new(origin.clone(), invalid_name(name)));
        } else if layers.get(&["worker_types", name]).is_none() {
            layers.set(&["worker_types", name], json!({}), origin.clone());
        }
    }
}

/// Returns what is wrong with the name of a worker type.
pub(super) fn invalid_name(name: &str) -> String {
    format!(
        "{name:?} can't name a worker type; use 1 to 63 lower-case letters, digits, `-`, `_` and `.`, beginning with a \
         letter or digit"
    )
}

fn overlay_worker_types(layers: &mut Layers, env: &Environment<'_>, remarks: &mut Remarks) {
    let Some(types) = layers.get(&["worker_types"]).and_then(Value::as_object) else { return };
    let mut by_prefix = BTreeMap::<String, Vec<String>>::new();
    for name in types.keys() {
        by_prefix.entry(prefix(name)).or_default().push(name.clone());
    }
    for (prefix, names) in by_prefix {
        for (suffix, path, kind) in PER_TYPE {
            let Some((variable, text)) = variable(env, &format!("{prefix}{suffix}")) else { continue };
            if names.len() > 1 {
                remarks.warnings.push(format!("{variable} applies to all of: {}", names.join(", ")));
            }
            for name in &names {
                let path: Vec<_> = ["worker_types", name].iter().chain(path).copied().collect();
                layers.set(&path, kind.value(text.clone()), Origin::Environment(variable.clone()));
            }
        }
    }
}

/// Returns the prefix of a worker type's variables.
fn prefix(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}
