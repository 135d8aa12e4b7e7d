//! The settings in force, in the form that people and programs read: every default filled in, every secret masked, and
//! in TOML the origin of each line that is not a default.

use serde_json::{Value, json};
use toml_edit::{DocumentMut, Item, Table};

use super::{
    load::Loaded,
    origin::{Origin, Origins, element_of, join},
    redact::{masked_variable, masked_word},
    settings::{Settings, WorkerTypeSettings},
};

/// Returns the settings as JSON, without secrets, with the values that follow from a worker type's name.
pub fn effective(settings: &Settings) -> Value {
    json!(filled_in(settings))
}

/// Returns the settings as TOML. A comment on each line that is not a default names its origin.
pub fn to_toml(loaded: &Loaded) -> String {
    let text = toml::to_string(&filled_in(&loaded.settings)).expect("settings that came from TOML fit into TOML");
    let mut document: DocumentMut = text.parse().expect("what the serializer wrote is TOML");
    annotate("", document.as_table_mut(), &loaded.origins);
    document.to_string()
}

fn filled_in(settings: &Settings) -> Settings {
    let mut shown = settings.clone();
    for (name, worker_type) in &mut shown.worker_types {
        fill_in(name, worker_type);
    }
    shown
}

fn fill_in(name: &str, worker_type: &mut WorkerTypeSettings) {
    worker_type.job_queue = Some(worker_type.queue(name));
    worker_type.group = Some(worker_type.group(name));
    worker_type.scaling.stabilization_window_seconds = Some(worker_type.scaling.stabilization_window().as_secs());
    worker_type.process.command = worker_type.command(name).iter().map(|word| masked_word(word)).collect();
    worker_type.docker.service = Some(worker_type.docker.service(name));
    worker_type.docker.command = worker_type.docker.command.iter().map(|word| masked_word(word)).collect();
    worker_type.fly.shown(name);
    worker_type.command.shown();
    worker_type.worker.exec = worker_type.worker.exec.iter().map(|word| masked_word(word)).collect();
    let environments = [
        &mut worker_type.process.environment,
        &mut worker_type.docker.environment,
        &mut worker_type.worker.exec_environment,
    ];
    for (variable, value) in environments.into_iter().flatten() {
        *value = masked_variable(variable, value);
    }
}

fn annotate(at: &str, table: &mut Table, origins: &Origins) {
    table.retain(|_, item| !item.as_table().is_some_and(Table::is_empty));
    for (key, item) in table.iter_mut() {
        let at = join(at, key.get());
        match item {
            Item::Table(inner) => annotate(&at, inner, origins),
            Item::Value(value) => {
                let origin = origins.of(&at);
                if *origin != Origin::Default {
                    value.decor_mut().set_suffix(format!("  # {}", one_line(&origin.to_string())));
                }
            }
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter_mut().enumerate() {
                    annotate(&element_of(&at, index), table, origins);
                }
            }
            Item::None => {}
        }
    }
}

/// Replaces control characters, because a comment ends with its line and a file name may contain a line break.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}
