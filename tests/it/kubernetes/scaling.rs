//! Counting and scaling.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;
use swarm::{
    backend::{ErrorKind, Phase, ScalingBackend},
    config::TargetKind,
};

use super::{
    Started, TYPE,
    bed::{Bed, name_of},
    controller::Behaviour,
};

#[tokio::test]
async fn scaling_up_writes_the_scale_once_and_pods_become_ready() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    assert_eq!(started.live().await, 0);
    started.scale(3, &[]).await.unwrap();
    assert_eq!(bed.replicas(TYPE).await, 3);
    assert_eq!(started.live().await, 3, "what was asked for counts before there are pods");
    bed.until("all are seen ready", async || started.in_phase(Phase::Ready).await.len() == 3).await;
    let mut seen = started.in_phase(Phase::Ready).await;
    seen.sort();
    assert_eq!(seen, bed.pod_names(TYPE).await, "workers are named like their pods");
    started.scale(3, &[]).await.unwrap();
    assert_eq!(bed.replicas(TYPE).await, 3);
    bed.until("an event tells of it", async || {
        bed.notes("ScaledUp").await == ["worker type `browser`: 0 → 3 replicas"]
    })
    .await;
    let pool = started.pool().await.unwrap();
    assert_eq!((pool.manual, pool.exits), (Vec::new(), Vec::new()), "nobody else did anything");
    started.end(bed).await;
}

#[tokio::test]
async fn a_target_that_is_not_there_is_an_error_and_not_an_empty_pool() {
    let bed = Bed::start().await;
    let started = Started::on(&bed).await;
    let error = started.pool().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("no deployment `discord-worker-browser`"), "{}", error.message);
    bed.deployment(TYPE, 0).await;
    bed.until("it is seen", async || started.pool().await.is_ok()).await;
    started.end(bed).await;
}

#[tokio::test]
async fn what_others_scale_is_told_with_their_name() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 1).await;
    let started = Started::on(&bed).await;
    bed.scale_by_hand(TYPE, 4).await;
    bed.until("it is seen", async || !started.pool().await.unwrap().manual.is_empty()).await;
    let manual = started.pool().await.unwrap().manual;
    assert_eq!((manual.len(), manual[0].from, manual[0].to), (1, 1, 4), "{manual:?}");
    assert_eq!(manual[0].detail, "deployment `discord-worker-browser` was scaled from 1 to 4 by `kubectl`");
    bed.until("all four count", async || started.live().await == 4).await;
    started.end(bed).await;
}

#[tokio::test]
async fn another_autoscaler_on_the_same_target_is_a_reason_to_refuse() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 1).await;
    let reference = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": name_of(TYPE) });
    bed.create::<HorizontalPodAutoscaler>(json!({
        "metadata": { "name": "by-cpu" }, "spec": { "scaleTargetRef": reference, "maxReplicas": 5 },
    }))
    .await;
    let started = Started::on(&bed).await;
    let error = started.scale(3, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    let expected =
        "deployment `discord-worker-browser` is scaled by the HorizontalPodAutoscaler `by-cpu` too; delete that";
    assert!(error.message.starts_with(expected), "{}", error.message);
    assert_eq!(bed.replicas(TYPE).await, 1);
    bed.until("an event tells of it", async || bed.notes("ScalingRefused").await.len() == 1).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_stateful_set_loses_its_highest_ordinal_whoever_was_proposed() {
    let bed = Bed::start().await;
    bed.stateful_set(TYPE, 0).await;
    let started = Started::with(&bed, TargetKind::StatefulSet).await;
    let pods = started.grow(&bed, 3).await;
    started.scale(2, &[&pods[0]]).await.unwrap();
    assert_eq!(started.drains.asked(), [pods[2].clone()]);
    started.drains.finish(&pods[2]);
    assert_eq!(bed.until_pods(TYPE, 2).await, pods[..2]);
    // Its successor of the same name must not find the request.
    bed.until("the request is taken back", async || started.drains.cancelled() == [pods[2].clone()]).await;
    started.end(bed).await;
}

#[tokio::test]
async fn pods_that_never_started_go_at_once() {
    let bed = Bed::start_fake(Behaviour { assign: false, ..Behaviour::default() }).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    started.scale(3, &[]).await.unwrap();
    let pods = bed.until_pods(TYPE, 3).await;
    bed.until("they are seen", async || started.in_phase(Phase::Running).await == pods).await;
    started.scale(1, &[&pods[0], &pods[1]]).await.unwrap();
    assert_eq!(bed.replicas(TYPE).await, 1);
    assert!(started.drains.asked().is_empty(), "there is nobody to ask");
    bed.until_pods(TYPE, 1).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_stalled_pod_is_replaced() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    started.scale(2, &[&pods[0]]).await.unwrap();
    bed.until("another one is there instead", async || {
        let now = bed.pod_names(TYPE).await;
        now.len() == 2 && !now.contains(&pods[0]) && now.contains(&pods[1])
    })
    .await;
    assert_eq!(bed.replicas(TYPE).await, 2);
    started.end(bed).await;
}

#[tokio::test]
async fn replicas_without_a_pod_are_explained_by_their_controller() {
    let bed = Bed::start_fake(Behaviour { reconcile: false, ..Behaviour::default() }).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    started.scale(2, &[]).await.unwrap();
    let missing = started.in_phase(Phase::Running).await;
    assert_eq!(missing, ["discord-worker-browser#0", "discord-worker-browser#1"]);
    let error = started.scale(2, &[&missing[0], &missing[1]]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable);
    assert!(error.message.contains("wants 2 replicas, and 2 of them have no pod"), "{}", error.message);
    started.scale(0, &[&missing[0], &missing[1]]).await.unwrap();
    assert_eq!(bed.replicas(TYPE).await, 0);
    started.end(bed).await;
}

#[tokio::test]
async fn a_crash_is_an_exit_of_the_worker() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 1).await;
    bed.players().crash(&pods[0], 3).await;
    bed.until("it is seen", async || !started.pool().await.unwrap().exits.is_empty()).await;
    let exits = started.pool().await.unwrap().exits;
    assert_eq!((exits[0].id.as_str(), exits[0].success, exits[0].detail.as_str()), (&*pods[0], false, "exit code 3"));
    started.end(bed).await;
}

#[tokio::test]
async fn a_draining_shutdown_lets_everybody_finish() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    for pod in &pods {
        started.drains.finish(pod);
    }
    started.backend.shutdown(true).await;
    assert_eq!(bed.replicas(TYPE).await, 0);
    let mut asked = started.drains.asked();
    asked.sort();
    assert_eq!(asked, pods);
}
