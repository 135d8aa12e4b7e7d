//! The walk of somebody who comes from a framework: `examples/FRAMEWORK/try.sh`, the framework's own quick start with
//! swarm in place of its worker, run as it stands.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::bed::{Packages, server};
use crate::support::{
    autoscaler::{SWARM, swarm},
    needs::repository,
    processes::{KillOnDrop, kill, with_variable},
    wait::{DEADLINE, eventually},
};

const GREETED: [&str; 4] = ["Ada", "Grace", "Edsger", "Barbara"];

/// Copies an example, so that nothing is left in the repository.
fn copied(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(repository("examples").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    directory
}

/// Returns `PATH` with these directories first.
fn path_with(first: &[&Path]) -> String {
    let first = first.iter().map(|directory| directory.display().to_string());
    first.chain(std::env::var("PATH")).collect::<Vec<_>>().join(":")
}

/// Runs an example until everybody in `greeted` and `later` was greeted, and ends it with Ctrl-C.
async fn walk(name: &str, packages: Packages, later: Option<&str>) {
    let redis = server();
    let broker = redis.url_db(0);
    let example = copied(name);
    let programs = PathBuf::from(SWARM);
    let (variable, path) = packages.search_path();
    let log = fs::File::create(example.path().join("log")).unwrap();
    let mut command = Command::new("sh");
    command
        .arg(example.path().join("try.sh"))
        .env_clear()
        .envs(swarm(example.path()).get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env(variable, path)
        .env("PATH", path_with(&[programs.parent().unwrap(), &packages.programs()]))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BROKER_URL", &broker)
        .env("METRICS_PORT", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    if let Packages::Node = packages {
        // Under the name that `npm install bullmq` gives it.
        let modules = example.path().join("node_modules");
        fs::create_dir(&modules).unwrap();
        let installed = packages.directory().join("node_modules");
        symlink(installed.join("bullmq6"), modules.join("bullmq")).unwrap();
        symlink(installed.join("ioredis"), modules.join("ioredis")).unwrap();
    }
    let mut process = KillOnDrop(command.spawn().unwrap());
    let read = || fs::read_to_string(example.path().join("log")).unwrap();
    let greets = |name: &&str| read().contains(&format!("hello {name}"));
    let all = eventually(DEADLINE, async || GREETED.iter().chain(&later).all(greets)).await;
    assert!(all, "everybody is greeted\n{}", read());
    kill(process.id(), Signal::INT);
    let ended = eventually(DEADLINE, async || matches!(process.try_wait(), Ok(Some(status)) if status.success())).await;
    assert!(ended, "it ends well\n{}", read());
    let left = with_variable("BROKER_URL", &broker);
    assert!(left.is_empty(), "nothing is left: {left:?}");
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn the_walk_of_rq() {
    walk("rq", Packages::Python, Some("the scheduled one")).await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn the_walk_of_celery() {
    walk("celery", Packages::Python, Some("the delayed one")).await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn the_walk_of_dramatiq() {
    walk("dramatiq", Packages::Python, Some("the delayed one")).await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn the_walk_of_huey() {
    walk("huey", Packages::Python, Some("the delayed one")).await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn the_walk_of_taskiq() {
    walk("taskiq", Packages::Python, None).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "arq can't be installed here")]
#[tokio::test]
async fn the_walk_of_arq() {
    walk("arq", Packages::PythonRedis5, Some("the delayed one")).await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn the_walk_of_bullmq() {
    walk("bullmq", Packages::Node, Some("the delayed one")).await;
}
