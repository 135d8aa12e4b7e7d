//! Engines that die, freeze and come back, and things that vanish: each time the backend recovers by itself.

use rustix::process::Signal;
use swarm::backend::{ErrorKind, docker::Endpoint};

use super::bench::{Bench, IMPATIENT, LONG};
use crate::support::{
    docker::{Engine, Project},
    docker_proxy::{Fault, Proxy},
    wait::{DEADLINE, eventually},
};

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_engine_makes_workers_unknown_and_afterwards_the_count_is_right() {
    let engine = Engine::private().await;
    let mut bench = Bench::on(engine.clone(), |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench.start(3).await;

    engine.kill();
    bench.until_unknown().await;
    let error = bench.scale(3, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable);
    assert!(error.message.contains("can't be reached"), "{error}");

    engine.start_again().await;
    // An engine that was killed takes its containers along.
    let pool = bench.until("the engine is seen again", |_| true).await;
    assert_eq!((pool.exits, pool.manual), (vec![], vec![]), "neither crashes nor anybody's wish");
    bench.scale(3, &[], LONG).await.unwrap();
    bench.until("three workers", |pool| pool.instances.len() == 3).await;
    assert_eq!(bench.containers(&["running"]).len(), 3);
    bench.backend_shutdown().await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_engine_is_an_error_and_nothing_is_made_twice() {
    let engine = Engine::private().await;
    let endpoint = Endpoint::Unix(engine.socket().to_owned());
    let mut bench = Bench::within(IMPATIENT, endpoint, Project::new(engine.clone()), |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench.start(1).await;

    engine.signal(Signal::STOP);
    let error = bench.scale(3, &[], LONG).await.unwrap_err();
    assert_eq!((error.kind, error.done.started.len()), (ErrorKind::Retryable, 0), "{error}");
    assert!(error.message.contains("did not answer"), "{error}");
    bench.until_unknown().await;

    engine.signal(Signal::CONT);
    bench.until("it answers again", |_| true).await;
    // What was asked of it while it was frozen may still be carried out, and be cleaned up while we ask again.
    let scaled = eventually(DEADLINE, async || bench.scale(3, &[], LONG).await.is_ok()).await;
    assert!(scaled, "three workers can't be had");
    bench.until("three workers", |pool| pool.instances.len() == 3).await;
    assert_eq!(bench.containers(&["running"]).len(), 3);
    bench.backend_shutdown().await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_container_is_a_manual_change() {
    let engine = Engine::any().await;
    let mut bench = Bench::on(engine, |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench.start(2).await;
    let name = bench.containers(&["running"]).remove(0);
    bench.project.engine.docker(&["rm", "--force", &name]);
    let pool = bench.until("one is left", |pool| pool.instances.len() == 1).await;
    assert_eq!(pool.exits, vec![]);
    let change = &pool.manual[0];
    assert_eq!((change.seq, change.from, change.to), (1, 2, 1));
    assert!(change.detail.contains(&name), "{}", change.detail);
    assert_eq!(bench.start(2).await.len(), 1);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_network_is_told_and_joined_again_when_it_is_back() {
    let engine = Engine::any().await;
    let project = Project::new(engine.clone());
    let network = format!("{}_net", project.name);
    let label = format!("com.docker.compose.project={}", project.name);
    // Inside only: a bridge with a way out would need the engine's rules for packets.
    let make = || engine.docker(&["network", "create", "--internal", "--label", &label, &network]);
    make();
    let mut bench = Bench::through(engine.socket(), project, |settings| settings.networks = vec![network.clone()]);
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench.start(1).await;
    let name = bench.containers(&["running"]).remove(0);
    engine.docker(&["network", "disconnect", "--force", &network, &name]);
    engine.docker(&["network", "rm", &network]);

    let error = bench.scale(2, &[], LONG).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains(&network), "{error}");
    make();
    assert_eq!(bench.start(2).await.len(), 1);
    assert_eq!(bench.containers(&[]).len(), 2);
    bench.backend_shutdown().await;
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_fails_makes_workers_unknown_until_the_next_one() {
    let engine = Engine::any().await;
    let proxy = Proxy::start(engine.socket());
    let mut bench = Bench::through(&proxy.socket(), Project::new(engine), |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    bench.start(2).await;
    // Until it was seen: a list that follows soon is not.
    proxy.fault("/containers/json", usize::MAX, Fault::Refuse(500, "out of order".to_owned()));
    bench.until_unknown().await;
    proxy.mend();
    let pool = bench.until("both are seen again", |pool| pool.instances.len() == 2).await;
    assert_eq!((pool.exits, pool.manual), (vec![], vec![]));
}
