//! Reads why the worker of a pod does not run, in the words of the scheduler and the kubelet. Pure.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use super::units::{count, timestamp};
use crate::model::Timestamp;

/// Waiting reasons of a container that starts as it should.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The reason that the node controller gives pods of a node that no longer reports.
const NODE_LOST: &str = "NodeLost";

/// Returns why the pod's worker does not start, as the platform states it. `None` if it starts or runs as it should,
/// and for a pod that is over.
pub(super) fn blocked(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    if status.reason.as_deref() == Some(NODE_LOST) {
        return Some(words(NODE_LOST, status.message.as_deref()));
    }
    unscheduled(status).or_else(|| containers(status).find_map(waits))
}

/// Returns why the pod is not ready, as the kubelet states it.
pub(super) fn unready(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let mut refused = conditions.filter(|one| one.type_ == "Ready" && one.status == "False");
    let message = refused.find_map(|one| one.message.as_deref().filter(|message| !message.is_empty()))?;
    Some(format!("not ready: {message}"))
}

/// Returns why a node refused to run the pod: it failed before any of its containers had started.
pub(super) fn rejected(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"))?;
    let reason = status.reason.as_deref().filter(|reason| *reason != "Evicted")?;
    containers(status).all(|one| !has_started(one)).then(|| words(reason, status.message.as_deref()))
}

/// Returns when the container that runs now was started: the first in the pod's order. Not before it runs.
pub(super) fn running_since(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_deref().unwrap_or_default();
    let running = containers.iter().filter_map(|one| one.state.as_ref()?.running.as_ref());
    running.filter_map(|running| running.started_at.as_ref().map(timestamp)).min()
}

/// Returns whether the container runs or has run.
pub(super) fn has_started(container: &ContainerStatus) -> bool {
    let ran = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    container.restart_count > 0 || container.state.as_ref().is_some_and(ran)
}

/// Returns how a container ended: ``exit code 137 (OOMKilled)``.
pub(super) fn exit_words(end: &ContainerStateTerminated) -> String {
    match end.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed")) {
        Some(reason) => format!("exit code {} ({reason})", end.exit_code),
        None => format!("exit code {}", end.exit_code),
    }
}

/// Returns a reason with its message: `Evicted: The node was low on resource: memory.`
pub(super) fn words(reason: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.iter().flatten();
    let mut refused = conditions.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
    refused.next().map(|one| words(one.reason.as_deref().unwrap_or("Unschedulable"), one.message.as_deref()))
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !STARTING.contains(reason))?;
    if reason != "CrashLoopBackOff" {
        return Some(words(reason, waiting.message.as_deref()));
    }
    // Its message repeats the names of container and pod; how the worker ended says more.
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = last.map_or_else(String::new, |end| format!(": last {}", exit_words(end)));
    Some(format!("{reason}{ended}, {} restarts", count(container.restart_count)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        let pod = json!({ "metadata": { "name": "web-1" }, "status": status });
        serde_json::from_value(pod).expect("the API's type takes it")
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({
            "phase": "Pending",
            "containerStatuses": [{
                "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "",
                "state": { "waiting": { "reason": reason, "message": message } },
            }],
        })
    }

    #[test]
    fn a_pod_that_starts_is_not_blocked() {
        for status in
            [json!({}), json!({ "phase": "Pending" }), waiting("ContainerCreating", ""), waiting("PodInitializing", "")]
        {
            assert_eq!(blocked(&pod(&status)), None, "{status}");
        }
    }

    #[test]
    fn the_scheduler_and_the_kubelet_say_what_blocks_a_pod() {
        let refused = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient cpu." });
        let status = json!({ "phase": "Pending", "conditions": [refused] });
        let said = "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.";
        assert_eq!(blocked(&pod(&status)).as_deref(), Some(said));
        for reason in [
            "ErrImagePull",
            "ImagePullBackOff",
            "CreateContainerError",
            "CreateContainerConfigError",
            "InvalidImageName",
        ] {
            let found = blocked(&pod(&waiting(reason, "it says why")));
            assert_eq!(found, Some(format!("{reason}: it says why")));
        }
        let lost = json!({ "phase": "Running", "reason": "NodeLost", "message": "Node n1 is unresponsive" });
        assert_eq!(blocked(&pod(&lost)).as_deref(), Some("NodeLost: Node n1 is unresponsive"));
    }

    #[test]
    fn a_crash_loop_names_its_last_exit() {
        let end = |reason: &str, code: i32| {
            json!({ "phase": "Running", "containerStatuses": [{
                "name": "worker", "ready": false, "restartCount": 4, "image": "web:2", "imageID": "",
                "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container" } },
                "lastState": { "terminated": { "exitCode": code, "reason": reason } },
            }] })
        };
        let killed = blocked(&pod(&end("OOMKilled", 137)));
        assert_eq!(killed.as_deref(), Some("CrashLoopBackOff: last exit code 137 (OOMKilled), 4 restarts"));
        let failed = blocked(&pod(&end("Error", 1)));
        assert_eq!(failed.as_deref(), Some("CrashLoopBackOff: last exit code 1, 4 restarts"));
    }

    #[test]
    fn a_pod_that_a_node_refuses_is_told_from_one_that_ran() {
        let status = |reason: &str| json!({ "phase": "Failed", "reason": reason, "message": "Pod was rejected" });
        assert_eq!(rejected(&pod(&status("OutOfcpu"))).as_deref(), Some("OutOfcpu: Pod was rejected"));
        assert!(rejected(&pod(&status("UnexpectedAdmissionError"))).is_some());
        assert_eq!(rejected(&pod(&status("Evicted"))), None, "it may have run");
        let mut ran = status("DeadlineExceeded");
        ran["containerStatuses"] = json!([{
            "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "",
            "state": { "terminated": { "exitCode": 137 } },
        }]);
        assert_eq!(rejected(&pod(&ran)), None);
    }

    #[test]
    fn the_grace_runs_from_the_start_of_the_container() {
        let status = json!({ "phase": "Running", "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "",
            "state": { "running": { "startedAt": "2026-01-02T03:04:05Z" } },
        }] });
        assert_eq!(running_since(&pod(&status)), Some(Timestamp(1_767_323_045_000)));
        assert_eq!(running_since(&pod(&waiting("ErrImagePull", ""))), None);
    }
}
