//! Worker types that come and go while the autoscaler runs: their targets are found at once, with the rights for them,
//! and those that are left are left as they are.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use swarm::model::snapshot::ReloadOutcome;

use super::{
    TYPE,
    bed::{Bed, name_of},
    controller::Behaviour,
};
use crate::{
    fake_kubernetes::Fault,
    support::{
        autoscaler::{Autoscaler, NO_SWEEP},
        command::{add_jobs, records},
        redis::RedisServer,
    },
};

fn settings(bed: &Bed, types: &[(&str, &str, &str)]) -> String {
    let of = |(name, scaling, kind): &(&str, &str, &str)| {
        format!(
            "[worker_types.{name}]\nworker = {{ heartbeats = false }}\nkubernetes = {{ kind = \"{kind}\" }}\n\
             scaling = {{ cooldown_seconds = 0, scale_up_threshold = 1, {scaling} }}\n"
        )
    };
    let types: String = types.iter().map(of).collect();
    format!("[kubernetes]\nkubeconfig = \"{}\"\n{NO_SWEEP}{types}", bed.kubeconfig().display())
}

const DEPLOYED: &str = "deployment";
const FLAGS: [&str; 2] = ["--orchestrator", "kubernetes"];

async fn stateful_replicas(bed: &Bed, worker_type: &str) -> i32 {
    let object = bed.api::<StatefulSet>().get(&name_of(worker_type)).await.unwrap();
    object.spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

#[tokio::test]
async fn targets_are_taken_on_and_left_alone() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 1).await;
    bed.deployment("mail", 2).await;
    let browser = (TYPE, "min_workers = 1, max_workers = 5", DEPLOYED);
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed, &[browser]), &FLAGS).await;
    scaler.until_workers(TYPE, 1).await;
    add_jobs(&client, "mail:jobs", 4).await;
    add_jobs(&client, &format!("{TYPE}:jobs"), 2).await;
    bed.until_pods(TYPE, 2).await;
    assert_eq!(bed.replicas("mail").await, 2, "nobody looks after it");

    // What it has is found without a list that came after.
    let mail = ("mail", "min_workers = 3, max_workers = 8", DEPLOYED);
    let lists = bed.fake().count("list", "deployments");
    let reload = scaler.reload(&server.url(), &settings(&bed, &[browser, mail])).await;
    assert_eq!(reload.changes, "added mail");
    bed.until_pods("mail", 4).await;
    assert_eq!(bed.fake().count("list", "deployments"), lists);
    assert!(scaler.metric("swarm_config_last_reload_success").await > 0.5);

    let reload = scaler.reload(&server.url(), &settings(&bed, &[mail])).await;
    assert_eq!(reload.changes, format!("removed {TYPE}"));
    add_jobs(&client, &format!("{TYPE}:jobs"), 3).await;
    add_jobs(&client, "mail:jobs", 1).await;
    bed.until_pods("mail", 5).await;
    assert_eq!(bed.replicas(TYPE).await, 2, "it is left as it is");

    // Somebody scales it meanwhile; it comes back as it is then.
    bed.scale_by_hand(TYPE, 4).await;
    bed.until_pods(TYPE, 4).await;
    let browser = (TYPE, "min_workers = 1, max_workers = 9", DEPLOYED);
    scaler.reload(&server.url(), &settings(&bed, &[browser, mail])).await;
    bed.until_pods(TYPE, 5).await;
    scaler.until_workers(TYPE, 5).await;
    bed.end().await;
}

#[tokio::test]
async fn a_new_kind_of_target_needs_its_rights_and_gets_its_watch() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    bed.stateful_set("mail", 0).await;
    bed.fake().deny("patch", "statefulsets/scale");
    let browser = (TYPE, "max_workers = 5", DEPLOYED);
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed, &[browser]), &FLAGS).await;
    scaler.until_ready().await;

    let both = settings(&bed, &[browser, ("mail", "min_workers = 2", "stateful-set")]);
    let reload = scaler.reload(&server.url(), &both).await;
    assert_eq!(reload.outcome, ReloadOutcome::Refused);
    assert!(reload.errors[0].contains("`patch` `statefulsets/scale`"), "{:?}", reload.errors);
    add_jobs(&client, &format!("{TYPE}:jobs"), 1).await;
    bed.until_pods(TYPE, 1).await;

    bed.fake().allow_all();
    assert_eq!(scaler.reload(&server.url(), &both).await.outcome, ReloadOutcome::Applied);
    bed.until("the set has its workers", async || stateful_replicas(&bed, "mail").await == 2).await;
    scaler.until_workers("mail", 2).await;
    bed.end().await;
}

#[tokio::test]
async fn a_type_follows_its_settings_to_another_target() {
    let server = RedisServer::start();
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    bed.deployment("spare", 0).await;
    let browser = (TYPE, "min_workers = 1", DEPLOYED);
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed, &[browser]), &FLAGS).await;
    bed.until_pods(TYPE, 1).await;
    let other = settings(&bed, &[browser]).replace("{ kind", &format!("{{ name = \"{}\", kind", name_of("spare")));
    let reload = scaler.reload(&server.url(), &other).await;
    assert_eq!(reload.changes, format!("{TYPE}: kubernetes.name"));
    bed.until("the other one is scaled", async || bed.replicas("spare").await == 1).await;
    assert_eq!(bed.replicas(TYPE).await, 1, "the one before is left as it is");
    bed.end().await;
}

#[tokio::test]
async fn a_slow_scaling_holds_up_nobody_and_is_finished_once_over_two_changes() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    bed.deployment("mail", 0).await;
    let browser = |max: &'static str| (TYPE, max, DEPLOYED);
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed, &[browser("max_workers = 1")]), &FLAGS).await;
    scaler.until_ready().await;
    let patches = async || bed.fake().count("patch", "deployments/scale");
    bed.fake().disturb("patch", "deployments/scale", Fault::Slow(Duration::from_secs(6)));
    add_jobs(&client, &format!("{TYPE}:jobs"), 2).await;
    bed.until("it is being scaled", async || patches().await == 1).await;

    // One change with the scaling under way, and one that takes its worker type away.
    let mail = ("mail", "min_workers = 1", DEPLOYED);
    scaler.reload(&server.url(), &settings(&bed, &[browser("max_workers = 2"), mail])).await;
    bed.until_pods("mail", 1).await;
    let reload = scaler.reload(&server.url(), &settings(&bed, &[mail])).await;
    assert_eq!(reload.changes, format!("removed {TYPE}"));
    scaler.until("it is recorded", async || records(&client, TYPE).await.len() == 1).await;
    let (slow, quick) = (records(&client, TYPE).await.remove(0), records(&client, "mail").await.remove(0));
    assert_eq!((&*slow["outcome"], bed.replicas(TYPE).await), ("done", 1));
    assert!(quick["timestamp"] < slow["timestamp"], "nobody waited for it: {quick:?} {slow:?}");

    // It comes back with its past, and nothing was written by the settings that were overtaken.
    scaler.reload(&server.url(), &settings(&bed, &[browser("max_workers = 2"), mail])).await;
    bed.until_pods(TYPE, 2).await;
    scaler.until("it is recorded", async || records(&client, TYPE).await.len() == 2).await;
    bed.end().await;
}
