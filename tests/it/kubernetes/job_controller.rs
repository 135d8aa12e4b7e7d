//! Plays the controller of Jobs, as `pkg/controller/job` of Kubernetes does for Jobs with one pod and no retry, and the
//! garbage collector, which deletes the pods of deleted Jobs.

use std::collections::BTreeSet;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    bed::LABEL,
    controller::{Behaviour, Play, random},
};

impl Play {
    /// One round for all Jobs. `all` are the pods, listed before.
    pub(super) async fn attend_jobs(&self, pods: &Api<Pod>, all: &[Pod], behaviour: &Behaviour) -> kube::Result<()> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &self.namespace);
        let jobs = api.list(&ListParams::default().labels(LABEL)).await?.items;
        for job in jobs.iter().filter(|job| !is_finished(job) && !is_suspended(job)) {
            let own: Vec<&Pod> = all.iter().filter(|pod| owner(pod) == job.metadata.uid.as_deref()).collect();
            let phase = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            if own.is_empty() && behaviour.reconcile {
                pods.create(&PostParams::default(), &pod_of(job, behaviour.assign)).await?;
            } else if own.iter().any(|pod| phase(pod) == "Succeeded") {
                finish(&api, job, "Complete").await?;
            } else if own.iter().any(|pod| phase(pod) == "Failed" || pod.metadata.deletion_timestamp.is_some()) {
                // With `backoffLimit: 0` the first failure is the last one. A pod that is being deleted has failed.
                finish(&api, job, "Failed").await?;
            }
        }
        let uids: BTreeSet<&str> = jobs.iter().filter_map(|job| job.metadata.uid.as_deref()).collect();
        let of_jobs = all.iter().filter(|pod| pod.owner_references().iter().any(|owner| owner.kind == "Job"));
        for pod in of_jobs.filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            if owner(pod).is_some_and(|uid| !uids.contains(uid)) {
                pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
            }
        }
        Ok(())
    }
}

/// The uid of the controller of a pod.
fn owner(pod: &Pod) -> Option<&str> {
    pod.owner_references().iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

fn is_finished(job: &Job) -> bool {
    let conditions = job.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|one| one.status == "True" && ["Complete", "Failed"].contains(&one.type_.as_str()))
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
}

/// The pod of a Job: its template, with the labels by which a Job finds its pods.
fn pod_of(job: &Job, assign: bool) -> Pod {
    let (name, uid) = (job.name_any(), job.metadata.uid.clone().unwrap_or_default());
    let template = serde_json::to_value(&job.spec.as_ref().expect("a Job has a spec").template).expect("it is data");
    let mut labels = template["metadata"]["labels"].clone();
    for (key, value) in [("batch.kubernetes.io/job-name", &name), ("batch.kubernetes.io/controller-uid", &uid)] {
        labels[key] = json!(value);
    }
    let mut spec = template["spec"].clone();
    if assign {
        spec["nodeName"] = json!(format!("node-{}", random()));
    }
    let owner = job.controller_owner_ref(&()).expect("a stored object has a uid");
    let metadata = json!({ "name": format!("{name}-{}", random()), "labels": labels, "ownerReferences": [owner] });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("the API's type takes it")
}

async fn finish(api: &Api<Job>, job: &Job, condition: &str) -> kube::Result<()> {
    let status: Value = json!({ "conditions": [{ "type": condition, "status": "True" }] });
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(&job.name_any(), &PatchParams::default(), &patch).await.map(drop)
}
