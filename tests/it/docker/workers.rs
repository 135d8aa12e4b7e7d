//! What becomes of containers: drained, killed, crashed, paused, adopted, made in advance.

use std::time::{Duration, Instant};

use swarm::backend::{Phase, ScaleReport, ScalingBackend};

use super::bench::{Bench, LONG, SLEEPER, shell_command};
use crate::support::{
    docker::Engine,
    wait::{DEADLINE, eventually},
};

async fn bench(script: &str) -> Bench {
    let mut bench = Bench::new(script).await;
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench
}

#[cfg_attr(any(without_docker, without_docker_exec), ignore = "no Docker engine can be had, or no `docker exec`")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_worker_finishes_and_is_not_waited_for() {
    let finish = "while [ ! -e /tmp/finish ]; do sleep 0.02; done; exit 0";
    let mut bench = bench(&format!("trap '{finish}' TERM; echo listening; sleep 100000 & wait")).await;
    let ids = bench.start(1).await;
    bench.until_listening().await;
    let name = &bench.containers(&["running"])[0];
    let report = bench.scale(1, &ids, LONG).await.unwrap();
    assert_eq!((report.retired, report.started.len()), (ids.clone(), 1), "its place is taken at once");
    let phases: Vec<_> = bench.observe().await.unwrap().instances.iter().map(|i| i.phase).collect();
    assert_eq!(phases, [Phase::Draining, Phase::Running]);
    bench.project.engine.docker(&["exec", name, "sh", "-c", "echo > /tmp/finish"]);
    let pool = bench.until("it has left", |pool| pool.instances.len() == 1).await;
    assert_eq!(pool.instances[0].id, report.started[0]);
    assert_eq!((pool.exits, pool.manual), (vec![], vec![]));
    bench.until_containers(1).await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_15_whoever_leads_no_more_makes_no_container() {
    let bench = bench(SLEEPER).await;
    bench.start(1).await;
    let before = bench.containers(&[]);
    bench.backend.act_only_while(Box::new(|| false));
    let refused = bench.scale(3, &[], LONG).await.unwrap_err();
    assert!(refused.message.contains("does not lead"), "{refused}");
    assert_eq!(bench.containers(&[]), before);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_drain_timeout_a_worker_is_killed() {
    let mut bench = bench("trap '' TERM; echo listening; while :; do sleep 1; done").await;
    let ids = bench.start(1).await;
    bench.until_listening().await;
    let asked_at = Instant::now();
    bench.scale(0, &ids, Duration::from_secs(1)).await.unwrap();
    bench.until("it is gone", |pool| pool.instances.is_empty()).await;
    assert!(asked_at.elapsed() >= Duration::from_secs(1));
    bench.until_containers(0).await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_is_told_with_its_code_and_the_container_is_cleaned_up() {
    let mut bench = bench("exit 3").await;
    let ids = bench.start(1).await;
    let pool = bench.until("an exit", |pool| !pool.exits.is_empty()).await;
    assert_eq!((&pool.exits[0].id, pool.exits[0].detail.as_str()), (&ids[0], "exit code 3"));
    assert!(pool.instances.is_empty() && pool.manual.is_empty());
    bench.until_containers(0).await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_worker_is_no_capacity_and_counts_again_afterwards() {
    let mut bench = bench(SLEEPER).await;
    let ids = bench.start(1).await;
    let name = bench.containers(&["running"]).remove(0);
    bench.project.engine.docker(&["pause", &name]);
    bench.until("it is suspended", |pool| pool.instances[0].phase == Phase::Suspended).await;
    let another = bench.start(1).await;
    assert_eq!(another.len(), 1);
    bench.project.engine.docker(&["unpause", &name]);
    let pool = bench.until("both run", |pool| pool.instances.iter().all(|one| one.phase == Phase::Running)).await;
    assert_eq!((pool.instances.len(), pool.manual), (2, vec![]));
    let report = bench.scale(1, &ids, LONG).await.unwrap();
    assert_eq!(report, ScaleReport { started: vec![], retired: ids });
}

/// Docker restarts it for ever; for the scaler it is an exit each time, and no capacity.
#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_docker_keeps_restarting_is_failing() {
    let engine = Engine::any().await;
    let mut bench = Bench::on(engine, |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench.start(1).await;
    let name = bench.containers(&["running"]).remove(0);
    bench.project.engine.docker(&["update", "--restart", "always", &name]);
    bench.until_listening().await;
    bench.project.engine.crash(&name);
    let pool = bench.until("it is failing", |pool| pool.instances.iter().any(|one| one.phase == Phase::Failing)).await;
    assert_eq!((pool.instances.len(), pool.exits.len()), (1, 1), "{pool:?}");
    let (id, exit) = (pool.instances[0].id.clone(), &pool.exits[0]);
    assert_eq!((&exit.id, exit.detail.as_str(), pool.manual.len()), (&id, "exit code 7", 0));
    // Whether the new process catches signals by now is not known; after a second it is killed.
    bench.scale(0, &[id], Duration::from_secs(1)).await.unwrap();
    bench.until("it is gone", |pool| pool.instances.is_empty()).await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_scaler_takes_over_what_it_finds() {
    let mut bench = bench(SLEEPER).await;
    let mut ids = bench.start(3).await;
    let image = crate::support::docker::IMAGE.to_owned();
    bench
        .restart(|settings| {
            settings.image = Some(image);
            settings.networks = vec!["none".to_owned()];
            settings.command = shell_command(SLEEPER);
        })
        .await;
    let pool = bench.until("three are found", |pool| pool.instances.len() == 3).await;
    let mut found: Vec<_> = pool.instances.iter().map(|one| one.id.clone()).collect();
    found.sort();
    ids.sort();
    assert_eq!(found, ids, "under their own names");
    assert_eq!((pool.manual, pool.exits), (vec![], vec![]), "a restart is nobody's doing");
    assert_eq!(bench.start(3).await, []);
    assert_eq!(bench.start(4).await.len(), 1);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_made_in_advance_are_started_first_and_made_up_for() {
    let engine = Engine::any().await;
    let mut bench = Bench::on(engine, |settings| settings.standby = 2);
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    let created = async |count| eventually(DEADLINE, async || bench.containers(&["created"]).len() == count).await;
    // The engine shows a container a little before the backend knows of it, which then makes another: so more than one
    // try.
    let mut workers = 0;
    let mut one_that_lay_ready_runs = false;
    while !one_that_lay_ready_runs && workers < 5 {
        assert!(created(2).await, "two lie ready");
        let ready = bench.containers(&["created"]);
        workers += 1;
        assert_eq!(bench.start(workers).await.len(), 1);
        one_that_lay_ready_runs = bench.containers(&["running"]).iter().any(|name| ready.contains(name));
    }
    assert!(one_that_lay_ready_runs, "what lies ready is not used");
    assert!(created(2).await, "and others were made");
    let pool = bench.observe().await.unwrap();
    assert_eq!((pool.instances.len(), pool.manual.len()), (workers as usize, 0), "what lies ready is no worker");

    let by_hand = bench.containers(&["created"]).remove(0);
    bench.project.engine.docker(&["start", &by_hand]);
    let pool = bench.until("somebody started another", |pool| pool.instances.len() > workers as usize).await;
    assert_eq!((pool.manual[0].from, pool.manual[0].to), (workers, workers + 1));
    bench.backend_shutdown().await;
    assert_eq!(bench.containers(&[]), Vec::<String>::new());
}
