//! Settings that change while the real autoscaler runs with a real engine: whose containers they are stays known.

use swarm::model::snapshot::ReloadOutcome;

use super::bench::{SLEEPER, shell_command};
use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP},
    command::{add_jobs, redis},
    docker::{Engine, IMAGE, Project},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Settings of worker types: name, and what their `docker` table says besides.
fn settings(project: &Project, types: &[(&str, &str)]) -> String {
    let command = serde_json::to_string(&shell_command(SLEEPER)).unwrap();
    let of = |(name, more): &(&str, &str)| {
        format!(
            "[worker_types.{name}]\nworker = {{ heartbeats = false }}\n\
             scaling = {{ cooldown_seconds = 0, scale_up_threshold = 1, drain_timeout_seconds = 1 }}\n\
             [worker_types.{name}.docker]\nimage = \"{IMAGE}\"\nproject = \"{}\"\ncommand = {command}\n\
             environment.REDIS_URL = \"redis://redis\"\n{more}\n",
            project.name
        )
    };
    format!("{NO_SWEEP}{}", types.iter().map(of).collect::<String>())
}

/// The running containers of a worker type.
fn of(project: &Project, worker_type: &str) -> Vec<String> {
    let mut names = project.containers(&["running"]);
    names.retain(|name| name.contains(worker_type));
    names
}

fn environment(project: &Project, container: &str) -> String {
    project.engine.docker(&["inspect", "--format", "{{.Config.Env}}", container])
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_worker_types_are_taken_on_and_left_alone() {
    let engine = Engine::any().await;
    let (project, server) = (Project::new(engine), RedisServer::start());
    let client = server.client().await;
    let socket = format!("unix://{}", project.engine.socket().display());
    let environ = [("DOCKER_HOST", socket.as_str()), ("ORCHESTRATOR", "docker")];
    let scaler = Autoscaler::start_in_environment(&server.url(), &settings(&project, &[("shop", "")]), &environ).await;
    scaler.until_ready().await;
    add_jobs(&client, "shop:jobs", 1).await;
    scaler.until_workers("shop", 1).await;
    let first = of(&project, "shop");
    assert_eq!(first.len(), 1, "{first:?}");

    // A new type, and other settings for the next containers of the old one.
    add_jobs(&client, "mail:jobs", 2).await;
    let shop = ("shop", "environment.COLOUR = \"green\"");
    let reload = scaler.reload(&server.url(), &settings(&project, &[shop, ("mail", "")])).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied, "{reload:?}");
    assert_eq!(reload.changes, "added mail; shop: docker.environment.COLOUR");
    scaler.until_workers("mail", 2).await;
    add_jobs(&client, "shop:jobs", 1).await;
    scaler.until_workers("shop", 2).await;
    let (before, after): (Vec<_>, Vec<_>) = of(&project, "shop").into_iter().partition(|name| first.contains(name));
    assert_eq!((before, after.len()), (first, 1), "who was there stays");
    assert!(environment(&project, &after[0]).contains("COLOUR=green"));

    let wrong = ("shop", "networks = [\"host\", \"other\"]");
    let reload = scaler.reload(&server.url(), &settings(&project, &[wrong, ("mail", "")])).await;
    assert_eq!(reload.outcome, ReloadOutcome::Refused);
    assert!(reload.errors[0].contains("can't be joined together"), "{:?}", reload.errors);

    // Gone from the settings, its containers are nobody's business here; back again, they are known.
    let reload = scaler.reload(&server.url(), &settings(&project, &[shop])).await;
    assert_eq!(reload.changes, "removed mail");
    add_jobs(&client, "shop:jobs", 1).await;
    scaler.until_workers("shop", 3).await;
    assert_eq!(of(&project, "mail").len(), 2);
    let reload = scaler.reload(&server.url(), &settings(&project, &[shop, ("mail", "")])).await;
    assert_eq!(reload.changes, "added mail");
    scaler.until_workers("mail", 2).await;
    // Redis notifies of no deletion, and the scaler does not sweep here.
    let _: u64 = redis(&client, "DEL mail:jobs").await;
    let _: u64 = redis(&client, "PUBLISH jobs:published mail:jobs").await;
    scaler.until_workers("mail", 0).await;
    let gone = eventually(DEADLINE, async || of(&project, "mail").is_empty()).await;
    assert!(gone && of(&project, "shop").len() == 3, "{:?}", project.containers(&[]));
}

/// Containers of a framework get the URL of their own worker type, or none: never the top-level one.
#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_a_framework_never_get_the_top_level_url() {
    let engine = Engine::any().await;
    let (project, server) = (Project::new(engine), RedisServer::start());
    let own = server.url_db(1);
    let of_framework =
        |name: &str, more: &str| format!("[worker_types.{name}]\nframework = \"rq\"\n{more}").replace("\n\n", "\n");
    let settings = settings(&project, &[("ours", ""), ("plain", ""), ("apart", "")])
        .replace("environment.REDIS_URL = \"redis://redis\"\n", "networks = [\"none\"]\n")
        .replace("scale_up_threshold = 1", "min_workers = 1")
        .replace("[worker_types.plain]\n", &of_framework("plain", ""))
        .replace("[worker_types.apart]\n", &of_framework("apart", &format!("redis_url = \"{own}\"\n")));
    let socket = format!("unix://{}", project.engine.socket().display());
    let environ = [("DOCKER_HOST", socket.as_str()), ("ORCHESTRATOR", "docker")];
    let scaler = Autoscaler::start_in_environment(&server.url(), &settings, &environ).await;
    for name in ["ours", "plain", "apart"] {
        scaler.until_workers(name, 1).await;
    }
    let given = |name: &str| environment(&project, &of(&project, name)[0]);
    assert!(given("ours").contains(&format!("REDIS_URL={}", server.url())), "{}", given("ours"));
    assert!(!given("plain").contains("REDIS_URL"), "{}", given("plain"));
    assert!(given("apart").contains(&format!("REDIS_URL={own}")), "{}", given("apart"));
}
