//! Letting workers go: first they finish, then just they are removed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use swarm::backend::{ErrorKind, Phase, ScalingBackend};

use super::{Started, TYPE, bed::Bed, controller::Behaviour};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Pods with a deletion cost.
async fn marked(bed: &Bed) -> Vec<String> {
    let pods = bed.pods(TYPE).await;
    pods.iter().filter(|pod| pod.annotations().contains_key(COST)).map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_worker_leaves_when_it_has_finished_and_just_that_one() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 3).await;
    let report = started.scale(2, &[&pods[1]]).await.unwrap();
    assert_eq!(report.retired.iter().map(ToString::to_string).collect::<Vec<_>>(), [pods[1].clone()]);
    assert_eq!(started.drains.asked(), [pods[1].clone()]);
    assert_eq!(started.in_phase(Phase::Draining).await, [pods[1].clone()], "it counts no more");
    assert_eq!(bed.replicas(TYPE).await, 3, "nothing is lowered while it works");
    assert!(marked(&bed).await.is_empty());
    // Asking twice changes nothing more.
    started.scale(2, &[&pods[1]]).await.unwrap();
    assert_eq!((started.drains.asked().len(), bed.pod_names(TYPE).await), (1, pods.clone()));

    started.drains.finish(&pods[1]);
    let left = bed.until_pods(TYPE, 2).await;
    assert_eq!(left, [pods[0].clone(), pods[2].clone()]);
    assert_eq!(bed.replicas(TYPE).await, 2);
    assert!(marked(&bed).await.is_empty());
    bed.until("an event tells of it", async || {
        bed.notes("ScaledDown").await == ["worker type `browser`: 3 → 2 replicas"]
    })
    .await;
    assert!(started.pool().await.unwrap().manual.is_empty(), "it was us");
    started.end(bed).await;
}

/// The leader is frozen during a drain, and another one leads when it goes on.
#[tokio::test]
async fn invariant_15_what_was_under_way_is_left_to_the_next_leader() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    let leads = Arc::new(AtomicBool::new(true));
    let asked = leads.clone();
    started.backend.act_only_while(Box::new(move || asked.load(Ordering::Relaxed)));
    started.scale(1, &[&pods[1]]).await.unwrap();
    assert_eq!(started.in_phase(Phase::Draining).await, [pods[1].clone()]);

    leads.store(false, Ordering::Relaxed);
    started.drains.finish(&pods[1]);
    let forgotten = async || started.in_phase(Phase::Draining).await.is_empty();
    bed.until("nobody is waited for any more", forgotten).await;
    for target in [0, 3] {
        let refused = started.scale(target, &[&pods[0], &pods[1]]).await.unwrap_err();
        assert!(refused.kind == ErrorKind::Retryable && refused.message.contains("does not lead"), "{refused}");
    }
    assert_eq!(
        (bed.replicas(TYPE).await, started.drains.cancelled()),
        (2, vec![]),
        "nothing is changed, nor taken back"
    );

    leads.store(true, Ordering::Relaxed);
    started.scale(1, &[&pods[1]]).await.unwrap();
    assert_eq!(bed.until_pods(TYPE, 1).await, [pods[0].clone()]);
    started.end(bed).await;
}

#[tokio::test]
async fn those_who_finish_first_leave_first() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 3).await;
    started.scale(1, &[&pods[0], &pods[1]]).await.unwrap();
    started.drains.finish(&pods[1]);
    assert_eq!(bed.until_pods(TYPE, 2).await, [pods[0].clone(), pods[2].clone()]);
    started.drains.finish(&pods[0]);
    assert_eq!(bed.until_pods(TYPE, 1).await, [pods[2].clone()]);
    started.end(bed).await;
}

#[tokio::test]
async fn more_workers_wanted_are_taken_from_those_that_drain() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 3).await;
    started.scale(1, &[&pods[0], &pods[1]]).await.unwrap();
    assert_eq!(started.live().await, 1);
    let report = started.scale(3, &[]).await.unwrap();
    assert_eq!(report.started.len(), 2);
    let mut cancelled = started.drains.cancelled();
    cancelled.sort();
    assert_eq!(cancelled, pods[..2]);
    assert_eq!((started.live().await, bed.replicas(TYPE).await), (3, 3));
    assert!(marked(&bed).await.is_empty());
    // And more than that is new.
    started.scale(4, &[]).await.unwrap();
    let grown = bed.until_pods(TYPE, 4).await;
    assert!(pods.iter().all(|pod| grown.contains(pod)));
    started.end(bed).await;
}

#[tokio::test]
async fn a_worker_that_never_finishes_is_removed_when_its_time_is_up() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    started.scale_within(1, &[&pods[0]], Duration::from_secs(1)).await.unwrap();
    assert_eq!(bed.until_pods(TYPE, 1).await, [pods[1].clone()]);
    started.end(bed).await;
}

#[tokio::test]
async fn a_pod_that_is_not_ready_would_go_first_so_it_is_the_one_that_is_asked() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 3).await;
    bed.players().fail_readiness(&pods[2]).await;
    bed.until("it is seen", async || started.in_phase(Phase::Ready).await == pods[..2]).await;
    started.scale(2, &[&pods[0]]).await.unwrap();
    assert_eq!(started.drains.asked(), [pods[2].clone()]);
    started.drains.finish(&pods[2]);
    assert_eq!(bed.until_pods(TYPE, 2).await, pods[..2]);
    started.end(bed).await;
}

#[tokio::test]
async fn a_busy_worker_that_ceases_to_be_ready_meanwhile_takes_the_place_of_the_drained_one() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 3).await;
    started.scale(2, &[&pods[0]]).await.unwrap();
    bed.players().fail_readiness(&pods[2]).await;
    bed.until("the other one is asked", async || started.drains.asked().contains(&pods[2])).await;
    assert_eq!(started.drains.cancelled(), [pods[0].clone()]);
    started.drains.finish(&pods[0]);
    started.drains.finish(&pods[2]);
    assert_eq!(bed.until_pods(TYPE, 2).await, pods[..2]);
    started.end(bed).await;
}

#[tokio::test]
async fn marks_of_an_earlier_scaler_are_taken_back() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 2).await;
    let pods = bed.until_pods(TYPE, 2).await;
    let annotate = |annotations| Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    let api = bed.api::<Pod>();
    let ours = json!({ COST: i32::MIN.to_string(), "swarm/pod-deletion-cost-before": "" });
    api.patch(&pods[0], &PatchParams::default(), &annotate(ours)).await.unwrap();
    api.patch(&pods[1], &PatchParams::default(), &annotate(json!({ COST: "-5" }))).await.unwrap();
    let started = Started::on(&bed).await;
    started.scale(2, &[]).await.unwrap();
    bed.until("ours is gone, a person's stays", async || marked(&bed).await == [pods[1].clone()]).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_scaler_that_stops_lets_those_go_on_whom_it_had_asked() {
    let bed = Bed::start().await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    started.scale(1, &[&pods[0]]).await.unwrap();
    started.backend.shutdown(false).await;
    assert_eq!(started.drains.cancelled(), [pods[0].clone()]);
    assert_eq!(bed.replicas(TYPE).await, 2);
    bed.end().await;
}
