//! Pods that do not start, as the scheduler, the kubelet or a controller reports them: shown with the reason, and left
//! alone.

use serde_json::{Value, json};
use swarm::{
    backend::{ErrorKind, Instance, Phase},
    config::TargetKind,
};

use super::{Started, TYPE, bed::Bed, controller::Behaviour};

/// A cluster whose new pods come no further than this status.
async fn stuck_at(status: Value) -> (Bed, Started) {
    let bed = Bed::start_fake(Behaviour { stuck: Some(status), ..Behaviour::default() }).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    started.scale(2, &[]).await.unwrap();
    (bed, started)
}

/// The status of a pod whose container waits.
fn waiting(reason: &str, message: &str) -> Value {
    json!({
        "phase": "Pending",
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False" }],
        "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "", "started": false,
            "state": { "waiting": { "reason": reason, "message": message } },
        }],
    })
}

async fn instances(started: &Started) -> Vec<Instance> {
    started.pool().await.unwrap().instances
}

/// Waits until two workers are blocked by this reason; then they are the pods that there were at first.
async fn until_blocked(bed: &Bed, started: &Started, reason: &str) {
    let blocked = |one: &Instance| one.phase == Phase::Blocked && one.reason.as_deref() == Some(reason);
    let mut seen = Vec::new();
    bed.until(&format!("blocked: {reason}"), async || {
        seen = instances(started).await;
        seen.len() == 2 && seen.iter().all(blocked)
    })
    .await;
    // What the scaler asks for next, with nobody named, changes nothing.
    started.scale(2, &[]).await.unwrap();
    assert_eq!(bed.fake().count("delete", "pods"), 0);
    assert_eq!(bed.pods(TYPE).await.len(), 2);
}

#[tokio::test]
async fn a_pod_without_a_node_says_what_the_scheduler_says() {
    let message = "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available";
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message });
    let (bed, started) = stuck_at(json!({ "phase": "Pending", "conditions": [condition] })).await;
    until_blocked(&bed, &started, &format!("Unschedulable: {message}")).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_pod_whose_container_can_not_be_made_says_what_the_kubelet_says() {
    for (reason, message) in [
        ("ErrImagePull", "pull access denied, repository does not exist"),
        ("ImagePullBackOff", "Back-off pulling image \"web:2\""),
        ("InvalidImageName", "Failed to apply default image tag \"WEB:2\": invalid reference format"),
        ("CreateContainerConfigError", "secret \"swarm\" not found"),
        ("CreateContainerError", "context deadline exceeded"),
    ] {
        let (bed, started) = stuck_at(waiting(reason, message)).await;
        until_blocked(&bed, &started, &format!("{reason}: {message}")).await;
        started.end(bed).await;
    }
}

#[tokio::test]
async fn a_container_that_is_being_made_is_starting_and_its_grace_has_not_begun() {
    let (bed, started) = stuck_at(waiting("ContainerCreating", "")).await;
    bed.until("two pods are seen", async || {
        let seen = instances(&started).await;
        seen.len() == 2 && seen.iter().all(|one| one.phase == Phase::Running && !one.id.as_str().contains('#'))
    })
    .await;
    let before = instances(&started).await[0].began_at;
    assert!(before.is_some());
    bed.until("the grace has not begun", async || instances(&started).await[0].began_at > before).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_crash_loop_says_how_the_worker_ended_last() {
    let mut status = waiting("CrashLoopBackOff", "back-off 40s restarting failed container=worker");
    status["phase"] = json!("Running");
    status["containerStatuses"][0]["restartCount"] = json!(5);
    status["containerStatuses"][0]["lastState"] = json!({ "terminated": {
        "exitCode": 137, "reason": "OOMKilled",
        "startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:04:06Z",
    } });
    let (bed, started) = stuck_at(status).await;
    until_blocked(&bed, &started, "CrashLoopBackOff: last exit code 137 (OOMKilled), 5 restarts").await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_quota_says_what_the_controller_says() {
    let message = "pods \"web\" is forbidden: exceeded quota: two, requested: pods=1, used: pods=2, limited: pods=2";
    let bed = Bed::start_fake(Behaviour { quota: Some((2, message)), ..Behaviour::default() }).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    started.scale(4, &[]).await.unwrap();
    let of = |pool: &[Instance], phase| pool.iter().filter(|one| one.phase == phase).count();
    let mut seen = Vec::new();
    bed.until("two are ready and two are blocked", async || {
        seen = instances(&started).await;
        (of(&seen, Phase::Ready), of(&seen, Phase::Blocked)) == (2, 2)
    })
    .await;
    let blocked: Vec<_> = seen.iter().filter(|one| one.phase == Phase::Blocked).collect();
    assert!(blocked.iter().all(|one| one.reason.as_deref() == Some(message)), "{blocked:#?}");
    bed.players().behave(|behaviour| behaviour.quota = None).await;
    bed.until("all are ready", async || of(&instances(&started).await, Phase::Ready) == 4).await;
    started.end(bed).await;
}

/// A ReplicaSet makes another pod immediately, up to 15 a second.
#[tokio::test]
async fn pods_that_nodes_reject_are_given_up_and_asked_for_again_after_a_pause() {
    let message = "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 3900, capacity: 4000";
    let rejected = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": message, "conditions": [] });
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let ready = started.grow(&bed, 1).await;
    bed.players().behave(|behaviour| behaviour.stuck = Some(rejected)).await;
    started.scale(3, &[]).await.unwrap();
    bed.until("the count is that of the pod that works", async || bed.replicas(TYPE).await == 1).await;
    assert_eq!(started.pool().await.unwrap().exits, [], "no worker has begun, so none has ended");
    assert_eq!(started.in_phase(Phase::Ready).await, ready);

    let refused = started.scale(3, &[]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Retryable);
    let expected = "pods of deployment `discord-worker-browser`, and more are requested only after a pause: OutOfcpu: ";
    assert!(refused.message.contains(expected) && refused.message.contains(message), "{refused}");
    assert_eq!(bed.replicas(TYPE).await, 1);
    bed.until("an event says why", async || {
        let notes = bed.notes("ScalingFailed").await;
        notes.iter().any(|note| note.contains("nodes reject the pods") && note.contains("OutOfcpu"))
    })
    .await;

    bed.players().behave(|behaviour| behaviour.stuck = None).await;
    bed.until("the pause is over", async || started.scale(3, &[]).await.is_ok()).await;
    bed.until("three are ready", async || started.in_phase(Phase::Ready).await.len() == 3).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_count_that_a_person_set_is_not_lowered_for_rejected_pods() {
    let rejected = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "no cpu", "conditions": [] });
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    bed.players().behave(|behaviour| behaviour.stuck = Some(rejected)).await;
    bed.scale_by_hand(TYPE, 2).await;
    let told = |one: &Instance| {
        let reason = one.reason.as_deref().unwrap_or_default();
        let pods = reason.strip_prefix("OutOfcpu: no cpu (").and_then(|rest| rest.split_once(' '));
        pods.is_some_and(|(pods, _)| pods.parse::<u32>().is_ok_and(|pods| pods > 20))
    };
    bed.until("far more than five were rejected", async || instances(&started).await.iter().any(told)).await;
    assert_eq!(bed.replicas(TYPE).await, 2);
    started.end(bed).await;
}

#[tokio::test]
async fn an_evicted_pod_is_an_exit_with_its_reason() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 1).await;
    let message = "The node was low on resource: memory.";
    let end = json!({ "exitCode": 137, "reason": "Error",
        "startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:04:06Z" });
    let status = json!({ "phase": "Failed", "reason": "Evicted", "message": message, "containerStatuses": [{
        "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "",
        "state": { "terminated": end },
    }] });
    bed.players().report(&pods[0], &status).await;
    bed.until("it is told", async || !started.pool().await.unwrap().exits.is_empty()).await;
    let exits = started.pool().await.unwrap().exits;
    assert_eq!(exits[0].detail, format!("Evicted: {message}; exit code 137"), "{exits:?}");
    started.end(bed).await;
}

#[tokio::test]
async fn a_pod_of_a_lost_node_is_blocked() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let started = Started::on(&bed).await;
    let pods = started.grow(&bed, 1).await;
    let message = "Node n1 which was running pod web is unresponsive";
    bed.players().report(&pods[0], &json!({ "reason": "NodeLost", "message": message })).await;
    let expected = format!("NodeLost: {message}");
    bed.until("it is seen", async || instances(&started).await[0].reason.as_ref() == Some(&expected)).await;
    assert_eq!(instances(&started).await[0].phase, Phase::Blocked);
    started.end(bed).await;
}

/// Without heartbeats nothing but readiness vouches for a worker.
#[tokio::test]
async fn without_heartbeats_a_pod_that_is_not_ready_does_not_count_as_one_that_works() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 1).await;
    let mut spec = super::spec(&bed, TargetKind::Deployment);
    spec.types.values_mut().for_each(|target| target.drains = false);
    let started = Started::of(&spec).await;
    bed.until("it is ready", async || started.in_phase(Phase::Ready).await.len() == 1).await;
    let pods = bed.pod_names(TYPE).await;
    let unready = json!({ "conditions": [{
        "type": "Ready", "status": "False", "reason": "ContainersNotReady",
        "message": "containers with unready status: [worker]",
    }] });
    bed.players().report(&pods[0], &unready).await;
    bed.until("it fails", async || instances(&started).await[0].phase == Phase::Failing).await;
    let seen = instances(&started).await;
    assert_eq!(seen[0].reason.as_deref(), Some("not ready: containers with unready status: [worker]"));
    started.end(bed).await;
}
