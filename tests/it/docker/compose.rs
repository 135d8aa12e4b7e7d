//! Side by side with Compose: its containers are the template, its commands see ours, and what it does is noticed.

use std::{fs, path::Path};

use swarm::backend::Phase;
use tempfile::TempDir;

use super::bench::{Bench, LONG, SLEEPER};
use crate::support::docker::{Engine, IMAGE, Project};

/// A project with one service, and a backend that is told nothing about it.
struct Side {
    bench: Bench,
    directory: TempDir,
}

impl Side {
    async fn new(arguments: &[&str]) -> Self {
        let engine = Engine::any().await;
        let directory = tempfile::tempdir().unwrap();
        let script = SLEEPER.replace('$', "$$");
        let file = format!(
            "version: '3.7'\nservices:\n  worker-shell:\n    image: {IMAGE}\n    command: [sh, -c, \"{script}\"]\n    \
             environment: {{ FLAVOUR: vanilla }}\n    labels: {{ team: shop }}\n    mem_limit: 64m\n    \
             networks: [inner]\nnetworks:\n  inner:\n    internal: true\n"
        );
        // The 3.x format has no mem_limit; 2.4 has, and is what single hosts use.
        fs::write(directory.path().join("docker-compose.yml"), file.replace("3.7", "2.4")).unwrap();
        let socket = engine.socket().to_owned();
        let project = Project::new(engine);
        project.engine.compose(directory.path(), &project.name, arguments);
        let bench = Bench::through(&socket, project, |settings| *settings = swarm::config::DockerSettings::default());
        Self { bench, directory }
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let project = &self.bench.project;
        project.engine.compose(Path::new(self.directory.path()), &project.name, arguments)
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        self.bench.project.engine.docker(&["inspect", "--format", format, name]).trim().to_owned()
    }

    fn running(&self) -> Vec<String> {
        self.bench.containers(&["running"])
    }
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_never_started_is_the_template() {
    let mut side = Side::new(&["up", "--no-start"]).await;
    side.bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    let ids = side.bench.start(2).await;
    let template = side.bench.containers(&["created"]).remove(0);
    let separator = if template.contains('_') { '_' } else { '-' };
    let project = side.bench.project.name.clone();
    let expected = [2, 3].map(|number| format!("{project}{separator}worker-shell{separator}{number}"));
    assert_eq!(side.running(), expected, "the next numbers, in the form that this Compose uses");

    for of_service in [
        "{{index .Config.Labels \"com.docker.compose.config-hash\"}}",
        "{{index .Config.Labels \"team\"}}",
        "{{.HostConfig.Memory}}",
        "{{.HostConfig.NetworkMode}}",
        "{{.Config.Image}}",
        "{{.Config.Cmd}}",
    ] {
        assert_eq!(side.inspect(&expected[0], of_service), side.inspect(&template, of_service), "{of_service}");
    }
    let environment = side.inspect(&expected[0], "{{.Config.Env}}");
    assert!(
        environment.contains("FLAVOUR=vanilla") && environment.contains("SWARM_WORKER_TYPE=shell"),
        "{environment}"
    );
    assert!(ids.iter().any(|id| environment.contains(&format!("SWARM_WORKER_ID={id}"))), "{environment}");
    assert_eq!(side.inspect(&expected[0], "{{index .Config.Labels \"com.docker.compose.container-number\"}}"), "2");

    let listed = side.compose(&["ps"]);
    assert!(expected.iter().all(|name| listed.contains(name)), "{listed}");
    side.compose(&["down"]);
    assert_eq!(side.bench.containers(&[]), Vec::<String>::new());
    let pool = side.bench.until("nobody is left", |pool| pool.instances.is_empty()).await;
    assert_eq!(pool.exits, vec![]);
    let last = pool.manual.last().expect("somebody stopped them");
    assert_eq!(last.to, 0);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_scale_is_told_and_counts_and_nothing_is_fought_over() {
    let mut side = Side::new(&["up", "--no-start"]).await;
    side.bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    side.compose(&["up", "-d", "--scale", "worker-shell=3"]);
    let pool = side.bench.until("three workers", |pool| pool.instances.len() == 3).await;
    assert_eq!(
        (pool.manual.first().map(|first| first.from), pool.manual.last().map(|last| last.to)),
        (Some(0), Some(3))
    );
    assert_eq!(side.bench.start(3).await, [], "they count");

    for name in side.running() {
        let host = side.inspect(&name, "{{.Config.Hostname}}");
        assert!(pool.instances.iter().any(|one| one.id.as_str() == host), "{name} is known by its host name {host}");
    }
    side.bench.start(4).await;
    side.compose(&["up", "-d", "--scale", "worker-shell=1"]);
    let pool =
        side.bench.until("one worker", |pool| pool.instances.len() == 1 && pool.instances[0].phase == Phase::Running);
    let pool = pool.await;
    let last = pool.manual.last().expect("somebody stopped three");
    assert_eq!((last.to, &pool.exits), (1, &vec![]), "{:?}", pool.manual);
    assert_eq!(side.running().len(), 1);
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_container_stays_as_the_template_of_the_next_one() {
    let mut side = Side::new(&["up", "-d"]).await;
    let pool = side.bench.until("Compose's own worker", |pool| pool.instances.len() == 1).await;
    assert_eq!(pool.manual, vec![], "it was there before");
    side.bench.start(2).await;
    let ids: Vec<_> = side.bench.observe().await.unwrap().instances.into_iter().map(|one| one.id).collect();
    side.bench.until_listening().await;
    side.bench.scale(0, &ids, LONG).await.unwrap();
    side.bench.until("nobody is left", |pool| pool.instances.is_empty()).await;
    let left = side.bench.containers(&["exited"]);
    assert!(!left.is_empty(), "one stays");

    side.bench.restart(|_| {}).await;
    side.bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    assert_eq!(side.bench.start(1).await.len(), 1, "and the next one is made after it");
    assert_eq!(side.running().len(), 1);
    assert!(side.inspect(&side.running()[0], "{{.Config.Env}}").contains("FLAVOUR=vanilla"));
}
