//! The calls to the API server, each with a deadline and with words for its failure. Decides nothing and remembers
//! nothing.

use std::{path::Path, time::Duration};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v1::Scale,
    batch::v1::{CronJob, Job as ApiJob},
    core::v1::Pod as ApiPod,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    failure::{Right, explain, timed_out},
    spec::{TargetSpec, api_resource},
    throttle::ThrottleLayer,
    view::{DELETION_COST, DELETION_COST_BEFORE, MARK, Pod},
};
use crate::{
    backend::BackendError,
    config::{KubernetesSettings, TargetKind},
};

/// Timeout of one call. An API server under load takes seconds.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Field manager of our changes.
pub(super) const FIELD_MANAGER: &str = "swarm";

/// The namespace of a pod, mounted into it.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// A namespace of a cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// A call that failed.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as the API reports them")]
pub(super) struct Failed {
    /// The object has changed since it was read.
    pub(super) conflict: bool,
    /// It is not there (any more).
    pub(super) not_found: bool,
    /// An object of that name exists already.
    pub(super) exists: bool,
    /// The server refused: certainly nothing was changed.
    pub(super) refused: bool,
    pub(super) error: BackendError,
}

impl From<Failed> for BackendError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Cluster {
    /// By the kubeconfig (`KUBECONFIG`, else the user's), or as the service account of the pod that this runs in.
    /// Connects to nothing yet.
    pub(super) async fn configure(settings: &KubernetesSettings) -> Result<Self, BackendError> {
        // Tests and other users of this library may have chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = infer(settings).await?;
        config.connect_timeout = Some(CALL_TIMEOUT);
        // A repeated request might carry out a target that is no longer wanted.
        config.default_retry = false;
        let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let builder = ClientBuilder::try_from(config).map_err(|error| {
            BackendError::permanent(format!("the cluster's address or certificates can't be used: {error}"))
                .caused_by(error)
        })?;
        Ok(Self { client: builder.with_layer(&ThrottleLayer::default()).build(), namespace })
    }

    /// Objects of a kind in the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Awaits a call for at most [`CALL_TIMEOUT`].
    pub(super) async fn call<T>(
        &self,
        doing: &str,
        right: Right,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failed> {
        let failed = |error| Failed { conflict: false, not_found: false, exists: false, refused: false, error };
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
        let answer = answer.map_err(|_| failed(timed_out(doing, CALL_TIMEOUT)))?;
        answer.map_err(|error| {
            let (code, exists) = match &error {
                kube::Error::Api(status) => (status.code, status.reason == "AlreadyExists"),
                _ => (0, false),
            };
            Failed {
                conflict: code == 409,
                not_found: code == 404,
                exists,
                refused: (400..500).contains(&code),
                error: explain(doing, right, &self.namespace, error),
            }
        })
    }

    /// Writes `spec.replicas`, if the target is still as of `resource_version`.
    pub(super) async fn patch_scale(
        &self,
        target: &TargetSpec,
        resource_version: &str,
        replicas: u32,
    ) -> Result<Scale, Failed> {
        match target.kind {
            TargetKind::Deployment => self.patch_scale_of::<Deployment>(target, resource_version, replicas).await,
            TargetKind::StatefulSet => self.patch_scale_of::<StatefulSet>(target, resource_version, replicas).await,
            TargetKind::Job => Err(no_scale(target)),
        }
    }

    async fn patch_scale_of<K>(&self, target: &TargetSpec, version: &str, replicas: u32) -> Result<Scale, Failed>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
    {
        let patch =
            Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "spec": { "replicas": replicas } }));
        let api = self.api::<K>();
        let doing = format!("scaling {} to {replicas}", target.shown());
        self.call(&doing, target_right(target.kind, "patch"), api.patch_scale(&target.name, &ours(), &patch)).await
    }

    /// Reads `spec.replicas`.
    pub(super) async fn get_scale(&self, target: &TargetSpec) -> Result<Scale, Failed> {
        let doing = format!("reading the scale of {}", target.shown());
        let right = target_right(target.kind, "get");
        match target.kind {
            TargetKind::Deployment => self.call(&doing, right, self.api::<Deployment>().get_scale(&target.name)).await,
            TargetKind::StatefulSet => {
                self.call(&doing, right, self.api::<StatefulSet>().get_scale(&target.name)).await
            }
            TargetKind::Job => Err(no_scale(target)),
        }
    }

    /// Reads the CronJob that is the template of Jobs.
    pub(super) async fn get_cron_job(&self, target: &TargetSpec) -> Result<CronJob, Failed> {
        let doing = format!("reading {}", target.shown());
        self.call(&doing, target_right(target.kind, "get"), self.api::<CronJob>().get(&target.name)).await
    }

    /// Creates a Job.
    pub(super) async fn create_job(&self, job: &ApiJob) -> Result<ApiJob, Failed> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let doing = format!("creating job `{}`", job.metadata.name.as_deref().unwrap_or_default());
        self.call(&doing, CREATE_JOB, self.api::<ApiJob>().create(&params, job)).await
    }

    /// Deletes a Job, and its pod with it. One that is gone is no error.
    pub(super) async fn delete_job(&self, name: &str, uid: Option<String>) -> Result<(), BackendError> {
        let preconditions = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::background() };
        let api = self.api::<ApiJob>();
        let deleted = self.call(&format!("deleting job `{name}`"), DELETE_JOB, api.delete(name, &params)).await;
        gone_is_fine(deleted.map(drop))
    }

    /// Gives a pod the lowest deletion cost, and notes the one that it had. A pod that is gone is not an error.
    pub(super) async fn mark(&self, pod: &Pod) -> Result<(), BackendError> {
        let before = pod.foreign_cost.as_deref().unwrap_or_default();
        self.annotate(pod, &json!({ DELETION_COST: MARK.to_string(), DELETION_COST_BEFORE: before })).await
    }

    /// Gives a pod the deletion cost back that it had before [`Cluster::mark`]. A pod that is gone is not an error.
    pub(super) async fn unmark(&self, pod: &Pod) -> Result<(), BackendError> {
        self.annotate(pod, &json!({ DELETION_COST: pod.foreign_cost, DELETION_COST_BEFORE: null })).await
    }

    async fn annotate(&self, pod: &Pod, annotations: &Value) -> Result<(), BackendError> {
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid, "annotations": annotations } }));
        let api = self.api::<ApiPod>();
        let doing = format!("setting the deletion cost of pod `{}`", pod.name);
        let patched = self.call(&doing, PATCH_POD, api.patch_metadata(&pod.name, &ours(), &patch)).await;
        gone_is_fine(patched.map(drop))
    }

    /// Deletes one pod, so that its controller makes another. One that is gone is no error.
    pub(super) async fn delete_pod(&self, name: &str, uid: &str) -> Result<(), BackendError> {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let api = self.api::<ApiPod>();
        let deleted = self.call(&format!("replacing pod `{name}`"), DELETE_POD, api.delete(name, &params)).await;
        gone_is_fine(deleted.map(drop))
    }
}

pub(super) const PATCH_POD: Right = Right::new("", "pods", "patch");
pub(super) const DELETE_POD: Right = Right::new("", "pods", "delete");
pub(super) const CREATE_JOB: Right = Right::new("batch", "jobs", "create");
pub(super) const DELETE_JOB: Right = Right::new("batch", "jobs", "delete");

/// The right to a verb on the part of a target that is used: the scale, or the template of Jobs.
pub(super) fn target_right(kind: TargetKind, verb: &'static str) -> Right {
    match kind {
        TargetKind::Deployment => Right::new("apps", "deployments/scale", verb),
        TargetKind::StatefulSet => Right::new("apps", "statefulsets/scale", verb),
        TargetKind::Job => {
            let (group, resource) = api_resource(kind);
            Right::new(group, resource, verb)
        }
    }
}

/// A CronJob has no number of pods.
fn no_scale(target: &TargetSpec) -> Failed {
    let error = BackendError::permanent(format!("{} has no replicas", target.shown()));
    Failed { conflict: false, not_found: false, exists: false, refused: true, error }
}

/// Patches are ours.
pub(super) fn ours() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// A pod that is gone, or whose name another pod has by now (409).
fn gone_is_fine(outcome: Result<(), Failed>) -> Result<(), BackendError> {
    match outcome {
        Err(failed) if !(failed.not_found || failed.conflict) => Err(failed.error),
        _ => Ok(()),
    }
}

/// In a pod, its service account, unless a kubeconfig is named; else the kubeconfig.
async fn infer(settings: &KubernetesSettings) -> Result<Config, BackendError> {
    let by_file = settings.kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some();
    if !by_file && Path::new(OWN_NAMESPACE).exists() {
        return Config::incluster().map_err(|error| {
            BackendError::permanent(format!("the pod's service account can't be used: {error}")).caused_by(error)
        });
    }
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let config = match &settings.kubeconfig {
        Some(file) => match Kubeconfig::read_from(file) {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        },
        None => Config::from_kubeconfig(&options).await,
    };
    config.map_err(|error| {
        BackendError::permanent(format!(
            "no cluster to talk to: not in a pod, and the kubeconfig can't be used ({error}); set KUBECONFIG or \
             kubernetes.kubeconfig"
        ))
        .caused_by(error)
    })
}
