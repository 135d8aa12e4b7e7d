//! Letting workers go while pods of several revisions are there, or pods of other owners.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use swarm::{
    backend::{Phase, ScalingBackend},
    config::TargetKind,
};

use super::{
    Started, TYPE,
    bed::{Bed, LABEL, name_of},
    controller::{Behaviour, owner_of},
};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The status of a pod whose image can't be pulled.
fn unpullable() -> Value {
    json!({
        "phase": "Pending",
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False" }],
        "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "", "started": false,
            "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } },
        }],
    })
}

/// Makes a pod that the played kubelet starts.
async fn pod(bed: &Bed, name: &str, revision: &str, owner: Value) {
    let labels = json!({ LABEL: TYPE, "pod-template-hash": revision });
    bed.create::<Pod>(json!({
        "metadata": { "name": name, "labels": labels, "ownerReferences": [owner] },
        "spec": { "nodeName": "n", "containers": [{ "name": "worker", "image": "pause" }] },
    }))
    .await;
}

/// Old workers of a Deployment whose new image can't be pulled, and one new pod.
async fn stuck_rollout(old: u32) -> (Bed, Started, Vec<String>) {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, old).await;
    bed.players()
        .behave(|behaviour| {
            behaviour.stuck = Some(unpullable());
            behaviour.revision = "7777777777";
        })
        .await;
    bed.scale_by_hand(TYPE, old + 1).await;
    bed.until("the new pod is blocked", async || started.in_phase(Phase::Blocked).await.len() == 1).await;
    (bed, started, pods)
}

/// A rollout whose new pods can't start does not keep the old ones, which are idle and all to go.
#[tokio::test]
async fn a_pool_that_goes_to_zero_does_so_during_a_rollout_that_is_stuck() {
    let (bed, started, old) = stuck_rollout(2).await;
    let all = bed.pod_names(TYPE).await;
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(started.scale(0, &names).await.unwrap().retired.len(), 3);
    // The new pod never started, so it need not finish anything.
    bed.until("the count falls by the new pod", async || bed.replicas(TYPE).await == 2).await;
    assert_eq!(bed.until_pods(TYPE, 2).await, old, "they may be busy still");
    bed.until("nobody but them drains", async || started.in_phase(Phase::Draining).await == old).await;
    started.drains.finish(&old[0]);
    started.drains.finish(&old[1]);
    bed.until_pods(TYPE, 0).await;
    assert_eq!(bed.replicas(TYPE).await, 0);
    started.end(bed).await;
}

#[tokio::test]
async fn idle_workers_leave_during_a_rollout_that_is_stuck_and_busy_ones_stay() {
    let (bed, started, old) = stuck_rollout(3).await;
    let report = started.scale(2, &[&old[0], &old[1]]).await.unwrap();
    assert_eq!(report.retired.len(), 2);
    assert_eq!(bed.replicas(TYPE).await, 4, "they may be busy still");
    // The controller may take both from the old ReplicaSet, so both must have finished.
    started.drains.finish(&old[0]);
    started.drains.finish(&old[1]);
    bed.until("two are let go", async || bed.replicas(TYPE).await == 2).await;
    bed.until_pods(TYPE, 2).await;
    assert!(bed.pod_names(TYPE).await.contains(&old[2]), "the busy one stays");
    started.end(bed).await;
}

/// Who may go while it is there is a table in `rollout.rs` of the backend.
#[tokio::test]
async fn the_surge_of_a_rollout_is_not_capacity() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    bed.players().behave(|behaviour| behaviour.reconcile = false).await;
    pod(&bed, "surge", "newer", owner_of(&name_of(TYPE), "newer", false)).await;
    bed.until("it is seen", async || {
        let pool = started.pool().await.unwrap();
        pool.instances.len() == 3 && started.live().await == 2
    })
    .await;
    started.scale(1, &[&pods[0]]).await.unwrap();
    assert_eq!(started.drains.asked(), [pods[0].clone()]);
    assert_eq!(bed.replicas(TYPE).await, 2, "it may be busy still");
    // The rollout is taken back: the new pod is gone.
    bed.api::<Pod>().delete("surge", &kube::api::DeleteParams::default()).await.unwrap();
    started.drains.finish(&pods[0]);
    bed.until("the drained one is let go", async || bed.replicas(TYPE).await == 1).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_stateful_set_with_two_revisions_loses_its_highest_ordinals() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.stateful_set(TYPE, 0).await;
    let started = Started::with(&bed, TargetKind::StatefulSet).await;
    let pods = started.grow(&bed, 3).await;
    // As with `OnDelete`: whoever deletes a pod gets one of the new revision, and the others stay as they are.
    bed.players().behave(|behaviour| behaviour.revision = "newer").await;
    bed.api::<Pod>().delete(&pods[0], &kube::api::DeleteParams::default()).await.unwrap();
    bed.until("it is renewed", async || {
        let renewed = bed.pods(TYPE).await.iter().any(|pod| pod.labels()["pod-template-hash"] == "newer");
        renewed && started.in_phase(Phase::Ready).await.len() == 3
    })
    .await;
    started.scale(1, &[&pods[1], &pods[2]]).await.unwrap();
    let mut asked = started.drains.asked();
    asked.sort();
    assert_eq!(asked, pods[1..]);
    started.drains.finish(&pods[2]);
    assert_eq!(bed.until_pods(TYPE, 2).await, pods[..2]);
    started.drains.finish(&pods[1]);
    assert_eq!(bed.until_pods(TYPE, 1).await, pods[..1]);
    started.end(bed).await;
}

#[tokio::test]
async fn a_gap_in_a_stateful_set_costs_no_other_pod() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.stateful_set(TYPE, 0).await;
    let started = Started::with(&bed, TargetKind::StatefulSet).await;
    let pods = started.grow(&bed, 3).await;
    bed.players().behave(|behaviour| behaviour.reconcile = false).await;
    bed.api::<Pod>().delete(&pods[0], &kube::api::DeleteParams::default()).await.unwrap();
    let is_missing = |id: &String| id.contains('#');
    bed.until("the gap is seen", async || started.in_phase(Phase::Running).await.iter().any(is_missing)).await;
    let gap = started.in_phase(Phase::Running).await.into_iter().find(is_missing).unwrap();
    // The missing pod is not the one that would go.
    started.scale(2, &[&gap]).await.unwrap();
    assert_eq!(started.drains.asked(), [pods[2].clone()]);
    // Nothing was written, and the pods would go by what was.
    let count = bed.fake().count("patch", "statefulsets/scale");
    started.drains.finish(&pods[2]);
    bed.until("the count falls", async || bed.fake().count("patch", "statefulsets/scale") == count + 1).await;
    started.end(bed).await;
}

/// Blue and green carry one label; swarm scales blue.
#[tokio::test]
async fn pods_of_another_deployment_with_the_same_label_are_left_alone() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    pod(&bed, "green", "6d4cf56db6", owner_of("green", "6d4cf56db6", false)).await;
    let pods = started.grow(&bed, 2).await;
    let own: Vec<String> = pods.iter().filter(|pod| *pod != "green").cloned().collect();
    assert_eq!((own.len(), pods.len()), (2, 3));
    assert_eq!(started.in_phase(Phase::Ready).await, own);
    started.scale(1, &[&own[0]]).await.unwrap();
    started.drains.finish(&own[0]);
    let left = bed.until_pods(TYPE, 2).await;
    assert!(left.contains(&"green".to_owned()) && left.contains(&own[1]), "{left:?}");
    started.end(bed).await;
}

/// The deletion costs of the pods, by name.
async fn costs(bed: &Bed) -> Vec<(String, Option<String>)> {
    let pods = bed.pods(TYPE).await;
    let mut costs: Vec<_> = pods.iter().map(|pod| (pod.name_any(), pod.annotations().get(COST).cloned())).collect();
    costs.sort();
    costs
}

#[tokio::test]
async fn a_foreign_deletion_cost_is_restored_when_the_mark_goes() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    let theirs = Patch::Merge(json!({ "metadata": { "annotations": { COST: "-5" } } }));
    bed.api::<Pod>().patch(&pods[0], &PatchParams::default(), &theirs).await.unwrap();
    // The controller does nothing, so that the mark stays to be seen.
    bed.players().behave(|behaviour| behaviour.reconcile = false).await;
    started.scale(1, &[&pods[0]]).await.unwrap();
    let untouched = vec![(pods[0].clone(), Some("-5".to_owned())), (pods[1].clone(), None)];
    assert_eq!(costs(&bed).await, untouched, "a worker that has not finished is not marked");
    started.drains.finish(&pods[0]);
    let marked = vec![(pods[0].clone(), Some(i32::MIN.to_string())), (pods[1].clone(), None)];
    bed.until("it is marked", async || costs(&bed).await == marked).await;
    bed.until("the count falls", async || bed.replicas(TYPE).await == 1).await;
    // The scaler ends, somebody raises the count again, and the next scaler finds the mark.
    started.backend.shutdown(false).await;
    bed.scale_by_hand(TYPE, 2).await;
    let next = Started::on(&bed).await;
    next.scale(2, &[]).await.unwrap();
    bed.until("their cost is back", async || costs(&bed).await == untouched).await;
    let pod = bed.api::<Pod>().get(&pods[0]).await.unwrap();
    assert!(!pod.annotations().contains_key("swarm/pod-deletion-cost-before"), "{:?}", pod.annotations());
    next.end(bed).await;
}
