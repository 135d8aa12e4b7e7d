//! The whole: the real autoscaler, a real engine, and `swarm worker` in containers.

use std::{fs, path::Path, process::Stdio};

use fred::prelude::KeysInterface;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    autoscaler::swarm,
    command::{add_sleep, answers, records},
    docker::{Engine, IMAGE, Project},
    processes::{KillOnDrop, kill},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// A job makes a container, whose worker answers; without jobs it is let go. Its names agree everywhere.
#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_makes_a_container_that_answers_and_leaves() {
    let engine = Engine::any().await;
    let project = Project::new(engine);
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_swarm"));
    let file = directory.path().join("swarm.toml");
    // The test's program in an image that has nothing: this machine's libraries are mounted.
    let write_settings = |cooldown: u32| {
        let settings = format!(
            "redis_url = \"{}\"\n[http]\nlisten = \"\"\n[worker_types.shop]\n\
             worker = {{ heartbeat_seconds = 1 }}\nscaling = {{ cooldown_seconds = {cooldown} }}\n\
             [worker_types.shop.docker]\nimage = \"{IMAGE}\"\nproject = \"{}\"\nnetworks = [\"host\"]\n\
             command = [\"/swarm/swarm\", \"worker\"]\nvolumes = [\"/usr:/usr:ro\", \"{}:/swarm:ro\"]\n",
            server.url(),
            project.name,
            program.parent().unwrap().display(),
        );
        fs::write(&file, settings).unwrap();
    };
    // Nobody is let go while the worker is looked at.
    write_settings(1_000);
    let autoscaler = swarm(directory.path())
        .args(["autoscaler", "--orchestrator", "docker", "--config"])
        .arg(&file)
        .env("DOCKER_HOST", format!("unix://{}", project.engine.socket().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut autoscaler = KillOnDrop(autoscaler);
    let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();

    add_sleep(&client, "shop", "one", 0.2).await;
    let answered = eventually(DEADLINE, async || !answers(&client, "one").await.is_empty()).await;
    assert!(answered, "{:?}\n{}", project.containers(&[]), log());
    let name = project.containers(&["running"]).remove(0);
    let worker = project.engine.docker(&["inspect", "--format", "{{index .Config.Labels \"swarm.worker\"}}", &name]);
    assert!(worker.starts_with(&name), "{worker} in {name}");
    let heartbeat = format!("worker:heartbeat:shop:{}", worker.trim());
    let beats = eventually(DEADLINE, async || client.exists::<bool, _>(&heartbeat).await.unwrap()).await;
    assert!(beats, "the heartbeat is that of {worker}");
    write_settings(0);
    kill(autoscaler.id(), Signal::HUP);

    let gone = eventually(DEADLINE, async || project.containers(&[]).is_empty()).await;
    let (killed, ended) = (autoscaler.kill(), autoscaler.wait());
    assert!(killed.is_ok() && ended.is_ok());
    assert!(gone, "{:?}\n{}", project.containers(&[]), log());
    let records = records(&client, "shop").await;
    let seen: Vec<_> = records.iter().map(|one| (one["decision"].as_str(), one["to_count"].as_str())).collect();
    assert_eq!(json!(seen), json!([("scale_up", "1"), ("scale_down", "0")]), "{}", log());
    assert!(records.iter().all(|one| one["outcome"] == "done"), "{records:?}");
}
