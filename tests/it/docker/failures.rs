//! What engines refuse and what gets lost on the way, by means of a proxy in front of a real engine.

use swarm::backend::{ErrorKind, docker::Endpoint};

use super::bench::{Bench, IMPATIENT, LONG};
use crate::support::{
    docker::{Engine, Project},
    docker_proxy::{Fault, Proxy},
};

async fn behind_a_proxy() -> (Bench, Proxy) {
    let engine = Engine::any().await;
    let proxy = Proxy::start(engine.socket());
    let endpoint = Endpoint::Unix(proxy.socket());
    let mut bench = Bench::within(IMPATIENT, endpoint, Project::new(engine), |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    (bench, proxy)
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_failure_tells_what_was_made_and_a_retry_makes_the_rest() {
    let (bench, proxy) = behind_a_proxy().await;
    proxy.fault("/containers/create", 2, Fault::Refuse(500, "no space left on device".to_owned()));
    let error = bench.scale(5, &[], LONG).await.unwrap_err();
    assert_eq!((error.done.started.len(), error.kind), (3, ErrorKind::Retryable), "{error}");
    assert!(error.message.starts_with("2 of 5 workers could not be started: "), "{error}");
    assert!(error.message.contains("no space left on device"), "{error}");
    assert_eq!(bench.start(5).await.len(), 2);
    assert_eq!(bench.containers(&["running"]).len(), 5);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_twice_when_answers_get_lost() {
    let (bench, proxy) = behind_a_proxy().await;
    proxy.fault("/containers/create", 1, Fault::LoseAnswer);
    proxy.fault("/start", 1, Fault::LoseAnswer);
    let started = bench.start(2).await;
    assert_eq!(started.len(), 2, "both were found by their labels");
    assert_eq!(bench.containers(&[]).len(), 2);
    assert_eq!((proxy.seen("/containers/create"), proxy.seen("/start")), (2, 2), "nothing was asked twice");
    assert_eq!(bench.start(2).await, []);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_arrives_is_made_again_and_what_lies_around_is_used() {
    let (bench, proxy) = behind_a_proxy().await;
    proxy.fault("/start", 1, Fault::Drop);
    let error = bench.scale(1, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable);
    assert!(error.message.contains("did not answer `start`"), "{error}");
    assert_eq!(bench.containers(&["created"]).len(), 1);
    assert_eq!(bench.start(1).await.len(), 1);
    assert_eq!(bench.containers(&[]), bench.containers(&["running"]), "the one that was made is the one that runs");
    assert_eq!(proxy.seen("/containers/create"), 1);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_use_is_passed_over() {
    let (bench, _proxy) = behind_a_proxy().await;
    let taken = format!("{}-worker-shell-1", bench.project.name);
    let label = format!("com.docker.compose.project={}", bench.project.name);
    let image = crate::support::docker::IMAGE;
    bench.project.engine.docker(&["create", "--name", &taken, "--label", &label, image, "true"]);
    assert_eq!(bench.start(2).await.len(), 2);
    let running = bench.containers(&["running"]);
    assert!(running.len() == 2 && !running.contains(&taken), "{running:?}");
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named_with_its_cure() {
    let engine = Engine::any().await;
    let mut no_image = Bench::on(engine.clone(), |settings| settings.image = Some("swarm-test:none".to_owned()));
    no_image.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    let error = no_image.scale(1, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    for words in ["image `swarm-test:none`", "docker compose build worker-shell", "docker pull", "docker.pull"] {
        assert!(error.message.contains(words), "{error}");
    }

    let mut nothing = Bench::on(engine.clone(), |settings| settings.image = None);
    nothing.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    let error = nothing.scale(1, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("no container of service `worker-shell`"), "{error}");
    assert!(error.message.contains("worker_types.shell.docker.image"), "{error}");

    let mut no_network = Bench::on(engine, |settings| settings.networks = vec!["swarm-test-none".to_owned()]);
    no_network.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    let error = no_network.scale(1, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable, "it may be made again any moment: {error}");
    assert!(error.message.contains("swarm-test-none") && error.message.contains("docker compose up"), "{error}");
    assert_eq!(no_network.containers(&[]), Vec::<String>::new(), "what can't be started does not lie around");
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_proxy_that_forbids_is_named() {
    let (bench, proxy) = behind_a_proxy().await;
    proxy.fault("/containers/create", 1, Fault::Refuse(403, "Forbidden".to_owned()));
    let error = bench.scale(1, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("socket proxy") && error.message.contains("docs/docker.md"), "{error}");
}
