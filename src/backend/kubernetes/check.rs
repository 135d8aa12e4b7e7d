//! Whether the backend could do its work in the cluster: reach it, with which rights, and on which targets. Changes
//! nothing, and watches nothing: the backend itself is not started.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::CronJob,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;

use super::{
    batch_job,
    cluster::Cluster,
    conflicts::Conflicts,
    lease::KubernetesLease,
    rights,
    spec::{KubernetesSpec, TargetSpec},
    store::Watched,
};
use crate::{
    backend::{BackendError, Check, CheckOutcome, LeaseObject},
    config::TargetKind,
    model::WorkerType,
};

/// The labelled objects of one kind: what their label says, by name.
type Labelled = BTreeMap<String, String>;

/// Tries what the backend does with each of its targets.
pub async fn check(spec: &KubernetesSpec) -> Vec<Check> {
    let cluster = match Cluster::configure(&spec.cluster).await {
        Ok(cluster) => cluster,
        Err(error) => return vec![Check::new("kubernetes", Err(error))],
    };
    let kinds: BTreeSet<_> = spec.types.values().map(|target| target.kind).collect();
    let lease = spec.cluster.lease.as_deref();
    let granted = rights::check(&cluster, &kinds, lease).await;
    let all = rights::needed(&kinds, lease.is_some()).len();
    let granted = granted.map(|()| format!("all {all} are granted"));
    let mut checks = vec![Check::new(format!("kubernetes: rights in namespace `{}`", cluster.namespace), granted)];
    if !checks[0].is_fine() {
        return checks;
    }
    if let Some(name) = lease {
        checks.push(Check { what: format!("lease `{name}`"), outcome: leader(&cluster, name).await });
    }
    let conflicts = Conflicts::new();
    conflicts.look(&cluster).await;
    let mut listed = BTreeMap::new();
    for kind in kinds {
        listed.insert(kind, labelled(&cluster, kind, &spec.cluster.label).await);
    }
    for (worker_type, target) in &spec.types {
        let found = target_is_ready(&cluster, &conflicts, worker_type, target, &listed[&target.kind]).await;
        checks.push(Check::new(format!("worker type `{worker_type}`: {}", target.shown()), found));
    }
    checks
}

/// Whom the Lease names. Whether that one still lives can't be told by one look.
async fn leader(cluster: &Cluster, name: &str) -> CheckOutcome {
    match KubernetesLease::on(cluster.clone(), name).read().await {
        Ok(Some(lease)) if !lease.holder.is_empty() => {
            CheckOutcome::Fine(format!("names {} as the leader", lease.holder))
        }
        Ok(_) => CheckOutcome::Doubtful("nobody leads: nobody starts workers or lets them go".to_owned()),
        Err(error) => CheckOutcome::Wrong(error.message),
    }
}

async fn labelled(cluster: &Cluster, kind: TargetKind, label: &str) -> Result<Labelled, BackendError> {
    match kind {
        TargetKind::Deployment => labelled_of(cluster, kind, label, &cluster.api::<Deployment>()).await,
        TargetKind::StatefulSet => labelled_of(cluster, kind, label, &cluster.api::<StatefulSet>()).await,
        TargetKind::Job => labelled_of(cluster, kind, label, &cluster.api::<CronJob>()).await,
    }
}

async fn labelled_of<K>(
    cluster: &Cluster,
    kind: TargetKind,
    label: &str,
    api: &Api<K>,
) -> Result<Labelled, BackendError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let (right, params) = (Watched::Targets(kind).right("list"), ListParams::default().labels(label));
    let all = cluster.call("listing the labelled targets", right, api.list(&params)).await?;
    let value = |one: &K| one.labels().get(label).cloned().unwrap_or_default();
    Ok(all.iter().map(|one| (one.name_any(), value(one))).collect())
}

async fn target_is_ready(
    cluster: &Cluster,
    conflicts: &Conflicts,
    worker_type: &WorkerType,
    target: &TargetSpec,
    listed: &Result<Labelled, BackendError>,
) -> Result<String, BackendError> {
    match listed.as_ref().map_err(Clone::clone)?.get(&target.name) {
        None => return Err(target.missing()),
        Some(value) if value != worker_type.as_str() => {
            return Err(BackendError::permanent(format!(
                "{} is labelled as one of `{value}`; set its label to `{worker_type}`, and that of its pods",
                target.shown()
            )));
        }
        Some(_) => {}
    }
    if let Some(conflict) = conflicts.of(target)? {
        return Err(conflict.refusal(target));
    }
    if target.kind == TargetKind::Job {
        let cron_job = cluster.get_cron_job(target).await?;
        let fine = "is suspended, and its template starts one worker for each Job".to_owned();
        return batch_job::refusal(target, &cron_job).map_or(Ok(fine), Err);
    }
    let scale = cluster.get_scale(target).await?;
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or_default();
    Ok(format!("has {replicas} replicas, and nobody else scales it"))
}
