//! The recipes in `examples/backends/`, over stand-ins for the platforms' command lines (`tests/testdata/command/bin`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use swarm::{
    backend::{
        ErrorKind, ScaleRequest, ScalingBackend,
        command::{CommandBackend, CommandSpec},
    },
    config::{CommandSettings, Flags, Orchestrator, load},
    model::{Clock, WorkerType},
};

use super::bench::Drains;
use crate::support::wait::DEADLINE;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The stand-ins first, then the programs of this machine.
fn path() -> String {
    let stand_ins = root().join("tests/testdata/command/bin");
    format!("{}:{}", stand_ins.display(), std::env::var("PATH").unwrap())
}

fn recipe(name: &str) -> PathBuf {
    root().join("examples/backends").join(name)
}

fn settings(name: &str) -> CommandSettings {
    let flags = Flags { config: Some(recipe(name).join("swarm.toml")), ..Flags::default() };
    let loaded = load(&flags, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((loaded.settings.orchestrator, loaded.warnings), (Orchestrator::Command, Vec::new()), "{name}");
    CommandSettings::clone(&loaded.settings.worker_types["mail"].command)
}

fn run(name: &str, script: &str, arguments: &[&str]) -> Output {
    Command::new(recipe(name).join(script)).args(arguments).env("PATH", path()).output().unwrap()
}

/// What a list script prints, as `id worker_id state exit_code`, and whether a time was read.
fn listed(name: &str, arguments: &[&str]) -> Vec<String> {
    let output = run(name, "list", arguments);
    assert!(output.status.success(), "{name}: {output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let one = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
        let code = line["exit_code"].as_i64().map_or("-".to_owned(), |code| code.to_string());
        format!("{} {} {} {code}", text("id"), text("worker_id"), text("state"))
    };
    lines.lines().map(one).collect()
}

#[test]
fn every_recipe_is_a_configuration_without_errors_whose_scripts_are_there() {
    let mut recipes: Vec<String> = std::fs::read_dir(root().join("examples/backends"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    recipes.sort();
    assert_eq!(recipes, ["cloud-run", "docker-swarm", "ecs", "heroku", "nomad", "systemd"]);
    for name in recipes {
        let settings = settings(&name);
        for words in [&settings.list, &settings.start, &settings.stop, &settings.scale] {
            let Some(script) = words.first().and_then(|word| word.strip_prefix("/usr/local/lib/swarm/")) else {
                continue;
            };
            let script = script.strip_prefix(&format!("{name}-")).unwrap();
            assert!(recipe(&name).join(script).is_file(), "{name}: {script}");
        }
    }
}

#[cfg_attr(without_jq, ignore = "there is no jq, which the recipes need")]
#[test]
fn platforms_are_listed_from_answers_in_their_documented_form() {
    assert_eq!(
        listed("nomad", &["mail"]),
        [
            "mail/dispatch-1767323045-aa mail-1 running -",
            "mail/dispatch-1767323046-bb mail-2 blocked -",
            "mail/dispatch-1767323047-cc mail-3 exited -"
        ]
    );
    assert_eq!(
        listed("ecs", &["jobs", "mail"]),
        [
            "arn:aws:ecs:eu:1:task/jobs/a mail-1 running -",
            "arn:aws:ecs:eu:1:task/jobs/b mail-2 blocked -",
            "arn:aws:ecs:eu:1:task/jobs/c mail-3 exited 1"
        ]
    );
    assert_eq!(listed("heroku", &["mail", "app"]), ["mail.1 - running -", "mail.2 - starting -", "mail.3 - exited -"]);
    assert_eq!(
        listed("cloud-run", &["mail"]),
        ["mail-abc mail-1 running -", "mail-def mail-2 starting -", "mail-ghi mail-3 exited 0"]
    );
    assert_eq!(listed("docker-swarm", &["mail"]), ["aaa mail.1.aaa running -", "bbb mail.2.bbb blocked -"]);
}

#[cfg_attr(without_jq, ignore = "there is no jq, which the recipes need")]
#[test]
fn ecs_without_room_is_a_failure_that_may_go_away() {
    assert!(run("ecs", "start", &["jobs", "mail", "mail-1"]).status.success());
    let full = run("ecs", "start", &["full", "mail", "mail-1"]);
    assert_eq!(full.status.code(), Some(75));
    assert_eq!(String::from_utf8(full.stderr).unwrap(), "RESOURCE:MEMORY no room\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_of_systemd_are_started_listed_and_stopped() {
    let units = tempfile::tempdir().unwrap();
    let mut settings = settings("systemd");
    settings.list[0] = recipe("systemd").join("list").display().to_string();
    settings.environment.insert("PATH".to_owned(), path());
    settings.environment.insert("UNITS_DIR".to_owned(), units.path().display().to_string());
    settings.poll_seconds = 1;
    let spec = CommandSpec { settings, drains: true, drain_timeout: Duration::from_secs(5) };
    let mail = WorkerType::new("mail");
    let types = BTreeMap::from([(mail.clone(), spec)]);
    let backend =
        CommandBackend::start(&types, Arc::new(Drains::default()), Arc::new(|_: &WorkerType| {}), Clock::start());
    let ask = |target, retire| ScaleRequest {
        worker_type: mail.clone(),
        target,
        retire,
        drain_timeout: Duration::from_secs(60),
    };
    let started = backend.scale(ask(2, Vec::new())).await.unwrap().started;
    let names = || {
        let files =
            std::fs::read_dir(units.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = files.filter(|name| name.starts_with("swarm-mail@")).collect();
        names.sort();
        names
    };
    let unit = |id: &swarm::model::WorkerId| format!("swarm-mail@{id}.service");
    let mut expected: Vec<String> = started.iter().map(unit).collect();
    expected.sort();
    assert_eq!(names(), expected);

    backend.scale(ask(1, started[..1].to_vec())).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while names() != [unit(&started[1])] {
        assert!(Instant::now() < deadline, "{:?}", names());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::write(units.path().join("refuse"), "").unwrap();
    let error = backend.scale(ask(2, Vec::new())).await.unwrap_err();
    assert!(error.message.contains("exit code 4: Failed to start swarm-mail@"), "{error}");
    assert_eq!(error.kind, ErrorKind::Retryable);
    backend.shutdown(true).await;
    assert_eq!(names(), [""; 0]);
}
