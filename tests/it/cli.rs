//! `swarm` as people meet it: help, refusals, and which setting wins.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    autoscaler::{pool, swarm},
    processes::kill,
    redis::{Port, RedisServer},
    wait::{DEADLINE, eventually},
};

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

/// The help of `swarm` and of every command below it, in the order in which they are listed.
#[test]
fn every_help_text_is_as_it_was_reviewed() {
    let (mut open, mut told) = (vec![Vec::<String>::new()], String::new());
    while let Some(words) = open.pop() {
        let help = help_of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let command: String = std::iter::once("swarm")
            .chain(words.iter().map(String::as_str))
            .fold("$".to_owned(), |line, word| format!("{line} {word}"));
        let lines = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        told = [told, format!("{command} --help\n{lines}\n\n")].concat();
        let below = commands_in(&help).into_iter().rev();
        open.extend(below.map(|command| [words.clone(), vec![command]].concat()));
    }
    insta::assert_snapshot!("every_help_text", told);
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
fn kubernetes_asks_for_a_cluster() {
    let file = "orchestrator = \"kubernetes\"\n[http]\nlisten = \"\"\n[worker_types.a]\n";
    let told = refusal(file, &["autoscaler"], &[("KUBECONFIG", "/nowhere")]);
    assert!(told.contains("kubernetes") && told.contains("/nowhere"), "{told}");
}

#[test]
fn fly_asks_for_what_it_needs() {
    let file = |fly| format!("orchestrator = \"fly\"\n[http]\nlisten = \"\"\n[worker_types.a]\nfly = {{ {fly} }}\n");
    let told = refusal(&file("app = \"shop\""), &["autoscaler"], &[]);
    assert!(told.contains("set FLY_API_TOKEN"), "{told}");
    let token = [("FLY_API_TOKEN", "hunter2\u{1}")];
    let told = refusal(&file("app = \"shop\""), &["autoscaler"], &token);
    assert!(told.contains("copy it again") && !told.contains("hunter2"), "{told}");
    let told = refusal(&file(""), &["autoscaler"], &token);
    assert!(told.contains("worker_types.a.fly.app"), "{told}");
    let told = refusal(&file("app = \"Shop\""), &["autoscaler"], &token);
    assert!(told.contains("swarm.toml:5") && told.contains("can't name an app"), "{told}");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "orchestrator = \"fly\"\n[http]\nlisten = \"\"\n[worker_types.a]\nfly = { app = \"shop\" }\n";
    let environment = [("ORCHESTRATOR", "kubernetes"), ("KUBECONFIG", "/nowhere"), ("DOCKER_HOST", "nowhere")];
    assert!(refusal(file, &["autoscaler"], &[]).contains("fly.io"));
    assert!(refusal(file, &["autoscaler"], &environment).contains("/nowhere"));
    let flag = ["autoscaler", "--orchestrator", "docker"];
    assert!(refusal(file, &flag, &environment).contains("DOCKER_HOST=\"nowhere\" names no engine"));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port can be had");
    let address = taken.local_addr().expect("a bound listener has an address").to_string();
    let told = refusal(&format!("[http]\nlisten = \"{address}\"\n[worker_types.test]\n"), &["autoscaler"], &[]);
    assert!(told.contains(&address) && told.contains("in use"), "{told}");
}

/// As systemd would run it: what it is told comes on this socket.
fn said_to_manager(socket: &UnixDatagram, deadline: Duration) -> Option<String> {
    socket.set_read_timeout(Some(deadline)).expect("a deadline above 0");
    let mut told = [0; 256];
    let length = socket.recv(&mut told).ok()?;
    Some(String::from_utf8_lossy(&told[..length]).into_owned())
}

#[tokio::test]
async fn as_a_service_it_scales_without_its_port_and_is_ready_when_the_port_is_free() {
    let server = RedisServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let port = Port::free();
    let taken = TcpListener::bind(port.address()).expect("the port is ours");
    let address = taken.local_addr().expect("a bound listener has an address");
    let manager = UnixDatagram::bind(directory.path().join("notify")).expect("the directory is ours");
    let settings = format!(
        "redis_url = \"{}\"\n[http]\nlisten = \"{address}\"\n{}",
        server.url(),
        pool("test", "min_workers = 1", "touch started; exec sleep 1000")
    );
    fs::write(directory.path().join("swarm.toml"), settings).expect("the directory is ours");
    let mut command = swarm(directory.path());
    command.arg("autoscaler").env("NOTIFY_SOCKET", directory.path().join("notify")).current_dir(directory.path());
    let mut scaler = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary was built");
    let started = eventually(DEADLINE, async || directory.path().join("started").exists()).await;
    let early = said_to_manager(&manager, Duration::from_millis(1_500));
    drop(taken);
    let ready = said_to_manager(&manager, DEADLINE);
    let healthy = eventually(DEADLINE, async || TcpStream::connect(address).is_ok()).await;
    kill(scaler.id(), Signal::TERM);
    let stopping = said_to_manager(&manager, DEADLINE);
    let ended = eventually(DEADLINE, async || matches!(scaler.try_wait(), Ok(Some(_)))).await;
    let _ = scaler.kill();
    assert!(started, "it scales meanwhile");
    assert_eq!(early, None, "it is not ready without its port");
    assert_eq!((ready.as_deref(), stopping.as_deref()), (Some("READY=1"), Some("STOPPING=1")));
    assert!(healthy && ended);
}

#[test]
fn the_unit_has_no_start_limit_and_waits_for_readiness() {
    let unit = include_str!("../../config/systemd/swarm-autoscaler.service");
    for line in ["StartLimitIntervalSec=0", "Type=notify", "TimeoutStartSec=infinity"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn every_shell_gets_a_script_that_completes_every_command() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(directory.path(), "", &["completions", shell], &[]);
        let script = String::from_utf8(output.stdout).expect("a script is text");
        assert!(output.status.success(), "{shell}");
        for command in commands_in(&help_of(&[])) {
            assert!(script.contains(&command), "{shell} does not complete {command}");
        }
        assert!(!script.contains("process-guard"), "{shell} shows what is not for people");
    }
}

#[test]
fn bash_takes_its_completion_script() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let script = directory.path().join("swarm.bash");
    fs::write(&script, run(directory.path(), "", &["completions", "bash"], &[]).stdout).expect("it is ours");
    let ask = r#"source "$0"; COMP_WORDS=(swarm auto); COMP_CWORD=1; _swarm swarm auto swarm; echo "${COMPREPLY[@]}""#;
    let output = std::process::Command::new("bash").args(["-c", ask]).arg(&script).output().expect("there is a bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "autoscaler", "{output:?}");
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let output = run(directory.path(), "", &["man", "pages/man1"], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for command in commands_in(&help_of(&[])) {
        let page = directory.path().join(format!("pages/man1/swarm-{command}.1"));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{command}: {text}");
    }
    assert!(!directory.path().join("pages/man1/swarm-process-guard.1").exists());

    let refused = refusal("", &["man", "/proc/nowhere"], &[]);
    assert!(refused.contains("can't be written to /proc/nowhere"), "{refused}");
}
