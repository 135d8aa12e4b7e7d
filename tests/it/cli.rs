//! `swarm` as people meet it: help, refusals, and which setting wins.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
};

use crate::support::autoscaler::swarm;

/// Runs `swarm` to its end in an empty directory with this file as `swarm.toml`.
fn run(directory: &Path, file: &str, words: &[&str], environment: &[(&str, &str)]) -> Output {
    if !file.is_empty() {
        fs::write(directory.join("swarm.toml"), file).expect("the temporary directory is ours");
    }
    let mut command = swarm(directory);
    command.args(words).envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().expect("the binary was built for this test")
}

/// What it says on stderr when it refuses; panics if it does not.
fn refusal(file: &str, words: &[&str], environment: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let output = run(directory.path(), file, words, environment);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {told}");
    told
}

fn help_of(words: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let output = run(directory.path(), "", &[words, &["--help"]].concat(), &[]);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("help is text")
}

/// The commands that a help lists.
fn commands_in(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_help_that_says_what_it_is_for() {
    let commands = commands_in(&help_of(&[]));
    for expected in ["autoscaler", "worker", "publish", "config"] {
        assert!(commands.iter().any(|command| command == expected), "{expected} is missing in {commands:?}");
    }
    let of_config = commands_in(&help_of(&["config"])).into_iter().map(|command| vec!["config".to_owned(), command]);
    for words in commands.into_iter().map(|command| vec![command]).chain(of_config) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = help_of(&words);
        let what_for = help.lines().next().unwrap_or_default();
        assert!(what_for.len() > 15 && !what_for.starts_with("Usage"), "{words:?} says what it is for: {help}");
        assert!(help.contains("Usage: swarm"), "{words:?}: {help}");
    }
}

#[test]
fn every_error_of_a_file_is_told_at_once_with_its_line() {
    let file = "orchestrator = \"proces\"\n\n[scaler]\ndebounce = 5\nsweep_interval_seconds = 0\n\n\
        [worker_types.test.scaling]\nmin_workers = 9\nmax_workers = 3\n";
    let told = refusal(file, &["autoscaler"], &[]);
    for expected in ["swarm.toml:1", "swarm.toml:4", "swarm.toml:5", "swarm.toml:9"] {
        assert!(told.contains(expected), "{expected} is missing in:\n{told}");
    }
}

#[test]
fn an_orchestrator_that_is_not_built_says_so() {
    for name in ["docker", "docker-compose", "kubernetes", "fly"] {
        let told = refusal("[http]\nlisten = \"\"\n", &["autoscaler", "--orchestrator", name], &[]);
        assert!(told.contains("is not built into this version") && told.contains("use `process`"), "{name}: {told}");
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "orchestrator = \"fly\"\n[http]\nlisten = \"\"\n";
    let environment = [("ORCHESTRATOR", "kubernetes")];
    assert!(refusal(file, &["autoscaler"], &[]).contains("`fly`"));
    assert!(refusal(file, &["autoscaler"], &environment).contains("`kubernetes`"));
    let flag = ["autoscaler", "--orchestrator", "docker"];
    assert!(refusal(file, &flag, &environment).contains("`docker`"));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port can be had");
    let address = taken.local_addr().expect("a bound listener has an address").to_string();
    let told = refusal(&format!("[http]\nlisten = \"{address}\"\n"), &["autoscaler"], &[]);
    assert!(told.contains(&address) && told.contains("in use"), "{told}");
}
