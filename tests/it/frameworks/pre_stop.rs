//! The preStop hooks of `docs/frameworks.md`, run as they stand there, with a process in the place of the framework's
//! worker.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    needs::repository,
    processes::KillOnDrop,
    wait::{DEADLINE, eventually},
};

/// The command of the hook that sends this signal, for the process with this number in place of 1.
fn hook(signal: &str, pid: u32) -> Command {
    let page = fs::read_to_string(repository("docs/frameworks.md")).unwrap();
    let sends = format!("kill -{signal} $pid");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains(&sends)).expect("the page has the hook");
    let pod: Value = serde_saphyr::from_str(block).expect("it is YAML");
    let command = &pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"];
    let words: Vec<&str> = command.as_array().expect("it is a list").iter().filter_map(Value::as_str).collect();
    let [program, option, script] = words[..] else { panic!("the hook is a script: {words:?}") };
    assert!(script.starts_with("pid=1"), "{script}");
    let mut command = Command::new(program);
    command.arg(option).arg(script.replacen("pid=1", &format!("pid={pid}"), 1));
    command
}

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(eventually(DEADLINE, condition).await, "not within {DEADLINE:?}: {what}");
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

/// A process with Sidekiq's title: it writes the title again and again, with the number in the file `busy`, and notes
/// each signal in a file of its name.
fn process_of_sidekiq(directory: &Path) -> KillOnDrop {
    let script = r#"
        $SIG{TSTP} = sub { open(my $file, '>', 'TSTP'); $quiet = 1 };
        open(my $ready, '>', 'ready');
        while (1) {
            open(my $file, '<', 'busy'); my $busy = <$file>;
            $0 = "sidekiq 8.1.7 shop [$busy of 10 busy]" . ($quiet ? ' stopping' : '');
            select(undef, undef, undef, 0.02);
        }
    "#;
    KillOnDrop(Command::new("perl").args(["-e", script]).current_dir(directory).spawn().unwrap())
}

#[tokio::test]
async fn the_hook_for_sidekiq_lasts_until_its_process_takes_no_more_jobs_and_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let busy = |jobs: &str| {
        fs::write(directory.path().join("new"), jobs).unwrap();
        fs::rename(directory.path().join("new"), directory.path().join("busy")).unwrap();
    };
    busy("10");
    let process = process_of_sidekiq(directory.path());
    until("the process runs", async || directory.path().join("ready").exists()).await;
    let mut hook = KillOnDrop(hook("TSTP", process.0.id()).spawn().unwrap());
    until("it is told to take no more jobs", async || directory.path().join("TSTP").exists()).await;
    // Longer than the time between two looks.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!has_ended(&mut hook.0), "it has jobs");
    busy("0");
    until("the hook has ended", async || has_ended(&mut hook.0)).await;
    assert!(hook.0.wait().unwrap().success());
}

#[tokio::test]
async fn the_hook_for_huey_lasts_until_its_process_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap 'echo int > asked' INT; echo yes > ready; while [ ! -e finish ]; do sleep 0.02; done";
    let mut process = Command::new("sh").args(["-c", script]).current_dir(directory.path()).spawn().unwrap();
    until("the process runs", async || directory.path().join("ready").exists()).await;
    let mut hook = KillOnDrop(hook("INT", process.id()).spawn().unwrap());
    until("it is asked to leave", async || directory.path().join("asked").exists()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!has_ended(&mut hook.0), "it has a job");
    fs::write(directory.path().join("finish"), "").unwrap();
    assert!(process.wait().unwrap().success());
    until("the hook has ended", async || has_ended(&mut hook.0)).await;
}
