//! Every command line that a shipped file gives to an image, as the image runs it: behind its entrypoint, through the
//! real argument parser. `--help` at the end keeps it from doing its work; what does not parse fails before that.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use crate::support::needs::repository;

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The entrypoint of each target of the Dockerfile.
fn entrypoints() -> BTreeMap<String, Vec<String>> {
    let (mut target, mut entrypoints) = (String::new(), BTreeMap::new());
    for line in read("Dockerfile").lines() {
        if let Some((_, name)) = line.strip_prefix("FROM ").and_then(|rest| rest.split_once(" AS ")) {
            name.trim().clone_into(&mut target);
        } else if let Some(words) = line.strip_prefix("ENTRYPOINT ") {
            entrypoints.insert(target.clone(), serde_json::from_str(words).expect("it is in the form of JSON"));
        }
    }
    entrypoints
}

/// A command line: where it is, the image's target, a replaced entrypoint, and the arguments.
struct Line {
    at: String,
    target: String,
    entrypoint: Option<Vec<String>>,
    arguments: Vec<String>,
}

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().unwrap_or_else(|| panic!("a list of words: {value}"));
    words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// `localhost/swarm-browser:0.1.0` is the target `browser`, `swarm:0.1.0` the target `swarm`; others are not ours.
fn target(image: &str) -> Option<String> {
    let name = image.rsplit('/').next()?.split([':', '@']).next()?;
    (name == "swarm" || name.starts_with("swarm-")).then(|| name.strip_prefix("swarm-").unwrap_or(name).to_owned())
}

fn of_fly(name: &str, lines: &mut Vec<Line>) {
    let file: toml::Table = read(name).parse().expect("it is TOML");
    let target = file["build"]["build-target"].as_str().expect("it builds an image").to_owned();
    for (group, command) in file["processes"].as_table().expect("it has processes") {
        let arguments = command.as_str().expect("a line").split_whitespace().map(str::to_owned).collect();
        lines.push(Line { at: format!("{name}: {group}"), target: target.clone(), entrypoint: None, arguments });
    }
}

fn of_compose(name: &str, lines: &mut Vec<Line>) {
    let file: Value = serde_saphyr::from_str(&read(name)).expect("it is YAML");
    for (service, of) in file["services"].as_object().expect("it has services") {
        let Some(target) = of["image"].as_str().and_then(target) else { continue };
        let line = |what: &str, words| (format!("{name}: {service}: {what}"), words);
        let probe = &of["healthcheck"]["test"];
        let probe = (!probe.is_null()).then(|| words(probe)).filter(|words| words[0] == "CMD");
        let commands = [line("command", words(&of["command"]))];
        for (at, arguments) in commands {
            lines.push(Line { at, target: target.clone(), entrypoint: None, arguments });
        }
        if let Some(probe) = probe {
            let (at, probe) = line("healthcheck", probe[1..].to_vec());
            lines.push(Line { at, target, entrypoint: Some(Vec::new()), arguments: probe });
        }
    }
}

/// Every container of a manifest, wherever it is.
fn of_manifest(at: &str, value: &Value, lines: &mut Vec<Line>) {
    if let Some(target) = value["image"].as_str().and_then(target)
        && value["name"].is_string()
    {
        let given = |key: &str| (!value[key].is_null()).then(|| words(&value[key]));
        let at = format!("{at}: {}", value["name"]);
        lines.push(Line { at, target, entrypoint: given("command"), arguments: given("args").unwrap_or_default() });
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| of_manifest(at, item, lines)),
        Value::Object(fields) => fields.values().for_each(|field| of_manifest(at, field, lines)),
        _ => {}
    }
}

fn of_manifests(lines: &mut Vec<Line>) {
    for file in std::fs::read_dir(repository("config/kubernetes")).expect("the directory is there") {
        let path = file.expect("it can be read").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
        let at = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        for document in &documents {
            of_manifest(&at, document, lines);
        }
    }
}

fn of_settings(name: &str, lines: &mut Vec<Line>) {
    let file: toml::Table = read(name).parse().expect("it is TOML");
    for (worker_type, of) in file["worker_types"].as_table().expect("it has worker types") {
        let Some(docker) = of.get("docker") else { continue };
        let target = target(docker["image"].as_str().expect("a name")).expect("it is ours");
        let arguments =
            docker["command"].as_array().expect("words").iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        lines.push(Line { at: format!("{name}: {worker_type}"), target, entrypoint: None, arguments });
    }
}

#[test]
fn every_shipped_command_line_is_one_behind_the_entrypoint_of_its_image() {
    let entrypoints = entrypoints();
    assert_eq!(entrypoints.keys().collect::<Vec<_>>(), ["browser", "swarm"]);
    let mut lines = Vec::new();
    of_fly("config/fly/scaler.toml", &mut lines);
    of_fly("config/fly/workers.toml", &mut lines);
    of_compose("docker-compose.yml", &mut lines);
    of_compose("config/compose/discord.yml", &mut lines);
    of_settings("config/compose/swarm.toml", &mut lines);
    of_manifests(&mut lines);
    assert!(lines.len() >= 9, "{:?}", lines.iter().map(|line| &line.at).collect::<Vec<_>>());
    for Line { at, target, entrypoint, arguments } in lines {
        let entrypoint = entrypoint.unwrap_or_else(|| entrypoints[&target].clone());
        let whole: Vec<_> = entrypoint.into_iter().chain(arguments).collect();
        let program: &[String] = match &whole[..] {
            [init, end, rest @ ..] if init == "tini" && end == "--" => rest,
            whole => whole,
        };
        assert_eq!(program[0], "swarm", "{at}: {whole:?}");
        assert!(program.len() > 1, "{at}: it names no subcommand");
        let parsed = Command::new(env!("CARGO_BIN_EXE_swarm")).args(&program[1..]).arg("--help").output();
        let parsed = parsed.expect("the binary was built for this test");
        assert!(parsed.status.success(), "{at}: {whole:?}\n{}", String::from_utf8_lossy(&parsed.stderr));
    }
}
