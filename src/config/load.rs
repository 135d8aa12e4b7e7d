//! Combines the layers, validates them and returns the settings.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    check::check,
    environment::{Environment, Flags, Remarks, overlay_environment, overlay_flags, set},
    error::{ConfigError, ConfigErrors},
    file::{self, SEARCH_PATHS},
    origin::{Layers, Origin, Origins, dotted, pointer},
    schema::validate,
    settings::Settings,
    worker_variable::overlay_worker_settings,
};

/// A valid configuration and its origins.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Settings in force.
    pub settings: Arc<Settings>,
    /// File that was read; `None` if there is none, and the built-in worker types apply.
    pub file: Option<PathBuf>,
    /// Settings that are valid and probably a mistake, in words.
    pub warnings: Vec<String>,
    /// Origin of each setting that is not a default.
    pub origins: Origins,
}

impl Loaded {
    /// Returns problems that another module has found in settings as errors, each with the origin of its setting. A
    /// problem is the path of the setting, and what is wrong and what to do about it.
    ///
    /// # Errors
    /// If there is a problem.
    pub fn refuse(&self, problems: impl IntoIterator<Item = (Vec<String>, String)>) -> Result<(), ConfigErrors> {
        let error = |(path, message): (Vec<String>, String)| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            ConfigError::new(self.origins.nearest(&pointer(&path)).clone(), message)
        };
        let errors: Vec<_> = problems.into_iter().map(error).collect();
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors::new(errors)) }
    }
}

/// Loads the configuration: flag over environment over file over default. `env` reads an environment variable.
///
/// The file is `flags.config`, else `SWARM_CONFIG`, else the first of [`SEARCH_PATHS`] that exists. Without one, the
/// worker types are `browser` (1 to 10 workers) and `tankpit` (0 to 50). `CUSTOM_WORKER_TYPES` adds to either. Returns
/// all errors, each with its place and the cure.
pub fn load(flags: &Flags, env: &Environment<'_>) -> Result<Loaded, ConfigErrors> {
    load_from(flags, env, &SEARCH_PATHS.map(PathBuf::from))
}

pub(super) fn load_from(flags: &Flags, env: &Environment<'_>, search: &[PathBuf]) -> Result<Loaded, ConfigErrors> {
    let file = file::locate(flags.config.as_deref(), set(env, "SWARM_CONFIG"), search)?;
    let mut layers = match &file {
        Some(path) => file::read(path)?,
        None => Layers::built_in(built_in()),
    };
    let mut remarks = Remarks::default();
    overlay_worker_settings(&mut layers, env, &mut remarks);
    overlay_environment(&mut layers, env, &mut remarks);
    overlay_flags(&mut layers, flags);
    finish(layers, remarks, file)
}

/// Loads the configuration from text in the form of the file. Reads neither a file nor the environment.
pub fn load_text(text: &str) -> Result<Loaded, ConfigErrors> {
    finish(file::parse(Path::new("configuration"), text)?, Remarks::default(), None)
}

/// Reads the secrets in files, and validates everything.
fn finish(mut layers: Layers, mut remarks: Remarks, file: Option<PathBuf>) -> Result<Loaded, ConfigErrors> {
    for secret in [REDIS_URL, WORKER_REDIS_URL, HTTP_TOKEN, HTTP_READ_TOKEN] {
        resolve_file(&mut layers, &mut remarks, &secret);
    }
    let types = layers.get(&["worker_types"]).and_then(Value::as_object);
    for name in types.into_iter().flat_map(|types| types.keys().cloned()).collect::<Vec<_>>() {
        let (key, file) = (["worker_types", &name, "redis_url"], ["worker_types", &name, "redis_url_file"]);
        resolve_file(&mut layers, &mut remarks, &InFile { key: &key, file: &file });
    }
    let settings = validated(&mut layers, &mut remarks);
    match settings {
        Some(settings) if remarks.errors.is_empty() => {
            let settings = Arc::new(settings);
            Ok(Loaded { settings, file, warnings: remarks.warnings, origins: layers.origins })
        }
        _ => Err(ConfigErrors::new(remarks.errors)),
    }
}

/// Returns the settings without a file.
fn built_in() -> Value {
    json!({ "worker_types": {
        "browser": { "scaling": { "min_workers": 1, "max_workers": 10 } },
        "tankpit": { "scaling": { "min_workers": 0, "max_workers": 50 } },
    } })
}

/// Runs every check. Values that the schema refuses are removed, so that the others are still checked.
fn validated(layers: &mut Layers, remarks: &mut Remarks) -> Option<Settings> {
    let mut refused = BTreeSet::new();
    for finding in validate(&layers.tree) {
        remarks.errors.push(ConfigError::new(layers.origins.nearest(&finding.pointer).clone(), finding.message));
        layers.remove(&finding.pointer);
        refused.insert(finding.pointer);
    }
    match serde_json::from_value::<Settings>(layers.tree.clone()) {
        Ok(settings) => {
            let (errors, warnings) = check(&settings, &layers.origins, &refused);
            remarks.errors.extend(errors);
            remarks.warnings.extend(warnings);
            Some(settings)
        }
        Err(error) => {
            remarks.errors.push(ConfigError::new(layers.origins.nearest("").clone(), error.to_string()));
            None
        }
    }
}

/// A setting whose value can be in a file of its own.
struct InFile<'a> {
    /// Path of the setting.
    key: &'a [&'a str],
    /// Path of the setting that names the file.
    file: &'a [&'a str],
}

const REDIS_URL: InFile<'_> = InFile { key: &["redis_url"], file: &["redis_url_file"] };
const WORKER_REDIS_URL: InFile<'_> = InFile { key: &["worker_redis_url"], file: &["worker_redis_url_file"] };
const HTTP_TOKEN: InFile<'_> = InFile { key: &["http", "token"], file: &["http", "token_file"] };
const HTTP_READ_TOKEN: InFile<'_> = InFile { key: &["http", "read_token"], file: &["http", "read_token_file"] };

/// Replaces a setting by the content of its file, unless a stronger layer set it.
fn resolve_file(layers: &mut Layers, remarks: &mut Remarks, secret: &InFile<'_>) {
    let Some(path) = layers.get(secret.file).and_then(Value::as_str).map(PathBuf::from) else { return };
    let (at, file_at) = (pointer(secret.key), pointer(secret.file));
    let said = layers.origins.of(&at).clone();
    if said.layer() > Origin::SecretFile(path.clone()).layer() {
        let origin = layers.origins.of(&file_at).clone();
        layers.origins.note_overridden(at, origin);
        return layers.remove(&file_at);
    }
    let (key, file) = (dotted(&at), dotted(&file_at));
    if said != Origin::Default {
        remarks.warnings.push(format!("{said}: {key} has no effect: {file} wins"));
    }
    match read_secret(&path) {
        Ok(text) => layers.set(secret.key, json!(text), Origin::SecretFile(path)),
        Err(error) => {
            let at = layers.origins.of(&file_at).clone();
            let message = format!(
                "{file}: {} can't be read ({error}); create it, readable for this user, or use {key}",
                path.display()
            );
            remarks.errors.push(ConfigError::new(at, message));
        }
    }
}

/// Returns the content of a file with one secret, trimmed.
fn read_secret(path: &Path) -> std::io::Result<String> {
    /// Far above any URL or token: a wrong path, such as a device, must not fill the memory.
    const LIMIT: u64 = 64 * 1024;
    let mut text = String::new();
    File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
