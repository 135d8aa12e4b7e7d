//! What an API server can do to its clients. On the fake, which does it when told.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use swarm::{
    backend::{ErrorKind, Phase},
    config::TargetKind,
};

use super::{
    Started, TYPE,
    bed::{Bed, name_of},
    controller::Behaviour,
};
use crate::fake_kubernetes::Fault;

const SCALE: &str = "deployments/scale";

async fn bed() -> Bed {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    bed
}

fn status(code: u16, message: &'static str) -> Fault {
    Fault::Status { code, message, retry_after: None }
}

#[tokio::test]
async fn two_watches_serve_everything_and_looking_costs_no_request() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    started.grow(&bed, 2).await;
    let before = bed.fake().requests().len();
    for _ in 0..50 {
        started.pool().await.unwrap();
    }
    assert_eq!(bed.fake().requests().len(), before);
    let mut watched: Vec<String> =
        bed.fake().requests().into_iter().filter(|one| one.verb == "watch").map(|one| one.resource).collect();
    watched.sort();
    assert_eq!(watched, ["deployments", "pods"]);
    started.end(bed).await;
}

#[tokio::test]
async fn a_conflict_over_the_status_alone_is_written_again() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    bed.fake().disturb("patch", SCALE, status(409, "the object has been modified"));
    started.scale(2, &[]).await.unwrap();
    assert_eq!(bed.replicas(TYPE).await, 2);
    assert_eq!((bed.fake().count("patch", SCALE), bed.fake().count("get", SCALE)), (2, 1));
    started.end(bed).await;
}

#[tokio::test]
async fn a_conflict_over_the_count_needs_a_new_decision() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    // The scaler does not hear of what the person does until its write is refused.
    bed.fake().hold_watches();
    bed.scale_by_hand(TYPE, 5).await;
    let error = started.scale(2, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable);
    assert!(error.message.contains("changed by somebody else meanwhile"), "{}", error.message);
    assert_eq!(bed.replicas(TYPE).await, 5, "what the person wanted stands");
    let manual = started.pool().await.unwrap().manual;
    assert_eq!((manual.len(), manual[0].from, manual[0].to), (1, 0, 5), "{manual:?}");
    bed.fake().release_watches();
    bed.until("all five count", async || started.in_phase(Phase::Ready).await.len() == 5).await;
    assert_eq!(started.pool().await.unwrap().manual.len(), 1, "one change is told once");
    started.end(bed).await;
}

#[tokio::test]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    let busy = Fault::Status { code: 429, message: "too many requests", retry_after: Some(2) };
    bed.fake().disturb("patch", SCALE, busy);
    let mut arrivals = bed.fake().arrivals();
    let first = started.scale(2, &[]).await.unwrap_err();
    assert_eq!(first.kind, ErrorKind::Retryable);
    let second = started.scale(2, &[]).await.unwrap_err();
    assert!(second.message.contains("busy and asks to come back in"), "{}", second.message);
    assert_eq!(bed.fake().count("patch", SCALE), 1, "the second one was not sent");
    bed.until("it is scaled", async || started.scale(2, &[]).await.is_ok()).await;
    let mut patched = Vec::new();
    while let Ok((at, request)) = arrivals.try_recv() {
        patched.extend((request.resource == SCALE).then_some(at));
    }
    assert_eq!(patched.len(), 2);
    let waited = patched[1].duration_since(patched[0]).unwrap();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    started.end(bed).await;
}

#[tokio::test]
async fn a_missing_right_is_named_with_its_cure() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    bed.fake().deny("patch", SCALE);
    let error = started.scale(2, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    let rule = "{apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: [\"patch\"]}";
    assert!(error.message.contains("no right to `patch` `deployments/scale` in namespace `jobs`"), "{}", error.message);
    assert!(error.message.contains(rule), "{}", error.message);
    bed.until("an event tells of it", async || bed.notes("ScalingFailed").await.len() == 1).await;
    bed.fake().allow_all();
    started.scale(2, &[]).await.unwrap();
    started.end(bed).await;
}

#[tokio::test]
async fn at_the_start_all_missing_rights_are_named_at_once() {
    let bed = bed().await;
    bed.fake().deny("watch", "pods");
    bed.fake().deny("patch", SCALE);
    let Err(error) = Started::try_on(&bed, TargetKind::Deployment).await else { panic!("it has no rights") };
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("to `patch` `deployments/scale`, `watch` `pods`;"), "{}", error.message);
    assert_eq!(error.message.matches("apiGroups").count(), 2, "{}", error.message);
}

#[tokio::test]
async fn watches_that_are_cut_go_on_where_they_were() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    started.grow(&bed, 1).await;
    bed.fake().cut_watches();
    bed.scale_by_hand(TYPE, 3).await;
    bed.until("it is seen", async || {
        started
            .pool()
            .await
            .is_ok_and(|pool| pool.instances.iter().filter(|one| one.phase == Phase::Ready).count() == 3)
    })
    .await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_history_that_is_gone_is_listed_anew() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    let lists = bed.fake().count("list", "pods");
    bed.fake().forget_history();
    bed.until("they list again", async || bed.fake().count("list", "pods") > lists).await;
    bed.scale_by_hand(TYPE, 3).await;
    let grown = bed.until_pods(TYPE, 3).await;
    assert!(pods.iter().all(|pod| grown.contains(pod)));
    bed.until("all three are seen ready", async || started.in_phase(Phase::Ready).await.len() == 3).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_pool_that_can_not_be_read_is_not_empty() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    started.grow(&bed, 2).await;
    bed.fake().deny("list", "pods");
    bed.fake().deny("watch", "pods");
    bed.fake().cut_watches();
    // At first the reason is the connection that was cut.
    let why = "` `pods` in namespace `jobs`; add this rule";
    let told = async || started.pool().await.is_err_and(|error| error.message.contains(why));
    bed.until("it is known that nothing is known, and why", told).await;
    started.scale(3, &[]).await.unwrap_err();
    assert_eq!(bed.replicas(TYPE).await, 2, "nothing is scaled blindly");
    bed.fake().allow_all();
    bed.until("it is known again", async || started.pool().await.is_ok()).await;
    assert_eq!(started.live().await, 2);
    started.end(bed).await;
}

#[tokio::test]
async fn slow_and_broken_answers_lose_nothing() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    bed.fake().disturb("patch", SCALE, Fault::Slow(Duration::from_millis(300)));
    started.scale(1, &[]).await.unwrap();
    bed.fake().disturb("patch", SCALE, Fault::Cut);
    let error = started.scale(2, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable);
    started.scale(2, &[]).await.unwrap();
    bed.until_pods(TYPE, 2).await;
    assert!(started.pool().await.unwrap().manual.is_empty());
    started.end(bed).await;
}

#[tokio::test]
async fn marks_are_taken_back_when_the_count_can_not_be_lowered() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 2).await;
    bed.fake().deny("patch", SCALE);
    started.scale(1, &[&pods[0]]).await.unwrap();
    started.drains.finish(&pods[0]);
    bed.until("it is marked, refused, and unmarked", async || bed.fake().count("patch", "pods") >= 2).await;
    bed.until("nobody is marked", async || {
        bed.pods(TYPE).await.iter().all(|pod| pod.metadata.annotations.as_ref().is_none_or(BTreeMap::is_empty))
    })
    .await;
    assert_eq!(bed.pod_names(TYPE).await, pods);
    bed.fake().allow_all();
    assert_eq!(bed.until_pods(TYPE, 1).await, [pods[1].clone()], "it is tried again");
    started.end(bed).await;
}

#[tokio::test]
async fn a_scaled_object_of_keda_is_a_reason_to_refuse() {
    let bed = bed().await;
    bed.fake().install_keda();
    bed.fake().put(
        "keda.sh",
        "scaledobjects",
        &json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": { "name": "by-queue" }, "spec": { "scaleTargetRef": { "name": name_of(TYPE) } },
        }),
    );
    let started = Started::on(&bed).await;
    let error = started.scale(3, &[]).await.unwrap_err();
    assert!(error.message.contains("scaled by the KEDA ScaledObject `by-queue` too"), "{}", error.message);
    assert_eq!(bed.fake().count("patch", SCALE), 0);
    started.end(bed).await;
}

#[tokio::test]
async fn a_target_without_its_label_is_gone() {
    let bed = bed().await;
    let started = Started::on(&bed).await;
    let unlabelled = Patch::Merge(json!({ "metadata": { "labels": { super::bed::LABEL: null } } }));
    bed.api::<Deployment>().patch(&name_of(TYPE), &PatchParams::default(), &unlabelled).await.unwrap();
    bed.until("it is missed", async || started.pool().await.is_err()).await;
    started.end(bed).await;
}
