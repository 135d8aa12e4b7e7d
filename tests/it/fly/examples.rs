//! The examples in `config/fly/` fit together.

use std::path::{Path, PathBuf};

use swarm::config::{Flags, Orchestrator, load};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fly").join(name)
}

#[test]
fn the_configuration_is_valid_and_scales_a_group_that_is_deployed() {
    let flags = Flags { config: Some(example("swarm.toml")), ..Flags::default() };
    let loaded = load(&flags, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((loaded.settings.orchestrator, loaded.warnings), (Orchestrator::Fly, vec![]));

    let deployed: toml::Table = std::fs::read_to_string(example("fly.toml")).unwrap().parse().unwrap();
    let groups = deployed["processes"].as_table().unwrap();
    assert!(groups["scaler"].as_str().unwrap().contains("--orchestrator fly"));
    for (name, worker_type) in &loaded.settings.worker_types {
        let group = worker_type.fly.process_group(name);
        let command = groups.get(&group).and_then(toml::Value::as_str);
        assert!(command.is_some_and(|command| command.contains(&format!("--type {name}"))), "{group}");
    }
    for section in ["vm", "restart", "metrics"] {
        for entry in deployed[section].as_array().unwrap() {
            for group in entry["processes"].as_array().unwrap() {
                assert!(groups.contains_key(group.as_str().unwrap()), "{section}: {group}");
            }
        }
    }
}
