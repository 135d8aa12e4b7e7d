//! A changed file is taken without anybody saying so, however it was changed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use swarm::model::snapshot::ReloadOutcome;

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, SLEEPER, pool, whole},
    redis::RedisServer,
};

fn settings(min: u32) -> String {
    format!("{NO_SWEEP}{}", pool("test", &format!("min_workers = {min}"), SLEEPER))
}

#[tokio::test]
async fn a_file_that_is_written_renamed_or_swapped_is_taken() {
    let server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &settings(1)).await;
    scaler.until_workers("test", 1).await;
    let file = scaler.directory().join("swarm.toml");
    let text = |min| whole(&server.url(), &settings(min));

    scaler.rewrite(&server.url(), &settings(2));
    let written = scaler.reloaded_since(None).await;
    assert_eq!(written.outcome, ReloadOutcome::Applied, "{written:?}");
    scaler.until_workers("test", 2).await;
    scaler.until_logged("configuration loaded again").await;

    // As editors save.
    let new = scaler.directory().join("swarm.toml~");
    fs::write(&new, text(3)).unwrap();
    fs::rename(&new, &file).unwrap();
    scaler.until_workers("test", 3).await;

    // As a ConfigMap is mounted: the file is a link through a directory's link, and that one is swapped.
    let at = |name: &str| scaler.directory().join(name);
    for (version, min) in [("..1", 4), ("..2", 5)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("swarm.toml"), text(min)).unwrap();
    }
    swap(Path::new("..1"), &at("..data"));
    swap(Path::new("..data/swarm.toml"), &file);
    scaler.until_workers("test", 4).await;
    swap(Path::new("..2"), &at("..data"));
    scaler.until_workers("test", 5).await;

    // A file that is gone is refused like any that can't be used, and its return is noticed.
    fs::rename(at("..2/swarm.toml"), at("away")).unwrap();
    scaler
        .until("its loss is told", async || {
            scaler.status().await.reload.is_some_and(|reload| reload.outcome == ReloadOutcome::Refused)
        })
        .await;
    fs::write(at("..2/swarm.toml"), text(6)).unwrap();
    scaler.until_workers("test", 6).await;
}

/// Puts a link to `target` in the place of whatever is at `link`, in one step.
fn swap(target: &Path, link: &Path) {
    let new = link.with_file_name("link");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[tokio::test]
async fn what_was_asked_for_by_signal_is_not_taken_a_second_time() {
    let server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &settings(1)).await;
    scaler.until_workers("test", 1).await;
    let reload = scaler.reload(&server.url(), &settings(2)).await;
    scaler.until_workers("test", 2).await;
    // A later change is noticed by the same looks, in order: if those had noticed the first one, it would have come
    // before.
    scaler.rewrite(&server.url(), &settings(3));
    let next = scaler.reloaded_since(Some(reload.at)).await;
    assert_eq!((next.outcome, next.changes.as_str()), (ReloadOutcome::Applied, "test: scaling.min_workers 2 → 3"));
}

#[test]
fn a_hangup_while_it_starts_does_not_end_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("swarm.toml");
    fs::write(&file, "redis_url = \"nonsense\"").unwrap();
    // Blocked from the beginning and pending when it starts: with the default action it would die of the signal.
    let script = format!("kill -HUP $$ & exec {} autoscaler --config {}", env!("CARGO_BIN_EXE_swarm"), file.display());
    let output =
        Command::new("sh").args(["-c", &format!("trap '' HUP; {script}")]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "it ends by itself, for its configuration");
}
