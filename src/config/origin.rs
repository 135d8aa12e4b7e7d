//! The origin of each setting, kept beside the tree of values so that every message can point at its place. Knows
//! nothing about the meaning of a value.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde_json::{Map, Value};

/// Origin of a setting, weakest first: a later variant overrides an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    #[default]
    Default,
    /// The configuration file.
    File {
        /// Path as it was given.
        path: PathBuf,
        /// Line, counted from 1; `None` for the file as a whole.
        line: Option<usize>,
    },
    /// The file that `redis_url_file` or `http.token_file` names.
    SecretFile(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This command-line flag.
    Flag(&'static str),
    /// A flag `--set` of this setting.
    Set(String),
}

impl Origin {
    /// Returns the layer: a greater one overrides a smaller one.
    pub fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::SecretFile(_) => 2,
            Self::Environment(_) => 3,
            Self::Flag(_) | Self::Set(_) => 4,
        }
    }

    /// Returns the position in a report: by layer, then from the top of the file to its end.
    pub(super) fn report_order(&self) -> (u8, usize) {
        let line = if let Self::File { line, .. } = self { line.unwrap_or(0) } else { 0 };
        (self.layer(), line)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } | Self::SecretFile(path) => write!(f, "{}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
            Self::Set(setting) => write!(f, "--set {setting}"),
        }
    }
}

/// The origin of every setting that is not a default, by its JSON pointer.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    in_force: BTreeMap<String, Origin>,
    /// Origin of each setting before a stronger layer replaced it.
    overridden: BTreeMap<String, Origin>,
}

impl Origins {
    /// Returns the origin of exactly this setting.
    pub fn of(&self, pointer: &str) -> &Origin {
        static DEFAULT: Origin = Origin::Default;
        self.in_force.get(pointer).unwrap_or(&DEFAULT)
    }

    /// Returns the origin of this setting before a stronger layer replaced it, if one did.
    pub fn overridden(&self, pointer: &str) -> Option<&Origin> {
        self.overridden.get(pointer)
    }

    fn note(&mut self, pointer: String, origin: Origin) {
        if let Some(before) = self.in_force.insert(pointer.clone(), origin) {
            self.overridden.insert(pointer, before);
        }
    }

    /// Records an origin that a stronger one had already replaced when it was read.
    pub(super) fn note_overridden(&mut self, pointer: String, origin: Origin) {
        self.overridden.insert(pointer, origin);
    }

    /// Returns the origin of this setting or, if it is a default, of the nearest table around it that was set.
    pub fn nearest(&self, pointer: &str) -> &Origin {
        let mut at = pointer;
        loop {
            if let Some(origin) = self.in_force.get(at) {
                return origin;
            }
            match at.rsplit_once('/') {
                Some((parent, _)) => at = parent,
                None => return self.of(at),
            }
        }
    }

    /// Returns the strongest of the settings' origins; the first of equal ones.
    pub(super) fn strongest(&self, pointers: &[String]) -> Origin {
        let mut strongest = &Origin::Default;
        for pointer in pointers {
            let origin = self.of(pointer);
            if origin.layer() > strongest.layer() {
                strongest = origin;
            }
        }
        match (strongest, pointers.first()) {
            (Origin::Default, Some(first)) => self.nearest(first).clone(),
            _ => strongest.clone(),
        }
    }

    /// Returns every setting that is not a default, as a dotted path, with its origin.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Origin)> {
        self.in_force
            .iter()
            .filter(|(pointer, _)| !pointer.is_empty())
            .map(|(pointer, origin)| (dotted(pointer), origin))
    }
}

/// The values of all layers so far, and the origin of each.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) tree: Value,
    pub(super) origins: Origins,
}

impl Layers {
    /// Returns a bottom layer of built-in values.
    pub(super) fn built_in(tree: Value) -> Self {
        Self { tree, origins: Origins::default() }
    }

    /// Records the origin of a value that is already in the tree.
    pub(super) fn note(&mut self, pointer: String, origin: Origin) {
        self.origins.note(pointer, origin);
    }

    /// Returns the value at `path`.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Value> {
        self.tree.pointer(&pointer(path))
    }

    /// Sets `value` at `path`. If a table is needed and another value is there, that value stays: validation points at
    /// it.
    pub(super) fn set(&mut self, path: &[&str], value: Value, origin: Origin) {
        let Some((key, tables)) = path.split_last() else { return };
        let mut table = &mut self.tree;
        for name in tables {
            let Value::Object(entries) = table else { return };
            table = entries.entry(*name).or_insert_with(|| Value::Object(Map::new()));
        }
        if let Value::Object(entries) = table {
            entries.insert((*key).to_owned(), value);
            self.note(pointer(path), origin);
        }
    }

    /// Removes the value at `pointer`, so that the default applies.
    pub(super) fn remove(&mut self, pointer: &str) {
        let Some((parent, key)) = pointer.rsplit_once('/') else {
            self.tree = Value::Object(Map::new());
            return;
        };
        match self.tree.pointer_mut(parent) {
            Some(Value::Object(entries)) => {
                entries.remove(&unescape(key));
            }
            // An element has no default of its own, and without it the array is not what was written.
            Some(Value::Array(_)) => self.remove(parent),
            _ => {}
        }
    }
}

/// Returns the JSON pointer of `path`.
pub(super) fn pointer(path: &[&str]) -> String {
    path.iter().fold(String::new(), |at, key| join(&at, key))
}

/// Returns the JSON pointer of `key` in the table at `parent`.
pub(super) fn join(parent: &str, key: &str) -> String {
    format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Returns the JSON pointer of an element of the array at `parent`.
pub(super) fn element_of(parent: &str, index: usize) -> String {
    format!("{parent}/{index}")
}

fn unescape(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// Returns the setting at a JSON pointer in TOML's spelling: `worker_types."a b".enabled`.
pub(super) fn dotted(pointer: &str) -> String {
    pointer.split('/').skip(1).map(|key| quoted_if_needed(&unescape(key))).collect::<Vec<_>>().join(".")
}

fn quoted_if_needed(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_setting_is_spelled_as_in_toml() {
        assert_eq!(dotted(&pointer(&["worker_types", "a/b", "scaling"])), "worker_types.\"a/b\".scaling");
        assert_eq!(dotted("/scaler/debounce_ms"), "scaler.debounce_ms");
    }

    #[test]
    fn a_later_layer_hides_an_earlier_one_and_is_named_for_it() {
        let mut layers = Layers::built_in(json!({ "scaler": { "debounce_ms": 50 } }));
        layers.set(&["scaler", "debounce_ms"], json!(9), Origin::Environment("X".to_owned()));
        assert_eq!(layers.get(&["scaler", "debounce_ms"]), Some(&json!(9)));
        assert_eq!(layers.origins.of("/scaler/debounce_ms").to_string(), "X");
        assert_eq!(layers.origins.of("/scaler/other"), &Origin::Default);
    }

    #[test]
    fn a_value_in_the_place_of_a_table_is_left_for_validation() {
        let mut layers = Layers::built_in(json!({ "scaler": 5 }));
        layers.set(&["scaler", "debounce_ms"], json!(9), Origin::Flag("--x"));
        assert_eq!(layers.tree, json!({ "scaler": 5 }));
    }

    #[test]
    fn removing_an_element_removes_its_array() {
        let mut layers = Layers::built_in(json!({ "a": { "b": ["x", 1] }, "c/d": 1 }));
        layers.remove("/a/b/1");
        layers.remove("/c~1d");
        layers.remove("/not/there");
        assert_eq!(layers.tree, json!({ "a": {} }));
    }
}
