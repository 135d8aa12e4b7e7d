//! The fields of targets and pods that scaling needs, extracted from the API's objects. Pure.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::CronJob,
        core::v1::{ContainerStatus, Pod as ApiPod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    batch_job::CRON_JOB_LABEL,
    pod_status::{self, exit_words, has_started, words},
    strategy::Rollout,
    units::{count, timestamp},
};
use crate::{
    config::TargetKind,
    model::{Timestamp, WorkerId},
};

/// Tells the controller which pods to remove first.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The deletion cost that a pod had before ours; empty if it had none.
pub(super) const DELETION_COST_BEFORE: &str = "swarm/pod-deletion-cost-before";

/// Deletion cost of a pod that is to be removed first: the lowest possible.
pub(super) const MARK: i32 = i32::MIN;

/// Labels by which controllers tell pods of one revision from those of another.
const REVISION_LABELS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];

/// A Deployment, a StatefulSet, or a CronJob, which has no replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) uid: String,
    pub(super) resource_version: String,
    /// `spec.replicas`: the desired count.
    pub(super) replicas: u32,
    /// Who set `spec.replicas` last, if the server says.
    pub(super) scaled_by: Option<String>,
    /// Why its controller can't create pods, if it says so.
    pub(super) failure: Option<String>,
    /// Number of a StatefulSet's first pod.
    pub(super) first_ordinal: u64,
    /// Strategy of a Deployment's rollouts.
    pub(super) rollout: Rollout,
}

/// How far a pod is, in the order in which controllers give pods up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PodPhase {
    #[default]
    Pending,
    Unknown,
    Running,
    /// Succeeded or failed: replaced by its controller, worth nothing.
    Finished,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as the API reports them")]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) created_at: Timestamp,
    pub(super) revision: Option<String>,
    pub(super) node: Option<String>,
    pub(super) phase: PodPhase,
    pub(super) ready: bool,
    pub(super) ready_since: Option<Timestamp>,
    /// Of all its containers.
    pub(super) restarts: u32,
    pub(super) deletion_cost: i32,
    /// Whether the deletion cost is ours.
    pub(super) marked: bool,
    /// The deletion cost that somebody else wrote, also while ours is in its place.
    pub(super) foreign_cost: Option<String>,
    /// The controller that owns it: its kind and name.
    pub(super) owner: Option<(String, String)>,
    /// The CronJob of whose template swarm made the pod's Job.
    pub(super) cron_job: Option<String>,
    /// It is being deleted.
    pub(super) terminating: bool,
    /// Whether any of its containers runs or has run: only then may it hold a job.
    pub(super) started: bool,
    /// When the container that runs now was started.
    pub(super) running_since: Option<Timestamp>,
    /// Why its worker does not start, in the platform's words.
    pub(super) blocked: Option<String>,
    /// Why it is not ready, though its containers run.
    pub(super) unready: Option<String>,
    /// Why its node refused to run it, in the kubelet's words.
    pub(super) rejected: Option<String>,
    /// How its worker ended last.
    pub(super) last_end: Option<End>,
}

/// How a worker in a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) started_at: Timestamp,
    pub(super) at: Timestamp,
    pub(super) success: bool,
    pub(super) detail: String,
}

impl Pod {
    /// Whether it counts for its controller: neither leaving nor finished.
    pub(super) fn is_active(&self) -> bool {
        !self.terminating && self.phase != PodPhase::Finished
    }

    /// Whether it belongs to this target. The ReplicaSets of a Deployment have its name and a hash.
    pub(super) fn belongs_to(&self, kind: TargetKind, name: &str) -> bool {
        let Some((owner_kind, owner)) = &self.owner else { return false };
        match kind {
            TargetKind::StatefulSet => owner_kind == "StatefulSet" && owner == name,
            TargetKind::Deployment => {
                owner_kind == "ReplicaSet" && owner.rsplit_once('-').is_some_and(|(deployment, _)| deployment == name)
            }
            TargetKind::Job => owner_kind == "Job" && self.cron_job.as_deref() == Some(name),
        }
    }

    /// The id of its worker: the name of the pod, or that of its Job if swarm made that.
    pub(super) fn worker_id(&self) -> WorkerId {
        match &self.owner {
            Some((_, job)) if self.cron_job.is_some() => WorkerId::new(job.as_str()),
            _ => WorkerId::new(self.name.as_str()),
        }
    }

    /// The number at the end of a StatefulSet's pod name.
    pub(super) fn ordinal(&self) -> Option<u64> {
        self.name.rsplit_once('-')?.1.parse().ok()
    }
}

impl From<&Deployment> for Target {
    fn from(object: &Deployment) -> Self {
        let conditions = object.status.iter().filter_map(|status| status.conditions.as_deref()).flatten();
        let mut failed = conditions.filter(|one| one.type_ == "ReplicaFailure" && one.status == "True");
        let failure = failed.find_map(|one| one.message.clone());
        let replicas = object.spec.as_ref().and_then(|spec| spec.replicas);
        Self { failure, rollout: Rollout::of(object), ..target(&object.metadata, replicas) }
    }
}

impl From<&StatefulSet> for Target {
    fn from(object: &StatefulSet) -> Self {
        let spec = object.spec.as_ref();
        let first = spec.and_then(|spec| spec.ordinals.as_ref()?.start).map_or(0, count);
        Self { first_ordinal: first.into(), ..target(&object.metadata, spec.and_then(|spec| spec.replicas)) }
    }
}

impl From<&CronJob> for Target {
    fn from(object: &CronJob) -> Self {
        target(&object.metadata, Some(0))
    }
}

fn target(metadata: &ObjectMeta, replicas: Option<i32>) -> Target {
    Target {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        // The API's default is 1.
        replicas: count(replicas.unwrap_or(1)),
        scaled_by: owner_of_replicas(metadata),
        failure: None,
        first_ordinal: 0,
        rollout: Rollout::default(),
    }
}

/// The field manager that owns `spec.replicas`.
fn owner_of_replicas(metadata: &ObjectMeta) -> Option<String> {
    let entries = metadata.managed_fields.iter().flatten();
    let owns = entries.filter(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    });
    owns.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager.clone())
}

impl From<&ApiPod> for Pod {
    fn from(object: &ApiPod) -> Self {
        let metadata = &object.metadata;
        let status = object.status.as_ref();
        let ready = status.and_then(|status| {
            status.conditions.iter().flatten().find(|one| one.type_ == "Ready" && one.status == "True")
        });
        let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let label = |name: &&str| metadata.labels.as_ref()?.get(*name).cloned();
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name);
        let (cost, before) = (annotation(DELETION_COST), annotation(DELETION_COST_BEFORE));
        let marked = before.is_some() && cost.is_some_and(|cost| cost.parse() == Ok(MARK));
        let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().map(timestamp).unwrap_or_default(),
            revision: REVISION_LABELS.iter().find_map(label),
            node: object.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty()),
            phase: phase(status.and_then(|status| status.phase.as_deref())),
            ready: ready.is_some(),
            ready_since: ready.and_then(|ready| ready.last_transition_time.as_ref().map(timestamp)),
            restarts: containers.iter().map(|one| count(one.restart_count)).sum(),
            deletion_cost: cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
            marked,
            foreign_cost: if marked { before.filter(|before| !before.is_empty()) } else { cost }.cloned(),
            owner: controller.map(|owner| (owner.kind.clone(), owner.name.clone())),
            cron_job: label(&CRON_JOB_LABEL),
            terminating: metadata.deletion_timestamp.is_some(),
            started: ready.is_some() || containers.iter().any(has_started),
            running_since: pod_status::running_since(object),
            blocked: pod_status::blocked(object),
            unready: pod_status::unready(object),
            rejected: pod_status::rejected(object),
            last_end: last_end(object, containers),
        }
    }
}

fn phase(name: Option<&str>) -> PodPhase {
    match name {
        None | Some("Pending") => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Succeeded" | "Failed") => PodPhase::Finished,
        Some(_) => PodPhase::Unknown,
    }
}

/// The last end of any of its containers; or of the whole pod, as when it was evicted. A pod that its node refused has
/// none.
fn last_end(object: &ApiPod, containers: &[ContainerStatus]) -> Option<End> {
    let ends = containers.iter().flat_map(|one| [one.last_state.as_ref(), one.state.as_ref()]).flatten();
    let ended = ends.filter_map(|state| state.terminated.as_ref()).filter_map(|end| {
        let at = timestamp(end.finished_at.as_ref()?);
        let started_at = end.started_at.as_ref().map_or(at, timestamp);
        Some(End { started_at, at, success: end.exit_code == 0, detail: exit_words(end) })
    });
    let failed = object.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"));
    let said = failed.and_then(|status| Some(words(status.reason.as_deref()?, status.message.as_deref())));
    if let Some(end) = ended.max_by_key(|end| end.at) {
        let detail = said.map_or_else(|| end.detail.clone(), |said| format!("{said}; {}", end.detail));
        return Some(End { detail, ..end });
    }
    let started_at = failed?.start_time.as_ref().map(timestamp).unwrap_or_default();
    if pod_status::rejected(object).is_some() {
        // No worker has begun, so none has ended.
        return None;
    }
    let detail = format!("pod failed: {}", said.as_deref().unwrap_or("no reason given"));
    Some(End { started_at, at: started_at, success: false, detail })
}
