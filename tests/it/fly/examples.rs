//! The examples in `config/fly/` fit together, and none gives a worker what is the scaler's.

use std::path::{Path, PathBuf};

use swarm::config::{Flags, Orchestrator, load};

use crate::support::browser::memory_mib;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fly").join(name)
}

fn deployed(name: &str) -> toml::Table {
    std::fs::read_to_string(example(name)).unwrap().parse().unwrap()
}

#[test]
fn the_configuration_is_valid_and_scales_a_group_that_is_deployed() {
    let flags = Flags { config: Some(example("swarm.toml")), ..Flags::default() };
    let loaded = load(&flags, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((loaded.settings.orchestrator, loaded.warnings), (Orchestrator::Fly, vec![]));

    let workers = deployed("workers.toml");
    let groups = workers["processes"].as_table().unwrap();
    for (name, worker_type) in &loaded.settings.worker_types {
        assert_eq!(worker_type.fly.app.as_deref(), workers["app"].as_str(), "{name}");
        let group = worker_type.fly.process_group(name);
        let command = groups.get(&group).and_then(toml::Value::as_str);
        assert!(command.is_some_and(|command| command.contains(&format!("--type {name}"))), "{group}");
    }
    let scaler = deployed("scaler.toml");
    assert_ne!(scaler["app"], workers["app"], "a secret of an app reaches every machine of it");
    assert!(scaler["processes"]["scaler"].as_str().unwrap().contains("--orchestrator fly"));
    let worker_secrets = std::fs::read_to_string(example("workers.toml")).unwrap();
    assert!(!worker_secrets.contains("FLY_API_TOKEN"), "workers need no token");
}

#[test]
fn a_machine_has_memory_for_all_places_of_its_worker() {
    let flags = Flags { config: Some(example("swarm.toml")), ..Flags::default() };
    let loaded = load(&flags, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let memory = deployed("workers.toml")["vm"][0]["memory"].as_str().unwrap().to_owned();
    let gigabytes: u64 = memory.strip_suffix("gb").expect("gigabytes").parse().unwrap();
    // The kernel of the machine takes a little.
    let left = gigabytes * 1024 * 9 / 10;
    assert!(memory_mib(&loaded.settings.worker_types["browser"].browser) <= left, "{memory}");
}

#[test]
fn both_apps_build_an_image_that_the_dockerfile_has() {
    let dockerfile = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    for name in ["scaler.toml", "workers.toml"] {
        let build = deployed(name)["build"].as_table().unwrap().clone();
        assert!(!build.contains_key("image"), "{name} names an image that somebody else would have to push");
        let path = example(name).parent().unwrap().join(build["dockerfile"].as_str().unwrap());
        assert!(path.is_file(), "{name}: relative to the file itself, as flyctl reads it");
        let target = format!(" AS {}\n", build["build-target"].as_str().unwrap());
        assert!(dockerfile.contains(&target), "{name}: {target}");
        for file in deployed(name)["files"].as_array().unwrap() {
            let local = file["local_path"].as_str().unwrap();
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(local).is_file(), "{name}: {local}, from the root");
        }
    }
}
