//! What the backend says of itself to `swarm doctor`, on the fake API server.

use serde_json::json;
use swarm::{
    backend::{Check, CheckOutcome, kubernetes::check},
    config::TargetKind,
};

use super::{
    TYPE,
    bed::{Bed, LABEL, name_of},
    controller::Behaviour,
    spec,
};

async fn bed() -> Bed {
    Bed::start_fake(Behaviour::default()).await
}

async fn checks(bed: &Bed) -> Vec<Check> {
    check(&spec(bed, TargetKind::Deployment)).await
}

fn is_wrong(check: &Check, part: &str) -> bool {
    matches!(&check.outcome, CheckOutcome::Wrong(told) if told.contains(part))
}

#[tokio::test]
async fn where_it_would_work_it_says_what_it_found() {
    let bed = bed().await;
    bed.deployment(TYPE, 2).await;
    let found = checks(&bed).await;
    assert!(found.len() == 2 && found.iter().all(Check::is_fine), "{found:#?}");
    assert!(matches!(&found[1].outcome, CheckOutcome::Fine(told) if told.contains("2 replicas")), "{found:#?}");
    bed.end().await;
}

#[tokio::test]
async fn missing_rights_targets_and_rivals_are_wrong() {
    let bed = bed().await;
    let found = checks(&bed).await;
    assert!(is_wrong(&found[1], "create it, label it"), "{found:#?}");
    bed.deployment(TYPE, 0).await;
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "rival" },
        "spec": { "maxReplicas": 5, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name_of(TYPE) } },
    });
    bed.create::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(hpa).await;
    let found = checks(&bed).await;
    assert!(is_wrong(&found[1], "is scaled by the HorizontalPodAutoscaler `rival` too"), "{found:#?}");
    bed.fake().deny("patch", "deployments/scale");
    let found = checks(&bed).await;
    assert!(found.len() == 1 && is_wrong(&found[0], "no right in namespace"), "{found:#?}");
    bed.end().await;
}

#[tokio::test]
async fn a_cron_job_has_to_be_there_and_suspended() {
    let bed = bed().await;
    let checks = async || check(&spec(&bed, TargetKind::Job)).await;
    assert!(is_wrong(&checks().await[1], "no cronjob `discord-worker-browser` carries the worker label"));
    bed.cron_job(TYPE, false).await;
    assert!(is_wrong(&checks().await[1], "set `spec.suspend: true`"));
    let patch = json!({ "spec": { "suspend": true } });
    let api = bed.api::<k8s_openapi::api::batch::v1::CronJob>();
    api.patch(&name_of(TYPE), &kube::api::PatchParams::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
    let found = checks().await;
    assert!(found.len() == 2 && found.iter().all(Check::is_fine), "{found:#?}");
    bed.fake().deny("create", "jobs");
    let found = checks().await;
    assert!(is_wrong(&found[0], "`create` `jobs`") && is_wrong(&found[0], "config/kubernetes/jobs.yaml"), "{found:#?}");
    bed.end().await;
}

#[tokio::test]
async fn a_target_that_is_labelled_as_another_types_is_wrong() {
    let bed = bed().await;
    bed.deployment(TYPE, 0).await;
    let patch = json!({ "metadata": { "labels": { LABEL: "other" } } });
    let api = bed.api::<k8s_openapi::api::apps::v1::Deployment>();
    api.patch(&name_of(TYPE), &kube::api::PatchParams::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
    let found = checks(&bed).await;
    assert!(is_wrong(&found[1], "is labelled as one of `other`"), "{found:#?}");
    bed.end().await;
}
