//! The configurations to compare: each file as it is, and again with each `--set`.

use std::{path::PathBuf, sync::Arc};

use anyhow::{bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    cli::ConfigFlags,
    config::{Flags, Loaded, Settings, schema},
};

/// A setting as its path in the file and its value.
type Setting = (Vec<String>, Value);

/// Options about the configurations.
#[derive(Args, Debug)]
pub(super) struct VariantArgs {
    /// Configuration file; may be repeated to compare several [default: $SWARM_CONFIG, or the first of swarm.toml,
    /// config/swarm.toml, /etc/swarm/swarm.toml]
    #[arg(long, value_name = "FILE", help_heading = "Configurations")]
    config: Vec<PathBuf>,
    /// Compare with settings changed, of the worker type (scaling.cooldown_seconds=30, worker.concurrency=4) or the
    /// whole (scaler.debounce_ms=500); several at once with commas. Each --set adds one configuration to the comparison
    #[arg(long, value_name = "KEY=VALUE[,…]", help_heading = "Configurations")]
    set: Vec<String>,
}

/// One configuration.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    /// Name for people.
    pub(super) label: String,
    /// Settings in force.
    pub(super) settings: Arc<Settings>,
}

/// All configurations.
#[derive(Debug)]
pub(super) struct Variants {
    pub(super) worker_type: String,
    pub(super) all: Vec<Variant>,
    /// Settings that are valid and probably a mistake, in words.
    pub(super) warnings: Vec<String>,
}

impl VariantArgs {
    /// Loads the configurations: each file as it is, then with each `--set`.
    ///
    /// # Errors
    /// All errors of the configurations, or if it is unclear which worker type is meant.
    pub(super) fn load(&self, worker_type: Option<&str>) -> anyhow::Result<Variants> {
        let files: Vec<Option<PathBuf>> =
            if self.config.is_empty() { vec![None] } else { self.config.iter().cloned().map(Some).collect() };
        let mut variants = Variants { worker_type: String::new(), all: Vec::new(), warnings: Vec::new() };
        for file in files {
            let loaded = load(file.clone(), Vec::new())?;
            let name = file.or_else(|| loaded.file.clone());
            let name = name.map_or_else(|| "built-in".to_owned(), |name| name.display().to_string());
            if variants.worker_type.is_empty() {
                variants.worker_type = chosen(&loaded.settings, worker_type)?;
            }
            for set in &self.set {
                let settings = parse_set(set, &variants.worker_type)?;
                let changed = load(loaded.file.clone(), settings)?;
                let label = if self.config.len() > 1 { format!("{name}, {set}") } else { set.clone() };
                variants.add(label, &changed);
            }
            let at = variants.all.len() - self.set.len();
            variants.add(name, &loaded);
            variants.all[at..].rotate_right(1);
        }
        Ok(variants)
    }
}

impl Variants {
    fn add(&mut self, label: String, loaded: &Loaded) {
        self.all.push(Variant { label, settings: loaded.settings.clone() });
        for warning in &loaded.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
    }
}

fn load(file: Option<PathBuf>, settings: Vec<Setting>) -> anyhow::Result<Loaded> {
    let flags = ConfigFlags { config: file, redis_url: None };
    Ok(flags.load_with(Flags { settings, ..Flags::default() })?)
}

/// Returns the named worker type, or the only one.
fn chosen(settings: &Settings, named: Option<&str>) -> anyhow::Result<String> {
    let known: Vec<&str> = settings.worker_types.keys().map(String::as_str).collect();
    match (named, known.as_slice()) {
        (Some(name), _) if known.contains(&name) => Ok(name.to_owned()),
        (Some(name), _) => bail!("no worker type `{name}` in the configuration; there are: {}", known.join(", ")),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => bail!("the configuration has no worker type; add a [worker_types.NAME]"),
        (None, _) => bail!("which worker type? Name one with --type; there are: {}", known.join(", ")),
    }
}

/// Parses `scaling.cooldown_seconds=30,scaler.debounce_ms=500`. A key that does not start with a table of the file is
/// meant for the worker type. A value is TOML, or else text.
fn parse_set(text: &str, worker_type: &str) -> anyhow::Result<Vec<Setting>> {
    let schema = schema();
    let tables = schema["properties"].as_object();
    let setting = |part: &str| {
        let form = || format!("--set {part}: write KEY=VALUE, such as scaling.cooldown_seconds=30");
        let Some((key, value)) = part.split_once('=') else { bail!(form()) };
        let keys = toml_edit::Key::parse(key.trim());
        let mut path: Vec<String> = keys.unwrap_or_default().iter().map(|key| key.get().to_owned()).collect();
        ensure!(!path.is_empty() && !value.trim().is_empty(), form());
        if !tables.is_some_and(|tables| tables.contains_key(&path[0])) {
            path.splice(0..0, ["worker_types".to_owned(), worker_type.to_owned()]);
        }
        Ok((path, toml_value(value.trim())))
    };
    parts(text).into_iter().map(setting).collect()
}

fn toml_value(text: &str) -> Value {
    let parsed = toml::from_str::<Value>(&format!("value = {text}"));
    parsed.ok().and_then(|mut table| table.get_mut("value").map(Value::take)).unwrap_or_else(|| Value::from(text))
}

/// Splits at commas, except for those within quotes and brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (_, Some(open)) => quote = if c == open { None } else { Some(open) },
            ('"' | '\'', None) => quote = Some(c),
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_the_worker_types_own_or_the_wholes() {
        let set = |text| parse_set(text, "a.b").map_err(|error| error.to_string());
        let path = |path: &[&str]| path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let expected = vec![
            (path(&["worker_types", "a.b", "scaling", "cooldown_seconds"]), json!(30)),
            (path(&["scaler", "debounce_ms"]), json!(500)),
            (path(&["worker_types", "a.b", "scaling", "strategy"]), json!("backlog")),
        ];
        assert_eq!(set("scaling.cooldown_seconds=30, scaler.debounce_ms = 500,scaling.strategy=backlog"), Ok(expected));
        let expected = vec![(path(&["worker_types", "a.b", "worker", "exec"]), json!(["a,b", "c"]))];
        assert_eq!(set(r#"worker_types."a.b".worker.exec=["a,b", "c"]"#), Ok(expected));
        for text in ["", "scaling", "=3", "scaling.step=", "a=1,,b=2"] {
            assert!(set(text).unwrap_err().contains("KEY=VALUE"), "{text}");
        }
    }
}
