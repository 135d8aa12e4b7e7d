//! The JSON Schema of the file, generated from the settings structs, and the errors that it finds in a tree of values,
//! in words. Checks one value at a time; the semantic checks combine values.

use std::{collections::BTreeMap, sync::LazyLock};

use jsonschema::{Validator, error::ValidationErrorKind};
use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Value, json};

use super::{
    origin::{dotted, join},
    settings::Settings,
};

/// A value that the schema refuses.
#[derive(Debug)]
pub(super) struct Finding {
    /// JSON pointer of the value.
    pub(super) pointer: String,
    /// What is wrong, and what to do about it.
    pub(super) message: String,
}

/// Returns the JSON Schema of the configuration file, for editors and for validation.
pub fn schema() -> Value {
    SCHEMA.0.clone()
}

static SCHEMA: LazyLock<(Value, Validator)> = LazyLock::new(|| {
    let fitted = RecursiveTransform(fit_to_toml);
    let settings = SchemaSettings::draft2020_12().with_transform(fitted);
    let mut root = settings.into_generator().into_root_schema_for::<Settings>();
    spell_orchestrator_aliases(&mut root);
    let root = root.to_value();
    let validator = jsonschema::validator_for(&root).expect("a schema derived from the structs is a valid schema");
    (root, validator)
});

/// Fits a schema to TOML, which has no null. An integer that the struct can't hold is refused with its range.
fn fit_to_toml(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    // A setting that may be left out takes what it takes if it is not.
    if let Some(Value::Array(options)) = schema.get("anyOf")
        && let [Value::Object(only), Value::Object(null)] = options.as_slice()
        && null.get("type").is_some_and(|kind| kind == "null")
    {
        let only = only.clone();
        schema.remove("anyOf");
        only.into_iter().for_each(|(key, value)| drop(schema.insert(key, value)));
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if schema.get("format") == Some(&json!("uint32")) && schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), json!(u32::MAX));
    }
}

/// Adds the aliases of variants, which the derive does not know.
fn spell_orchestrator_aliases(root: &mut Schema) {
    if let Some(Value::Array(names)) = root.pointer_mut("/$defs/Orchestrator/oneOf") {
        for alias in ["docker-api", "docker-compose"] {
            names.push(json!({ "type": "string", "const": alias, "description": "Also: `docker`." }));
        }
    }
}

impl Finding {
    fn new(pointer: &str, message: String) -> Self {
        Self { pointer: pointer.to_owned(), message }
    }
}

/// Returns all values in `tree` that the schema refuses, one finding for each.
pub(super) fn validate(tree: &Value) -> Vec<Finding> {
    let (schema, validator) = &*SCHEMA;
    let mut findings = BTreeMap::<String, Finding>::new();
    for error in validator.iter_errors(tree) {
        let at = error.instance_path().as_str();
        let keyword = error.schema_path().as_str();
        let node = keyword.rsplit_once('/').and_then(|(node, _)| schema.pointer(node)).unwrap_or(&Value::Null);
        let found = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                unexpected.iter().map(|key| unknown_key(tree, schema, node, at, key)).collect()
            }
            _ => vec![unfit_value(node, at, &name_of(tree, at), error.instance())],
        };
        for finding in found {
            findings.entry(finding.pointer.clone()).or_insert(finding);
        }
    }
    findings.into_values().collect()
}

fn unfit_value(node: &Value, at: &str, name: &str, value: &Value) -> Finding {
    let similar = value.as_str().and_then(|text| closest(text, choices(node).into_iter()));
    let hint = similar.map(|similar| format!("; did you mean \"{similar}\"?")).unwrap_or_default();
    Finding::new(at, format!("{name}: expected {}, found {}{hint}", expected(node), found(at, value)))
}

/// Returns the name of the value at a JSON pointer as a person writes it: `scaler.debounce_ms`, `command[1]`,
/// `schedule[0].start`.
fn name_of(tree: &Value, at: &str) -> String {
    let Some((parent, key)) = at.rsplit_once('/') else { return String::new() };
    let around = name_of(tree, parent);
    if tree.pointer(parent).is_some_and(Value::is_array) {
        return format!("{around}[{key}]");
    }
    let dot = if around.is_empty() { "" } else { "." };
    format!("{around}{dot}{}", dotted(&at[parent.len()..]))
}

fn unknown_key(tree: &Value, schema: &Value, node: &Value, at: &str, key: &str) -> Finding {
    let pointer = join(at, key);
    let no_properties = serde_json::Map::new();
    let known = node["properties"].as_object().unwrap_or(&no_properties);
    let names = || known.keys().map(String::as_str);
    let cure = if let Some(table) = table_with(schema, known, key) {
        format!("it belongs in [{}]", dotted(&join(at, table)))
    } else if let Some(similar) = closest(key, names()).or_else(|| longer(key, names())) {
        format!("did you mean `{similar}`?")
    } else {
        format!("known here: {}", names().collect::<Vec<_>>().join(", "))
    };
    Finding::new(&pointer, format!("unknown key {}; {cure}", name_of(tree, &pointer)))
}

/// Returns which of the tables among `known` has a key of that name: the key was written one level too high.
fn table_with<'a>(schema: &Value, known: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a str> {
    known.iter().find_map(|(name, property)| {
        let target = property["$ref"].as_str()?.strip_prefix('#')?;
        schema.pointer(target)?["properties"].get(key).map(|_| name.as_str())
    })
}

/// Returns what a schema node accepts, in words.
fn expected(node: &Value) -> String {
    let choices = choices(node);
    if !choices.is_empty() {
        let quoted: Vec<_> = choices.iter().map(|name| format!("{name:?}")).collect();
        return format!("one of {}", quoted.join(", "));
    }
    match node["type"].as_str().unwrap_or_default() {
        "integer" => match (node["minimum"].as_u64().unwrap_or(0), node["maximum"].as_u64()) {
            (min, Some(max)) => format!("an integer from {min} to {max}"),
            (min, None) => format!("an integer of at least {min}"),
        },
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" => "a string".to_owned(),
        "array" => "an array".to_owned(),
        "object" => "a table".to_owned(),
        other => format!("something else ({other})"),
    }
}

/// Returns the names that an enumeration accepts.
fn choices(node: &Value) -> Vec<&str> {
    let names = node["oneOf"].as_array().into_iter().flatten().filter_map(|choice| choice["const"].as_str());
    names.chain(node["enum"].as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

/// Returns a value for a message, unless it may contain a secret, as URLs, commands and environments do.
fn found(at: &str, value: &Value) -> String {
    const SECRET: [&str; 5] = ["/process/", "/command/", "/docker/environment", "/fly/environment", "/worker/exec"];
    let token = matches!(at, "/http/token" | "/http/read_token");
    let secret = at.starts_with("/redis_url")
        || at.starts_with("/worker_redis_url")
        || at.starts_with("/notify/")
        || at.ends_with("/redis_url")
        || token
        || SECRET.iter().any(|place| at.contains(place));
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(_) if secret => "a string".to_owned(),
        Value::Number(_) if secret => "a number".to_owned(),
        Value::String(text) => format!("{:?}", shortened(text)),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    if text.chars().count() <= SHOWN { text.to_owned() } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

/// Returns the name that was probably meant: at most a third of its letters differ.
fn closest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&text, name), name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Returns the shortest name that contains `text`: `cooldown` is short for `cooldown_seconds`.
fn longer<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let part = format!("_{}_", text.to_lowercase());
    names.filter(|name| format!("_{name}_").contains(&part)).min_by_key(|name| name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(tree: &Value) -> Vec<String> {
        validate(tree).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_value_of_the_wrong_type_or_range_is_worded_by_us() {
        let tree = json!({ "scaler": { "debounce_ms": "50ms", "redis_timeout_ms": 1, "dry_run": "no" } });
        assert_eq!(
            messages(&tree),
            [
                "scaler.debounce_ms: expected an integer from 0 to 60000, found \"50ms\"",
                "scaler.dry_run: expected true or false, found \"no\"",
                "scaler.redis_timeout_ms: expected an integer from 10 to 60000, found 1",
            ]
        );
    }

    #[test]
    fn an_unknown_name_gets_the_closest_known_one() {
        let tree = json!({ "orchestrator": "Kubernets", "scaler": { "debouce_ms": 1 }, "zzz": 1 });
        let [choice, key, far] = messages(&tree).try_into().unwrap();
        assert!(choice.ends_with("found \"Kubernets\"; did you mean \"kubernetes\"?"), "{choice}");
        assert_eq!(key, "unknown key scaler.debouce_ms; did you mean `debounce_ms`?");
        assert!(far.starts_with("unknown key zzz; known here: "), "{far}");
    }

    #[test]
    fn a_key_one_level_too_high_is_sent_to_its_table() {
        let tree = json!({ "worker_types": { "browser": { "min_workers": 1 } } });
        assert_eq!(
            messages(&tree),
            ["unknown key worker_types.browser.min_workers; it belongs in [worker_types.browser.scaling]"]
        );
    }

    #[test]
    fn secrets_are_not_quoted() {
        let process = json!({ "command": "x hunter2", "environment": { "PASSWORD": 4711 } });
        let tree = json!({ "redis_url": ["redis://:hunter2@h"], "worker_types": { "a": { "process": process } } });
        let all = messages(&tree).join("\n");
        assert_eq!(all.lines().count(), 3, "{all}");
        assert!(!all.contains("hunter2") && !all.contains("4711"), "{all}");
    }

    #[test]
    fn other_spellings_of_docker_are_known_to_editors() {
        for name in ["docker", "docker-api", "docker-compose"] {
            assert!(messages(&json!({ "orchestrator": name })).is_empty(), "{name}");
        }
    }

    #[test]
    fn an_integer_too_large_for_its_field_is_refused_with_its_range() {
        let tree = json!({ "worker_types": { "a": { "scaling": { "step": 5_000_000_000_u64 } } } });
        assert_eq!(
            messages(&tree),
            ["worker_types.a.scaling.step: expected an integer from 1 to 4294967295, found 5000000000"]
        );
    }
}
