use std::time::Duration;

use super::*;

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

async fn run_shell(script: &str, settings: &CommandSettings) -> Result<String, CallError> {
    run(&shell(script), settings, "command.list").await.map(|printed| String::from_utf8(printed).unwrap())
}

fn kind_of(outcome: Result<String, CallError>) -> (ErrorKind, bool, String) {
    let error = outcome.unwrap_err();
    (error.error.kind, error.ambiguous, error.error.message)
}

#[tokio::test]
async fn exit_codes_say_whether_another_try_may_help() {
    let settings = CommandSettings::default();
    assert_eq!(run_shell("printf hello", &settings).await.unwrap(), "hello");
    for (code, kind) in
        [(1, ErrorKind::Retryable), (75, ErrorKind::Retryable), (64, ErrorKind::Permanent), (78, ErrorKind::Permanent)]
    {
        let script = format!("echo one >&2; echo 'no room' >&2; exit {code}");
        let expected = format!("`command.list` ended with exit code {code}: no room");
        assert_eq!(kind_of(run_shell(&script, &settings).await), (kind, false, expected));
    }
    let (kind, ambiguous, message) = kind_of(run_shell("kill -9 $$", &settings).await);
    assert_eq!((kind, ambiguous, message.as_str()), (ErrorKind::Retryable, true, "`command.list` ended with signal 9"));
    let missing = run(&["/does/not/exist".to_owned()], &settings, "command.list").await.unwrap_err();
    assert_eq!((missing.error.kind, missing.ambiguous), (ErrorKind::Permanent, false));
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("child");
    let settings = CommandSettings { timeout_seconds: 1, ..CommandSettings::default() };
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    let (kind, ambiguous, message) = kind_of(run_shell(&script, &settings).await);
    assert_eq!((kind, ambiguous), (ErrorKind::Retryable, true));
    assert!(message.contains("did not end within 1 s"), "{message}");
    let child: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let is_gone = || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is_gone() {
        assert!(std::time::Instant::now() < deadline, "process {child} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn output_without_end_is_refused() {
    let (kind, _, message) = kind_of(run_shell("yes", &CommandSettings::default()).await);
    assert_eq!(kind, ErrorKind::Permanent);
    assert!(message.contains("printed more than 8 MiB"), "{message}");
}

#[tokio::test]
async fn what_a_command_leaves_behind_neither_holds_it_up_nor_lives_on() {
    let printed = run_shell("echo listed; sleep 1000 & exit 0", &CommandSettings::default()).await.unwrap();
    assert_eq!(printed, "listed\n");
}

#[tokio::test]
async fn secrets_come_from_files_and_are_masked_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    let mut settings = CommandSettings::default();
    settings.environment.insert("REGION".to_owned(), "fra".to_owned());
    settings.environment_files.insert("TOKEN".to_owned(), file.clone());
    assert_eq!(run_shell("printf %s.%s $TOKEN $REGION", &settings).await.unwrap(), "hunter2hunter2.fra");
    let (_, _, message) = kind_of(run_shell("echo \"bad token $TOKEN\" >&2; exit 77", &settings).await);
    assert_eq!(message, "`command.list` ended with exit code 77: bad token ***");
    std::fs::remove_file(file).unwrap();
    let (kind, _, message) = kind_of(run_shell("true", &settings).await);
    assert!(kind == ErrorKind::Permanent && message.contains("needs TOKEN from file"), "{message}");
}

#[tokio::test]
async fn no_shell_reads_the_words() {
    let words = ["printf", "%s", "$HOME; echo `id`"].map(str::to_owned);
    let printed = run(&words, &CommandSettings::default(), "command.list").await.unwrap();
    assert_eq!(String::from_utf8(printed).unwrap(), "$HOME; echo `id`");
}
