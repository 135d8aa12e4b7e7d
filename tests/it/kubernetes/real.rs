//! What only a real control plane shows: its controllers, its scheduler, its admission, its rules of access. Nodes and
//! kubelets are KWOK's, which does with pods what their label `plays` says (kwok-stages.yaml).

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use swarm::{
    backend::{ErrorKind, Phase},
    config::TargetKind,
};

use super::{
    Started, TYPE,
    bed::{Bed, name_of},
};

/// Changes a Deployment's pod template, so that a rollout begins.
async fn roll(bed: &Bed, template: Value) {
    let patch = Patch::Merge(json!({ "spec": { "template": template } }));
    bed.api::<Deployment>().patch(&name_of(TYPE), &PatchParams::default(), &patch).await.expect("it can be changed");
}

fn plays(how: &str) -> Value {
    json!({ "metadata": { "labels": { "plays": how } } })
}

/// The reasons of blocked workers.
async fn blocked(started: &Started) -> Vec<String> {
    let pool = started.pool().await.unwrap();
    let blocked = pool.instances.into_iter().filter(|one| one.phase == Phase::Blocked);
    blocked.map(|one| one.reason.unwrap_or_default()).collect()
}

/// The old pods that are left in a Deployment whose new image can't be pulled. Its rolling update has removed one of
/// four.
async fn stuck_rollout(bed: &Bed, started: &Started) -> Vec<String> {
    started.grow(bed, 4).await;
    roll(bed, plays("unpullable")).await;
    bed.until("new pods can't pull their image", async || {
        let waits = |pod: &Pod| pod.labels().get("plays").is_some();
        let pods = bed.pods(TYPE).await;
        pods.iter().filter(|pod| waits(pod)).count() == 2 && pods.len() == 5 && !blocked(started).await.is_empty()
    })
    .await;
    started.in_phase(Phase::Ready).await
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn idle_workers_leave_a_rollout_that_is_stuck_and_the_busy_one_stays() {
    let bed = Bed::start_real().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let old = stuck_rollout(&bed, &started).await;
    assert_eq!(old.len(), 3);
    let (busy, idle) = (&old[0], &old[1..]);
    for worker in idle {
        started.drains.finish(worker);
    }
    // What the autoscaler asks for, again and again: one worker, with the idle and the blocked ones named.
    bed.until("only the busy one is left of the old", async || {
        let pool = started.pool().await.unwrap();
        let names = pool.instances.iter().filter(|one| one.phase != Phase::Draining && one.id.as_str() != busy);
        let names: Vec<String> = names.map(|one| one.id.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // Refused for a replica that has no pod yet.
        if let Err(error) = started.scale(1, &names).await {
            assert_eq!(error.kind, ErrorKind::Retryable, "{error}");
        }
        let pods = bed.pod_names(TYPE).await;
        assert!(pods.contains(busy), "the busy worker was removed: {pods:?}");
        !idle.iter().any(|worker| pods.contains(worker))
    })
    .await;
    started.end(bed).await;
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn a_pool_goes_to_zero_during_a_rollout_that_is_stuck() {
    let bed = Bed::start_real().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    for worker in stuck_rollout(&bed, &started).await {
        started.drains.finish(&worker);
    }
    let all = bed.pod_names(TYPE).await;
    started.scale(0, &all.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    bed.until_pods(TYPE, 0).await;
    started.end(bed).await;
}

/// One pod was renewed, the others wait for whoever deletes them.
#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn a_stateful_set_with_on_delete_goes_down_from_its_highest_ordinal() {
    let bed = Bed::start_real().await;
    bed.stateful_set(TYPE, 0).await;
    let started = Started::with(&bed, TargetKind::StatefulSet).await;
    let pods = started.grow(&bed, 3).await;
    let template = json!({ "metadata": { "annotations": { "revision": "2" } } });
    let patch = Patch::Merge(json!({ "spec": { "updateStrategy": { "type": "OnDelete" } , "template": template } }));
    // `OnDelete` and a RollingUpdate's parameters exclude each other.
    let strategy = json!({ "spec": { "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } } });
    let api = bed.api::<StatefulSet>();
    api.patch(&name_of(TYPE), &PatchParams::default(), &Patch::Merge(strategy)).await.unwrap();
    api.patch(&name_of(TYPE), &PatchParams::default(), &patch).await.unwrap();
    let uid = bed.api::<Pod>().get(&pods[0]).await.unwrap().uid();
    bed.api::<Pod>().delete(&pods[0], &DeleteParams::default()).await.unwrap();
    bed.until("it is renewed", async || {
        let renewed = bed.api::<Pod>().get_opt(&pods[0]).await.unwrap();
        renewed.is_some_and(|pod| pod.uid() != uid) && started.in_phase(Phase::Ready).await.len() == 3
    })
    .await;
    for worker in &pods[1..] {
        started.drains.finish(worker);
    }
    started.scale(1, &[&pods[1], &pods[2]]).await.unwrap();
    assert_eq!(bed.until_pods(TYPE, 1).await, pods[..1]);
    started.end(bed).await;
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn a_quota_is_told_in_the_words_of_the_controller() {
    let bed = Bed::start_real().await;
    bed.create::<ResourceQuota>(json!({ "metadata": { "name": "two" }, "spec": { "hard": { "pods": "2" } } })).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    started.scale(4, &[]).await.unwrap();
    bed.until("two are ready and two are blocked", async || {
        let reasons = blocked(&started).await;
        let told = reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("exceeded quota: two"));
        told && started.in_phase(Phase::Ready).await.len() == 2
    })
    .await;
    started.end(bed).await;
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn a_pod_that_no_node_fits_is_told_in_the_words_of_the_scheduler() {
    let bed = Bed::start_real().await;
    bed.deployment(TYPE, 0).await;
    roll(&bed, json!({ "spec": { "nodeSelector": { "disk": "ssd" } } })).await;
    let started = Started::on(&bed).await;
    started.scale(1, &[]).await.unwrap();
    bed.until("the scheduler says why", async || {
        let reasons = blocked(&started).await;
        reasons.len() == 1 && reasons[0].starts_with("Unschedulable: 0/") && reasons[0].contains("affinity/selector")
    })
    .await;
    started.end(bed).await;
}

/// At 15 a second there would be hundreds.
#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn pods_that_nodes_reject_are_not_made_for_ever() {
    let bed = Bed::start_real().await;
    bed.deployment(TYPE, 0).await;
    roll(&bed, plays("rejected")).await;
    let started = Started::on(&bed).await;
    started.scale(2, &[]).await.unwrap();
    bed.until("the count is that of the pods that work", async || bed.replicas(TYPE).await == 0).await;
    let error = started.scale(2, &[]).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("OutOfcpu"), "{error}");
    let rejected = bed.pods(TYPE).await.len();
    assert!((5..50).contains(&rejected), "{rejected} pods");
    started.end(bed).await;
}
