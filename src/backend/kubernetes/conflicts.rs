//! Finds other autoscalers on the same targets. Two autoscalers on one target undo each other's changes, so swarm
//! refuses.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};

use super::{
    cluster::{Cluster, Failed},
    failure::Right,
    spec::{TargetSpec, api_kind},
};
use crate::backend::BackendError;

/// How often to list them. They rarely change; a third watch would cost more than it is worth.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The right to see HorizontalPodAutoscalers.
pub(super) const LIST_HPAS: Right = Right::new("autoscaling", "horizontalpodautoscalers", "list");
/// The right to see KEDA's ScaledObjects.
pub(super) const LIST_SCALED_OBJECTS: Right = Right::new("keda.sh", "scaledobjects", "list");

/// Kind of another autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConflictKind {
    Hpa,
    ScaledObject,
}

impl ConflictKind {
    /// The name in metric labels.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hpa => "hpa",
            Self::ScaledObject => "scaled_object",
        }
    }
}

/// Another autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) kind: ConflictKind,
    name: String,
}

impl Conflict {
    /// Returns the error that refuses to scale.
    pub(super) fn refusal(&self, target: &TargetSpec) -> BackendError {
        let what = match self.kind {
            ConflictKind::Hpa => "HorizontalPodAutoscaler",
            ConflictKind::ScaledObject => "KEDA ScaledObject",
        };
        BackendError::permanent(format!(
            "{} is scaled by the {what} `{}` too; delete that, or disable the worker type here: two autoscalers would undo \
             each other's work",
            target.shown(),
            self.name
        ))
    }
}

/// By kind and name of the target.
type Found = BTreeMap<(String, String), Conflict>;

/// Result of the last check.
pub(super) struct Conflicts {
    found: Mutex<Result<Found, BackendError>>,
}

impl Conflicts {
    pub(super) fn new() -> Self {
        Self {
            found: Mutex::new(Err(BackendError::retryable(
                "other autoscalers have not been looked for yet".to_owned(),
            ))),
        }
    }

    /// Returns another autoscaler of this target. An error if that is unknown: nothing may be scaled then.
    pub(super) fn of(&self, target: &TargetSpec) -> Result<Option<Conflict>, BackendError> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = found.as_ref().map_err(Clone::clone)?;
        Ok(found.get(&(api_kind(target.kind).to_owned(), target.name.clone())).cloned())
    }

    /// Checks once. If the server can't be reached, the previous result stays.
    pub(super) async fn look(&self, cluster: &Cluster) {
        let looked = look(cluster).await;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Err(error) if found.is_ok() && error.kind == crate::backend::ErrorKind::Retryable => {}
            looked => *found = looked,
        }
    }
}

async fn look(cluster: &Cluster) -> Result<Found, BackendError> {
    let mut found = Found::new();
    let hpas: Api<HorizontalPodAutoscaler> = cluster.api();
    let everything = ListParams::default();
    let hpas = cluster.call("looking for HorizontalPodAutoscalers", LIST_HPAS, hpas.list(&everything)).await?;
    for hpa in hpas {
        let name = hpa.name_any();
        let Some(target) = hpa.spec.map(|spec| spec.scale_target_ref) else { continue };
        found.insert((target.kind, target.name), Conflict { kind: ConflictKind::Hpa, name });
    }
    for object in scaled_objects(cluster).await? {
        let target = &object.data["spec"]["scaleTargetRef"];
        let Some(target_name) = target["name"].as_str() else { continue };
        let kind = target["kind"].as_str().unwrap_or("Deployment").to_owned();
        // KEDA makes a HorizontalPodAutoscaler of its own; what a person can delete is the ScaledObject.
        let conflict = Conflict { kind: ConflictKind::ScaledObject, name: object.name_any() };
        found.insert((kind, target_name.to_owned()), conflict);
    }
    Ok(found)
}

/// None where KEDA is not installed.
async fn scaled_objects(cluster: &Cluster) -> Result<Vec<DynamicObject>, BackendError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
    let doing = "looking for KEDA ScaledObjects";
    match cluster.call(doing, LIST_SCALED_OBJECTS, api.list(&ListParams::default())).await {
        Ok(list) => Ok(list.items),
        Err(Failed { not_found: true, .. }) => Ok(Vec::new()),
        Err(failed) => Err(failed.error),
    }
}
