//! Plays the parts of a cluster that an API server alone lacks: the controllers of Deployments (with the ReplicaSet in
//! between left out), StatefulSets and [Jobs](super::job_controller), which start and remove pods by the documented
//! ranking, and a kubelet. Over the API, like the real ones.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Pod,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{bed::LABEL, kubelet::Processes};

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(25);

/// Pods that KWOK leaves alone (kwok-stages.yaml).
const PLAYED_BY_TEST: &str = "plays=worker";

/// Pods of the only revision there is, unless a test says otherwise.
const REVISION: &str = "6d4cf56db6";

/// How pods do.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    /// Whether new pods are assigned to a node, where they start and become ready.
    pub(super) assign: bool,
    /// Whether pods are started and removed at all.
    pub(super) reconcile: bool,
    /// What scheduler and kubelet write of new pods in place of starting them.
    pub(super) stuck: Option<Value>,
    /// The revision of pods that are made from now on.
    pub(super) revision: &'static str,
    /// Pods that a quota allows at most, and what the controller says of the others.
    pub(super) quota: Option<(usize, &'static str)>,
    /// Real workers stand for pods.
    pub(super) workers: Option<Processes>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { assign: true, reconcile: true, stuck: None, revision: REVISION, quota: None, workers: None }
    }
}

/// The running players; they end when dropped.
pub(super) struct Players {
    behaviour: Arc<Mutex<Behaviour>>,
    /// Held for each round.
    turn: Arc<tokio::sync::Mutex<()>>,
    client: Client,
    namespace: String,
    task: JoinHandle<()>,
}

impl Players {
    pub(super) fn start(client: Client, namespace: &str, behaviour: Behaviour) -> Self {
        Self::run(client, namespace, behaviour, true)
    }

    /// Kubelets alone, beside the controllers of a real cluster: for the pods that KWOK leaves to them.
    pub(super) fn kubelets(client: Client, namespace: &str, workers: Processes) -> Self {
        Self::run(client, namespace, Behaviour { workers: Some(workers), ..Behaviour::default() }, false)
    }

    fn run(client: Client, namespace: &str, behaviour: Behaviour, with_controllers: bool) -> Self {
        let (behaviour, turn) = (Arc::new(Mutex::new(behaviour)), Arc::<tokio::sync::Mutex<()>>::default());
        let rounds = turn.clone();
        let play = Play { client: client.clone(), namespace: namespace.to_owned(), behaviour: behaviour.clone() };
        let task = tokio::spawn(async move {
            loop {
                // A real controller tries again too: a conflict, or a server that is just being stopped.
                let round = rounds.lock().await;
                let _ = if with_controllers { play.round().await } else { play.kubelet_round().await };
                drop(round);
                tokio::time::sleep(ROUND).await;
            }
        });
        Self { behaviour, turn, client, namespace: namespace.to_owned(), task }
    }

    /// Changes how pods do from now on. A round under way still goes by what was before, so it ends first.
    pub(super) async fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let _round = self.turn.lock().await;
        change(&mut lock(&self.behaviour));
    }

    /// Makes a pod not ready, whatever it does.
    pub(super) async fn fail_readiness(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        patch_status(&pods, name, &status(false, 0)).await.expect("the pod is there");
    }

    /// Writes a part of a pod's status, whatever it does.
    pub(super) async fn report(&self, name: &str, status: &Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        patch_status(&pods, name, status).await.expect("the pod is there");
    }

    /// Ends a pod's worker with an exit code; it is started again.
    pub(super) async fn crash(&self, name: &str, exit_code: i32) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut status = status(true, 1);
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let end = json!({ "exitCode": exit_code, "reason": "Error", "startedAt": now, "finishedAt": now });
        status["containerStatuses"][0]["lastState"] = json!({ "terminated": end });
        patch_status(&pods, name, &status).await.expect("the pod is there");
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(behaviour: &Mutex<Behaviour>) -> MutexGuard<'_, Behaviour> {
    behaviour.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Play {
    pub(super) client: Client,
    pub(super) namespace: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Play {
    async fn round(&self) -> kube::Result<()> {
        let behaviour = lock(&self.behaviour).clone();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let deployments_api = deployments.clone();
        let deployments = deployments.list(&ListParams::default().labels(LABEL)).await?;
        let stateful_sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let stateful_sets = stateful_sets.list(&ListParams::default().labels(LABEL)).await?;
        // Pods last: whoever sees a lowered count sees the marks that were set before it.
        let all = pods.list(&ListParams::default().labels(LABEL)).await?.items;
        if behaviour.reconcile {
            for object in deployments {
                let replicas = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let refused =
                    self.reconcile(&pods, &object.name_any(), &object.labels()[LABEL], replicas, &all, false).await?;
                self.report(&deployments_api, &object, refused).await?;
            }
            for object in stateful_sets {
                let replicas = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                self.reconcile(&pods, &object.name_any(), &object.labels()[LABEL], replicas, &all, true).await?;
            }
        }
        self.attend_jobs(&pods, &all, &behaviour).await?;
        for pod in &all {
            self.attend(&pods, pod, &behaviour).await?;
        }
        Ok(())
    }

    async fn kubelet_round(&self) -> kube::Result<()> {
        let behaviour = lock(&self.behaviour).clone();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        for pod in pods.list(&ListParams::default().labels(PLAYED_BY_TEST)).await? {
            self.attend(&pods, &pod, &behaviour).await?;
        }
        Ok(())
    }

    /// Writes the condition that a Deployment has while its ReplicaSet can't make pods.
    async fn report(&self, api: &Api<Deployment>, object: &Deployment, refused: Option<&str>) -> kube::Result<()> {
        let conditions = object.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        let told = conditions.filter(|one| one.type_ == "ReplicaFailure").find_map(|one| one.message.as_deref());
        if told == refused {
            return Ok(());
        }
        let condition = refused.map(|message| {
            json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message })
        });
        let status = json!({ "conditions": condition.into_iter().collect::<Vec<_>>() });
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await.map(drop)
    }

    /// Starts what is missing, removes what is too much. Returns why not all of it, if a quota is in the way.
    async fn reconcile(
        &self,
        pods: &Api<Pod>,
        target: &str,
        worker_type: &str,
        replicas: i32,
        all: &[Pod],
        ordered: bool,
    ) -> kube::Result<Option<&'static str>> {
        let replicas = usize::try_from(replicas).unwrap_or(0);
        let present: Vec<&Pod> = all.iter().filter(|pod| is_owned(pod, target, ordered)).collect();
        let mut active: Vec<&Pod> = present
            .iter()
            .copied()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && !has_failed(pod))
            .collect();
        if active.len() > replicas {
            if ordered {
                active.sort_by_key(|pod| Reverse(ordinal(pod)));
            } else {
                let crowds = crowds(&active);
                active.sort_by_key(|pod| rank(pod, &crowds));
            }
            for pod in &active[..active.len() - replicas] {
                pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
            }
        }
        let Behaviour { assign, revision, quota, .. } = lock(&self.behaviour).clone();
        let names: Vec<String> = if ordered {
            let taken = |name: &String| present.iter().any(|pod| pod.name_any() == *name);
            (0..replicas).map(|number| format!("{target}-{number}")).filter(|name| !taken(name)).collect()
        } else {
            let missing = active.len()..replicas;
            missing.map(|_| format!("{target}-{revision}-{}", random())).collect()
        };
        let mut refused = None;
        for (number, name) in names.into_iter().enumerate() {
            if let Some((_, message)) = quota.filter(|(most, _)| active.len() + number >= *most) {
                refused = Some(message);
                break;
            }
            let labels = json!({ LABEL: worker_type, "pod-template-hash": revision });
            let mut spec = json!({ "containers": [{ "name": "worker", "image": "registry.k8s.io/pause:3.10" }] });
            if assign {
                spec["nodeName"] = json!(format!("node-{}", random()));
            }
            let owner = owner_of(target, revision, ordered);
            let metadata = json!({ "name": name, "labels": labels, "ownerReferences": [owner] });
            let pod = json!({ "metadata": metadata, "spec": spec });
            let pod: Pod = serde_json::from_value(pod).expect("the API's type takes it");
            pods.create(&PostParams::default(), &pod).await?;
        }
        Ok(refused)
    }

    /// What a kubelet does with a pod.
    async fn attend(&self, pods: &Api<Pod>, pod: &Pod, behaviour: &Behaviour) -> kube::Result<()> {
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            let ended = behaviour.workers.as_ref().is_none_or(|workers| workers.has_left(&name));
            if ended {
                let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                pods.delete(&name, &at_once).await?;
            }
            return Ok(());
        }
        let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let pending =
            pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending");
        if let Some(stuck) = &behaviour.stuck {
            if is_new(pod) {
                patch_status(pods, &name, stuck).await?;
            }
            return Ok(());
        }
        if assigned && pending {
            if let Some(workers) = &behaviour.workers {
                workers.start(&name, &worker_id(pod), &pod.labels()[LABEL]);
            }
            patch_status(pods, &name, &status(true, 0)).await?;
        } else if is_running(pod) && pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("Never")
        {
            let exit_code = behaviour.workers.as_ref().and_then(|workers| workers.exit_code(&name));
            if let Some(exit_code) = exit_code {
                patch_status(pods, &name, &ended(exit_code)).await?;
            }
        }
        Ok(())
    }
}

/// Whether a pod belongs to a target.
fn is_owned(pod: &Pod, target: &str, ordered: bool) -> bool {
    let owner = pod.owner_references().first().map_or("", |owner| owner.name.as_str());
    if ordered { owner == target } else { owner.rsplit_once('-').is_some_and(|(name, _)| name == target) }
}

/// The reference to the controller of a pod: a StatefulSet, or the ReplicaSet of a Deployment.
pub(super) fn owner_of(target: &str, revision: &str, ordered: bool) -> Value {
    let (kind, name) =
        if ordered { ("StatefulSet", target.to_owned()) } else { ("ReplicaSet", format!("{target}-{revision}")) };
    json!({ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("uid-of-{name}"), "controller": true })
}

/// Whether nobody has written anything of it.
fn is_new(pod: &Pod) -> bool {
    pod.status.as_ref().is_none_or(|status| status.conditions.is_none() && status.container_statuses.is_none())
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// The worker id that the pod's container is given: a literal, or the pod's name.
fn worker_id(pod: &Pod) -> String {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let mut variables = container.into_iter().flat_map(|container| container.env.iter().flatten());
    let given = variables.find(|variable| variable.name == "SWARM_WORKER_ID").and_then(|found| found.value.clone());
    given.unwrap_or_else(|| pod.name_any())
}

/// The status of a pod whose container has ended for good.
pub(super) fn ended(exit_code: i32) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let end = json!({ "exitCode": exit_code, "reason": reason, "startedAt": now, "finishedAt": now });
    json!({
        "phase": phase,
        "conditions": [{ "type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": now }],
        "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 0, "image": "pause", "imageID": "pause",
            "state": { "terminated": end },
        }],
    })
}

fn has_failed(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed")
}

async fn patch_status(pods: &Api<Pod>, name: &str, status: &Value) -> kube::Result<()> {
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await.map(drop)
}

fn status(ready: bool, restarts: u32) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let word = if ready { "True" } else { "False" };
    json!({
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": word, "lastTransitionTime": now }],
        "containerStatuses": [{
            "name": "worker", "ready": ready, "restartCount": restarts, "image": "pause", "imageID": "pause",
            "state": { "running": { "startedAt": now } },
        }],
    })
}

/// Pods on each node.
fn crowds(active: &[&Pod]) -> HashMap<String, usize> {
    let mut crowds = HashMap::new();
    for node in active.iter().filter_map(|pod| node(pod)) {
        *crowds.entry(node).or_default() += 1;
    }
    crowds
}

/// The documented order: unassigned, pending, not ready, deletion cost, crowded node, ready more recently, more
/// restarts, newer.
fn rank(pod: &Pod, crowds: &HashMap<String, usize>) -> impl Ord + use<> {
    let status = pod.status.as_ref();
    let phase = match status.and_then(|status| status.phase.as_deref()) {
        None | Some("Pending") => 0,
        Some("Unknown") => 1,
        Some(_) => 2,
    };
    let ready = status
        .and_then(|status| status.conditions.iter().flatten().find(|one| one.type_ == "Ready" && one.status == "True"));
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let crowd = node(pod).map_or(0, |node| crowds[&node]);
    let ready_since = ready.and_then(|ready| ready.last_transition_time.as_ref().map(|time| time.0));
    let restarts: i32 =
        status.iter().flat_map(|status| status.container_statuses.iter().flatten()).map(|one| one.restart_count).sum();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        (node(pod).is_some(), phase, ready.is_some()),
        cost,
        Reverse(crowd),
        Reverse(ready_since),
        Reverse(restarts),
        Reverse(created),
    )
}

fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

fn ordinal(pod: &Pod) -> Option<u64> {
    pod.name_any().rsplit_once('-')?.1.parse().ok()
}

pub(super) fn random() -> String {
    let text = uuid::Uuid::now_v7().simple().to_string();
    text[text.len() - 5..].to_owned()
}
